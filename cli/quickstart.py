"""`robustdistiller quickstart`: two students and their scores, on the embedded data."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from robustdistiller.cli.command import command
from robustdistiller.cli.quickstart_plan import CONDITIONS, Quickstart
from robustdistiller.common.errors import RunFailed
from robustdistiller.common.process import tail

HELP = """
Distil a plain and a robust student, train heads on clean audio, score all under noise and reverberation.

\b
  robustdistiller quickstart --steps 300 --condition reverb --out trial

Everything runs on the embedded data, offline. The scores are a sweep, whose file is written beside them: change it
and run it again with robustdistiller sweep. Interrupted and started again, only what is missing is done.
"""


@command(HELP)
def quickstart(
    out: Annotated[Path, typer.Option(help="Folder for everything; started again, it continues there.")] = Path(
        "quickstart"
    ),
    steps: Annotated[int, typer.Option(min=1, help="Training steps of each student.")] = Quickstart.steps,
    head_steps: Annotated[
        int, typer.Option(min=0, help="Training steps of each head; 0: recommended.")
    ] = Quickstart.head_steps,
    jobs: Annotated[int, typer.Option(min=0, help="Jobs side by side; 0: one per CPU core, at most 4.")] = 0,
    device: Annotated[str, typer.Option(help="Device for heads and scores: auto, cpu or cuda.")] = Quickstart.device,
    seed: Annotated[int, typer.Option(help="Seed of students and heads.")] = Quickstart.seed,
    teacher: Annotated[Path | None, typer.Option(help="Checkpoint to distil; default: the mini teacher.")] = None,
    condition: Annotated[
        list[str], typer.Option(help="Test condition, repeatable, such as noise+codec:snr_db=5,codec=opus.")
    ] = list(CONDITIONS),  # noqa: B006
) -> None:
    from robustdistiller import mini
    from robustdistiller.acoustics import Condition
    from robustdistiller.common.process import usable_cores
    from robustdistiller.eval.sweep.config import load
    from robustdistiller.eval.sweep.run import Sweep
    from robustdistiller.eval.sweep.view import run_shown

    console, started_s = Console(file=sys.stdout), time.monotonic()
    out, teacher = out.expanduser().resolve(), (teacher or mini.teacher_checkpoint()).expanduser().resolve()
    conditions = tuple(dict.fromkeys(str(Condition.parse(text)) for text in condition))
    if not teacher.is_file():
        raise ValueError(f"no teacher at {teacher}; give the file of a checkpoint, or leave out --teacher")
    plan = Quickstart(out, teacher, steps, head_steps, jobs or min(4, usable_cores()), device, seed, conditions)
    try:
        mini.build(out / "corpus", progress=console.is_terminal)
        console.print(f"mini corpus: done, in {out}", highlight=False, soft_wrap=True)
        _distil(plan, console)
        failed = run_shown(Sweep(load(plan.write_sweep())), console)
    except KeyboardInterrupt as stop:
        raise KeyboardInterrupt("stopped; what is finished is kept: the same command continues") from stop
    if failed:
        raise RunFailed(f"some scores are missing; the logs are in {out / 'jobs'}")
    _show(plan, console, time.monotonic() - started_s)


def _distil(plan: Quickstart, console: Console) -> None:
    """Train the students that are not there, in processes of their own, and show how far they are."""
    from robustdistiller.common.locks import Busy, locked
    from robustdistiller.common.process import terminate_like_interrupt
    from robustdistiller.eval.sweep.engine import run_jobs
    from robustdistiller.eval.sweep.pool import Pool
    from robustdistiller.eval.sweep.view import LiveTable

    jobs, failures = plan.distillations(), []

    def table() -> Table:
        rows = Table(box=None, padding=(0, 2, 0, 0), show_header=False)
        for job in jobs:
            rows.add_row(job.title, "".join(tail(job.log)).replace("[", r"\["))
        return rows

    def ended(job, outcome) -> tuple:
        shown.say(f"{job.title}: {outcome.state} ({outcome.wall_s:.0f} s)")
        if outcome.state == "failed":
            failures.append(f"{job.title} failed: {outcome.reason}; its log: {job.log}")
        return ()

    try:
        with locked(plan.out / ".lock", wait=False), terminate_like_interrupt(), LiveTable(console, table) as shown:
            run_jobs(Pool(workers=min(plan.jobs, 2)), jobs, ended, shown.update)
    except Busy as error:
        raise ValueError(f"{plan.out} is in use by another run; wait for it or stop it") from error
    if failures:
        raise RunFailed("\n".join(failures))


def _show(plan: Quickstart, console: Console, seconds: float) -> None:
    """The table, and where everything is."""
    from robustdistiller.cli.leaderboard import show_board
    from robustdistiller.eval.report.board import leaderboard
    from robustdistiller.eval.report.plots import plot_board
    from robustdistiller.eval.report.tables import write_board

    board = leaderboard([plan.out], published=False, reference="teacher")
    show_board(board, [], console)
    written = [*write_board(board, plan.out, ["csv", "markdown"]), *plot_board(board, plan.out)]
    lines = [
        f"Done in {seconds / 60:.1f} minutes. Everything is in {plan.out}",
        *(f"  {'plot' if path.suffix == '.png' else 'table':15} {path}" for path in written),
        f"  records         {plan.out / 'records'} (one JSON file per number)",
        *(f"  {label:15} {path}" for label, path in plan.students.items()),
        f"  sweep           {plan.out / 'quickstart.yaml'} (robustdistiller sweep runs it)",
    ]
    console.print("\n" + "\n".join(lines), highlight=False, soft_wrap=True)
