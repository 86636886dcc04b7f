"""Tables: made from records only, refusing records that must not stand side by side."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass

import pandas as pd

from robustdistiller.eval import tasks
from robustdistiller.eval.conditions.titles import condition_order, condition_title
from robustdistiller.eval.results.folds import mean_over_folds, missing_folds
from robustdistiller.eval.results.identity import cell_id
from robustdistiller.eval.results.record import Metric, Record, RecordError

_LISTED = 5


@dataclass(frozen=True)
class TaskTable:
    """The table of one task and split: upstreams by conditions.

    Attributes:
        task: registry name of the task.
        split: evaluated split.
        metric: name, direction and unit of the number shown.
        values: rows are labels, columns condition titles; NaN where there is no record.
        errors: standard errors, same shape, NaN where there is none.
        parameters: label to parameter count of the upstream.
        items: label to number of scored items.
        seeds: seeds every value is the mean of.
        non_standard: in what the runs differ from the benchmark's rules, one phrase each.
        part: test fold, or that the values are the mean over all; empty for a task without folds.
    """

    task: str
    split: str
    metric: Metric
    values: pd.DataFrame
    errors: pd.DataFrame
    parameters: dict[str, int]
    items: int
    seeds: tuple[int, ...]
    non_standard: tuple[str, ...] = ()
    part: str = ""

    @property
    def title(self) -> str:
        """One line that says what the numbers are."""
        arrow = "higher is better" if self.metric.higher_is_better else "lower is better"
        seeds = f", mean of seeds {', '.join(map(str, self.seeds))}" if len(self.seeds) > 1 else ""
        part = f" ({self.part})" if self.part else ""
        return f"{self.task} {self.split}{part}: {self.metric_title}, {arrow}, {self.items} items{seeds}"

    @property
    def metric_title(self) -> str:
        """Name and displayed unit of the metric."""
        return self.metric.name + (f" ({self.metric.unit})" if self.metric.unit else "")

    @property
    def note(self) -> str:
        """One sentence about runs that are not standard; empty where none is known."""
        return f"Not standard runs: {'; '.join(self.non_standard)}." if self.non_standard else ""

    def cell(self, label: str, condition: str) -> str:
        """One value with its standard error, as shown; ``-`` where there is no record."""
        value, error = self.values.loc[label, condition], self.errors.loc[label, condition]
        if math.isnan(value):
            return "-"
        text = f"{value:.1f}"
        return text if math.isnan(error) else f"{text} ±{error:.1f}"

    def size(self, label: str) -> str:
        """Parameters in millions, as shown."""
        return f"{self.parameters[label] / 1e6:.2f} M" if self.parameters[label] else "-"

    def to_markdown(self) -> str:
        """The table in Markdown, with its title."""
        head = ["upstream", "parameters", *self.values.columns]
        rows = [
            [label, self.size(label), *(self.cell(label, condition) for condition in self.values.columns)]
            for label in self.values.index
        ]
        align = ["---", *["---:"] * (len(head) - 1)]
        lines = ["| " + " | ".join(row) + " |" for row in [head, align, *rows]]
        notes = [self.note, ""] if self.note else []
        return "\n".join([f"**{self.title}**", "", *lines, "", *notes])

    def to_frame(self) -> pd.DataFrame:
        """One row per value: what the CSV file holds."""
        rows = [
            {
                "task": self.task,
                "split": self.split,
                "part": self.part,
                "upstream": label,
                "parameters": self.parameters[label],
                "condition": condition,
                "metric": self.metric.name,
                "unit": self.metric.unit,
                "value": self.values.loc[label, condition],
                "standard_error": self.errors.loc[label, condition],
                "items": self.items,
                "seeds": len(self.seeds),
            }
            for label in self.values.index
            for condition in self.values.columns
        ]
        return pd.DataFrame(rows).dropna(subset=["value"])


def standard_error(values: Iterable[float], items: int, metric: str) -> float:
    """Standard error of a score averaged over seeds.

    For accuracies in per cent the binomial error of the shared test items, which averaging over seeds does not shrink,
    plus the variance of the mean over seeds. The binomial error is taken at Laplace's estimate (one more hit and one
    more miss), so that it is not zero where nothing or everything was right. For other metrics only the latter, NaN
    with one seed.

    Example:
        >>> round(standard_error([50.0], 100, "accuracy"), 1), round(standard_error([0.0], 100, "accuracy"), 1)
        (5.0, 1.0)
        >>> standard_error([12.0], 100, "wer")
        nan
    """
    values = list(values)
    mean = sum(values) / len(values)
    between = sum((v - mean) ** 2 for v in values) / (len(values) - 1) / len(values) if len(values) > 1 else 0.0
    if metric == "accuracy":
        share = (mean / 100 * items + 1) / (items + 2)
        return math.sqrt(100**2 * share * (1 - share) / items + between)
    return math.sqrt(between) if len(values) > 1 else math.nan


def build_tables(records: Iterable[Record]) -> list[TaskTable]:
    """Group records into one table per task and split; one per fold, and their mean, where a task has folds.

    Raises:
        RecordError: there are no records; a record is partial or failed; heads of different configuration, training
            condition or metric are mixed; upstreams heard different noise under the same condition; two records of one
            cell disagree; cells are means over different seeds.

    Example:
        >>> from robustdistiller.eval.results.record import example_record
        >>> table, = build_tables([example_record()])
        >>> print(table.to_markdown())
        **IC test: accuracy (%), higher is better, 4 items**
        <BLANKLINE>
        | upstream | parameters | clean |
        | --- | ---: | ---: |
        | fbank | - | 75.0 ±23.6 |
        <BLANKLINE>
    """
    groups: dict[tuple[str, str, str], list[Record]] = defaultdict(list)
    usable = _usable(records)
    for record in usable:
        groups[record.task, record.split, record.fold].append(record)
    means: dict[tuple[str, str, str], list[Record]] = defaultdict(list)
    for record in _means([record for record in usable if record.fold]):
        means[record.task, record.split, f"mean of {len(tasks.get(record.task).folds)} folds"].append(record)
    return [_build(*key, group) for key, group in [*sorted(groups.items()), *sorted(means.items())]]


def _means(records: list[Record]) -> list[Record]:
    """The means of cells and seeds that have all their folds."""
    cells: dict[tuple, list[Record]] = defaultdict(list)
    for record in records:
        cells[(*row_of(record), record.task, record.split, record.seed, cell_id(record).condition)].append(record)
    return [mean_over_folds(group) for group in cells.values() if not missing_folds(group)]


def _usable(records: Iterable[Record]) -> list[Record]:
    """Finished records, one per cell."""
    records = list(records)
    if not records:
        raise RecordError("there are no records to make a table from; run_downstream.py -m evaluate writes them")
    unfinished = [r for r in records if r.status != "ok"]
    if unfinished:
        lines = [f"  {_name(r)}: {r.status}, {r.reason}" for r in unfinished[:_LISTED]]
        more = [f"  and {len(unfinished) - _LISTED} more"] if len(unfinished) > _LISTED else []
        raise RecordError(
            "\n".join(
                [
                    f"{len(unfinished)} of {len(records)} records are not finished, so there is no table:",
                    *lines,
                    *more,
                    "Evaluate these cells again, or delete their files.",
                ]
            )
        )
    cells: dict[tuple, Record] = {}
    for record in records:
        other = cells.setdefault(cell_id(record), record)
        if other.metrics != record.metrics:
            raise RecordError(
                f"two records of the same cell disagree: {_name(record)} has {other.main_metric.name} "
                f"{other.main_metric.value} (started {other.start_utc}) and {record.main_metric.value} "
                f"(started {record.start_utc}); delete one of the files"
            )
    return list(cells.values())


def _name(record: Record) -> str:
    return f"{record.label} / {record.task} / {record.condition} / seed {record.seed}"


def _refuse_mixture(what: str, found: dict[str, Record], where: str) -> None:
    """Raise when `found` (value to one record that has it) holds more than one value."""
    if len(found) > 1:
        examples = "; ".join(f"{value[:12]} in {_name(record)}" for value, record in list(found.items())[:_LISTED])
        raise RecordError(f"records of {where} differ in {what} and cannot stand in one table: {examples}")


def _build(task: str, split: str, part: str, records: list[Record]) -> TaskTable:
    where = f"task {task}, split {split}" + (f", {part}" if part else "")
    _refuse_mixture("the training condition of the head", {r.train_condition: r for r in records}, where)
    _refuse_mixture("what the task's rules fix", {cell_id(r).rules: r for r in records}, where)
    _refuse_mixture("the metric", {f"{r.main_metric.name} {r.main_metric.unit}": r for r in records}, where)
    _refuse_mixture("the number of items", {str(r.items_scored): r for r in records}, where)
    records = sorted(records, key=lambda r: (-(r.parameters or 0), r.label))  # the rows' order
    rows, columns = row_labels(records), _column_titles(records)

    cells: dict[tuple[str, str], list[Record]] = defaultdict(list)
    manifests: dict[str, dict[str, Record]] = defaultdict(dict)
    for record in records:
        column = columns[cell_id(record).condition]
        cells[rows[row_of(record)], column].append(record)
        manifests[column].setdefault(record.manifest_digest, record)
    for column, found in manifests.items():
        _refuse_mixture(f"the noise that was heard under {column!r} (manifest digest)", found, where)
    seeds = {cell: tuple(sorted(r.seed for r in group)) for cell, group in cells.items()}
    _refuse_mixture("seeds", {", ".join(map(str, s)): cells[cell][0] for cell, s in seeds.items()}, where)

    metric, items = records[0].main_metric, records[0].items_scored
    ordered = sorted({(condition_order(r.condition), columns[cell_id(r).condition]) for r in records})
    values = pd.DataFrame(index=list(dict.fromkeys(rows.values())), columns=[c for _, c in ordered], dtype=float)
    errors = values.copy()
    for (row, column), group in cells.items():
        scores = [r.main_metric.value for r in group]
        if any(score is None for score in scores):
            continue
        values.loc[row, column] = sum(scores) / len(scores)
        errors.loc[row, column] = standard_error(scores, items, metric.name)
    parameters = {rows[row_of(r)]: r.parameters or 0 for r in records}
    marks = tuple(dict.fromkeys(phrase for r in records for phrase in r.non_standard or ()))
    return TaskTable(task, split, metric, values, errors, parameters, items, next(iter(seeds.values())), marks, part)


def row_of(record: Record) -> tuple[str, str, str, str]:
    """What makes two records the same row of a table.

    Example:
        >>> from robustdistiller.eval.results.record import example_record
        >>> row_of(example_record(label="mine"))
        ('mine', 'fbank', 'none', '')
    """
    return record.label, record.upstream, record.checkpoint_digest, record.upstream_options


def row_labels(records: list[Record]) -> dict[tuple[str, str, str, str], str]:
    """A distinct label per row; upstream, digest and options are shown where labels collide.

    Example:
        >>> from robustdistiller.eval.results.record import example_record
        >>> list(row_labels([example_record(), example_record(upstream_options="no_pred: true")]).values())
        ['fbank (fbank none)', 'fbank (fbank none no_pred: true)']
    """
    identities = list(dict.fromkeys(map(row_of, records)))
    taken = [identity[0] for identity in identities]
    named = {}
    for label, upstream, digest, options in identities:
        details = " ".join(part for part in (upstream, digest[:8], options.strip()) if part)
        named[label, upstream, digest, options] = label if taken.count(label) == 1 else f"{label} ({details})"
    return named


def _column_titles(records: list[Record]) -> dict[str, str]:
    """A distinct title per condition; sources and seed are told apart where titles collide."""
    conditions = {cell_id(r).condition: r.condition for r in records}
    titles = {digest: condition_title(condition) for digest, condition in conditions.items()}
    taken = list(titles.values())
    return {d: title if taken.count(title) == 1 else f"{title} [{d[:6]}]" for d, title in titles.items()}
