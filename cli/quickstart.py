"""`robustdistiller quickstart`: two students and their scores, on the embedded data."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from robustdistiller.cli.command import command
from robustdistiller.cli.printing import say
from robustdistiller.common.errors import RunFailed

if TYPE_CHECKING:
    from robustdistiller.cli.quickstart_plan import Quickstart

TASKS = ["words", "voices"]
CONDITIONS = ["clean", "noise:snr_db=10", "noise:snr_db=0", "reverb", "noise+reverb:snr_db=10"]


@command(keeps="what is finished")
def quickstart(
    out: Annotated[Path, typer.Option(help="Folder for everything; started again, it continues there.")] = Path(
        "quickstart"
    ),
    steps: Annotated[int, typer.Option(min=1, help="Training steps of each student.")] = 400,
    head_steps: Annotated[int, typer.Option(min=0, help="Training steps of each head; 0: recommended.")] = 0,
    jobs: Annotated[int, typer.Option(min=0, help="Jobs side by side; 0: one per CPU core, at most 4.")] = 0,
    device: Annotated[str, typer.Option(help="Device for heads and scores: auto, cpu or cuda.")] = "auto",
    seed: Annotated[int, typer.Option(min=0, max=2**32 - 1, help="Seed of students and heads.")] = 1337,
    teacher: Annotated[Path | None, typer.Option(help="Checkpoint to distil; default: the mini teacher.")] = None,
    task: Annotated[
        list[str], typer.Option(help="What heads tell apart: words, voices, initials, finals or tones; repeatable.")
    ] = TASKS,
    condition: Annotated[list[str], typer.Option(help="Test condition, such as reverb; repeatable.")] = CONDITIONS,
) -> None:
    """
    \b
      robustdistiller quickstart --steps 300 --task words --out trial

    Everything runs on the embedded data, offline. The scores are a sweep, whose file is written beside them: change it
    and run it again with robustdistiller sweep. Interrupted and started again, only what is missing is done.
    """
    from robustdistiller import mini
    from robustdistiller.acoustics import Condition
    from robustdistiller.cli.quickstart_plan import Quickstart
    from robustdistiller.common.names import refuse_unknown
    from robustdistiller.common.process import usable_cores
    from robustdistiller.eval.conditions.sources import Sources
    from robustdistiller.eval.sweep import Sweep, load
    from robustdistiller.eval.sweep.view import run_jobs_shown, run_shown
    from robustdistiller.upstream.device import usable_device

    console, started_s = Console(file=sys.stdout), time.monotonic()
    out, teacher = out.expanduser().resolve(), (teacher or mini.teacher_checkpoint()).expanduser().resolve()
    conditions = tuple(dict.fromkeys(Condition.parse(text) for text in condition))
    if not teacher.is_file():
        raise ValueError(f"no teacher at {teacher}; give the file of a checkpoint, or leave out --teacher")
    refuse_unknown(task, mini.MiniCorpus(out / "corpus").tasks, "task", "--task")
    tasks, jobs = tuple(dict.fromkeys(task)), jobs or min(4, usable_cores())
    usable_device(device)
    Sources().corruptors(conditions)  # what they draw from is there
    plan = Quickstart(out, teacher, steps, head_steps, jobs, device, seed, tasks, tuple(map(str, conditions)))
    mini.build(out / "corpus", progress=console.is_terminal)
    say(console, f"mini corpus: done, in {out}")
    config = load(plan.write_sweep())  # what it refuses, it refuses before the students are trained
    if failures := run_jobs_shown(out, plan.distillations(), min(plan.jobs, 2), console):
        raise RunFailed("\n".join(failures))
    if run_shown(Sweep(config), console):
        raise RunFailed(f"some scores are missing; the logs are in {out / 'jobs'}")
    _show(plan, console, time.monotonic() - started_s)


def _show(plan: Quickstart, console: Console, seconds: float) -> None:
    """The table, and where everything is."""
    from robustdistiller.cli.leaderboard import show_board
    from robustdistiller.cli.quickstart_plan import SHIPPED
    from robustdistiller.eval.report.board import leaderboard
    from robustdistiller.eval.report.plots import plot_board
    from robustdistiller.eval.report.tables import write_board

    board = leaderboard([plan.out], published=False, reference="teacher")
    show_board(board, [], console)
    written = [*write_board(board, plan.out, ["csv", "markdown"]), *plot_board(board, plan.out)]
    lines = [
        f"\nDone in {seconds / 60:.1f} minutes. Everything is in {plan.out}",
        *(f"  {'plot' if path.suffix == '.png' else 'table':15} {path}" for path in written),
        f"  records         {plan.out / 'records'} (one JSON file per number)",
        *(f"  {label:15} {path}" for label, path in plan.students.items()),
        f"  {SHIPPED:15} robustdistiller_mini_student, as every command calls it",
        f"  sweep           {plan.out / 'quickstart.yaml'} (robustdistiller sweep runs it)",
    ]
    say(console, "\n".join(lines))
