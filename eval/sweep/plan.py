"""Which cells of a sweep are run and which are not, why, and how long it may take. Reads records, changes nothing."""

from __future__ import annotations

import json
import math
import re
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from robustdistiller.common.files import slug
from robustdistiller.eval.results.files import Decision, decide, read_policy, read_record
from robustdistiller.eval.results.record import Record, RecordError
from robustdistiller.eval.sweep.cells import Cell, Group, Head
from robustdistiller.eval.sweep.heard import Heard
from robustdistiller.eval.sweep.jobs import OUTCOME_FILE, Outcome


@dataclass(frozen=True)
class GroupPlan:
    """What is done about a group.

    Attributes:
        group: the group.
        decisions: one per cell.
        train: heads without a finished training; all of them where everything is run again.
    """

    group: Group
    decisions: dict[Cell, Decision]
    train: tuple[Head, ...]

    @property
    def to_run(self) -> list[Cell]:
        """Cells that are evaluated."""
        return [cell for cell, decision in self.decisions.items() if decision.run]


def make_plan(groups: Iterable[Group], policy: str, heard: Heard) -> list[GroupPlan]:
    """Decide about every cell.

    Args:
        groups: of the sweep.
        policy: one of `files.POLICIES`.
        heard: what the conditions draw from, see `heard.heard_of`.

    Example:
        >>> make_plan([], "reuse", {})
        []
    """
    plans = []
    policy = read_policy(policy)
    for group in groups:
        decisions = {cell: _decide(cell, policy, heard) for cell in group.cells}
        runs = any(decision.run for decision in decisions.values())
        train = [head for head in group.heads if runs and (policy == "rerun" or not is_trained(head))]
        plans.append(GroupPlan(group, decisions, tuple(train)))
    return plans


def is_trained(head: Head) -> bool:
    """Whether a head's training ran to its end and its checkpoint is still there."""
    outcome = Outcome.read(job_folder(head))
    return outcome is not None and outcome.state == "done" and any(head.folder.glob("*.ckpt"))


def job_folder(head: Head) -> Path:
    """Where the training of a head keeps its job's files."""
    return head.group.root / "jobs" / head.group.place / head.name


def find(cell: Cell, heard: Heard) -> Record | RecordError | None:
    """The record of a cell: of this upstream, seed, split and condition, of the same sources and learning rates."""
    broken = None
    for path in record_files(cell):
        try:
            record = read_record(path)
        except RecordError as error:
            broken = error
            continue
        if belongs(record, cell, heard):
            return record
    return broken


def record_files(cell: Cell) -> list[Path]:
    """Files that may hold the record of a cell, those of other sources and learning rates among them."""
    group = cell.group
    fold = f"-{slug(group.fold)}" if group.fold else ""
    name = f"{slug(cell.split)}{fold}-seed{group.seed}-*.json"
    below = f"*/*/{slug(group.task.registry.code)}/*/{name}"
    effects = slug(cell.condition.label.partition(":")[0])
    return sorted(p for p in group.records.glob(below) if re.split("[~@]", p.parent.name)[0] == effects)


def belongs(record: Record, cell: Cell, heard: Heard) -> bool:
    """Whether a record is what the sweep would measure for a cell now."""
    digests, seed = heard[cell.condition]
    if (record.condition, record.split, record.fold) != (cell.condition.label, cell.split, cell.group.fold):
        return False
    if record.status == "failed" and not record.items_scored:  # nothing was heard
        return True
    if {kind: one["digest"] for kind, one in record.sources.items()} != digests or record.corruption_seed != seed:
        return False
    tried = tuple(one["learning_rate"] for one in (record.selection or {"tried": []})["tried"])
    return tried == cell.group.learning_rates


def _decide(cell: Cell, policy: str, heard: Heard) -> Decision:
    found = find(cell, heard)
    decision = decide(found, policy)
    if policy == "reuse" and decision.reused is not None:
        lost = [one for one in (decision.reused.selection or {"tried": []})["tried"] if not one["trained"]]
        if lost:
            rates = ", ".join(f"{one['learning_rate']:g}" for one in lost)
            return Decision(True, None, f"runs: its head was chosen without learning rate {rates}, which failed")
    return decision


