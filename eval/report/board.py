"""What a leaderboard holds: rows of measured and of published systems, columns of cells that may be compared."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from robustdistiller.eval import tasks
from robustdistiller.eval.report.robustness import CLEAN, Robustness


@dataclass(frozen=True)
class Column:
    """Cells that may be compared with each other.

    Attributes:
        task: SUPERB code.
        split: evaluated split.
        metric: name.
        unit: ``%``, ``dB`` or empty.
        higher_is_better: direction.
        condition: one-line form, or a source's words.
        title: short form of the condition.
        items: number of items where it is not the official test set; None for the official one.
        tag: tells conditions of equal form apart that were drawn from other sources or seeds.

    Example:
        >>> Column("IC", "test", "accuracy", "%", True, "clean", "clean", items=346).task_title
        'IC (346 items)'
    """

    task: str
    split: str
    metric: str
    unit: str
    higher_is_better: bool
    condition: str
    title: str
    items: int | None = None
    tag: str = ""

    @property
    def group(self) -> tuple[str, str, str, int | None]:
        """What the columns of one task have in common."""
        return self.task, self.split, self.metric, self.items

    @property
    def task_title(self) -> str:
        """Task, with its split and items where they are not the official ones."""
        details = []
        if self.split != tasks.official_split(self.task):
            details.append(self.split)
        if self.items is not None:
            details.append(f"{self.items} items")
        return self.task + (f" ({', '.join(details)})" if details else "")

    @property
    def metric_title(self) -> str:
        """Metric with its unit and direction."""
        unit = f" {self.unit}" if self.unit else ""
        return f"{tasks.short_name(self.metric)}{unit} {'↑' if self.higher_is_better else '↓'}"


@dataclass(frozen=True)
class Cell:
    """One number of the leaderboard.

    Attributes:
        value: mean over seeds.
        low, high: bounds of its 95 % bootstrap interval, None without results of single items.
        seeds: number of seeds; 0 for a published number.
        source: key of the source of a published number, empty for a measured one.
        remark: what a reader must know.
        non_standard: in what the run differs from the benchmark's rules, one phrase each; empty for a standard run, for
            a published number, and where a record does not say.

    Example:
        >>> Cell(75.0).is_published
        False
    """

    value: float
    low: float | None = None
    high: float | None = None
    seeds: int = 1
    source: str = ""
    remark: str = ""
    non_standard: tuple[str, ...] = ()

    @property
    def is_published(self) -> bool:
        """Whether the number was read in a publication."""
        return bool(self.source)


@dataclass(frozen=True)
class Row:
    """One system.

    Attributes:
        name: shown.
        published: whether its numbers were read in publications; all of a row's numbers are of one kind.
        parameters: number of parameters; None where not known, 0 for none.
        macs_g: 1e9 multiply-accumulates on SUPERB's 32 profiling utterances; None where not known.
        cells: by column.
        superb_s: SUPERB's score, None where a task is missing.
        overall: plain mean of the eleven metrics, None where one is missing.
        robustness: summaries by group of columns.
        detail: what identifies it: checkpoint digest, or teacher and training speech.
        sources: keys of the sources of a published system's numbers.

    Example:
        >>> Row("mine", False, 23_490_000, None, {}).size
        '23.49'
    """

    name: str
    published: bool
    parameters: int | None
    macs_g: float | None
    cells: Mapping[Column, Cell]
    superb_s: float | None = None
    overall: float | None = None
    robustness: Mapping[tuple, Robustness] = field(default_factory=dict)
    detail: str = ""
    sources: tuple[str, ...] = ()

    @property
    def size(self) -> str:
        """Parameters in millions, ``-`` where there are none or their number is not known."""
        return f"{self.parameters / 1e6:.2f}" if self.parameters else "-"

    @property
    def is_standard(self) -> bool:
        """Whether nothing is known that makes one of its runs on clean official test sets non-standard."""
        return not any(c.condition == CLEAN and c.items is None and cell.non_standard for c, cell in self.cells.items())


@dataclass(frozen=True)
class Board:
    """The leaderboard.

    Attributes:
        rows: measured systems first, each kind from large to small.
        columns: in the order of tasks and conditions.
        notes: sentences about what is not shown, and why.
        sources: key to title of the sources of published numbers.

    Example:
        >>> from pathlib import Path
        >>> from robustdistiller.eval.report.measured import measured_systems
        >>> from robustdistiller.eval.results.record import example_record
        >>> from robustdistiller.eval.report.rows import build_board
        >>> board = build_board(measured_systems({Path("a.json"): example_record(label="mine")}), None)
        >>> [row.name for row in board.rows], board.columns[0].task_title
        (['mine'], 'IC (4 items)')
    """

    rows: tuple[Row, ...]
    columns: tuple[Column, ...]
    notes: tuple[str, ...]
    sources: Mapping[str, str]

    def groups(self) -> dict[tuple, list[Column]]:
        """Columns by task, split, metric and test set."""
        found: dict[tuple, list[Column]] = {}
        for column in self.columns:
            found.setdefault(column.group, []).append(column)
        return found
