"""A sweep's progress in the terminal: a table that redraws itself, or plain lines where there is no terminal."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Sequence

from rich.console import Console
from rich.live import Live
from rich.markup import escape
from rich.table import Table

from robustdistiller.common.process import tail
from robustdistiller.eval.sweep.plan import duration
from robustdistiller.eval.sweep.result import Progress
from robustdistiller.eval.sweep.run import Sweep

_ORDER = ("training", "evaluating", "checking", "failed", "waiting", "done", "skipped", "reused")
_STYLES = {"failed": "red", "done": "green", "reused": "dim", "skipped": "dim", "waiting": "dim"}


class LiveTable:
    """Shows a table while work goes on; use as a context manager.

    Args:
        console: where to print.
        table: makes the table of this moment.

    Example:
        >>> with LiveTable(Console(width=80, force_terminal=False), Table) as shown:
        ...     shown.say("IC: done")
        ...     shown.update()
        IC: done
    """

    def __init__(self, console: Console, table: Callable[[], Table]) -> None:
        self.console, self._table = console, table
        self._live = Live(console=console, refresh_per_second=4, redirect_stdout=False, redirect_stderr=False)
        self._shown_s = 0.0

    def __enter__(self) -> LiveTable:
        if self.console.is_terminal:
            self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self.console.is_terminal:
            self._live.update(self._table(), refresh=True)
            self._live.stop()

    def say(self, line: str) -> None:
        """Print a line; in a terminal above the table."""
        self.console.print(line, markup=False, highlight=False, soft_wrap=True)

    def update(self) -> None:
        """Show how it is now."""
        now = time.monotonic()
        if self.console.is_terminal and now - self._shown_s > 0.2:
            self._shown_s = now
            self._live.update(self._table())


def summary(sweep: Sweep) -> str:
    """What is to be done, in a few lines: what has failed before is named, the rest is counted.

    Args:
        sweep: planned.
    """
    plans = sweep.plans.values()
    decisions = [decision for plan in plans for decision in plan.decisions.values()]
    cells = Counter(decision.run for decision in decisions)
    trained = sum(len(plan.train) for plan in plans)
    reasons = Counter(decision.why for decision in decisions if decision.run and "failed" in decision.why)
    again = [f"  {count} cells: {why}" for why, count in reasons.most_common(5)]
    time_text = sweep.estimate().text(sweep.slots)
    counts = f"{cells[True]} cells to run, {cells[False]} not; {trained} heads to train. Time: {time_text}."
    return "\n".join([counts, *again])


def run_shown(sweep: Sweep, console: Console) -> int:
    """Run a sweep, show its progress and what failed; returns 0 when nothing did, else 1.

    Args:
        sweep: planned.
        console: where to print.
    """
    started_s = time.monotonic()

    def table() -> Table:
        rows = max(5, console.height - 6)
        left = sweep.estimate()
        return progress_table(
            list(sweep.progress.values()),
            time.monotonic() - started_s,
            rows,
            left.text(sweep.engine.slots) if left.jobs else "",
        )

    with LiveTable(console, table) as shown:
        sweep.say, sweep.changed = shown.say, shown.update
        result = sweep.run()
    for failure in result.failures:
        console.print(f"failed: {failure}", style="red", markup=False, soft_wrap=True)
    return 1 if result.failures else 0


def progress_table(progress: Sequence[Progress], elapsed_s: float, rows: int = 40, left: str = "") -> Table:
    """The state of every group, what moves first; what does not fit is counted below.

    Args:
        progress: of the groups.
        elapsed_s: seconds since the start.
        rows: that fit.
        left: how long the rest may take.

    Example:
        >>> progress_table([], 61.0).caption
        '61 s, nothing to do'
    """
    counts = Counter(one.state for one in progress)
    said = ", ".join(f"{counts[state]} {state}" for state in _ORDER if counts[state]) or "nothing to do"
    table = Table(box=None, pad_edge=False, caption_justify="left", title_justify="left")
    for name, justify in (("upstream", "left"), ("task", "left"), ("seed", "right"), ("heads", "right")):
        table.add_column(name, justify=justify, no_wrap=True)
    for name, justify in (("rate", "right"), ("cells", "right"), ("state", "left")):
        table.add_column(name, justify=justify, no_wrap=True)
    table.add_column("", no_wrap=True, overflow="ellipsis", ratio=1)
    ordered = sorted(progress, key=lambda one: _ORDER.index(one.state))
    for one in ordered[:rows]:
        group, style = one.group, _STYLES.get(one.state, "")
        heads = str(one.trained) if group.learning_rates else "-"
        rate = f"{one.learning_rate:g}" if one.learning_rate else ""
        cells = f"{one.finished}/{len(group.cells)}"
        state = f"[{style}]{one.state}[/]" if style else one.state
        label, task = escape(group.upstream.entry.label), f"{group.task.name} {group.fold}".strip()
        table.add_row(label, task, str(group.seed), heads, rate, cells, state, _detail(one))
    hidden = f"; {len(ordered) - rows} more rows" if len(ordered) > rows else ""
    table.caption = f"{duration(elapsed_s)}, {said}{hidden}" + (f"; left: {left}" if left else "")
    return table


def _detail(one: Progress) -> str:
    if not one.running:
        return escape(one.detail)
    said = tail(one.running[0].log)
    return escape(said[-1] if said else one.running[0].title)
