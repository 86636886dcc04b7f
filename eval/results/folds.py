"""Cross-validation: the benchmark's number of such a task is the plain mean over all its folds, and only over all.

SUPERB's website averages the accuracies of the five test sessions of IEMOCAP when all five were handed in, and shows no
number before (its ``backend/calculate.py``; ``docs/superb.md`` of s3prl says the same).
"""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from robustdistiller.eval import tasks
from robustdistiller.eval.results.item_scores import ItemScores, Outcomes
from robustdistiller.eval.results.record import Metric, Record, RecordError
from robustdistiller.eval.tasks.rules import test_set_deviations


def missing_folds(records: Iterable[Record]) -> list[str]:
    """Folds that records of one cell and seed lack; none for a task without folds.

    Example:
        >>> from robustdistiller.eval.results.record import example_record
        >>> missing_folds([example_record(task="ER", fold=f"fold{number}") for number in (1, 2, 4, 5)])
        ['fold3']
        >>> missing_folds([example_record()])
        []
    """
    records = list(records)
    if not any(record.fold for record in records):
        return []
    known = tasks.get(records[0].task).folds
    return [fold for fold in known if fold not in {record.fold for record in records}]


def mean_over_folds(records: Sequence[Record]) -> Record:
    """One record that stands for all folds of a cell and seed: metrics averaged, items added up.

    Args:
        records: one per fold; a single record of a task without folds comes back as it is.

    Raises:
        RecordError: a fold is missing, or there twice.

    Example:
        >>> from robustdistiller.eval.results.record import example_record
        >>> five = [example_record(task="ER", fold=f"fold{n}", metrics=[Metric("accuracy", 60.0 + n, True, "%")])
        ...         for n in range(1, 6)]
        >>> one = mean_over_folds(five)
        >>> one.main_metric.value, one.items_scored, one.fold
        (63.0, 20, '')
    """
    first = records[0]
    if len(records) == 1 and not first.fold:
        return first
    missing = missing_folds(records)
    if missing or len({record.fold for record in records}) < len(records):
        found = ", ".join(sorted(record.fold for record in records))
        raise RecordError(f"{first.task} of {first.label} needs each of its folds once, found {found}")
    records = sorted(records, key=lambda record: record.fold)
    metrics = []
    for metric in first.metrics:
        values = [next((m.value for m in record.metrics if m.name == metric.name), None) for record in records]
        lacking = [record.fold for record, value in zip(records, values) if value is None]
        why = f"{', '.join(lacking)} has no value" if lacking else ""
        value = None if lacking else float(np.mean(values))
        metrics.append(Metric(metric.name, value, metric.higher_is_better, metric.unit, why))
    drawn = [record.manifest_digest for record in records]
    expected = [record.items_expected for record in records]
    items_expected = None if None in expected else sum(expected)
    return dataclasses.replace(
        first,
        fold="",
        metrics=metrics,
        items_scored=sum(record.items_scored for record in records),
        items_expected=items_expected,
        non_standard=_deviations(records, items_expected),
        manifest_digest="none" if set(drawn) == {"none"} else hashlib.sha256("".join(drawn).encode()).hexdigest(),
        duration_s=sum(record.duration_s for record in records),
        outcomes=None,
        selection=None,
        layer_weights=None,
        learning_rate=first.learning_rate if len({record.learning_rate for record in records}) == 1 else None,
    )


def _deviations(records: Sequence[Record], items: int | None) -> list[str] | None:
    """In what any of the folds is not standard, and whether all of them together are the official test set."""
    if any(record.non_standard is None for record in records):
        return None
    own = dict.fromkeys(phrase for record in records for phrase in record.non_standard)
    task = tasks.get(records[0].task)
    return [*own, *test_set_deviations(task, records[0].split, items)]


def items_over_folds(outcomes: Mapping[str, Outcomes]) -> Outcomes:
    """Results of the single items of all folds, weighted so that they give the mean over folds.

    An item of a fold of n items counts 1/n: the folds count the same, whatever their size.

    Args:
        outcomes: by fold.

    Raises:
        NoOutcomes: an item is in two folds.

    Example:
        >>> first = Outcomes.sort(["a", "b"], {"accuracy": ItemScores(np.array([1, 0]), np.ones(2))})
        >>> second = Outcomes.sort(["c"], {"accuracy": ItemScores(np.array([1]), np.ones(1))})
        >>> items_over_folds({"fold1": first, "fold2": second}).metrics["accuracy"].value
        75.0
    """
    ids = [name for one in outcomes.values() for name in one.ids]
    names = [n for n in next(iter(outcomes.values())).metrics if all(n in one.metrics for one in outcomes.values())]
    merged = {}
    for name in names:
        parts = [one.metrics[name] for one in outcomes.values()]
        weights = [1.0 / part.denominator.sum(dtype=np.float64) for part in parts]
        tops = np.concatenate([weight * part.numerator for weight, part in zip(weights, parts)])
        bottoms = np.concatenate([weight * part.denominator for weight, part in zip(weights, parts)])
        merged[name] = ItemScores(tops, bottoms, parts[0].scale)
    return Outcomes.sort(ids, merged)
