"""Which cells of a sweep are run and which are not, why, and how long that may take. Reads, changes nothing."""

from __future__ import annotations

import math
import zipfile
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from robustdistiller.eval.results.files import Decision, decide, read_record, record_files
from robustdistiller.eval.results.identity import condition_digest
from robustdistiller.eval.results.record import Record, RecordError
from robustdistiller.eval.sweep.cells import Cell, Draws, Group, Head
from robustdistiller.eval.sweep.choice import Choice, Tried, read_choice, tried_from
from robustdistiller.eval.sweep.engine import Outcome


@dataclass(frozen=True)
class GroupPlan:
    """What is done about a group.

    Attributes:
        group: the group.
        decisions: one per cell, as far as it can be said before heads are chosen.
        train: heads to train, as far as it can be said before the group whose rate is taken over has chosen.
    """

    group: Group
    decisions: Mapping[Cell, Decision]
    train: tuple[Head, ...]

    @property
    def to_run(self) -> list[Cell]:
        """Cells that are evaluated."""
        return [cell for cell, decision in self.decisions.items() if decision.run]

    @property
    def idle(self) -> bool:
        """Nothing is to be done."""
        return not self.to_run and not self.train


class Found:
    """The records of a sweep and what its heads came to, read when asked for.

    Args:
        root: folder of the sweep.
        draws: what the conditions draw from now.
    """

    def __init__(self, root: Path, draws: Draws) -> None:
        self.root, self.draws = root, draws
        self._read: dict[Path, tuple[int, Record | RecordError]] = {}
        self.refresh()

    def refresh(self) -> None:
        """Look for new records."""
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
        entry, task = group.upstream.entry, group.task
        keys = [(entry.name, task.registry.code, split, group.fold, group.seed) for split in task.splits]
        fitting = [record for key in keys for record in self._cells[key] if _is_of(record, group)]
        return sorted(fitting, key=lambda record: record.start_utc, reverse=True)

    def record(self, cell: Cell, chosen: Tried | None = None, finished: bool = False) -> Record | None:
        """The newest record of a cell.

        Args:
            cell: the cell.
            chosen: the evaluated head; None: any.
            finished: of those that have a number only.
        """
        wanted = condition_digest(cell.condition.label, self.draws.sources[cell.condition], self.draws.seed)
        for record in self.of_group(cell.group):
            heard = condition_digest(record.condition, record.sources, record.corruption_seed)
            if (
                (heard, record.split) == (wanted, cell.split)
                and (record.status == "ok" or not finished)
                and (chosen is None or _is_of_head(record, chosen))
            ):
                return record
        return None

    def choice(self, group: Group) -> Choice:
        """What is known of a group's heads: what its file says, what its records say, and what was trained since."""
        choice = read_choice(group.folder, group.task.registry)
        if not choice.tried:
            for record in self.of_group(group):
                tried = [tried_from(one) for one in (record.selection or {"tried": []})["tried"]]
                if tried:
                    chosen = {record.learning_rate: {"head": record.head_digest}}
                    tried = [Tried(**{**vars(one), **chosen.get(one.learning_rate, {})}) for one in tried]
                    choice = Choice(choice.task, {one.learning_rate: one for one in tried})
                    break
        for rate in group.learning_rates:
            if rate not in choice.tried and (outcome := Outcome.read(group.head(rate).job_folder)) is not None:
                choice = choice.with_tried(tried_of(rate, outcome))
        return choice

    def chosen(self, group: Group) -> Tried | None:
        """The head that counts now; None where there is none yet."""
        return self.choice_among(group, self.rates(group) or ()).chosen

    def rates(self, group: Group) -> tuple[float, ...] | None:
        """The learning rates that a group tries; None while the group whose rate it takes over has not chosen."""
        if group.leader is None or not group.learning_rates:
            return group.learning_rates
        leading = group.leader
        choice = self.choice_among(leading, leading.learning_rates)
        return None if choice.pending or choice.chosen is None else (choice.chosen.learning_rate,)

    def choice_among(self, group: Group, rates: Iterable[float]) -> Choice:
        """What is known of the heads of some rates; a single one needs no score where the rate was chosen elsewhere."""
        return self.choice(group).limited_to(rates, alone=group.leader is not None or not group.scored_on_dev)


def make_plan(groups: Iterable[Group], policy: str, found: Found) -> list[GroupPlan]:
    """Decide about every cell.

    Args:
        groups: of the sweep.
        policy: one of `config.POLICIES`.
        found: what there is already.
    """
    return [plan_group(group, policy, found) for group in groups]


def plan_group(group: Group, policy: str, found: Found, rates: tuple[float, ...] | None = None) -> GroupPlan:
    """Decide about the cells of a group.

    Args:
        group: the group.
        policy: one of `config.POLICIES`.
        found: what there is already.
        rates: the learning rates to choose from, where they are known better than `found` knows them.
    """
    rates = rates or found.rates(group)
    if policy == "rerun":
        decisions = {cell: _decide(cell, policy, found, None) for cell in group.cells}
        return GroupPlan(group, decisions, _heads(group, rates))
    choice = found.choice_among(group, rates or ())
    chosen, untried = choice.chosen, choice.pending
    decisions = {cell: _decide(cell, policy, found, None if untried else chosen) for cell in group.cells}
    if policy == "show":
        return GroupPlan(group, decisions, ())
    train = [group.head(rate) for rate in untried]
    runs = any(decision.run for decision in decisions.values())
    if rates is None:
        train = list(_heads(group, None)) if runs else []
    elif runs and chosen is not None and not is_whole(group.head(chosen.learning_rate), chosen):
        train.append(group.head(chosen.learning_rate))  # the one that won is gone; those that lost are not needed
    return GroupPlan(group, decisions, tuple(train))


