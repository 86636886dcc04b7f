"""The leaderboard as plain grids: for the terminal, Markdown and LaTeX."""

from __future__ import annotations

from collections.abc import Callable, Sequence, Set
from dataclasses import dataclass
from pathlib import Path

from robustdistiller.common.files import write_text
from robustdistiller.eval.report.board import REFERENCE_SYSTEMS, TITLE, Board, Summary, best_rows, clean_columns
from robustdistiller.eval.report.cells import Column
from robustdistiller.eval.report.robustness import summary_names
from robustdistiller.eval.report.rows import Row
from robustdistiller.eval.report.significance import Estimate
from robustdistiller.eval.report.utterances import utterance_scores
from robustdistiller.eval.results.identity import CLEAN
from robustdistiller.eval.results.record import digits_of
from robustdistiller.eval.tasks.superb import PAPER_TASKS

PUBLISHED_MARK, NON_STANDARD_MARK, FEWER_SEEDS_MARK = "†", "‡", "§"
_SPECIAL = {
    **{character: "\\" + character for character in "&%$#_{}"},
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "\\": r"\textbackslash{}",
    "↑": r"$\uparrow$",
    "↓": r"$\downarrow$",
    "†": r"\textsuperscript{\dag}",
    "‡": r"\textsuperscript{\ddag}",
    "§": r"\S{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
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
    """

    title: str
    header: Sequence[str]
    subheader: Sequence[str]
    rows: Sequence[Sequence[str]]
    best: Set[tuple[int, int]]
    notes: Sequence[str] = ()

    def to_markdown(self) -> str:
        """The grid in Markdown."""
        head = [f"{a}<br>{b}" if b else a for a, b in zip(self.header, self.subheader)]
        lines = [head, ["---", *["---:"] * (len(head) - 1)], *self._emphasised("**{}**".format)]
        table = ["| " + " | ".join(text.replace("|", r"\|") for text in line) + " |" for line in lines]
        return "\n".join([f"**{self.title}**", "", *table, "", *(f"{note}\n" for note in self.notes)])

    def to_latex(self) -> str:
        r"""The grid as a LaTeX table; needs ``\usepackage{booktabs}``."""
        heads = [map(_latex, line) for line in (self.header, self.subheader) if any(line)]
        head, body = (
            [" & ".join(line) + r" \\" for line in lines]
            for lines in (heads, self._emphasised(r"\textbf{{{}}}".format, _latex))
        )
        parts = [
            *(r"\begin{table}", r"\centering", rf"\caption{{{_latex(self.title)}}}"),
            *(rf"\begin{{tabular}}{{l{'r' * (len(self.header) - 1)}}}", r"\toprule", *head, r"\midrule", *body),
            *(r"\bottomrule", r"\end{tabular}"),
            *(rf"\par\smallskip\footnotesize {_latex(note)}" for note in self.notes),
            *(r"\end{table}", ""),
        ]
        return "\n".join(parts)

    def _emphasised(self, bold: Callable[[str], str], escape: Callable[[str], str] = str) -> list[list[str]]:
        """The rows, the best values in bold."""
        return [
            [bold(escape(text)) if (i, j) in self.best else escape(text) for j, text in enumerate(row)]
            for i, row in enumerate(self.rows)
        ]


def _latex(text: str) -> str:
    """Text that prints as it is; at the begin of a row, a bracket or a star would be the row's own."""
    start = "{}" if text.startswith(("[", "*")) else ""
    return start + "".join(_SPECIAL.get(character, character) for character in text)


def number(value: float, metric: str = "") -> str:
    """A value as shown."""
    digits = digits_of(metric)
    return f"{round(value, digits) + 0.0:.{digits}f}"  # + 0.0: no "-0.00"


def estimate_text(estimate: Estimate | str | None, metric: str = "", mark: str = "") -> str:
    """An estimate with its interval, where it has one."""
    if estimate is None or isinstance(estimate, str):
        return estimate or "-"
    bounds = ", ".join(number(bound, metric) for bound in estimate.interval or ())
    return number(estimate.value, metric) + mark + (f" [{bounds}]" if bounds else "")


def grids(board: Board, systems: Sequence[str] = REFERENCE_SYSTEMS) -> list[Grid]:
    """The grid of clean speech, and one for each task that was scored under conditions."""
    found = [clean_grid(board, systems)]
    for group, columns in board.groups.items():
        rows = [row for row in board.shown(systems) if any(column in row.cells for column in columns)]
        columns = [column for column in columns if any(column in row.cells for row in rows)]
        if any(column.condition != CLEAN for column in columns):
            found.append(_condition_grid(board.summaries(group), columns, rows))
    return found


def clean_grid(board: Board, systems: Sequence[str] = REFERENCE_SYSTEMS) -> Grid:
    """Clean test sets: systems by tasks, with size, overall mean and ``superb_s``.

    Tasks beyond the ten of the papers have a column where a measured system has a score.
    """
    rows = board.shown(systems)
    columns = clean_columns(board, rows, PAPER_TASKS)
    texts = [
        [
            *(_row_name(row), row.size, f"{row.macs_g:.1f}" if row.macs_g is not None else "-"),
            *(_cell_text(row, column, columns) for column in columns),
            *(_total(row, row.overall, 1), _total(row, row.superb_s, 0)),
        ]
        for row in rows
    ]
    return Grid(
        "Clean speech",
        ["system", "size", "MACs", *(c.task_title for c in columns), "overall", "superb_s"],
        ["", "M", "G", *(c.metric_title for c in columns), "mean ↑", "↑"],
        texts,
        {(i, j + 3) for j, column in enumerate(columns) for i in best_rows(rows, column)},
        [*_legend(texts), *board.notes],
    )


def _total(row: Row, value: float | None, digits: int) -> str:
    """A score over tasks, marked where one of them was no standard run."""
    mark = "" if row.is_standard else f" {NON_STANDARD_MARK}"
    return "-" if value is None else f"{value:.{digits}f}{mark}"


def _row_name(row: Row) -> str:
    return row.name + (f" {PUBLISHED_MARK}" if row.published else "")


def _cell_text(row: Row, column: Column, columns: Sequence[Column], interval: bool = False) -> str:
    """One number; marked where its run is not standard, or where the system has more seeds elsewhere in the row."""
    cell = row.cells.get(column)
    if cell is None:
        return "-"
    seeds = max(len(row.cells[c].values) for c in columns if c in row.cells and c.task == column.task)
    marks = (NON_STANDARD_MARK if cell.non_standard else "") + (FEWER_SEEDS_MARK if len(cell.values) < seeds else "")
    estimate = column.bounded(cell.estimate) if interval else Estimate(cell.value)
    return estimate_text(estimate, column.metric, marks and f" {marks}")


def _legend(texts: Sequence[Sequence[str]]) -> list[str]:
    """What the marks in a grid mean."""
    meanings = {
        PUBLISHED_MARK: "published by others, not measured here.",
        NON_STANDARD_MARK: "not a standard run: it differs from the rules of the task, as its records say.",
        FEWER_SEEDS_MARK: "mean of fewer seeds than the system has elsewhere in this task.",
    }
    shown = " ".join(text for row in texts for text in row)
    numbers = " ".join(text for row in texts for text in row[1:])
    notes = [f"{mark} {words}" for mark, words in meanings.items() if mark in shown]
    interval = "Brackets: 95 % confidence interval over items (speakers where they are known) and seeds."
    return [*notes, interval] if "[" in numbers else notes


def _condition_grid(summaries: Sequence[Summary], columns: list[Column], rows: list[Row]) -> Grid:
    found = {(summary.published, name): one for summary in summaries for name, one in summary.rows.items()}
    names, first = summary_names(found.values()), columns[0]
    texts = [
        [_row_name(row), *(_cell_text(row, c, columns, interval=True) for c in columns)]
        + [estimate_text(found.get((row.published, row.name), {}).get(name), first.metric) for name in names]
        for row in rows
    ]
    unit = f" ({first.unit})" if first.unit else ""
    direction = "higher is better" if first.higher_is_better else "lower is better"
    corrupted = [column for column in columns if column.condition != CLEAN]
    notes = _legend(texts)
    for summary in summaries:
        over = f"what these systems share: {', '.join(column.title for column in summary.columns)}"
        which = "all corrupted conditions" if list(summary.columns) == corrupted else over
        notes.append(f"Summaries of {', '.join(summary.rows)}: over {which}.")
    if names:
        notes.append("; ".join(f"{name}: {meaning}" for name, meaning in names.items()) + ".")
    return Grid(
        f"{first.task_title}: {first.metric.replace('_', ' ')}{unit}, {direction}",
        ["system", *(column.title for column in columns), *names],
        [""] * (1 + len(columns) + len(names)),
        texts,
        {(i, j + 1) for j, column in enumerate(columns) for i in best_rows(rows, column)},
        notes,
    )


#: Formats of `write_board`: the file, and what makes its text of a board, shown systems and a title.
FORMATS: dict[str, tuple[str, Callable[[Board, Sequence[str], str], str]]] = {
    "csv": ("leaderboard.csv", lambda board, systems, title: board.frame.to_csv(index=False)),
    "robustness": ("robustness.csv", lambda board, systems, title: board.robustness.to_csv(index=False)),
    "markdown": ("leaderboard.md", lambda board, systems, title: board.to_markdown(systems)),
    "latex": ("leaderboard.tex", lambda board, systems, title: _latex_tables(grids(board, systems))),
    "html": ("leaderboard.html", lambda board, systems, title: board.to_html(title)),
    "utterances": ("utterances.csv", lambda board, systems, title: utterance_scores(board).to_csv(index=False)),
}
DEFAULT_FORMATS = ("csv", "robustness", "markdown", "latex", "html")


def _latex_tables(shown: Sequence[Grid]) -> str:
    return "% needs \\usepackage{booktabs}\n" + "\n".join(grid.to_latex() for grid in shown)


def write_board(
    board: Board,
    folder: Path | str,
    formats: Sequence[str] = DEFAULT_FORMATS,
    systems: Sequence[str] = REFERENCE_SYSTEMS,
    title: str = TITLE,
) -> list[Path]:
    """Write a leaderboard's files."""
    files = [FORMATS[name] for name in formats]
    return [write_text(Path(folder) / name, text_of(board, systems, title)) for name, text_of in files]
