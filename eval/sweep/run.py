"""The sweep itself: hands out jobs as they become possible, chooses heads, survives failures."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from importlib import import_module
from pathlib import Path
from typing import Any

from robustdistiller.common.files import remove_leftovers
from robustdistiller.common.process import terminate_like_interrupt
from robustdistiller.eval.results.files import write_record
from robustdistiller.eval.run.specs import HeadSpec
from robustdistiller.eval.sweep.cells import Cell, Draws, Group, Head, Upstream, draws_of, expand, now_utc
from robustdistiller.eval.sweep.choice import Choice, Tried
from robustdistiller.eval.sweep.config import SweepConfig, load
from robustdistiller.eval.sweep.engine import Engine, Job, Outcome, run_jobs
from robustdistiller.eval.sweep.engines import folder_lock, make_engine
from robustdistiller.eval.sweep.plan import (
    Estimate,
    Found,
    GroupPlan,
    Timings,
    estimate,
    is_whole,
    make_plan,
    plan_group,
    tried_of,
)
from robustdistiller.eval.sweep.result import Progress, SweepResult
from robustdistiller.eval.sweep.work import Check, Evaluate, Train
from robustdistiller.eval.tasks.needs import require


class Sweep:
    """A sweep that is planned, and run when asked to.

    Args:
        config: what is asked for.
        engine: who does it; by default as the configuration says.
        say: called with one line for each event.
        changed: called whenever `progress` may have changed, several times a second.

    Attributes:
        plans: what is to be done, by group.
        progress: what was done, by group.
        failures: one line each.
    """

    def __init__(
        self,
        config: SweepConfig,
        engine: Engine | None = None,
        say: Callable[[str], None] = lambda line: None,
        changed: Callable[[], None] = lambda: None,
    ) -> None:
        self.config, self.say, self.changed = config, say, changed
        self.groups = expand(config)
        self._planned_s = time.time()
        self.draws: Draws = draws_of(config, self.groups)
        self.found = Found(config.root, self.draws)
        self.timings = Timings(config.root)
        self.plans = {plan.group: plan for plan in make_plan(self.groups, config.policy, self.found)}
        self.failures: list[str] = []
        self.progress = {group: self._first_progress(plan) for group, plan in self.plans.items()}
        self._engine = engine
        self._followers: dict[Group, list[Group]] = defaultdict(list)
        for group in self.groups:
            if group.leader is not None:
                self._followers[group.leader].append(group)
        self._choices: dict[Group, Choice] = {}
        self._untrained: dict[Group, set[float]] = {}
        self._to_run: dict[Group, list[Cell]] = {}
        self._trained_now: set[Head] = set()
        self._begun: dict[Group, str] = {}
        self._ends: dict[Job, tuple[list[Group], Callable[[Outcome], list[Job]]]] = {}

    @property
    def engine(self) -> Engine:
        """Who does the work."""
        if self._engine is None:
            self._engine = make_engine(self.config, self.say, self._planned_s)
        return self._engine

    @property
    def slots(self) -> int:
        """Jobs that run side by side; needs no cluster."""
        executor = self.config.executor
        return executor.array_parallelism if executor.kind == "slurm" else self.engine.slots

    def lines(self) -> Iterator[str]:
        """What is done about each cell and head, one line each."""
        for plan in self.plans.values():
            for cell, decision in plan.decisions.items():
                yield f"{cell.title}: {decision.why}"
            for head in plan.train:
                yield f"{plan.group.title}: trains a head, learning rate {head.learning_rate:g}"

    def estimate(self) -> Estimate:
        """How long what is left may take, as far as it can be said now."""
        left = []
        for group, plan in self.plans.items():
            state = self.progress[group].state
            if state in ("done", "failed", "reused", "skipped"):
                continue
            rates = self._untrained.get(group)
            train = plan.train if rates is None else tuple(group.head(rate) for rate in rates)
            cells = self._to_run.get(group, plan.to_run)
            left.append(GroupPlan(group, {cell: plan.decisions[cell] for cell in cells}, train))
        return estimate(left, self.timings)

    def run(self) -> SweepResult:
        """Do what the plan says.

        Raises:
            KeyboardInterrupt: stopped by Ctrl-C, SIGTERM or SIGHUP; what ran was stopped, the rest is intact.
            SweepError: the folder is in use, or the executor refuses the jobs.
            InstallationError: a task that is to be run lacks a package or tool; nodes of a cluster look themselves.
        """
        if self.config.policy != "show":
            if self.config.executor.kind != "slurm":
                self._require_installed()
            with folder_lock(self.config.root, self.say), terminate_like_interrupt():
                remove_leftovers(self.config.root)  # of a sweep that was killed
                try:
                    run_jobs(self.engine, self._first_jobs(), self._ended, self._changed, self.say)
                except KeyboardInterrupt as stop:
                    raise KeyboardInterrupt("stopped; the same command goes on from here") from stop
        self.changed()
        self.found.refresh()
        return SweepResult(self.config, tuple(self.progress.values()), tuple(self.failures), self.found)

    def _require_installed(self) -> None:
        import_module("robustdistiller.eval.run.train")  # what every job needs
        busy = [group.task.registry for group, plan in self.plans.items() if not plan.idle]
        for task in {task.code: task for task in busy}.values():
            require(task)

    # Jobs and their ends.

    def _first_jobs(self) -> list[Job]:
        by_upstream: dict[Upstream, list[Group]] = defaultdict(list)
        for group, plan in self.plans.items():
            leading = self.plans[group.leader] if group.leader else plan
            if not plan.idle or not leading.idle:
                by_upstream[group.upstream].append(group)
        jobs = []
        for upstream, groups in by_upstream.items():
            check = self._check_job(upstream)
            known = check.outcome is not None and check.outcome.state == "done" and self.config.policy != "rerun"
            if not self.config.check_upstreams or known:
                jobs += [job for group in groups for job in self._start(group)]
            else:
                jobs.append(self._add(check, groups, lambda outcome, groups=groups: self._checked(groups, outcome)))
        return jobs

    def _check_job(self, upstream: Upstream) -> Job:
        entry = upstream.entry
        folder = self.config.root / "jobs" / upstream.place / f"check-{upstream.digest}"
        return Job(f"{entry.label}: looking at the upstream", folder, Check(entry.spec, self.config.job_device))

    def _add(self, job: Job, groups: list[Group], end: Callable[[Outcome], list[Job]]) -> Job:
        self._ends[job] = groups, end
        return job

    def _changed(self) -> None:
        running = set(self.engine.running)
        for progress in self.progress.values():
            progress.running = []
        for job, (groups, _) in self._ends.items():
            if job in running:
                for group in groups:
                    self.progress[group].running.append(job)
                    self.progress[group].state = job.work.doing
        self.changed()

    def _ended(self, job: Job, outcome: Outcome) -> list[Job]:
        groups, end = self._ends.pop(job)
        self.timings.add(outcome)
        for group in groups:
            self.progress[group].state = "waiting"
        self.say(f"{job.title}: {outcome.state}" + (f", {outcome.reason}" if outcome.reason else ""))
        return end(outcome)

    def _checked(self, groups: Iterable[Group], outcome: Outcome) -> list[Job]:
        jobs = []
        for group in groups:
            if outcome.state == "done":
                jobs += self._start(group)
            else:
                self._to_run[group] = self.plans[group].to_run
                self._fail_cells(group, f"{group.upstream.entry.label} was not tried: {outcome.reason}")
        return jobs

    # One group: heads, their choice, its cells.

    def _start(self, group: Group) -> list[Job]:
        """Train what has to be trained, once the learning rates are known."""
        if group in self._choices:
            return []
        rates = group.learning_rates
        if group.leader is not None:
            if self._untrained.get(group.leader, not self.plans[group.leader].idle):
                return []  # started when the leader has chosen
            chosen = self._known_choice(group.leader).chosen
            if chosen is None:
                self._to_run[group] = self.plans[group].to_run
                self._fail_cells(group, f"no learning rate was chosen: {group.leader.title} has no head")
                return []
            rates = (chosen.learning_rate,)
        plan = plan_group(group, self.config.policy, self.found, rates)
        known = Choice(group.task.registry, {}) if self.config.policy == "rerun" else self.found.choice(group)
        self._choices[group] = known.limited_to(rates, alone=group.leader is not None or not group.scored_on_dev)
        self._untrained[group] = {head.learning_rate for head in plan.train}
        if not plan.train:
            return self._choose(group)
        return [
            self._add(self._train_job(head), [group], lambda outcome, head=head: self._trained(head, outcome))
            for head in plan.train
        ]

    def _known_choice(self, group: Group) -> Choice:
        return self._choices.get(group) or self.found.choice_among(group, group.learning_rates)

    def _train_job(self, head: Head) -> Job:
        group = head.group
        fresh = self.config.policy == "rerun"
        work = Train(self._spec(group, head.config, head.folder), (group.upstream.place, group.task.name), fresh)
        return Job(f"{group.title}: training, learning rate {head.learning_rate:g}", head.job_folder, work)

    def _trained(self, head: Head, outcome: Outcome) -> list[Job]:
        group = head.group
        self._trained_now.add(head)
        self._untrained[group].discard(head.learning_rate)
        self._choices[group] = self._choices[group].with_tried(tried_of(head.learning_rate, outcome))
        self._choices[group].write(group.folder)
        if outcome.state == "done":
            self.progress[group].trained += 1
        else:
            self.failures.append(f"{group.title}, learning rate {head.learning_rate:g}: {outcome.reason}")
        return [] if self._untrained[group] else self._choose(group)

    def _choose(self, group: Group) -> list[Job]:
        """All heads of a group are trained or have failed: evaluate the best, and let those that follow begin."""
        choice, chosen = self._choices[group], None
        if group.learning_rates:
            chosen = choice.chosen
            if chosen is not None:
                self.progress[group].learning_rate = chosen.learning_rate
            else:
                self._to_run[group] = self.plans[group].to_run
                self._fail_cells(group, f"there is no head to evaluate ({choice.reasons()})")
        following = [job for other in self._followers[group] for job in self._start(other)]
        if group.learning_rates and chosen is None:
            return following
        return [*self._evaluate(group, chosen), *following]

    def _evaluate(self, group: Group, chosen: Tried | None) -> list[Job]:
        rerun = self.config.policy == "rerun"
        records = {cell: self.found.record(cell, chosen, finished=True) for cell in group.cells}
        cells = [cell for cell in group.cells if rerun or records[cell] is None]
        progress = self.progress[group]
        progress.finished = len(group.cells) - len(cells)
        self._to_run[group] = cells
        if not cells:
            progress.state = "done"
            return []
        head = None if chosen is None else group.head(chosen.learning_rate)
        if head is not None and not is_whole(head, chosen):
            if head in self._trained_now:
                self._fail_cells(group, f"the training of {head.name} left no whole checkpoint in {head.folder}")
                return []
            self._untrained[group] = {head.learning_rate}  # it was deleted before, and won over new ones
            return [self._add(self._train_job(head), [group], lambda outcome: self._trained(head, outcome))]
        self._begun[group] = now_utc()
        return [self._add(self._evaluate_job(group, cells, chosen), [group], lambda one: self._evaluated(group, one))]

    def _evaluate_job(self, group: Group, cells: list[Cell], chosen: Tried | None) -> Job:
        config, splits = self.config, dict.fromkeys(cell.split for cell in cells)
        head = None if chosen is None else group.head(chosen.learning_rate)
        untrained = (group.config, group.folder / "untrained")
        work = Evaluate(
            head=self._spec(group, *(untrained if head is None else (head.config, head.folder))),
            key=(group.upstream.place, group.task.name),
            cells={split: tuple(cell.condition for cell in cells if cell.split == split) for split in splits},
            records=config.root / "records",
            sources=config.sources,
            corruption_seed=config.corruption_seed,
            checkpoint=None if head is None else head.folder / chosen.checkpoint,
            selection=self._selection(group),
            policy=config.policy,
        )
        return Job(f"{group.title}: evaluating", config.root / "jobs" / group.place / "evaluate", work)

    def _spec(self, group: Group, config: Mapping[str, Any], folder: Path) -> HeadSpec:
        return HeadSpec(
            upstream=group.upstream.entry.spec,
            task=group.task.registry,
            config=config,
            folder=folder,
            seed=group.seed,
            device=self.config.job_device,
            features=self.config.feature_plan,
            quick=group.quick,
            threads=self.config.executor.threads,
        )

    def _selection(self, group: Group) -> dict[str, Any] | None:
        """How the head was chosen, for its records; of a rate that was taken over, how it was chosen there."""
        own = self._choices[group].describe() if group.learning_rates else None
        if own is None or group.leader is None:
            return own
        leading = self._known_choice(group.leader)
        return {**(leading.describe() or own), "dev_score": own["dev_score"], "step": own["step"]}

    def _evaluated(self, group: Group, outcome: Outcome) -> list[Job]:
        progress, chosen = self.progress[group], self._choices[group].chosen if group.learning_rates else None
        self.found.refresh()
        for cell in self._to_run[group]:
            record = self.found.record(cell, chosen, finished=True)
            newest = record or self.found.record(cell)
            if record is not None:
                progress.finished += 1
            elif newest is not None and newest.status != "ok" and newest.start_utc >= self._begun[group]:
                self._fail(group, f"{cell.title}: {newest.status}, {newest.reason}")
            else:
                reason = outcome.reason or "the evaluation ended without writing its record"
                self._write_failed(cell, reason)
                self._fail(group, f"{cell.title}: {reason}")
        if progress.state != "failed":
            progress.state = "done"
        return []

    def _fail_cells(self, group: Group, reason: str) -> None:
        for cell in self._to_run[group]:
            self._write_failed(cell, reason)
            self._fail(group, f"{cell.title}: {reason}")

    def _fail(self, group: Group, message: str) -> None:
        self.failures.append(message)
        self.progress[group].state = "failed"
        self.progress[group].detail = message.removeprefix(f"{group.title} / ")

    def _write_failed(self, cell: Cell, reason: str) -> None:
        """The record of a cell for which there was no head to evaluate, or whose evaluation left none."""
        check = self._check_job(cell.group.upstream).outcome
        loaded = check.result if check is not None else {}
        record = cell.failed_record(reason, self.draws, self.config.job_device, loaded)
        write_record(self.config.root / "records", record)

    def _first_progress(self, plan: GroupPlan) -> Progress:
        finished = sum(decision.reused is not None for decision in plan.decisions.values())
        state = "waiting" if not plan.idle else "reused" if finished == len(plan.decisions) else "skipped"
        choice = self.found.choice(plan.group) if plan.group.learning_rates else None
        kept = [rate for rate, one in choice.tried.items() if one.trained] if choice else []
        rates = {decision.reused.learning_rate for decision in plan.decisions.values() if decision.reused is not None}
        train = {head.learning_rate for head in plan.train}
        trained = len([rate for rate in kept if rate in plan.group.learning_rates and rate not in train])
        return Progress(plan.group, state, trained, finished, rates.pop() if len(rates) == 1 else None)


def sweep(
    config: SweepConfig | str | Path,
    policy: str | None = None,
    say: Callable[[str], None] = lambda line: None,
) -> SweepResult:
    """Train and evaluate heads of many upstreams on many tasks, conditions and seeds; every number becomes a record.

    Started again, it runs what is missing.

    Args:
        config: what is asked for, or its YAML file.
        policy: instead of the configuration's, one of ``reuse``, ``rerun`` and ``show``.
        say: called with one line for each event.

    Returns:
        Records, a frame of them, and what failed.

    Raises:
        SweepError: it cannot run as it is written, or its folder is in use; before anything is trained.
        KeyboardInterrupt: stopped by Ctrl-C, SIGTERM or SIGHUP; called again, it goes on.

    Example:
        >>> import robustdistiller
        >>> robustdistiller.sweep("sweep.yaml", say=print).frame  # doctest: +SKIP
        >>> from robustdistiller.eval.sweep import SweepConfig, TaskEntry, UpstreamEntry
        >>> config = SweepConfig("exp/sweep", [UpstreamEntry("fbank")], [TaskEntry("KS")], conditions=["clean"])
        >>> sweep(config)
        Traceback (most recent call last):
        robustdistiller.eval.sweep.entries.SweepError: KS ... needs data that is not there...
    """
    asked = config if isinstance(config, SweepConfig) else load(config)
    return Sweep(asked.with_policy(policy), say=say).run()
