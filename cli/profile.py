"""`robustdistiller profile`: what an upstream costs, as a record and as a table."""

from __future__ import annotations

import dataclasses
import json
import statistics
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from robustdistiller.cli.command import command
from robustdistiller.cli.parameters import AsJson, Checkpoint, Options, Upstream
from robustdistiller.cli.printing import new_table, print_whole, say
from robustdistiller.common.files import require_place
from robustdistiller.common.process import usable_cores
from robustdistiller.eval.cost import Profile, ProfileSettings, profile_upstream, write_profile
from robustdistiller.upstream.model.cost import NOT_COUNTED
from robustdistiller.upstream.s3prl.entries import entry_of


@command()
def profile(
    upstream: Upstream,
    checkpoint: Checkpoint = None,
    options: Options = None,
    label: Annotated[str, typer.Option(help="Name to show; default: of the checkpoint or upstream.")] = "",
    librispeech: Annotated[Path | None, typer.Option(help="Folder with test-clean: audio instead of noise.")] = None,
    durations: Annotated[str, typer.Option(help="Fixed lengths in seconds, separated by commas.")] = "1,5,10,20",
    repeats: Annotated[int, typer.Option(help="Timed runs of each length.", min=1)] = 5,
    device: Annotated[list[str] | None, typer.Option(help="cpu or cuda, repeatable; default: all there are.")] = None,
    threads: Annotated[list[int] | None, typer.Option(help="Repeatable; default: 1 and all there are.", min=1)] = None,
    out: Annotated[Path, typer.Option(help="Folder of records.")] = Path("records"),
    as_json: AsJson = False,
) -> None:
    """
    \b
      robustdistiller profile dphubert
      robustdistiller profile exp/student/student.ckpt --out exp/sweep/records
      robustdistiller profile fbank --durations 1,10 --threads 1

    Parameters: stored; used, those that any hidden state depends on; of students also without the prediction heads.

    MACs: one utterance at a time, of SUPERB's 32 profiling utterances (their sum is the number that SUPERB's table and
    papers print) and of fixed lengths. PyTorch's FlopCounterMode counts products of matrices, convolutions and
    attention; what it does not count is said below the tables. MACs depend on lengths only: without --librispeech,
    noise is taken.

    Real-time factor: median seconds over --repeats runs by seconds of audio, batch of one; of the 32 utterances, their
    sum in one pass. Memory: the most that a process of its own holds, on a GPU what PyTorch has allocated.

    Written as JSON below --out; in the folder of an upstream's records, robustdistiller leaderboard shows its MACs.
    """
    import torch

    if checkpoint is None:
        upstream, checkpoint = entry_of(upstream)
    settings = ProfileSettings(
        *(upstream, checkpoint, options, label),
        durations_s=_numbers(durations),
        repeats=repeats,
        devices=tuple(device or (["cpu", "cuda"] if torch.cuda.is_available() else ["cpu"])),
        threads=tuple(dict.fromkeys(threads or [1, usable_cores()])),
        librispeech=None if librispeech is None else str(librispeech),
    )
    require_place(out)
    with Console(stderr=True).status("loading") as status:
        found = profile_upstream(settings, status.update)
    path = write_profile(out, found)
    if as_json:
        return typer.echo(json.dumps(dataclasses.asdict(found), indent=2))
    show(found, Console())
    typer.echo(f"Written: {path}")


def _numbers(text: str) -> tuple[float, ...]:
    try:
        return tuple(sorted({float(part) for part in text.split(",") if part.strip()}))
    except ValueError:
        raise ValueError(f"--durations {text}: expected seconds with commas between, e.g. 1,5,10,20") from None


def show(found: Profile, console: Console) -> None:
    """Print a profile as tables."""
    counts = found.parameters
    heads = ["with heads", "without"] if counts["used_without_heads"] else [""]
    used = [_short(counts[key], "M") for key in ("used", "used_without_heads")[: len(heads)]]
    rows = [("parameters stored", _short(counts["stored"], "M")), ("parameters used", *used)]
    superb = found.macs["superb"]
    keys = [key for key in ("macs", "without_heads") if key in superb]
    counted = {f"SUPERB's {superb['utterances']} utterances": superb}
    counted |= {f"{one['duration_s']:g} s": one for one in found.macs["lengths"]}
    rows += [(f"MACs of {what}", *(_short(one[key], "G") for key in keys)) for what, one in counted.items()]
    print_whole(new_table(f"{found.label}: size and work", [""], heads, rows), console)
    columns, rows = ["threads", "audio", "seconds", "real-time factor", "peak memory MB", "loaded MB"], []
    for run in found.runs:
        what = f"32 utterances, {run['audio_s']:.0f} s" if run["what"] == "superb" else run["what"]
        seconds = statistics.median(run["seconds"])
        cells = [run["device"], str(run["threads"] or "-"), what, f"{seconds:.3f}", f"{run['real_time_factor']:.4f}"]
        memory = (f"{run[key] / 1e6:.0f}" for key in ("peak_memory_bytes", "loaded_memory_bytes"))
        rows.append((*cells, *memory))
    print_whole(new_table("Speed and memory", ["device"], columns, rows), console)
    methods = "; ".join(dict.fromkeys(run["memory_method"] for run in found.runs))
    notes = [f"MACs by {found.macs['tool']} (torch {found.macs['tool_version']}); not counted: {NOT_COUNTED}."]
    notes.append(f"Audio: {superb['audio']}. Memory: {methods}. {found.machine['processor']}.")
    say(console, *notes, style="dim")


def _short(count: int | None, unit: str) -> str:
    return "-" if count is None else f"{count / {'M': 1e6, 'G': 1e9}[unit]:.2f} {unit}"
