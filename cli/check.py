"""`robustdistiller check`: an upstream on every task, on toy corpora, beside stock s3prl."""

from __future__ import annotations

import json
import tempfile
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from robustdistiller.cli.command import command
from robustdistiller.cli.parameters import AsJson, Checkpoint, Options, Upstream

if TYPE_CHECKING:
    from robustdistiller.eval.check.run import TaskCheck


@command()
def check(
    upstream: Upstream,
    checkpoint: Checkpoint = None,
    options: Options = None,
    task: Annotated[list[str] | None, typer.Option(help="Such as KS; repeatable. Default: all.")] = None,
    steps: Annotated[int, typer.Option(help="Training steps of each head.", min=1)] = 8,
    device: Annotated[str, typer.Option(help="Such as cpu or cuda; a GPU's numbers are equal to 0.1 % only.")] = "cpu",
    jobs: Annotated[int, typer.Option(help="Tasks side by side; 0: one per CPU core, at most 4.", min=0)] = 0,
    out: Annotated[
        Path | None, typer.Option(help="Keep data, heads and logs in this new folder.", metavar="DIR")
    ] = None,
    as_json: AsJson = False,
) -> int:
    """
    \b
      robustdistiller check robustdistiller_local -k student.ckpt
      robustdistiller check hubert_local -k hubert.pt --task KS --task ASR
      robustdistiller check org/name --jobs 8 --json

    Each task trains a head for a few steps three times: by s3prl's own runner, by this package's, and by this package's
    with a feature cache. A task is ok if scores and head weights of the first two are equal (within rounding for models
    that this package runs on faster kernels), if the third differs from them by rounding only, and if it can be scored
    under noise. The scores themselves mean nothing. It takes some minutes, needs no data and fetches nothing but the
    model.

    \b
      ok        a run of the real task gives stock s3prl's numbers
      differs   it would not, and in what
      failed    with the last words; --out DIR keeps the logs
      skipped   packages are missing; the command that brings them is said

    Exit status: 0 nothing differs and nothing failed, 1 something does, 2 the command cannot run as typed.
    """
    from robustdistiller.common.process import usable_cores
    from robustdistiller.eval.check.run import check_on_tasks  # slow to import
    from robustdistiller.upstream.device import usable_device
    from robustdistiller.upstream.s3prl.entries import entry_of

    usable_device(device)
    if checkpoint is None:
        upstream, checkpoint = entry_of(upstream)
    if checkpoint is not None and Path(checkpoint).expanduser().exists():
        checkpoint = str(Path(checkpoint).expanduser().resolve())
    with nullcontext(str(out)) if out else tempfile.TemporaryDirectory(prefix="robustdistiller-check-") as folder:
        found = check_on_tasks(
            *(upstream, checkpoint, options),
            folder=Path(folder),
            codes=task or (),
            steps=steps,
            device=device,
            jobs=jobs or min(4, usable_cores()),
            on_result=lambda one: typer.echo(line(one), err=as_json),
        )
    if as_json:
        typer.echo(json.dumps(found.to_dict(), indent=2))
        return not found.ok
    for finding in found.contract:
        if not finding.ok:
            typer.secho(f"{finding.name}: {finding.found}", fg="red" if finding.required else "yellow", err=True)
    count = sum(one.status == "ok" for one in found.tasks)
    typer.echo(
        f"{count} of {len(found.tasks)} tasks give stock s3prl's numbers." if found.tasks else "No task was run."
    )
    return not found.ok


def line(one: TaskCheck) -> str:
    """One task in one line."""
    scores = ", ".join(f"{name} {value:.4g}" for name, value in one.scores.get("here", {}).items())
    parts = [part for part in (scores, one.why, f"cache: {one.cache}" if one.cache else "") if part]
    return f"{one.task:<4} {one.status:<8} {one.duration_s:4.0f} s  {'; '.join(parts)}"
