"""Results of single items: what confidence intervals and paired tests are made of.

A score that is a ratio of two sums over items (accuracy: right answers by answers; WER: word errors by words; PESQ:
sum by utterances) is stored as one numerator and one denominator per item, in a small file beside the record. Only
what s3prl's experts hand to their own scoring is used, and only if the sums give the recorded score again.
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from robustdistiller.common.files import write_bytes
from robustdistiller.eval.results.files import read_record
from robustdistiller.eval.results.record import ItemsFile, Record, RecordError
from robustdistiller.eval.tasks import TASKS, Task

_TOLERANCE = 1e-3


class NoOutcomes(ValueError):
    """Why a task or an evaluation gives no results of single items."""


@dataclass(frozen=True)
class ItemScores:
    """A metric as ``scale * sum(numerator) / sum(denominator)`` over items.

    Attributes:
        numerator: (items,) e.g. 1 for a right answer, or the number of word errors.
        denominator: (items,) e.g. 1, or the number of words.
        scale: 100 for rates in per cent.
    """

    numerator: np.ndarray
    denominator: np.ndarray
    scale: float = 100.0

    @property
    def value(self) -> float:
        """The score over all items."""
        return float(self.scale * self.numerator.sum(dtype=np.float64) / self.denominator.sum(dtype=np.float64))


@dataclass(frozen=True)
class Outcomes:
    """Results of all items of one cell, in the order of their ids.

    Attributes:
        ids: distinct, sorted, the same wherever the corpus lies.
        metrics: metric name to the items' scores.
        groups: the speaker of each item, its own id where the speaker is not known. Items of one speaker are more
            alike than others, so that resampling draws speakers.
    """

    ids: tuple[str, ...]
    metrics: Mapping[str, ItemScores]
    groups: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if not self.groups:
            object.__setattr__(self, "groups", self.ids)

    @classmethod
    def sort(cls, ids: Sequence[str], metrics: Mapping[str, ItemScores], groups: Sequence[str] = ()) -> Outcomes:
        """Items brought into the order of their ids.

        Raises:
            NoOutcomes: two items have one id, a metric has another number of items, or there are none.
        """
        if not ids or not metrics:
            raise NoOutcomes("s3prl's expert keeps no results of single items")
        if len(set(ids)) < len(ids):
            raise NoOutcomes(f"{len(ids)} items have only {len(set(ids))} different names")
        for name, scores in metrics.items():
            if not len(ids) == len(scores.numerator) == len(scores.denominator):
                raise NoOutcomes(f"there are {len(ids)} names for {len(scores.numerator)} items of {name}")
        order = np.argsort(np.array(ids))
        ordered = {n: ItemScores(s.numerator[order], s.denominator[order], s.scale) for n, s in metrics.items()}
        return cls(tuple(ids[i] for i in order), ordered, tuple(groups[i] for i in order) if groups else ())

    def with_metric(self, name: str, ids: Sequence[str], scores: ItemScores) -> Outcomes:
        """The same items with one more metric, whose results are in the order of `ids`."""
        other = Outcomes.sort(ids, {name: scores})
        if other.ids != self.ids:
            raise NoOutcomes(f"{name} has other items than {', '.join(self.metrics)}")
        return Outcomes(self.ids, {**self.metrics, **other.metrics}, self.groups)


def outcomes_of(task: Task, kept: Mapping[str, Any], names: Sequence[str] = ()) -> Outcomes:
    """What s3prl's expert kept of each item of an evaluation.

    Args:
        task: registry entry.
        kept: the expert's ``records`` at the end of an evaluation.
        names: names of the items in order, for experts that keep none (diarization) or few (enhancement, separation).

    Raises:
        NoOutcomes: the expert keeps nothing of single items (verification and query by example score pairs).
    """
    names = kept.get("filename") or kept.get("filenames") or names
    whole = [str(name).replace("\\", "/") for name in names]
    ids = ["/".join(name.split("/")[-3:]) for name in whole]  # wherever the corpus lies
    if len(set(ids)) < len(set(whole)):
        ids = whole
    found = {
        name: ItemScores(np.asarray(above), np.asarray(below), scale)
        for name, (above, below, scale) in task.item_results(kept).items()
    }
    return Outcomes.sort(ids, found, [task.speaker_of(item) for item in ids])


def check_against(outcomes: Outcomes, record: Record) -> None:
    """Refuse results of single items that do not add up to the record's scores."""
    recorded = {metric.name: metric.value for metric in record.metrics}
    if len(outcomes.ids) != record.items_scored:
        raise NoOutcomes(f"there are results of {len(outcomes.ids)} items, the record has {record.items_scored}")
    for name, scores in outcomes.metrics.items():
        value = recorded.get(name)
        if value is None or abs(scores.value - value) > _TOLERANCE * max(1.0, abs(value)):
            raise NoOutcomes(f"the single items give {name} {scores.value:.4f}, the record has {value}")