def is_whole(head: Head, tried: Tried) -> bool:
    """Whether the checkpoint of a trained head is there, all of it: a full disk may leave half of one."""
    return bool(tried.checkpoint) and zipfile.is_zipfile(head.folder / tried.checkpoint)  # its end lists its contents


def tried_of(rate: float, outcome: Outcome) -> Tried:
    """What came of a training."""
    if outcome.state != "done":
        return Tried(rate, None, reason=outcome.reason or "its training left no checkpoint", trained=False)
    tried = tried_from({**outcome.result, "learning_rate": rate})
    return tried if tried.dev_score is not None else Tried(**{**vars(tried), "reason": "no score on a development set"})


def _heads(group: Group, rates: tuple[float, ...] | None) -> tuple[Head, ...]:
    """The heads of a group; of one whose rate is not known yet, one that stands for it."""
    return tuple(group.head(rate) for rate in (group.learning_rates[:1] if rates is None else rates))


def _decide(cell: Cell, policy: str, found: Found, chosen: Tried | None) -> Decision:
    record, newest = found.record(cell, chosen, finished=True), found.record(cell)
    if record is None and newest is not None and newest.status == "ok":
        reason = "skipped" if policy == "show" else "runs"
        return Decision(policy != "show", None, f"{reason}: its record is of another head than the chosen one")
    return decide(record or newest, policy)


def _is_of(record: Record, group: Group) -> bool:
    """Whether a record was measured on a group's upstream with its settings; a label says nothing."""
    upstream = group.upstream
    if record.upstream_options != upstream.options:
        return False
    if upstream.weights and record.checkpoint_digest != upstream.weights:
        return False
    if not upstream.weights and record.checkpoint_digest_of == "file":
        return False
    layer = record.settings.get("upstream_layer_selection")
    return record.rules_digest in ("", *group.rules) and layer in (None, upstream.entry.layer)


def _is_of_head(record: Record, chosen: Tried) -> bool:
    if record.head_digest and chosen.head:
        return record.head_digest == chosen.head
    return record.learning_rate == chosen.learning_rate  # of an older version, which noted no more


def _read(path: Path) -> Record | RecordError:
    try:
        return read_record(path)
    except RecordError as error:
        return error


class Timings:
    """How long pieces of work took, to say how long others may take.

    Args:
        root: the sweep's folder, with the outcomes of earlier jobs.
    """

    def __init__(self, root: Path) -> None:
        self._units_s: dict[tuple, list[float]] = defaultdict(list)
        for path in sorted((root / "jobs").glob("*/*/*/outcome.json")):
            if (outcome := Outcome.read(path.parent)) is not None:
                self.add(outcome)

    def add(self, outcome: Outcome) -> None:
        """Learn from a job that ended; it says in its result what it did: kind, upstream, task and units of work."""
        result: Mapping[str, Any] = outcome.result
        if outcome.state == "done" and result.get("units"):
            seconds = outcome.wall_s / result["units"]
            for key in ((result["kind"], result["upstream"], result["task"]), (result["kind"], result["task"])):
                self._units_s[key].append(seconds)

    def expected_s(self, kind: str, group: Group, units: int) -> float | None:
        """Seconds that work on a group may take: as the same upstream took, else as any took; None when none did."""
        task = group.task.name
        times = self._units_s.get((kind, group.upstream.place, task)) or self._units_s.get((kind, task))
        return None if not times else units * sum(times) / len(times)


@dataclass(frozen=True)
class Estimate:
    """How long work may take.

    Attributes:
        known_s: seconds of the jobs that can be timed, as if done one after the other.
        unknown: jobs that nothing is known about.
        jobs: all of them.
    """

    known_s: float
    unknown: int
    jobs: int

    def text(self, slots: int) -> str:
        """One line for the user.

        Args:
            slots: jobs that run side by side.

        >>> Estimate(7200.0, unknown=1, jobs=3).text(slots=2)
        'about 1 h 0 min with 2 at a time, and 1 of 3 jobs of which none like them has run yet'
        >>> Estimate(0.0, 3, 3).text(1)
        'unknown: no job like these has run yet'
        """
        if not self.jobs:
            return "nothing to run"
        if self.unknown == self.jobs:
            return "unknown: no job like these has run yet"
        text = f"about {duration(self.known_s / max(1, min(slots, self.jobs - self.unknown)))} with {slots} at a time"
        more = f", and {self.unknown} of {self.jobs} jobs of which none like them has run yet"
        return text + (more if self.unknown else "")


def estimate(plans: Iterable[GroupPlan], timings: Timings) -> Estimate:
    """Time what is to be done by what was done.

    Args:
        plans: what is to be done.
        timings: of what was done.
    """
    times: list[float | None] = []
    for plan in plans:
        group = plan.group
        times += [timings.expected_s("train", group, group.config["runner"]["total_steps"]) for _ in plan.train]
        times += [timings.expected_s("evaluate", group, len(plan.to_run))] if plan.to_run else []
    known = [time for time in times if time is not None]
    return Estimate(sum(known), len(times) - len(known), len(times))


def duration(seconds: float) -> str:
    """Seconds in the units that suit them.

    >>> duration(42), duration(3700), duration(200000)
    ('42 s', '1 h 2 min', '2 d 7 h')
    """
    if seconds < 90:
        return f"{math.ceil(seconds)} s"
    minutes = round(seconds / 60)
    if minutes < 60:
        return f"{minutes} min"
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours < 48 else f"{hours // 24} d {hours % 24} h"
