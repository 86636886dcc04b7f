"""`robustdistiller groups`: which layers of a teacher belong together."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from robustdistiller.cli.command import command
from robustdistiller.cli.parameters import Device, Model


@command()
def groups(
    teacher: Model,
    speech: Annotated[list[str], typer.Argument(help="Folders and files of clean speech.", metavar="SPEECH")],
    out: Annotated[Path, typer.Option(help="Folder for the results.", metavar="DIR")],
    similarity: Annotated[Literal["cka", "cosine", "cca"], typer.Option(help="How layers are compared.")] = "cka",
    linkage: Annotated[str, typer.Option(help="How clusters are compared: average, complete, single.")] = "average",
    count: Annotated[int, typer.Option(help="Groups to find.")] = 3,
    utterances: Annotated[int, typer.Option(help="Utterances to use, drawn by seed; 15 s of each at most.")] = 64,
    seed: Annotated[int, typer.Option(help="Seed by which the utterances are drawn.")] = 0,
    contiguous: Annotated[bool, typer.Option("--contiguous", help="Groups of successive layers only.")] = False,
    layers: Annotated[str | None, typer.Option(help="To group, such as 4,5,6; default: all.", metavar="N,N...")] = None,
    layer_0: Annotated[bool, typer.Option("--include-layer-0", help="Also group the first layer's input.")] = False,
    base: Annotated[str, typer.Option(help="Recipe that groups.yaml builds on.", metavar="RECIPE")] = "distilhubert",
    device: Device = "auto",
) -> None:
    """
    The teacher runs on some utterances, its layers are compared on all frames, and the most similar ones are merged
    step by step until COUNT groups are left. The student then predicts the mean of each group instead of hand-picked
    layers. The idea is SKILL's (arXiv 2402.16830), whose similarity, linkage and number of groups are not known to us:
    look at the picture.

    \b
      robustdistiller groups wavlm_base_plus.pt LibriSpeech/dev-clean \\
          --count 4 --out exp/groups
      robustdistiller distill exp/groups/groups.yaml out_dir=exp/grouped \\
          teacher.checkpoint=wavlm_base_plus.pt \\
          data.speech=LibriSpeech/train-clean-100

    \b
    --similarity
      cka      do two layers tell frames apart alike? blind to rotations and
               scale (linear, unbiased)
      cosine   do they point the same way, unit by unit? high where they share a
               large mean
      cca      do their strongest directions correlate? blind to linear maps,
               needs many frames
    --linkage, of clusters' pairs
      average, complete (compact groups) or single (long chains)

    DIR then holds groups.png (similarities and tree), groups.yaml (a recipe with these groups), groups.json and
    similarity.csv. A run can do this by itself, on its own speech: targets.layers=auto.
    """
    from robustdistiller import pretrain  # slow to import
    from robustdistiller.common.settings import read
    from robustdistiller.pretrain.config.schema import TeacherConfig
    from robustdistiller.pretrain.data.roots import load_teacher
    from robustdistiller.pretrain.data.speech import speech_cuts
    from robustdistiller.pretrain.teacher.groups.find import GroupsConfig, find_groups
    from robustdistiller.pretrain.teacher.groups.report import summary, write_report
    from robustdistiller.upstream.device import usable_device

    options = {"similarity": similarity, "linkage": linkage, "count": count, "calibration_utterances": utterances}
    options |= {"include_layer_0": layer_0, "layers": _numbers(layers), "contiguous": contiguous}
    config = read(GroupsConfig, options)
    pretrain.load_config(base)
    on = usable_device(device)
    encoder, notes = load_teacher(read(TeacherConfig, {"checkpoint": teacher}))
    config.choose_layers(encoder.num_layers)  # before a large corpus is searched
    cuts, _ = speech_cuts(speech, out.expanduser() / "manifests")
    found = find_groups(encoder, cuts, config, seed, on, notes, progress=True)
    written = write_report(found, out.expanduser(), base)
    for line in summary(found):
        typer.echo(line)
    typer.echo(f"Written: {', '.join(map(str, written))}")


def _numbers(text: str | None) -> tuple[int, ...] | None:
    try:
        return None if text is None else tuple(int(part) for part in text.split(","))
    except ValueError:
        raise ValueError(f"--layers {text!r}: expected numbers with commas between, such as 4,5,6,7") from None
