"""The sweep itself: hands out jobs as they become possible, chooses heads, survives failures."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from datetime import datetime, timezone
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from robustdistiller.common.files import remove_leftovers
from robustdistiller.common.process import terminate_like_interrupt
from robustdistiller.eval.conditions.sources import Sources
from robustdistiller.eval.results.files import write_record
from robustdistiller.eval.results.record import Record
from robustdistiller.eval.sweep.cells import Cell, Group, Head, System, expand
from robustdistiller.eval.sweep.choice import tried_of
from robustdistiller.eval.sweep.config import SweepConfig, load
from robustdistiller.eval.sweep.data_seen import note_data, require_same_data
from robustdistiller.eval.sweep.engine import Engine, Job, Outcome, run_jobs
from robustdistiller.eval.sweep.engines import folder_lock, make_engine
from robustdistiller.eval.sweep.estimate import Estimate, Timings, estimate
from robustdistiller.eval.sweep.plan import Found, GroupPlan, is_whole, make_plans, plan_group
from robustdistiller.eval.sweep.work import Check, Evaluate, Train
from robustdistiller.eval.tasks.needs import require

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True)
class SweepResult:
    """What a sweep came to.

    Attributes:
        root: folder of the sweep.
        records: the newest record of each cell that has one, failed ones too.
        failures: one line for each head or cell that failed.
    """

    root: Path
    records: list[Record]
    failures: list[str]

    @property
    def frame(self) -> pd.DataFrame:
        """All records in the sweep's folder as one table, see `eval.results.frame`."""
        from robustdistiller.eval.results.frame import read_frame

        return read_frame([self.root])


