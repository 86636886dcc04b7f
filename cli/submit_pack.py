"""`robustdistiller submit-pack`: SUPERB's submission archive, checked before it is handed in."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from robustdistiller.cli.command import command
from robustdistiller.cli.printing import new_table, print_whole, say
from robustdistiller.eval import tasks
from robustdistiller.eval.report.tables import number
from robustdistiller.eval.submit import Packed, SubmissionError, choose, find_experiments, pack
from robustdistiller.eval.submit.rescoring import NEEDS_TRUTH
from robustdistiller.upstream.s3prl import bridge


@command()
def submit_pack(
    folders: Annotated[list[Path], typer.Argument(metavar="FOLDER...", help="Folders of experiments or sweeps.")],
    out: Annotated[Path, typer.Option(help="Archive to write; a report goes beside it.")] = Path("predict.zip"),
    label: Annotated[str | None, typer.Option(help="System, where the folders hold several.")] = None,
    seed: Annotated[int | None, typer.Option(help="Seed of the heads, where there are several.")] = None,
    truth: Annotated[
        list[str] | None, typer.Option(help="Trials (ASV), rttm (SD), corpus (QbE).", metavar="TASK=PATH")
    ] = None,
) -> None:
    """
    \b
      robustdistiller submit-pack exp/ks exp/ic exp/sd --out my/predict.zip
      robustdistiller submit-pack exp/sweep --label mine

    FOLDER is that of an experiment (-p of run_downstream.py) that was evaluated on clean speech, or that of a sweep.
    All must be of one upstream with one checkpoint; --label and --seed choose among several.

    The archive holds, below predict/, s3prl's own prediction files under the names that the website reads, and the
    frame shift of diarization, without which it is scored at another one. Then it is unpacked elsewhere and every task
    is scored by the website's rules: where a number differs from the record, nothing is written. The right answers are
    those that the evaluation wrote; of ASV, SD and QbE they are read from the corpus, where the run read it or where
    --truth says.

    What was left out, and why, is printed and written beside the archive as JSON.
    """
    if out.suffix != ".zip":
        raise SubmissionError(f"--out {out}: expected a file that ends in .zip")
    truths = dict(map(_truth, truth or []))
    bridge.install()  # its scorers
    found = choose([one for folder in folders for one in find_experiments(folder)], label, seed)
    with Console(stderr=True).status("reading") as status:
        packed = pack(found, out, truths, status.update)
    show(packed, Console())


def _truth(text: str) -> tuple[str, Path]:
    """Task and path of --truth.

    Raises:
        SubmissionError: not of the form TASK=PATH, or no such task or path.
    """
    name, _, path = text.partition("=")
    try:
        code = tasks.get(name).code
    except ValueError as error:
        raise SubmissionError(f"--truth {text}: {error}") from error
    part = tasks.get(code).submission
    if part is None or part.metrics[0] not in NEEDS_TRUTH or not path or not Path(path).exists():
        raise SubmissionError(f"--truth {text}: expected ASV=, SD= or QbE= and a path that is there")
    return code, Path(path)


def show(packed: Packed, console: Console) -> None:
    """Print what is in the archive, what is not, and what to know about it."""
    rows = []
    for folder, one in packed.tasks.items():
        scores = ", ".join(f"{metric} {number(value, metric)}" for metric, value in one["metrics"].items())
        rows.append((folder, str(len(one["files"])), scores))
    heads = ["in the archive", "files", "scored from the archive"]
    print_whole(new_table(str(packed.archive), heads, rows=rows), console)
    say(console, f"Every number is that of its record. Report: {packed.archive.with_suffix('.json')}")
    say(console, *(f"Note: {remark}" for remark in packed.remarks))
    say(console, *(f"Left out: {title}: {why}" for title, why in packed.left_out.items()), style="dim")
