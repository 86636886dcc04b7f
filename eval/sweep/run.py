"""The sweep itself: hands out jobs as they become ready, chooses heads, keeps records in order, survives failures."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from robustdistiller.common.files import remove_leftovers
from robustdistiller.common.locks import Busy, locked
from robustdistiller.common.logs import terminate_like_interrupt
from robustdistiller.eval.results.files import write_record
from robustdistiller.eval.results.record import Record
from robustdistiller.eval.run.dev_choice import (
    Tried,
    choose,
    describe,
    dev_score,
    note_selection,
)
from robustdistiller.eval.run.head_checkpoint import LaunchError, find_head
from robustdistiller.eval.sweep.calls import contract_job, evaluate_job, train_job
from robustdistiller.eval.sweep.cells import Cell, Group, Head
from robustdistiller.eval.sweep.config import SweepConfig
from robustdistiller.eval.sweep.errors import SweepError
from robustdistiller.eval.sweep.executors import Executor
from robustdistiller.eval.sweep.heard import Heard
from robustdistiller.eval.sweep.jobs import Job, Outcome, resumed_at
from robustdistiller.eval.sweep.plan import GroupPlan, find, is_trained, job_folder, record_files


@dataclass
class Progress:
    """State of a group, for display.

    Attributes:
        group: the group.
        state: ``waiting``, ``checking``, ``training``, ``evaluating``, ``done``, ``failed``, ``reused`` or ``skipped``.
        trained: heads trained so far.
        finished: cells with a finished record.
        learning_rate: chosen; None before.
        detail: reason of a failure, or what is running.
        running: its jobs in flight.
    """

    group: Group
    state: str = "waiting"
    trained: int = 0
    finished: int = 0
    learning_rate: float | None = None
    detail: str = ""
    running: list[Job] = field(default_factory=list)


class Sweep:
    """One run of a sweep.

    Args:
        config: what was asked for.
        plans: what to do, see `plan.make_plan`.
        heard: what the conditions draw from.
        executor: who does it.
        say: called with one line for each event.
        on_change: called with the progress of all groups whenever it may have changed.
    """

    def __init__(
        self,
        config: SweepConfig,
        plans: list[GroupPlan],
        heard: Heard,
        executor: Executor,
        say: Callable[[str], None] = lambda _: None,
        on_change: Callable[[list[Progress]], None] = lambda _: None,
    ) -> None:
        self.config, self.plans, self.heard, self.executor = config, plans, heard, executor
        self.say, self.on_change = say, on_change
        self.failures: list[str] = []
        self.progress = {plan.group: self._first_progress(plan) for plan in plans}
        self._to_run = {plan.group: list(plan.to_run) for plan in plans}
        self._untrained = {plan.group: set(plan.train) for plan in plans}
        self._ready: list[Job] = []
        self._before: dict[Path, Callable[[], None]] = {}
        self._after: dict[Path, Callable[[Outcome], None]] = {}
        self._group_of: dict[Path, list[Group]] = {}

    @property
    def exit_code(self) -> int:
        """0 when every cell that was to be run is finished, 1 when some failed."""
        return 1 if self.failures else 0

    def run(self) -> int:
        """Do what the plan says; returns the exit code.

        Raises:
            KeyboardInterrupt: stopped by Ctrl-C or SIGTERM; what ran was stopped, the rest is intact.
            SweepError: the folder is in use, or the executor refuses the jobs.
        """
        with _locked(self.config.root), terminate_like_interrupt():
            remove_leftovers(self.config.root)  # of a sweep that was killed
            self._begin()
            try:
                while self._ready or self._after:
                    self._step()
            except BaseException:
                left = self.executor.stop()
                if left:
                    self.say(left)
                raise
        self.on_change(list(self.progress.values()))
        return self.exit_code

    def _step(self) -> None:
        room = self.executor.room()
        started = [job for job in self._ready[:room] if not self.executor.adopt(job)] if room else []
        for job in self._ready[:room]:
            for group in self._group_of[job.folder]:
                self.progress[group].running.append(job)
                self.progress[group].state = {"contract": "checking", "train": "training"}.get(job.kind, "evaluating")
        self._ready = self._ready[room:]
        self.on_change(list(self.progress.values()))
        for job in started:
            self._before[job.folder]()
        if started:
            self.executor.submit(started)
        ended = self.executor.poll()
        for job, outcome in ended:
            for group in self._group_of.pop(job.folder):
                self.progress[group].running.remove(job)
            self.say(f"{job.title}: {outcome.state}" + (f", {outcome.reason}" if outcome.reason else ""))
            self._after.pop(job.folder)(outcome)
        self.on_change(list(self.progress.values()))
        if not ended and not (self._ready and self.executor.room()):
            time.sleep(self.executor.poll_s)

    def _begin(self) -> None:
        busy = [plan.group for plan in self.plans if plan.to_run]
        for plan in self.plans:
            for cell, decision in plan.decisions.items():
                found = None if decision.run or decision.reused else find(cell, self.heard)
                if isinstance(found, Record):
                    self._fail(cell.group, f"{cell.title}: {found.status}, {found.reason}")
        upstreams: dict[str, list[Group]] = {}
        for group in busy:
            upstreams.setdefault(group.upstream.label, []).append(group)
        for groups in upstreams.values():
            job = contract_job(groups[0], self.config.device)
            known = job.outcome is not None and job.outcome.state == "done" and self.config.policy != "rerun"
            if not self.config.check_upstreams or known:
                for group in groups:
                    self._start(group)
            else:
                self._add(job, groups, lambda outcome, groups=groups: self._checked(groups, outcome))

    def _add(
        self,
        job: Job,
        groups: list[Group],
        after: Callable[[Outcome], None],
        before: Callable[[], None] = lambda: None,
    ) -> None:
        self._ready.append(job)
        self._before[job.folder], self._after[job.folder], self._group_of[job.folder] = before, after, groups

    def _checked(self, groups: list[Group], outcome: Outcome) -> None:
        for group in groups:
            if outcome.state == "done":
                self._start(group)
            else:
                self._fail_cells(group, f"{group.upstream.label} was not tried: {outcome.reason}")

    def _start(self, group: Group) -> None:
        heads = [head for head in group.heads if head in self._untrained[group]]
        for head in heads:
            job = train_job(self.config, head, fresh=self.config.policy == "rerun")
            self._add(job, [group], lambda outcome, head=head: self._trained(head, outcome))
        if not heads:
            self._choose(group)

    def _trained(self, head: Head, outcome: Outcome) -> None:
        group = head.group
        self._untrained[group].discard(head)
        if outcome.state == "done":
            self.progress[group].trained += 1
        else:
            self.failures.append(f"{group.title}, learning rate {head.learning_rate:g}: {outcome.reason}")
        if not self._untrained[group]:
            self._choose(group)

    def _choose(self, group: Group) -> None:
        """All heads of a group are trained or have failed: take the best on the development set and evaluate it."""
        task = group.task.registry
        chosen, selection, checkpoint = None, None, None
        if task.trainable:
            tried = [_tried(head) for head in group.heads]
            usable = [one for one in tried if one.trained]
            # One head, of a task that s3prl scores no development set of: there is no choice.
            alone = usable[0] if len(tried) == 1 and usable and not group.config["runner"]["eval_dataloaders"] else None
            chosen = choose(usable, task.dev_metric.higher_is_better) or alone
            if chosen is None:
                reasons = "; ".join(f"learning rate {one.learning_rate:g}: {one.reason}" for one in tried)
                self._fail_cells(group, f"there is no head to evaluate ({reasons})")
                return
            selection = describe(task, tried, chosen)
            folder = Head(group, chosen.learning_rate).folder
            try:
                checkpoint = find_head(folder)
            except LaunchError as error:
                self._fail_cells(group, str(error))
                return
            note_selection(folder, selection)
            self.progress[group].learning_rate = chosen.learning_rate
            self._evaluate_again_if_chosen_anew(group, selection)
        cells = self._to_run[group]
        job = evaluate_job(self.config, group, cells, checkpoint)
        self._add(job, [group], lambda outcome: self._evaluated(group, outcome), lambda: _set_aside(group, cells))

    def _evaluate_again_if_chosen_anew(self, group: Group, selection: dict[str, Any]) -> None:
        """Numbers of one group come from one head."""
        for cell in group.cells:
            record = None if cell in self._to_run[group] else find(cell, self.heard)
            if isinstance(record, Record) and record.status == "ok" and record.selection != selection:
                self._to_run[group].append(cell)
                self.progress[group].finished -= 1
                self.say(f"{cell.title}: runs: its record belongs to another head than the one chosen now")

    def _evaluated(self, group: Group, outcome: Outcome) -> None:
        progress = self.progress[group]
        for cell in self._to_run[group]:
            record = find(cell, self.heard)
            if isinstance(record, Record) and record.status == "ok":
                progress.finished += 1
            elif isinstance(record, Record):
                self._fail(group, f"{cell.title}: {record.status}, {record.reason}")
            else:
                reason = outcome.reason or "the evaluation ended without writing its record"
                self._write_failed(cell, reason)
                self._fail(group, f"{cell.title}: {reason}")
        if progress.state != "failed":
            progress.state = "done"

    def _fail_cells(self, group: Group, reason: str) -> None:
        for cell in self._to_run[group]:
            self._write_failed(cell, reason)
            self._fail(group, f"{cell.title}: {reason}")

    def _write_failed(self, cell: Cell, reason: str) -> None:
        _set_aside(cell.group, [cell])
        now = datetime.now(timezone.utc).isoformat(timespec="seconds")
        write_record(cell.group.records, cell.failed_record(reason, now, self.config.device))

    def _fail(self, group: Group, message: str) -> None:
        self.failures.append(message)
        self.progress[group].state = "failed"
        self.progress[group].detail = message.removeprefix(f"{group.title} / ")

    def _first_progress(self, plan: GroupPlan) -> Progress:
        finished = sum(decision.reused is not None for decision in plan.decisions.values())
        state = "waiting" if plan.to_run else "reused" if finished == len(plan.decisions) else "skipped"
        trained = sum(is_trained(head) for head in plan.group.heads if head not in plan.train)
        rates = {d.reused.learning_rate for d in plan.decisions.values() if d.reused is not None}
        return Progress(plan.group, state, trained, finished, rates.pop() if len(rates) == 1 else None)


def _tried(head: Head) -> Tried:
    outcome = Outcome.read(job_folder(head))
    if not is_trained(head):
        reason = outcome.reason if outcome is not None and outcome.reason else "its training left no checkpoint"
        return Tried(head.learning_rate, None, reason=reason, trained=False)
    score, step = dev_score(head.folder, head.group.task.registry)
    reason = "" if score is not None else "no score on a development set"
    return Tried(head.learning_rate, score, step, reason, resumed_at=resumed_at(job_folder(head)))


def _set_aside(group: Group, cells: list[Cell]) -> None:
    """Move the records that are about to be replaced below ``superseded/``: no table looks there, nothing is lost."""
    now = datetime.now(timezone.utc).strftime("%Y%m%dT%H%M%S")
    for path in {path for cell in cells for path in record_files(cell)}:
        for file in path.parent.glob(f"{path.stem}.*"):  # results of single items stand beside
            target = group.root / "superseded" / now / file.relative_to(group.root / "records")
            target.parent.mkdir(parents=True, exist_ok=True)
            file.replace(target)


@contextlib.contextmanager
def _locked(root: Path) -> Iterator[None]:
    try:
        with locked(root / ".lock", wait=False):
            yield
    except Busy as error:
        raise SweepError(f"{root} is in use by another run of the sweep; wait for it or stop it") from error