class Sweep:
    """A sweep that is planned, and run when asked to.

    Args:
        config: what is asked for.
        engine: who does it; by default as the configuration says.
        say: called with one line for each event.
        sources: what the conditions draw from; by default as the configuration says.

    Attributes:
        plans: what is to be done and was done, by group.
        failures: one line each.
    """

    def __init__(
        self,
        config: SweepConfig,
        engine: Engine | None = None,
        say: Callable[[str], None] = lambda line: None,
        sources: Sources | None = None,
    ) -> None:
        self.config, self.say = config, say
        self.sources = sources or config.sources
        self.failures: list[str] = []
        groups = expand(config, self.sources)
        entries = {one.task.name: (one.task.registry, one.config) for one in groups}
        self._data = require_same_data(config.root, entries.values())
        self._planned_s = time.time()
        self._found = Found(config.root)
        self._timings = Timings(groups)
        self.plans = make_plans(groups, config.policy, self._found)
        self._engine = engine
        self._ends: dict[Job, tuple[list[GroupPlan], Callable[[Outcome], list[Job]]]] = {}
        self._since_s: dict[Job, float] = {}
        self._started: set[Group] = set()
        self._trained_now: set[Head] = set()

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
        for group, plan in self.plans.items():
            for cell, decision in plan.decisions.items():
                yield f"{cell.title}: {decision.why}"
            for head in plan.train:
                yield f"{group.title}: trains a head, learning rate {head.learning_rate:g}"

    def estimate(self) -> Estimate:
        """How long what is left may take, as far as it can be said now."""
        return estimate(self.plans.values(), self._timings, self._since_s)

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
                note_data(self.config.root, self._data)
                run_jobs(self.engine, self._first_jobs(), self._ended, self._changed, self.say)
        self._found.refresh()
        cells = ((cell, plan.choice.chosen) for plan in self.plans.values() for cell in plan.group.cells)
        records = [self._record(cell, chosen) for cell, chosen in cells]
        return SweepResult(self.config.root, [one for one in records if one is not None], self.failures)

    def _record(self, cell: Cell, chosen: Any) -> Record | None:
        return self._found.record(cell, chosen, finished=True) or self._found.record(cell)

    def _require_installed(self) -> None:
        import_module("robustdistiller.eval.run.train")  # what every job needs
        busy = [group.task.registry for group, plan in self.plans.items() if not plan.idle]
        for task in {task.code: task for task in busy}.values():
            require(task)

    # Jobs and their ends.

    def _first_jobs(self) -> list[Job]:
        by_system: dict[System, list[GroupPlan]] = defaultdict(list)
        for group, plan in self.plans.items():
            if not plan.idle or (group.leader and not self.plans[group.leader].idle):
                by_system[group.system].append(plan)
        jobs = []
        for system, plans in by_system.items():
            known = self._found.is_looked_at(system) and self.config.policy != "rerun"
            if known or not self.config.check_upstreams:
                jobs += self._start_all(plans)
            else:
                title = f"{system.upstream.label}: looking at the upstream"
                check = Job(title, system.look_folder, Check(system.upstream, self.config.job_device))
                jobs.append(self._add(check, plans, lambda outcome, plans=plans: self._checked(plans, outcome)))
        return jobs

    def _add(self, job: Job, plans: list[GroupPlan], end: Callable[[Outcome], list[Job]]) -> Job:
        self._ends[job] = plans, end
        return job

    def _changed(self) -> None:
        for plan in self.plans.values():
            plan.running = []
        for job in self.engine.running:
            for plan in self._ends[job][0]:
                plan.running.append(job)
                plan.state = job.work.doing
            if job not in self._since_s and job.log.exists():  # on a cluster, it waits before
                self._since_s[job] = time.monotonic()

    def _ended(self, job: Job, outcome: Outcome) -> list[Job]:
        plans, end = self._ends.pop(job)
        for plan in plans:
            self._timings.add(job.work.doing, plan.group, outcome)
            plan.state, plan.running = "waiting", [one for one in plan.running if one is not job]
        self.say(f"{job.title}: {outcome.state}" + (f", {outcome.reason}" if outcome.reason else ""))
        return end(outcome)

    def _checked(self, plans: Iterable[GroupPlan], outcome: Outcome) -> list[Job]:
        self._found.refresh()  # the source code of the upstream is known now
        if outcome.state == "done":
            return self._start_all(plans)
        for plan in plans:
            self._fail(plan, f"{plan.group.system.upstream.label} was not tried: {outcome.reason}")
        return []

    # One group: heads, their choice, its cells.

    def _start_all(self, plans: Iterable[GroupPlan]) -> list[Job]:
        return [job for plan in plans for job in self._start(plan)]

    def _start(self, plan: GroupPlan) -> list[Job]:
        """Train what has to be trained, once the learning rates are known."""
        group, leading = plan.group, self.plans.get(plan.group.leader)
        if group in self._started or (leading is not None and leading.train):
            return []  # started when the leader has chosen
        self._started.add(group)
        if leading is not None and leading.choice.chosen is None:
            self._fail(plan, f"no learning rate was chosen: {leading.group.title} has no head")
            return []
        now = plan_group(group, self.config.policy, self._found, leading)
        plan.choice, plan.train, plan.run, plan.finished = now.choice, now.train, now.run, now.finished
        return self._train_all(plan) or self._choose(plan)

    def _train_all(self, plan: GroupPlan) -> list[Job]:
        """Trainings of a group, before which what was noted of the heads in their places is forgotten."""
        if plan.train:
            plan.choice.without_trained(head.learning_rate for head in plan.train).write(plan.group.folder)
        return [self._train(plan, head) for head in plan.train]

    def _train(self, plan: GroupPlan, head: Head) -> Job:
        fresh, code = self.config.policy == "rerun", self._found.code(head.group.system) or ""
        title = f"{head.group.title}: training, learning rate {head.learning_rate:g}"
        job = Job(title, head.job_folder, Train(head.spec, fresh, code))
        return self._add(job, [plan], lambda outcome: self._trained(plan, head, outcome))

    def _trained(self, plan: GroupPlan, head: Head, outcome: Outcome) -> list[Job]:
        self._trained_now.add(head)
        plan.train.remove(head)
        plan.choice = plan.choice.with_tried(tried_of(head.learning_rate, outcome))
        plan.choice.write(plan.group.folder)
        if outcome.state != "done":
            self.failures.append(f"{plan.group.title}, learning rate {head.learning_rate:g}: {outcome.reason}")
        return [] if plan.train else self._choose(plan)

    def _choose(self, plan: GroupPlan) -> list[Job]:
        """All heads of a group are trained or have failed: evaluate the best, and let those that follow begin."""
        jobs = self._evaluate(plan)
        if not plan.train:
            jobs += self._start_all(one for one in self.plans.values() if one.group.leader is plan.group)
        return jobs

    def _evaluate(self, plan: GroupPlan) -> list[Job]:
        group, chosen = plan.group, plan.choice.chosen
        if group.learning_rates and chosen is None:
            self._fail(plan, f"there is no head to evaluate ({plan.choice.reasons()})")
            return []
        finished = {cell: self._found.record(cell, chosen, finished=True) for cell in group.cells}
        plan.run = [cell for cell in group.cells if self.config.policy == "rerun" or finished[cell] is None]
        plan.finished = len(group.cells) - len(plan.run)
        if not plan.run:
            plan.state = "done"
            return []
        head = Head(group, chosen and chosen.learning_rate)
        if chosen and not is_whole(head, chosen):
            if head in self._trained_now:
                self._fail(plan, f"the training of {head.name} left no whole checkpoint in {head.spec.folder}")
                return []
            plan.train = [head]  # it was deleted before, and won over new ones
            return self._train_all(plan)
        splits = dict.fromkeys(cell.split for cell in plan.run)
        cells = {split: tuple(cell.condition for cell in plan.run if cell.split == split) for split in splits}
        options = {
            "checkpoint": head.spec.folder / chosen.checkpoint if chosen else None,
            "sources": self.sources,
            "corruption_seed": self.config.corruption_seed,
            "records": self.config.root / "records",
            "policy": self.config.policy,
            "selection": self._selection(plan) if chosen else None,
        }
        work = Evaluate(head.spec, cells, options)
        job, begun_utc = Job(f"{group.title}: evaluating", group.jobs / "evaluate", work), _now_utc()
        return [self._add(job, [plan], lambda outcome: self._evaluated(plan, begun_utc, outcome))]

    def _selection(self, plan: GroupPlan) -> dict[str, Any]:
        """How the head was chosen, for its records; of a rate that was taken over, how it was chosen there."""
        own, leading = plan.choice.describe(), self.plans.get(plan.group.leader)
        if leading is None:
            return own
        return {**(leading.choice.describe() or own), "dev_score": own["dev_score"], "step": own["step"]}

    def _evaluated(self, plan: GroupPlan, begun_utc: str, outcome: Outcome) -> list[Job]:
        self._found.refresh()
        cells, plan.run, plan.state = plan.run, [], "done"
        for cell in cells:
            done, newest = self._found.record(cell, plan.choice.chosen, finished=True), self._found.record(cell)
            old = done is not None and done.start_utc < begun_utc
            left_over = old and self.config.policy == "rerun" and outcome.state != "done"
            if done is not None and not left_over:
                plan.finished += 1
            elif newest is not None and not newest.finished and newest.start_utc >= begun_utc:
                self._note_failure(plan, f"{cell.title}: {newest.trouble}")
            else:
                plan.run.append(cell)
        self._fail(plan, outcome.reason or "the evaluation ended without writing its record")
        return []

    def _fail(self, plan: GroupPlan, reason: str) -> None:
        """Write the records of cells for which there was no head to evaluate, or whose evaluation left none."""
        look = Outcome.read(plan.group.system.look_folder)
        loaded = (look.result if look else {}) | {"code": self._found.code(plan.group.system) or ""}
        for cell in plan.run:
            record = cell.failed_record(reason, _now_utc(), loaded)
            write_record(self.config.root / "records", record)
            self._note_failure(plan, f"{cell.title}: {reason}")
        plan.run, plan.train = [], []

    def _note_failure(self, plan: GroupPlan, message: str) -> None:
        self.failures.append(message)
        plan.state, plan.detail = "failed", message.removeprefix(f"{plan.group.title} / ")


