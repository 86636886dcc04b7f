"""Measured cells: records brought together by system, with their results of single items, seeds averaged."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from robustdistiller.eval.cost.record import Profile, read_profiles
from robustdistiller.eval.report.table import build_tables, row_labels, row_of
from robustdistiller.eval.results.files import read_record_files
from robustdistiller.eval.results.folds import items_over_folds, mean_over_folds, missing_folds
from robustdistiller.eval.results.identity import CellId, cell_id
from robustdistiller.eval.results.item_scores import ItemScores, Outcomes, read_outcomes
from robustdistiller.eval.results.record import Metric, Record, RecordError


@dataclass(frozen=True)
class CellKey:
    """Which cell of a system.

    Attributes:
        task: registry name of the task.
        split: evaluated split.
        condition: one-line form.
        condition_digest: of all that decides what is heard.

    Example:
        >>> from robustdistiller.eval.results.record import example_record
        >>> CellKey.of(example_record()).condition
        'clean'
    """

    task: str
    split: str
    condition: str
    condition_digest: str

    @classmethod
    def of(cls, record: Record) -> CellKey:
        """The cell that a record is of."""
        return cls(record.task, record.split, record.condition, cell_id(record).condition)


@dataclass(frozen=True)
class MeasuredCell:
    """One cell of one system: the mean over its seeds.

    Attributes:
        records: one per seed, the mean over folds where the task has some.
        values: metric name to value, mean over seeds.
        items: metric name to results of single items, summed over seeds; empty where a seed has none.
        ids: names of the items.

    Example:
        >>> from robustdistiller.eval.results.record import example_record
        >>> MeasuredCell.of({Path("a.json"): example_record()}).values
        {'accuracy': 75.0}
    """

    records: tuple[Record, ...]
    values: Mapping[str, float]
    items: Mapping[str, ItemScores] = field(default_factory=dict)
    ids: tuple[str, ...] = ()

    @classmethod
    def of(cls, files: Mapping[Path, Record]) -> MeasuredCell:
        """Bring the seeds of a cell together.

        Raises:
            RecordError: a file of results of single items is broken, or a fold is missing.
        """
        seeds: dict[int, dict[Path, Record]] = defaultdict(dict)
        for path, record in files.items():
            seeds[record.seed][path] = record
        records = tuple(mean_over_folds(list(seeds[seed].values())) for seed in sorted(seeds))
        values = {}
        for metric in records[0].metrics:
            numbers = [value_of(record, metric.name) for record in records]
            if all(number is not None for number in numbers):
                values[metric.name] = sum(numbers) / len(numbers)
        outcomes = [_items_of(one) for one in seeds.values()]
        if any(one is None for one in outcomes) or len({one.ids for one in outcomes}) != 1:
            return cls(records, values)
        names = [name for name in values if all(name in one.metrics for one in outcomes)]
        items = {name: _summed([one.metrics[name] for one in outcomes]) for name in names}
        return cls(records, values, items, outcomes[0].ids)

    @property
    def items_scored(self) -> int:
        """Number of scored items."""
        return self.records[0].items_scored

    def metric(self, name: str) -> Metric:
        """Unit and direction of a metric."""
        return next(metric for metric in self.records[0].metrics if metric.name == name)


def value_of(record: Record, metric: str) -> float | None:
    """A metric of a record; None where it has none.

    Example:
        >>> from robustdistiller.eval.results.record import example_record
        >>> value_of(example_record(), "accuracy"), value_of(example_record(), "wer")
        (75.0, None)
    """
    return next((one.value for one in record.metrics if one.name == metric), None)


def _items_of(files: Mapping[Path, Record]) -> Outcomes | None:
    """Results of single items of one seed; None where a fold has none."""
    found = {record.fold: read_outcomes(path, record) for path, record in files.items()}
    if None in found.values():
        return None
    return items_over_folds(found) if len(found) > 1 else next(iter(found.values()))


def _summed(scores: Sequence[ItemScores]) -> ItemScores:
    tops, bottoms = (np.sum([getattr(s, side) for s in scores], axis=0) for side in ("numerator", "denominator"))
    return ItemScores(tops, bottoms, scores[0].scale)


@dataclass(frozen=True)
class MeasuredSystem:
    """All cells of one upstream with one checkpoint.

    Attributes:
        name: its label; where labels collide with upstream, digest and options.
        identity: label, upstream, checkpoint digest, options.
        parameters: of the upstream.
        macs: multiply-accumulate operations on SUPERB's 32 utterances, None where not measured.
        cells: finished cells.
        refused: a sentence for each cell that is partial or failed, and is therefore not shown.

    Example:
        >>> from robustdistiller.eval.results.record import example_record
        >>> system, = measured_systems({Path("a.json"): example_record(label="mine")})
        >>> system.name, len(system.cells)
        ('mine', 1)
    """

    name: str
    identity: tuple[str, str, str, str]
    parameters: int
    macs: int | None
    cells: Mapping[CellKey, MeasuredCell]
    refused: tuple[str, ...] = ()


def read_systems(folders: Iterable[Path | str]) -> list[MeasuredSystem]:
    """All systems measured in folders of records, with their profiles (see `eval.profiling`) where there are any.

    Raises:
        FileNotFoundError: no such folder.
        RecordError: a folder without records, a broken or edited record, or records that do not belong together.

    Example:
        >>> read_systems(["nowhere"])
        Traceback (most recent call last):
        FileNotFoundError: no folder of records at nowhere; ...
    """
    folders, files = list(folders), {}
    for folder in folders:
        found = read_record_files(folder)
        if not found:
            raise RecordError(f"there are no records in {folder}; run_downstream.py -m evaluate writes them")
        files.update(found)
    return measured_systems(files, read_profiles(folders).values())


def measured_systems(files: Mapping[Path, Record], profiles: Iterable[Profile] = ()) -> list[MeasuredSystem]:
    """Group record files by system, largest first; partial and failed cells are refused, each with a sentence.

    Args:
        files: records with their files.
        profiles: costs of upstreams; of several of one upstream and checkpoint the newest counts.

    Raises:
        RecordError: two records of a cell disagree, or records that do not belong together (see `build_tables`).
    """
    finished = {path: record for path, record in files.items() if record.status == "ok"}
    if finished:
        build_tables(finished.values())  # for what it refuses
    names = row_labels(sorted(files.values(), key=lambda r: (-(r.parameters or 0), r.label)))
    grouped: dict[tuple, dict[CellKey, dict[Path, Record]]] = defaultdict(lambda: defaultdict(dict))
    refused: dict[tuple, list[str]] = defaultdict(list)
    seen: set[CellId] = set()
    for path, record in files.items():
        if record.status != "ok":
            refused[row_of(record)].append(
                f"{names[row_of(record)]}, {record.task} {record.split}, {record.condition}, seed {record.seed} is not "
                f"shown: {record.status}, {record.reason}"
            )
        elif cell_id(record) not in seen:  # the same record in two folders counts once
            seen.add(cell_id(record))
            grouped[row_of(record)][CellKey.of(record)][path] = record
    costs = {one.identity: one.superb_macs for one in sorted(profiles, key=lambda profile: profile.start_utc)}
    systems = []
    for identity, name in names.items():
        _refuse_incomplete(name, grouped[identity], refused[identity])
        records = [r for r in files.values() if row_of(r) == identity]
        cells = {key: MeasuredCell.of(group) for key, group in grouped[identity].items()}
        macs = costs.get((identity[1], identity[2], identity[3]))
        if macs is None:
            macs = next((r.macs for r in records if r.macs is not None), None)
        systems.append(
            MeasuredSystem(name, identity, records[0].parameters or 0, macs, cells, tuple(refused.get(identity, ())))
        )
    return systems


def _refuse_incomplete(name: str, cells: dict[CellKey, dict[Path, Record]], refused: list[str]) -> None:
    """Drop seeds that lack folds of their task, with a sentence: the benchmark's number is the mean over all."""
    for key in list(cells):
        for seed in sorted({record.seed for record in cells[key].values()}):
            own = {path: record for path, record in cells[key].items() if record.seed == seed}
            missing = missing_folds(own.values())
            if missing:
                refused.append(
                    f"{name}, {key.task} {key.split}, {key.condition}, seed {seed} is not shown: it is the mean over "
                    f"{len(own) + len(missing)} folds, and {', '.join(missing)} {'is' if len(missing) == 1 else 'are'} "
                    "missing"
                )
                for path in own:
                    del cells[key][path]
        if not cells[key]:
            del cells[key]