@dataclass(frozen=True)
class Estimate:
    """How long a sweep may take.

    Attributes:
        known_s: seconds of the work that was timed before, as if done one after the other.
        unknown: pieces of work that nothing is known about.
        pieces: all of them.
    """

    known_s: float
    unknown: int
    pieces: int

    def text(self, slots: int) -> str:
        """For people.

        Args:
            slots: pieces of work that run side by side.

        Example:
            >>> Estimate(7200.0, unknown=1, pieces=3).text(slots=2)
            'about 1 h 0 min with 2 at a time, for 2 of 3 jobs; how long the other 1 take is unknown, as none like \
them has run yet'
            >>> Estimate(0.0, 3, 3).text(1)
            'unknown: no job like these has run yet'
        """
        if not self.pieces:
            return "nothing to run"
        if self.unknown == self.pieces:
            return "unknown: no job like these has run yet"
        side_by_side = max(1, min(slots, self.pieces - self.unknown))
        text = f"about {duration(self.known_s / side_by_side)} with {slots} at a time"
        if self.unknown:
            known = self.pieces - self.unknown
            text += (
                f", for {known} of {self.pieces} jobs; how long the other {self.unknown} take is unknown, as none like "
            )
            text += "them has run yet"
        return text


def duration(seconds: float) -> str:
    """Seconds for people.

    Example:
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


def estimate(plans: Iterable[GroupPlan], root: Path) -> Estimate:
    """Time the work by what earlier work of the same kind took: the same upstream if it has run, else any.

    Args:
        plans: what is to be done.
        root: the sweep's folder, with the outcomes of earlier jobs and the records of earlier cells.

    Example:
        >>> estimate([], Path("nowhere")).text(1)
        'nothing to run'
    """
    step_s, cell_s = _history(root)
    known, unknown, pieces = 0.0, 0, 0
    for plan in plans:
        group = plan.group
        place, task = group.place.split("/")[0], group.task.registry.code
        for _ in plan.train:
            per_step = _typical(step_s, (place, task), (task,))
            pieces += 1
            unknown += per_step is None
            known += (per_step or 0.0) * group.config["runner"]["total_steps"]
        if plan.to_run:
            times = [_typical(cell_s, (place, task, c.split), (task, c.split)) for c in plan.to_run]
            pieces += 1
            unknown += None in times
            known += sum(t for t in times if t is not None)
    return Estimate(known, unknown, pieces)


def _history(root: Path) -> tuple[dict[tuple, list[float]], dict[tuple, list[float]]]:
    step_s: dict[tuple, list[float]] = defaultdict(list)
    cell_s: dict[tuple, list[float]] = defaultdict(list)
    for path in sorted((root / "jobs").glob(f"*/*/lr-*/{OUTCOME_FILE}")):
        outcome = Outcome.read(path.parent)
        job = json.loads((path.parent / "job.json").read_text(encoding="utf-8"))
        if outcome is not None and outcome.state == "done" and outcome.work_done:
            place, task = path.parts[-4], job["work"]["task"]
            for key in ((place, task), (task,)):
                step_s[key].append(outcome.wall_s / outcome.work_done)
    for path in sorted((root / "records").glob("*/*/*/*/*/*/*-seed*-*.json")):
        try:
            record = read_record(path)
        except RecordError:
            continue
        if record.status == "ok":
            place = path.relative_to(root / "records").parts[0]
            for key in ((place, record.task, record.split), (record.task, record.split)):
                cell_s[key].append(record.duration_s)
    return step_s, cell_s


def _typical(times: Mapping[tuple, list[float]], *keys: tuple) -> float | None:
    """The mean of the first key that has any."""
    found = next((times[key] for key in keys if times.get(key)), None)
    return sum(found) / len(found) if found else None