def write_outcomes(path: Path, outcomes: Outcomes) -> ItemsFile:
    """Write the file and return what the record's field `outcomes` holds."""
    arrays: dict[str, np.ndarray] = {"ids": np.frombuffer("\n".join(outcomes.ids).encode(), np.uint8)}
    if outcomes.groups != outcomes.ids:
        arrays["groups"] = np.frombuffer("\n".join(outcomes.groups).encode(), np.uint8)
    for name, scores in outcomes.metrics.items():
        arrays[f"{name}.numerator"] = _compact(scores.numerator)
        arrays[f"{name}.denominator"] = _compact(scores.denominator)
        arrays[f"{name}.scale"] = np.array(scores.scale)
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **arrays)
    write_bytes(path, buffer.getvalue())
    return ItemsFile(1, path.name, hashlib.sha256(buffer.getvalue()).hexdigest(), len(outcomes.ids))


def _compact(values: np.ndarray) -> np.ndarray:
    whole = np.all(values == np.round(values))
    return values.astype(np.int32 if whole else np.float64)


def read_outcomes(path: Path | str, record: Record) -> Outcomes | None:
    """The results of single items that a record points to; None where it has none.

    Raises:
        RecordError: their file is missing, was changed, or does not add up to the record's scores.
    """
    if record.outcomes is None:
        return None
    record_path, path = path, Path(path).with_name(record.outcomes.file)
    if not path.is_file():
        raise RecordError(f"{record_path} points to {path.name}, which is not there; copy both or evaluate again")
    data = path.read_bytes()
    if hashlib.sha256(data).hexdigest() != record.outcomes.sha256:
        raise RecordError(f"{path} was changed after it was written; bring the file back or evaluate the cell again")
    with np.load(io.BytesIO(data), allow_pickle=False) as stored:
        names = [key.removesuffix(".numerator") for key in stored if key.endswith(".numerator")]
        metrics = {
            n: ItemScores(stored[f"{n}.numerator"], stored[f"{n}.denominator"], float(stored[f"{n}.scale"]))
            for n in names
        }
        ids, groups = (
            tuple(stored[key].tobytes().decode().split("\n")) if key in stored else () for key in ("ids", "groups")
        )
    task = TASKS.get(record.task)
    outcomes = Outcomes(ids, metrics, groups or (tuple(map(task.speaker_of, ids)) if task else ids))
    try:
        check_against(outcomes, record)
    except NoOutcomes as error:
        raise RecordError(f"{path} does not belong to its record: {error}") from error
    return outcomes


def items_of(path: Path | str | Sequence[Path | str]) -> Outcomes | None:
    """The results of single items of a record; None where it has none.

    Args:
        path: file of the record; those of all folds for their mean, in which each fold counts the same.

    Raises:
        FileNotFoundError: no such record.
        RecordError: the record or its file of results is broken, or an item is in two folds.
    """
    if not isinstance(path, Path | str):
        folds = [items_of(one) for one in path]
        return None if None in folds else _over_folds(folds)
    return read_outcomes(path, read_record(path))


def _over_folds(folds: Sequence[Outcomes]) -> Outcomes:
    """An item of a fold of n items counts 1/n: then all folds count the same, whatever their size."""
    merged = {}
    for name in [name for name in folds[0].metrics if all(name in one.metrics for one in folds)]:
        parts = [one.metrics[name] for one in folds]
        weights = [1.0 / part.denominator.sum(dtype=np.float64) for part in parts]
        sides = ((w * getattr(part, side) for w, part in zip(weights, parts)) for side in ("numerator", "denominator"))
        merged[name] = ItemScores(*(np.concatenate(list(side)) for side in sides), parts[0].scale)
    ids, groups = ([name for one in folds for name in getattr(one, of)] for of in ("ids", "groups"))
    try:
        return Outcomes.sort(ids, merged, groups)
    except NoOutcomes as error:
        raise RecordError(f"the folds cannot be brought together: {error}") from error
