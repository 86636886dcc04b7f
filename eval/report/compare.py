"""Two systems, cell by cell: paired differences, and what would have to be run to compare the rest."""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from robustdistiller.common.names import did_you_mean
from robustdistiller.eval import tasks
from robustdistiller.eval.conditions.titles import condition_order
from robustdistiller.eval.report.measured import CellKey, MeasuredCell, MeasuredSystem
from robustdistiller.eval.report.published import METRICS, Published
from robustdistiller.eval.report.robustness import CLEAN
from robustdistiller.eval.report.significance import DRAWS, Comparison, Estimate, compare, interval, resample
from robustdistiller.eval.results.item_scores import ItemScores
from robustdistiller.upstream import ModelName

_PREFIX = "published:"


class CompareError(ValueError):
    """A comparison that cannot be made."""


@dataclass(frozen=True)
class Side:
    """One side of a comparison: a measured or a published system.

    Example:
        >>> from robustdistiller.eval.report.published import load_published
        >>> find_side("DPHuBERT", [], load_published()).published
        'DPHuBERT'
    """

    name: str
    measured: MeasuredSystem | None = None
    published: str = ""


@dataclass(frozen=True)
class Difference:
    """One compared cell.

    Attributes:
        task, split, condition: which cell; the condition is ``mean of N`` for the mean over corrupted conditions.
        metric: name.
        unit: of the values.
        higher_is_better: direction.
        first, second: values of the two sides.
        comparison: first minus second.
        remark: why there is no interval, empty where there is one.

    Example:
        >>> one = Difference("IC", "test", "clean", "accuracy", "%", True, 75.0, 70.0, Comparison(Estimate(5.0)))
        >>> one.winner
        'first'
    """

    task: str
    split: str
    condition: str
    metric: str
    unit: str
    higher_is_better: bool
    first: float
    second: float
    comparison: Comparison
    remark: str = ""

    @property
    def winner(self) -> str:
        """``first``, ``second`` or empty: whose value is better, whether or not by chance."""
        better = self.comparison.difference.value * (1 if self.higher_is_better else -1)
        return "first" if better > 0 else "second" if better < 0 else ""


@dataclass(frozen=True)
class Missing:
    """Cells that one side lacks, and the commands that fill them.

    Example:
        >>> Missing("mine", "IC", ("clean",), ("run_downstream.py ...",)).conditions
        ('clean',)
    """

    name: str
    task: str
    conditions: tuple[str, ...]
    commands: tuple[str, ...]


def find_side(name: str, systems: Sequence[MeasuredSystem], published: Published) -> Side:
    """The system called `name`: a label of records, else a published system (``published:NAME`` to force it).

    Raises:
        CompareError: no or several systems have this name; the nearest are given.

    Example:
        >>> from robustdistiller.eval.report.published import load_published
        >>> find_side("DPHubert-2", [], load_published())
        Traceback (most recent call last):
        robustdistiller.eval.report.compare.CompareError: no system is called 'DPHubert-2'; did you mean 'DPHuBERT', ...
    """
    by_lower = {key.lower(): key for key in published.systems}
    wanted = name.removeprefix(_PREFIX).lower()
    if not name.startswith(_PREFIX):
        matching = [s for s in systems if wanted in (s.name.lower(), s.identity[0].lower())]
        if len(matching) > 1:
            raise CompareError(
                f"{name!r} names {len(matching)} systems: {'; '.join(s.name for s in matching)}; say which"
            )
        if matching:
            return Side(matching[0].name, measured=matching[0])
    if wanted in by_lower:
        return Side(by_lower[wanted], published=by_lower[wanted])
    hint = did_you_mean(name, [*by_lower.values(), *(s.name for s in systems)], most=3, cutoff=0.3)
    measured = f" (measured: {', '.join(s.name for s in systems)})" if systems else ""
    raise CompareError(f"no system is called {name!r}{hint}{measured}")


