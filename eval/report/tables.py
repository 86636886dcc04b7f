"""The leaderboard as plain grids: Markdown, LaTeX and CSV."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import pandas as pd

from robustdistiller.eval.report.board import Board, Cell, Column, Row
from robustdistiller.eval.report.robustness import CLEAN
from robustdistiller.eval.report.rows import REFERENCE_SYSTEMS
from robustdistiller.eval.report.significance import Estimate
from robustdistiller.eval.tasks.superb import PAPER_TASKS

PUBLISHED_MARK, NON_STANDARD_MARK = "†", "‡"
_SPECIAL = {
    **{character: "\\" + character for character in "&%$#_{}"},
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "\\": r"\textbackslash{}",
    "↑": r"$\uparrow$",
    "↓": r"$\downarrow$",
    "†": r"\textsuperscript{\dag}",
    "‡": r"\textsuperscript{\ddag}",
    "±": r"$\pm$",
}


@dataclass(frozen=True)
class Grid:
    """A table ready to print.

    Attributes:
        title: one line.
        header: first line of each column's head.
        subheader: second line (metric and direction), as many.
        rows: text of the cells; published systems carry a mark.
        best: (row, column) of the best measured and published value of each column.
        notes: below the table.

    Example:
        >>> grid = Grid("Scores", ["system", "IC"], ["", "accuracy %"], [["mine", "75.00"]], {(0, 1)}, ["one seed"])
        >>> print(grid.to_markdown())
        **Scores**
        <BLANKLINE>
        | system | IC<br>accuracy % |
        | --- | ---: |
        | mine | **75.00** |
        <BLANKLINE>
        one seed
        <BLANKLINE>
    """

    title: str
    header: Sequence[str]
    subheader: Sequence[str]
    rows: Sequence[Sequence[str]]
    best: frozenset[tuple[int, int]] | set[tuple[int, int]]
    notes: Sequence[str] = ()

    def to_markdown(self) -> str:
        """The grid in Markdown."""

        def line(texts: Sequence[str]) -> str:
            return "| " + " | ".join(text.replace("|", r"\|") for text in texts) + " |"

        head = [f"{a}<br>{b}" if b else a for a, b in zip(self.header, self.subheader)]
        rows = [
            line([f"**{text}**" if (i, j) in self.best else text for j, text in enumerate(row)])
            for i, row in enumerate(self.rows)
        ]
        align = line(["---", *["---:"] * (len(head) - 1)])
        notes = [part for note in self.notes for part in (note, "")]
        return "\n".join([f"**{self.title}**", "", line(head), align, *rows, "", *notes])

    def to_latex(self) -> str:
        r"""The grid as a LaTeX table; needs ``\usepackage{booktabs}``.

        Example:
            >>> print(Grid("A_b", ["system", "IC"], ["", ""], [["a&b", "7"]], {(0, 1)}).to_latex())
            \begin{table}
            \centering
            \caption{A\_b}
            \begin{tabular}{lr}
            \toprule
            system & IC \\
            \midrule
            a\&b & \textbf{7} \\
            \bottomrule
            \end{tabular}
            \end{table}
            <BLANKLINE>
        """

        def line(texts: Sequence[str]) -> str:
            return " & ".join(texts) + r" \\"

        head = [line([_latex(text) for text in self.header])]
        if any(self.subheader):
            head.append(line([_latex(text) for text in self.subheader]))
        body = [
            line([rf"\textbf{{{_latex(t)}}}" if (i, j) in self.best else _latex(t) for j, t in enumerate(row)])
            for i, row in enumerate(self.rows)
        ]
        notes = [rf"\par\smallskip\footnotesize {_latex(note)}" for note in self.notes]
        parts = [
            *(r"\begin{table}", r"\centering", rf"\caption{{{_latex(self.title)}}}"),
            *(rf"\begin{{tabular}}{{l{'r' * (len(self.header) - 1)}}}", r"\toprule", *head, r"\midrule", *body),
            *(r"\bottomrule", r"\end{tabular}", *notes, r"\end{table}", ""),
        ]
        return "\n".join(parts)


def _latex(text: str) -> str:
    return "".join(_SPECIAL.get(character, character) for character in text)


def number(value: float, metric: str = "") -> str:
    """A value as shown: MTWV with four digits after the point, everything else with two.

    Example:
        >>> number(0.0693, "mtwv"), number(97.916, "accuracy"), number(-1e-9)
        ('0.0693', '97.92', '0.00')
    """
    digits = 4 if metric == "mtwv" else 2
    return f"{round(value, digits) + 0.0:.{digits}f}"  # + 0.0: no "-0.00"


def shown_rows(board: Board, systems: Sequence[str] = REFERENCE_SYSTEMS) -> list[Row]:
    """All measured rows, and the published ones of some systems.

    Args:
        board: the leaderboard.
        systems: names of published systems; ``all`` for every one.

    Example:
        >>> from robustdistiller.eval.report.rows import build_board
        >>> from robustdistiller.eval.report.published import load_published
        >>> [row.name for row in shown_rows(build_board([], load_published()), ["DPHuBERT"])]
        ['DPHuBERT']
    """
    return [row for row in board.rows if not row.published or "all" in systems or row.name in systems]


def _best(rows: Sequence[Row], column: Column) -> set[int]:
    """Rows with the best value, among measured and among published systems: the two are not ranked against another."""
    found = set()
    for published in (False, True):
        values = {
            i: r.cells[column].value for i, r in enumerate(rows) if r.published == published and column in r.cells
        }
        if len(values) > 1:
            best = max(values.values()) if column.higher_is_better else min(values.values())
            found |= {i for i, value in values.items() if value == best}
    return found


def _cell_text(cell: Cell | None, metric: str) -> str:
    return "-" if cell is None else number(cell.value, metric) + _mark(cell)


def _mark(cell: Cell) -> str:
    return f" {NON_STANDARD_MARK}" if cell.non_standard else ""


def _row_name(row: Row) -> str:
    return row.name + (f" {PUBLISHED_MARK}" if row.published else "")


def _legend(rows: Sequence[Row]) -> list[str]:
    notes = [f"{PUBLISHED_MARK} published by others, not measured here."] if any(row.published for row in rows) else []
    if any(cell.non_standard for row in rows for cell in row.cells.values()):
        notes.append(
            f"{NON_STANDARD_MARK} not a standard run: it differs from the benchmark's rules, as its records say."
        )
    return notes


def clean_grid(board: Board, systems: Sequence[str] = REFERENCE_SYSTEMS) -> Grid:
    """Clean test sets: systems by tasks, with size, overall mean and ``superb_s``.

    Tasks beyond the ten of the papers have a column where a measured system has a score.

    Example:
        >>> from robustdistiller.eval.report.rows import build_board
        >>> from robustdistiller.eval.report.published import load_published
        >>> grid = clean_grid(build_board([], load_published()), ["DPHuBERT"])
        >>> grid.rows[0][:3], grid.rows[0][-1]
        (['DPHuBERT †', '23.59', '654.1'], '866')
    """
    rows = shown_rows(board, systems)
    columns = [
        c
        for c in board.columns
        if c.condition == CLEAN and any(c in r.cells and (c.task in PAPER_TASKS or not r.published) for r in rows)
    ]
    texts = [
        [
            _row_name(row),
            row.size,
            f"{row.macs_g:.1f}" if row.macs_g is not None else "-",
            *(_cell_text(row.cells.get(column), column.metric) for column in columns),
            _total(row, row.overall, 1),
            _total(row, row.superb_s, 0),
        ]
        for row in rows
    ]
    best = {(i, j + 3) for j, column in enumerate(columns) for i in _best(rows, column)}
    return Grid(
        "Clean speech",
        ["system", "size", "MACs", *(c.task_title for c in columns), "overall", "superb_s"],
        ["", "M", "G", *(c.metric_title for c in columns), "mean ↑", "↑"],
        texts,
        best,
        [*_legend(rows), *board.notes],
    )


def _total(row: Row, value: float | None, digits: int) -> str:
    """A score over tasks, marked where one of them was no standard run."""
    if value is None:
        return "-"
    return f"{value:.{digits}f}" + ("" if row.is_standard else f" {NON_STANDARD_MARK}")


def condition_grids(board: Board, systems: Sequence[str] = REFERENCE_SYSTEMS) -> list[Grid]:
    """One grid for each task that was scored under conditions: systems by conditions, with robustness summaries.

    Example:
        >>> from robustdistiller.eval.report.rows import build_board
        >>> from robustdistiller.eval.report.published import load_published
        >>> grids = condition_grids(build_board([], load_published()), ["all"])
        >>> grids[0].title.startswith("KS"), grids[0].header[:3]
        (True, ['system', 'clean', 'noise from CHiME backgrounds, 10 to 20 dB'])
    """
    grids = []
    for group, columns in board.groups().items():
        rows = [row for row in shown_rows(board, systems) if any(column in row.cells for column in columns)]
        columns = [column for column in columns if any(column in row.cells for row in rows)]
        if not any(column.condition != CLEAN for column in columns):
            continue
        grids.append(_condition_grid(group, columns, rows))
    return grids


def _condition_grid(group: tuple, columns: list[Column], rows: list[Row]) -> Grid:
    found = [row.robustness.get(group) for row in rows]
    curves = list(dict.fromkeys(name for one in found if one for name in one.areas))
    summaries = ["mean", "loss", *(f"area, {name}" for name in curves)] if any(found) else []
    texts = []
    for row, one in zip(rows, found):
        numbers = [interval_text(row.cells.get(column), column.metric) for column in columns]
        if summaries:
            estimates = [one.mean, one.degradation, *(one.areas.get(name) for name in curves)] if one else []
            numbers += [estimate_text(e) for e in estimates] or ["-"] * len(summaries)
        texts.append([_row_name(row), *numbers])
    first = columns[0]
    direction = "higher is better" if first.higher_is_better else "lower is better"
    notes = _legend(rows)
    if any(cell.low is not None for row in rows for cell in row.cells.values()):
        notes.append("Brackets: 95 % bootstrap interval over utterances.")
    if summaries:
        notes.append(
            "mean: over the corrupted conditions; loss: its relative loss from clean in per cent; "
            "area: under metric against SNR, divided by the range of SNRs."
        )
    unit = f" ({first.unit})" if first.unit else ""
    return Grid(
        f"{first.task_title}: {first.metric.replace('_', ' ')}{unit}, {direction}",
        ["system", *(column.title for column in columns), *summaries],
        [""] * (1 + len(columns) + len(summaries)),
        texts,
        {(i, j + 1) for j, column in enumerate(columns) for i in _best(rows, column)},
        notes,
    )


def interval_text(cell: Cell | None, metric: str = "") -> str:
    """A cell with its interval, where it has one.

    Example:
        >>> interval_text(Cell(50.0, 45.0, 55.0)), interval_text(None)
        ('50.00 [45.00, 55.00]', '-')
    """
    if cell is None or cell.low is None:
        return _cell_text(cell, metric)
    return f"{number(cell.value, metric)}{_mark(cell)} [{number(cell.low, metric)}, {number(cell.high, metric)}]"


def estimate_text(estimate: Estimate | None) -> str:
    """A summary with its interval, where it has one.

    Example:
        >>> estimate_text(Estimate(12.345)), estimate_text(None)
        ('12.35', '-')
    """
    return "-" if estimate is None else interval_text(Cell(estimate.value, estimate.low, estimate.high))


def to_csv(board: Board) -> pd.DataFrame:
    """One line for every number, measured and published told apart by `origin`.

    Example:
        >>> from robustdistiller.eval.report.rows import build_board
        >>> from robustdistiller.eval.report.published import load_published
        >>> sorted(set(to_csv(build_board([], load_published())).origin))
        ['published']
    """
    lines = [
        {
            "system": row.name,
            "origin": "published" if row.published else "measured",
            "parameters": row.parameters,
            "macs_g": row.macs_g,
            "task": column.task,
            "split": column.split,
            "items": "official" if column.items is None else column.items,
            "metric": column.metric,
            "unit": column.unit,
            "higher_is_better": column.higher_is_better,
            "condition": column.condition,
            "condition_tag": column.tag,
            "value": cell.value,
            "low": cell.low,
            "high": cell.high,
            "seeds": cell.seeds or None,
            "source": cell.source,
            "non_standard": "; ".join(cell.non_standard),
            "remark": cell.remark,
        }
        for row in board.rows
        for column, cell in row.cells.items()
    ]
    return pd.DataFrame(lines)
