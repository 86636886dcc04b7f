"""`robustdistiller quickstart`: the main job, end to end, on the data and the teacher that ship with the package."""

from __future__ import annotations

import logging
import time
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.live import Live
from rich.table import Table

from robustdistiller.acoustics import Condition
from robustdistiller.cli.leaderboard import show_board
from robustdistiller.cli.main_job import MainJob, cores
from robustdistiller.cli.stages import Job, JobLocked, StageFailed
from robustdistiller.eval.report.board import leaderboard
from robustdistiller.eval.report.plots import plot_board
from robustdistiller.eval.report.tables import write_board

logger = logging.getLogger(__name__)

_STYLES = {"running": "cyan", "done": "green", "reused": "green", "failed": "red", "stopped": "yellow"}


def quickstart(
    out: Annotated[Path, typer.Option(help="Folder for everything; started again, it continues there.")] = Path(
        "quickstart"
    ),
    steps: Annotated[int, typer.Option(min=1, help="Training steps of each student.")] = MainJob.distill_steps,
    head_steps: Annotated[
        int, typer.Option(min=0, help="Training steps of each head; 0: recommended.")
    ] = MainJob.head_steps,
    jobs: Annotated[int, typer.Option(min=0, help="Stages side by side; 0: one per CPU core, at most 4.")] = 0,
    device: Annotated[str, typer.Option(help="Device for heads and scores.")] = MainJob.device,
    seed: Annotated[int, typer.Option(help="Seed of students and heads.")] = MainJob.seed,
    teacher: Annotated[Path | None, typer.Option(help="Checkpoint to distil; default: the mini teacher.")] = None,
    condition: Annotated[
        list[str], typer.Option(help="Test condition, repeatable, such as noise+codec:snr_db=5,codec=opus.")
    ] = list(MainJob.conditions),  # noqa: B006
) -> None:
    """Distil a plain and a robust student, train heads on clean audio, score all under noise and reverberation.

    Everything runs on the embedded data, offline. Each stage writes a log, each score one JSON record; interrupted and
    started again, only what is missing is done.
    """
    console, errors = Console(), Console(stderr=True)
    out = out.expanduser().resolve()
    try:
        conditions = tuple(dict.fromkeys(str(Condition.parse(text)) for text in condition))
    except ValueError as error:
        errors.print(f"robustdistiller quickstart: {error}", style="red", markup=False, highlight=False, soft_wrap=True)
        raise typer.Exit(1) from error
    settings = MainJob(out, steps, head_steps, device, seed, teacher and teacher.resolve(), conditions)
    if not settings.teacher_checkpoint.is_file():
        errors.print(f"robustdistiller quickstart: no teacher at {settings.teacher_checkpoint}", style="red")
        raise typer.Exit(1)
    workers = jobs or min(4, cores())
    hide_gpu = {"CUDA_VISIBLE_DEVICES": ""} if device == "cpu" else {}
    job = Job(settings.stages(), out, workers, min(4, max(1, cores() // workers)), hide_gpu)
    console.print(
        f"Main job in {out}: {len(job.stages)} stages, {workers} side by side, {job.threads} thread(s) each.",
        highlight=False,
        soft_wrap=True,
    )
    started = time.monotonic()
    try:
        _run(job, console)
    except KeyboardInterrupt as interrupt:
        errors.print("Stopped. Everything finished so far is kept: the same command continues.", style="yellow")
        raise typer.Exit(130) from interrupt
    except (StageFailed, JobLocked) as error:
        errors.print(f"robustdistiller quickstart: {error}", style="red", markup=False, highlight=False, soft_wrap=True)
        raise typer.Exit(1) from error
    try:
        written = show_results(settings.records, out, console)
    except (FileNotFoundError, ValueError) as error:
        errors.print(f"robustdistiller quickstart: {error}", style="red", markup=False, highlight=False, soft_wrap=True)
        raise typer.Exit(1) from error
    console.print(_where(settings, written, time.monotonic() - started), highlight=False, soft_wrap=True)


def show_results(records: Path, out: Path, console: Console) -> list[Path]:
    """Print the table of the main job's records; write it as CSV and Markdown, and one plot."""
    board = leaderboard([records], published=False, reference="teacher")
    show_board(board, [], console)
    return write_board(board, out, ["csv", "markdown"]) + plot_board(board, out)


def _run(job: Job, console: Console) -> None:
    """Run the job with a live table on a terminal, or with a line per event elsewhere."""
    if console.is_terminal:
        with Live(console=console, refresh_per_second=4, transient=False) as live:
            job.run(lambda: live.update(_status(job)))
        return
    seen: dict[str, str] = {}

    def report() -> None:
        for name, progress in job.progress.items():
            if progress.state not in ("waiting", seen.get(name)):
                seconds = "" if progress.state == "running" else f" ({progress.seconds:.0f} s)"
                console.print(f"{name}: {progress.state}{seconds}", highlight=False)
                seen[name] = progress.state

    job.run(report)


def _status(job: Job) -> Table:
    shown = Table(box=None, padding=(0, 2, 0, 0), show_header=False)
    shown.add_column(no_wrap=True)
    shown.add_column(no_wrap=True)
    shown.add_column(justify="right", no_wrap=True)
    shown.add_column(no_wrap=True, overflow="ellipsis", style="dim")
    for name, progress in job.progress.items():
        seconds = f"{progress.seconds:.0f} s" if progress.state != "waiting" else ""
        line = progress.last_line if progress.state == "running" else ""
        style = _STYLES.get(progress.state, "dim")
        shown.add_row(name, f"[{style}]{progress.state}[/]", seconds, line.replace("[", r"\["))
    return shown


def _where(settings: MainJob, written: list[Path], seconds: float) -> str:
    files = {path.suffix: path for path in written}
    students = "\n".join(f"  {label:15} {path}" for label, path in settings.students().items())
    student = settings.students()["robust student"]
    return f"""
Done in {seconds / 60:.1f} minutes. Everything is in {settings.out}
  table           {files[".md"]} and {files[".csv"]}
  plot            {files[".png"]}
  records         {settings.records} (one JSON file per number)
{students}
  logs            {settings.out / "logs"} (each begins with its command)

Next:
  run_downstream.py -m train -u robustdistiller_local -k {student} -d fluent_commands -p exp/ic ...
  robustdistiller distill robustdistiller teacher.checkpoint=wavlm_base_plus.pt data.speech=[LibriSpeech] ...
"""
