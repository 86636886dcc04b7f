"""Which cells of a sweep are run and which are not, and why. Reads, changes nothing."""

from __future__ import annotations

import zipfile
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from robustdistiller.eval.results.files import Decision, decide, read_record, record_files
from robustdistiller.eval.results.identity import condition_digest
from robustdistiller.eval.results.record import Record, RecordError
from robustdistiller.eval.run.run_info import code_digest, upstream_code
from robustdistiller.eval.sweep.cells import Cell, Group, Head, System
from robustdistiller.eval.sweep.choice import Choice, Tried, read_tried, tried_from, tried_of
from robustdistiller.eval.sweep.engine import Job, Outcome
from robustdistiller.upstream.pretrained.names import ModelName


@dataclass
class GroupPlan:
    """What is to be done about a group, and while the sweep runs how far that is.

    Attributes:
        group: the group.
        decisions: one per cell, as far as it can be said before heads are chosen.
        choice: of its learning rate.
        train: heads still to be trained; of a group whose leader has not chosen yet, one that stands for it.
        run: cells still to be evaluated.
        state: ``waiting``, ``checking``, ``training``, ``evaluating``, ``done``, ``failed``, ``reused`` or ``skipped``.
        finished: cells with a finished record.
        detail: reason of a failure.
        running: its jobs in flight.
    """

    group: Group
    decisions: Mapping[Cell, Decision]
    choice: Choice
    train: list[Head]
    run: list[Cell]
    state: str = "waiting"
    finished: int = 0
    detail: str = ""
    running: list[Job] = field(default_factory=list)

    @property
    def idle(self) -> bool:
        """Nothing is to be done."""
        return not self.run and not self.train

    @property
    def trained(self) -> int:
        """Heads that are there."""
        waiting = {head.learning_rate for head in self.train}
        tried = self.choice.tried
        return sum(tried[rate].trained for rate in self.choice.rates if rate in tried and rate not in waiting)


class Found:
    """The records of a sweep and what its heads came to, read when asked for."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._read: dict[Path, tuple[int, Record | RecordError]] = {}
        self.refresh()

    def refresh(self) -> None:
        """Look for new records, and anew at the source code of upstreams."""
        self._codes: dict[System, str | None] = {}
        self._cells: dict[tuple, list[Record]] = defaultdict(list)
        for path in record_files(self.root) if (self.root / "records").is_dir() else ():
            changed = path.stat().st_mtime_ns
            if self._read.get(path, (0, None))[0] != changed:
                self._read[path] = changed, _read(path)
            record = self._read[path][1]
            if isinstance(record, Record):
                self._cells[record.upstream, record.task, record.split, record.fold, record.seed].append(record)

    def of_group(self, group: Group) -> list[Record]:
        """The records of a group's upstream, task, seed and settings, the newest first."""
        name, task = group.system.upstream.name, group.task
        keys = [(name, task.registry.code, split, group.fold, group.seed) for split in task.splits]
        code = self.code(group.system)
        fitting = [record for key in keys for record in self._cells[key] if _is_of(record, group, code)]
        return sorted(fitting, key=lambda record: record.start_utc, reverse=True)

    def record(self, cell: Cell, chosen: Tried | None = None, finished: bool = False) -> Record | None:
        """The newest record of a cell: where they are given, of the chosen head, and of those with a number only."""
        for record in self.of_group(cell.group):
            condition = condition_digest(record.condition, record.sources, record.corruption_seed)
            if (
                (condition, record.split) == (cell.condition_digest, cell.split)
                and (record.finished or not finished)
                and (chosen is None or _is_of_head(record, chosen))
            ):
                return record
        return None

    def choice(self, group: Group, rates: tuple[float, ...]) -> Choice:
        """What is known of a group's heads: what its file says, what its records say, and what was trained since."""
        tried = read_tried(group.folder)
        if tried is None:
            tried = {}
            for record in [one for one in self.of_group(group) if (one.selection or {}).get("tried")][:1]:
                tried = {one["learning_rate"]: tried_from(one) for one in record.selection["tried"]}
                if record.learning_rate in tried:
                    tried[record.learning_rate] = replace(tried[record.learning_rate], head=record.head_digest)
        for rate in group.learning_rates:
            if rate not in tried and (outcome := Outcome.read(Head(group, rate).job_folder)) is not None:
                tried[rate] = tried_of(rate, outcome)
        code = self.code(group.system)
        current = {rate: one for rate, one in tried.items() if code in (None, Head(group, rate).code or code)}
        return Choice(group.task.registry, rates, group.has_choice, current)

    def code(self, system: System) -> str | None:
        """Digest of an upstream's source code as it is now, as records have it; None where nobody looked at it."""
        if system not in self._codes:
            if system.upstream.module is not None:
                self._codes[system] = upstream_code(system.upstream.module)
            else:
                look = Outcome.read(system.look_folder)
                files = None if look is None else look.result.get("source_files")
                self._codes[system] = None if files is None else code_digest(files)
        return self._codes[system]

    def is_looked_at(self, system: System) -> bool:
        """Whether an upstream was found in order, as it is now."""
        look = Outcome.read(system.look_folder)
        return look is not None and look.state == "done" and look.result.get("code") == self.code(system)