def compare_sides(
    first: Side, second: Side, published: Published, only: Iterable[str] = (), draws: int = DRAWS
) -> list[Difference]:
    """All cells that both sides have, clean first; for measured sides also the mean over corrupted conditions.

    Args:
        first, second: what to compare.
        published: published numbers.
        only: tasks to look at; all where none is given.
        draws: bootstrap samples.

    Raises:
        CompareError: the two sides are the same, or have no cell in common.
        ValueError: unknown task.

    Example:
        >>> from robustdistiller.eval.report.published import load_published
        >>> numbers = load_published()
        >>> sides = [find_side(name, [], numbers) for name in ("DPHuBERT", "DistilHuBERT")]
        >>> found = compare_sides(*sides, numbers, only=["IC"])
        >>> round(found[0].comparison.difference.value, 2), found[0].remark
        (2.93, 'published: no interval')
    """
    if (first.published, first.measured) == (second.published, second.measured):
        raise CompareError(f"{first.name!r} is on both sides")
    codes = {tasks.get(name).code for name in only}
    if first.measured and second.measured:
        found = _measured_differences(first.measured, second.measured, codes, draws)
    else:
        found = _published_differences(first, second, published, codes)
    if not found:
        within = f" of {', '.join(sorted(codes))}" if codes else ""
        raise CompareError(f"{first.name!r} and {second.name!r} have no cell{within} in common, so nothing is compared")
    return found


def _main_metric(cell: MeasuredCell) -> str:
    return cell.records[0].main_metric.name


def _measured_differences(
    first: MeasuredSystem, second: MeasuredSystem, codes: set[str], draws: int
) -> list[Difference]:
    shared = [k for k in first.cells if k in second.cells and (not codes or k.task in codes)]
    shared.sort(key=lambda k: (k.task, k.split, condition_order(k.condition), k.condition_digest))
    found: list[Difference] = []
    for task, split in dict.fromkeys((k.task, k.split) for k in shared):
        keys = [k for k in shared if (k.task, k.split) == (task, split)]
        pairs = [(first.cells[k], second.cells[k]) for k in keys]
        usable = [
            (k, a, b) for k, (a, b) in zip(keys, pairs) if _main_metric(a) in a.values and _main_metric(a) in b.values
        ]
        found += [_difference(k, a, b, draws) for k, a, b in usable]
        corrupted = [(a, b) for k, a, b in usable if k.condition != CLEAN]
        if len(corrupted) > 1:
            found.append(_mean_difference(task, split, corrupted, draws))
    return found


def _difference(key: CellKey, a: MeasuredCell, b: MeasuredCell, draws: int) -> Difference:
    metric = _main_metric(a)
    info = a.metric(metric)
    values = a.values[metric], b.values[metric]
    comparison, remark = Comparison(Estimate(values[0] - values[1])), _why_unpaired(a, b, metric)
    if not remark:
        comparison = compare(a.items[metric], b.items[metric], draws)
    return Difference(
        *(key.task, key.split, key.condition, metric, info.unit, info.higher_is_better),
        *(*values, comparison, remark),
    )


def _why_unpaired(a: MeasuredCell, b: MeasuredCell, metric: str) -> str:
    if metric not in a.items or metric not in b.items:
        return "no results of single items: no interval"
    return "" if a.ids == b.ids else "other items: no interval"


def _mean_difference(task: str, split: str, pairs: list[tuple[MeasuredCell, MeasuredCell]], draws: int) -> Difference:
    """The difference of the means over corrupted conditions, the same items drawn in all of them."""
    metric = _main_metric(pairs[0][0])
    info = pairs[0][0].metric(metric)
    means = [float(np.mean([pair[side].values[metric] for pair in pairs])) for side in (0, 1)]
    remarks = [_why_unpaired(a, b, metric) for a, b in pairs]
    remark = next((r for r in remarks if r), "")
    if not remark and len({a.ids for a, _ in pairs}) > 1:
        remark = "other items: no interval"
    comparison = Comparison(Estimate(means[0] - means[1]))
    if not remark:
        items: list[ItemScores] = [cell.items[metric] for pair in pairs for cell in pair]
        samples = resample(items, draws)  # (draws, conditions x 2)
        differences = (samples[:, ::2] - samples[:, 1::2]).mean(axis=1)
        below, above = int(np.sum(differences <= 0)), int(np.sum(differences >= 0))
        p_value = min(1.0, 2 * (min(below, above) + 1) / (draws + 1))
        comparison = Comparison(Estimate(means[0] - means[1], *interval(differences)), p_value, "paired bootstrap")
    return Difference(
        *(task, split, f"mean of {len(pairs)}", metric, info.unit, info.higher_is_better, *means, comparison, remark)
    )


def _published_differences(first: Side, second: Side, published: Published, codes: set[str]) -> list[Difference]:
    """Differences of printed numbers: where a side is published, only official test sets may be compared."""
    one, other = (_values(side, published) for side in (first, second))
    keys = [key for key in one if key in other and (not codes or key[0] in codes)]
    keys.sort(key=lambda key: (key[0], condition_order(key[1])))
    return [
        Difference(
            *(task, tasks.official_split(task), condition, metric, _unit(task, metric), METRICS[metric]),
            *(one[task, condition, metric], other[task, condition, metric]),
            Comparison(Estimate(one[task, condition, metric] - other[task, condition, metric])),
            "published: no interval",
        )
        for task, condition, metric in keys
    ]


