"""Finished experiments: records of clean official test sets, and the folders that s3prl wrote their predictions to."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from robustdistiller.eval import tasks
from robustdistiller.eval.results.files import read_record_files
from robustdistiller.eval.results.identity import CLEAN, system_id
from robustdistiller.eval.results.record import Record
from robustdistiller.eval.run.errors import RunError
from robustdistiller.eval.run.head_checkpoint import find_head, head_digest, read_checkpoint
from robustdistiller.eval.tasks.parts import Submission, lookup


class SubmissionError(ValueError):
    """An archive cannot be written; the message says why."""


@dataclass(frozen=True)
class Experiment:
    """One number of the benchmark and where its predictions are.

    Attributes:
        record: of clean speech on the official test set.
        path: file of the record.
        folder: where s3prl wrote its predictions.
    """

    record: Record
    path: Path
    folder: Path

    @property
    def title(self) -> str:
        """Task and fold."""
        return " ".join(part for part in (self.record.task, self.record.fold) if part)

    @property
    def part(self) -> Submission | None:
        """Where the task stands in the archive; None where the archive has no place for it."""
        task = tasks.TASKS.get(self.record.task)
        return task.submission if task else None

    def setting(self, key: str) -> Any:
        """A setting of the run's configuration, as s3prl noted it in the folder; None where there is none."""
        notes = sorted(self.folder.glob("config_*.yaml"), key=lambda path: path.stat().st_mtime, reverse=True)
        for path in [*notes, self.folder / "head.yaml"]:
            if not path.is_file():
                continue
            value = lookup(yaml.safe_load(path.read_text(encoding="utf-8")), key)
            if value is not None:
                return value
        return None


def find_experiments(folder: Path | str) -> list[Experiment]:
    """Experiments of a folder: of ``run_downstream.py`` (with ``records/`` in it) or of a sweep.

    Raises:
        SubmissionError: there are no records of clean official test sets.
        RecordError: a record is broken.
    """
    folder = Path(folder)
    if not (folder / "records").is_dir():
        raise SubmissionError(
            f"{folder} holds no records; give the folder of an experiment that was evaluated (-p of "
            "run_downstream.py) or of a sweep"
        )
    found = []
    for path, record in read_record_files(folder / "records").items():
        splits = {tasks.official_split(record.task), "test"}  # s3prl reads -t test as eval for QbE
        if record.status == "ok" and record.condition == CLEAN and record.split in splits:
            found.append(Experiment(record, path, _predictions(folder, record)))
    if not found:
        raise SubmissionError(f"{folder} has no finished record of clean speech on an official test set")
    return found


def _predictions(folder: Path, record: Record) -> Path:
    """Where s3prl wrote: the experiment itself, or in a sweep the folder of the head that the record is of."""
    part = Experiment(record, folder, folder).part
    if not (folder / "heads").is_dir() or part is None:
        return folder
    name = Path(next(iter(part.files)).format(fold=record.fold))
    written = (path.parents[len(name.parts) - 1] for path in (folder / "heads").rglob(str(name)))
    places = [place for place in written if "conditions" not in place.parts]
    if len(places) == 1:  # packing compares the score that is in there with the record's
        return places[0]
    return next((place for place in places if _digest_of_head(place) == record.head_digest), folder)


def _digest_of_head(folder: Path) -> str:
    try:
        return head_digest(read_checkpoint(find_head(folder)))
    except RunError:  # untrained, or lost
        return ""


def choose(experiments: Sequence[Experiment], label: str | None = None, seed: int | None = None) -> list[Experiment]:
    """The experiments of one system, one per task and fold.

    Raises:
        SubmissionError: several systems or seeds and none chosen, or none of that name.
    """
    chosen = [one for one in experiments if label is None or one.record.label == label]
    chosen = [one for one in chosen if seed is None or one.record.seed == seed]
    if not chosen:
        labels = ", ".join(sorted({one.record.label for one in experiments}))
        seeds = ", ".join(sorted({str(one.record.seed) for one in experiments}))
        raise SubmissionError(f"no experiment is of that system and seed; there are {labels} with seeds {seeds}")
    systems = {system_id(one.record): one.record for one in chosen}
    if len(systems) > 1:
        layers = {one: "" if one.layer is None else f", layer {one.layer}" for one in systems}
        named = "; ".join(f"{r.label} ({s.upstream} {s.weights[:8]}{layers[s]})" for s, r in systems.items())
        raise SubmissionError(f"an archive is of one system, these are of {len(systems)}: {named}; say which (--label)")
    by_title: dict[str, list[Experiment]] = {}
    for one in chosen:
        by_title.setdefault(one.title, []).append(one)
    for title, own in by_title.items():
        seeds = sorted({one.record.seed for one in own})
        if len(seeds) > 1:
            raise SubmissionError(f"{title} was run with seeds {', '.join(map(str, seeds))}; say which (--seed)")
        if len(own) > 1:
            where = ", ".join(str(one.path) for one in own)
            raise SubmissionError(f"{title} has {len(own)} records of different heads: {where}; give one experiment")
    order = {code: place for place, code in enumerate(tasks.TASKS)}  # tasks of one's own come last
    return sorted(chosen, key=lambda one: (order.get(one.record.task, len(order)), one.title))
