"""A sweep's progress in the terminal: a table that redraws itself, or plain lines where there is no terminal."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from pathlib import Path

from rich.console import Console
from rich.live import Live
from rich.markup import escape
from rich.table import Table

from robustdistiller.common.process import tail, terminate_like_interrupt
from robustdistiller.eval.sweep.engine import Job, Outcome, run_jobs
from robustdistiller.eval.sweep.engines import folder_lock
from robustdistiller.eval.sweep.estimate import duration
from robustdistiller.eval.sweep.plan import GroupPlan
from robustdistiller.eval.sweep.pool import Pool
from robustdistiller.eval.sweep.run import Sweep

_ORDER = ("training", "evaluating", "checking", "failed", "waiting", "done", "skipped", "reused")
_STYLES = {"failed": "red", "done": "green", "reused": "dim", "skipped": "dim", "waiting": "dim"}


def _live(console: Console, table: Callable[[], Table]) -> AbstractContextManager:
    """Shows the table of each moment below what is printed, in a terminal."""
    if not console.is_terminal:
        return nullcontext()
    return Live(console=console, get_renderable=table, redirect_stdout=False, redirect_stderr=False)


def summary(sweep: Sweep) -> str:
    """What is to be done, in a few lines: what has failed before is named, the rest is counted."""
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
    """Run a sweep, show its progress and what failed; returns 0 when nothing did, else 1."""
    started_s = time.monotonic()

    def table() -> Table:
        left = sweep.estimate()
        return progress_table(
            list(sweep.plans.values()),
            time.monotonic() - started_s,
            rows=max(5, console.height - 6),
            left=left.text(sweep.slots) if left.jobs else "",
        )

    sweep.say = partial(_say, console)
    with _live(console, table):
        result = sweep.run()
    for failure in result.failures:
        _say(console, f"failed: {failure}", "red")
    return 1 if result.failures else 0


def run_jobs_shown(root: Path, jobs: Sequence[Job], workers: int, console: Console) -> list[str]:
    """Do jobs below a folder side by side in processes, and show what each says last; returns what failed."""
    pool, failures = Pool(workers=workers), []

    def table() -> Table:
        rows = Table(box=None, padding=(0, 2, 0, 0), show_header=False)
        for job in pool.running:
            rows.add_row(job.title, escape("".join(tail(job.log))))
        return rows

    def ended(job: Job, outcome: Outcome) -> list[Job]:
        _say(console, f"{job.title}: {outcome.state} ({duration(outcome.wall_s)})")
        if outcome.state == "failed":
            failures.append(f"{job.title} failed: {outcome.reason}; its log: {job.log}")
        return []

    with folder_lock(root), terminate_like_interrupt(), _live(console, table):
        run_jobs(pool, jobs, ended)
    return failures


def progress_table(plans: Sequence[GroupPlan], elapsed_s: float, rows: int = 40, left: str = "") -> Table:
    """The state of every group, what moves first; what does not fit is counted below."""
    counts = Counter(plan.state for plan in plans)
    said = ", ".join(f"{counts[state]} {state}" for state in _ORDER if counts[state]) or "nothing to do"
    hidden = f"; {len(plans) - rows} more rows" if len(plans) > rows else ""
    caption = f"{duration(elapsed_s)}, {said}{hidden}" + (f"; left: {left}" if left else "")
    table = Table(box=None, pad_edge=False, caption=caption, caption_justify="left")
    for name in ("upstream", "task", "seed", "heads", "rate", "cells", "state"):
        table.add_column(name, justify="left" if name in ("upstream", "task", "state") else "right", no_wrap=True)
    table.add_column("", no_wrap=True, overflow="ellipsis", ratio=1)
    for plan in sorted(plans, key=lambda one: _ORDER.index(one.state))[:rows]:
        group, style, chosen = plan.group, _STYLES.get(plan.state, ""), None if plan.train else plan.choice.chosen
        table.add_row(
            escape(group.system.upstream.label),
            f"{group.task.name} {group.fold}".strip(),
            str(group.seed),
            str(plan.trained) if group.learning_rates else "-",
            f"{chosen.learning_rate:g}" if chosen else "",
            f"{plan.finished}/{len(group.cells)}",
            f"[{style}]{plan.state}[/]" if style else plan.state,
            escape(_detail(plan)),
        )
    return table


def _say(console: Console, line: str, style: str | None = None) -> None:
    console.print(line, style=style, markup=False, highlight=False, soft_wrap=True)


def _detail(plan: GroupPlan) -> str:
    if not plan.running:
        return plan.detail
    return (tail(plan.running[0].log) or [plan.running[0].title])[-1]