def make_plans(groups: Iterable[Group], policy: str, found: Found) -> dict[Group, GroupPlan]:
    """Decide about every cell of groups, leaders before those that follow; see :func:`plan_group`."""
    plans: dict[Group, GroupPlan] = {}
    for group in groups:
        plans[group] = plan_group(group, policy, found, plans.get(group.leader))
    return plans


def plan_group(group: Group, policy: str, found: Found, leading: GroupPlan | None = None) -> GroupPlan:
    """Decide about the cells of a group; `leading` is its leader's plan, whose rate is not known while it trains."""
    rates, is_known = group.learning_rates, True
    if leading is not None and rates:
        searching = leading.train and leading.choice.pending
        is_known = leading.choice.chosen is not None and not searching
        rates = (leading.choice.chosen.learning_rate,) if is_known else rates[:1]
    choice = found.choice(group, rates)
    if policy == "rerun":
        choice = replace(choice, tried={})
    chosen = choice.chosen if is_known and not choice.pending else None
    decisions = {cell: _decide(cell, policy, found, chosen) for cell in group.cells}
    run = [cell for cell, decision in decisions.items() if decision.run]
    train = [Head(group, rate) for rate in choice.pending]
    if policy == "show":
        train = []
    elif not is_known:
        train = [Head(group, rates[0])] if run else []
    elif run and chosen is not None and not is_whole(Head(group, chosen.learning_rate), chosen):
        train = [Head(group, chosen.learning_rate)]  # the one that won is gone; those that lost are not needed
    finished = sum(decision.reused is not None for decision in decisions.values())
    state = "waiting" if run or train else "reused" if finished == len(decisions) else "skipped"
    return GroupPlan(group, decisions, choice, train, run, state, finished)


def is_whole(head: Head, tried: Tried) -> bool:
    """Whether the checkpoint of a trained head is there, all of it: a full disk may leave half of one."""
    path = head.group.folder / head.name / tried.checkpoint
    return bool(tried.checkpoint) and zipfile.is_zipfile(path)  # its end lists its contents


def _decide(cell: Cell, policy: str, found: Found, chosen: Tried | None) -> Decision:
    record, newest = found.record(cell, chosen, finished=True), found.record(cell)
    if record is None and newest is not None and newest.finished:
        reason = "skipped" if policy == "show" else "runs"
        return Decision(policy != "show", None, f"{reason}: its record is of another head than the chosen one")
    return decide(record or newest, policy)


def _is_of(record: Record, group: Group, code: str | None) -> bool:
    """Whether a record was measured on a group's upstream with its settings; a label says nothing."""
    system = group.system
    if record.upstream_options != system.options:
        return False
    if system.weights:
        if record.checkpoint_digest != system.weights:
            return False
    elif record.checkpoint_digest_of == "file" or record.checkpoint != ModelName.short_of(system.upstream.checkpoint):
        return False  # s3prl fetches the weights by this name
    if code is not None and record.upstream_code != code and "upstream_code" not in record.unknown:
        return False
    free_layer = None if group.task.registry.trainable else system.upstream.layer  # with a head, the rules fix it
    same_layer = record.settings.get("upstream_layer_selection") == free_layer or "settings" in record.unknown
    return record.rules_digest in ("", *group.rules) and same_layer


def _is_of_head(record: Record, chosen: Tried) -> bool:
    if record.head_digest and chosen.head:
        return record.head_digest == chosen.head
    return record.learning_rate == chosen.learning_rate  # of an older version, which noted no more


def _read(path: Path) -> Record | RecordError:
    try:
        return read_record(path)
    except RecordError as error:
        return error