def _now_utc() -> str:
    return datetime.now(timezone.utc).isoformat(timespec="seconds")


def sweep(
    config: SweepConfig | str | Path,
    policy: str | None = None,
    say: Callable[[str], None] = lambda line: None,
    *,
    engine: Engine | None = None,
    sources: Sources | None = None,
) -> SweepResult:
    """Train and evaluate heads of many upstreams on many tasks, conditions and seeds; every number becomes a record.

    Started again, it runs what is missing.

    Args:
        config: what is asked for, or its YAML file.
        policy: instead of the configuration's, one of ``reuse``, ``rerun`` and ``show``.
        say: called with one line for each event.
        engine: who does the work; by default as the configuration says, in this process unless it says otherwise.
        sources: noise, rooms, speech and music of the conditions; by default as the configuration says.

    Returns:
        Records, a frame of them, and what failed.

    Raises:
        SweepError: it cannot run as it is written, or its folder is in use; before anything is trained.
        KeyboardInterrupt: stopped by Ctrl-C, SIGTERM or SIGHUP; called again, it goes on.

    Example:
        >>> import robustdistiller
        >>> robustdistiller.sweep("sweep.yaml", say=print).frame  # doctest: +SKIP
        >>> from robustdistiller.eval.run.specs import Upstream
        >>> from robustdistiller.eval.sweep import SweepConfig, TaskEntry
        >>> config = SweepConfig("exp/sweep", [Upstream("fbank")], [TaskEntry("KS")], conditions=["clean"])
        >>> sweep(config)
        Traceback (most recent call last):
        robustdistiller.eval.sweep.entries.SweepError: KS ... needs data that is not there...
    """
    asked = config if isinstance(config, SweepConfig) else load(config)
    asked = asked if policy is None else replace(asked, policy=policy)
    return Sweep(asked, engine, say, sources=sources).run()