def _unit(task: str, metric: str) -> str:
    known = tasks.TASKS.get(task)
    return next((m.unit for m in known.metrics if m.name == metric), "%") if known else "%"


def _values(side: Side, published: Published) -> dict[tuple[str, str, str], float]:
    """Task, condition and metric to value, of official test sets only."""
    if side.published:
        return {(r.task, r.condition, r.metric): r.value for r in published.of(side.published)}
    found = {}
    for key, cell in side.measured.cells.items():
        known = tasks.TASKS.get(key.task)
        official = known is not None and known.item_counts.get(key.split) == cell.items_scored
        if official and key.split == tasks.official_split(key.task):
            found |= {(key.task, key.condition, m): v for m, v in cell.values.items() if m in METRICS}
    return found


def missing_cells(first: Side, second: Side, records: str, only: Iterable[str] = ()) -> list[Missing]:
    """Cells that one of two measured systems has and the other lacks.

    Args:
        first, second: sides; published ones cannot be filled and are passed over.
        records: folder of records for the commands.
        only: tasks to look at.

    Raises:
        ValueError: unknown task.

    Example:
        >>> missing_cells(Side("a", published="DPHuBERT"), Side("b", published="DPWavLM"), "records")
        []
    """
    codes = {tasks.get(name).code for name in only}
    found = []
    if first.measured is None or second.measured is None:
        return found
    for lacking, having in ((first.measured, second.measured), (second.measured, first.measured)):
        keys = [k for k in having.cells if k not in lacking.cells and (not codes or k.task in codes)]
        keys.sort(key=lambda k: (k.task, k.split, condition_order(k.condition)))
        for task, split in dict.fromkeys((k.task, k.split) for k in keys):
            wanted = [k for k in keys if (k.task, k.split) == (task, split)]
            folds = tasks.get(task).folds if task in tasks.TASKS else ()
            cells = [having.cells[k] for k in wanted]
            commands = tuple(one for fold in folds or [""] for one in _commands(lacking, cells, records, fold))
            found.append(Missing(lacking.name, task, tuple(k.condition for k in wanted), commands))
    return found


def _commands(lacking: MeasuredSystem, wanted: list[MeasuredCell], records: str, fold: str) -> tuple[str, ...]:
    """Commands that make the cells; names in capitals stand for what records do not hold."""
    example = wanted[0].records[0]
    folder = f"HEAD_OF_{lacking.name}_ON_{example.task}".replace(" ", "_") + (f"_{fold}" if fold else "")
    option = ["-o", f"{tasks.get(example.task).fold_key}='{fold}'"] if fold else []
    commands = []
    if not any(key.task == example.task for key in lacking.cells):
        mine = next(iter(lacking.cells.values())).records[0] if lacking.cells else None
        known = bool(mine) and ModelName.parse(mine.checkpoint, strict=False).kind in ("hub", "registered")
        checkpoint = (
            ["-k", mine.checkpoint if known else f"FOLDER_OF/{mine.checkpoint}"] if mine and mine.checkpoint else []
        )
        train = ["run_downstream.py", "-m", "train", "-u", lacking.identity[1], *checkpoint, "-d", example.task]
        commands.append(shlex.join([*train, "-p", folder, "--seed", str(example.seed), *option]))
    by_seed: dict[int, list[str]] = {}
    for cell in wanted:
        by_seed.setdefault(cell.records[0].corruption_seed, []).append(cell.records[0].condition)
    for seed, conditions in by_seed.items():
        evaluate = ["run_downstream.py", "-m", "evaluate", "-e", folder, "-t", example.split, "--label", lacking.name]
        evaluate += [part for condition in conditions for part in ("--condition", condition)]
        sources = {(kind, source["name"]) for cell in wanted for kind, source in cell.records[0].sources.items()}
        evaluate += [
            p for kind, n in sorted(sources) if not n.startswith("shipped ") for p in (f"--{kind}", f"FOLDER_OF/{n}")
        ]
        evaluate += ["--corruption-seed", str(seed)] if seed else []
        commands.append(shlex.join([*evaluate, "--records", records, "--overwrite", "reuse"]))
    return tuple(commands)
