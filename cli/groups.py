"""`robustdistiller groups`: which layers of a teacher belong together."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from robustdistiller.cli.command import command
from robustdistiller.cli.parameters import Device, Model

HELP = """
Find groups of similar layers in a teacher, to distil from their means.

\b
The teacher runs on some utterances, its layers are compared on all frames, and
the most similar ones are merged step by step until COUNT groups are left.
The student then predicts the mean of each group instead of hand-picked
layers. The idea is SKILL's (arXiv 2402.16830). Which similarity, linkage and
number of groups it used is not known to us: look at the picture.

\b
Example:
  robustdistiller groups wavlm_base_plus.pt LibriSpeech/dev-clean \\
      --count 4 --out exp/groups
  robustdistiller distill exp/groups/groups.yaml out_dir=exp/grouped \\
      teacher.checkpoint=wavlm_base_plus.pt data.speech=LibriSpeech

\b
--similarity is
  cka      do two layers tell frames apart in the same way? Blind to rotations
           and scale; linear, unbiased. The default
  cosine   do they point the same way, unit by unit? High where layers share
           a large common mean
  cca      do their strongest directions (99 % of the variance) correlate?
           Blind to every linear map; needs many more frames than units
--linkage is, for two clusters of layers,
  average  the mean over their pairs. The default
  complete their least similar pair: compact groups
  single   their most similar pair: long chains
Ward's method is not offered: it needs points in space, not similarities.

\b
DIR then holds
  groups.png       similarity matrix and tree; the dashed line is the cut
  groups.yaml      a recipe with these groups as targets
  groups.json      everything, with the utterances that were used
  similarity.csv   the matrix

A run can do this by itself, on its own speech: targets.layers=auto.
"""


@command(HELP)
def groups(
    teacher: Model,
    speech: Annotated[list[str], typer.Argument(help="Folders and files of clean speech.", metavar="SPEECH")],
    out: Annotated[Path, typer.Option(help="Folder for the results.", metavar="DIR")],
    similarity: Annotated[Literal["cka", "cosine", "cca"], typer.Option(help="How layers are compared.")] = "cka",
    linkage: Annotated[str, typer.Option(help="How clusters are compared: average, complete, single.")] = "average",
    count: Annotated[int, typer.Option(help="Groups to find.")] = 3,
    utterances: Annotated[int, typer.Option(help="Utterances to use, drawn by seed; 15 s of each at most.")] = 64,
    seed: Annotated[int, typer.Option(help="Of the draw.")] = 0,
    contiguous: Annotated[bool, typer.Option("--contiguous", help="Groups of successive layers only.")] = False,
    layers: Annotated[
        str | None, typer.Option(help="Layers to group, such as 4,5,6,7; default: all.", metavar="N,N,...")
    ] = None,
    layer_0: Annotated[bool, typer.Option("--include-layer-0", help="Also group the first layer's input.")] = False,
    base: Annotated[str, typer.Option(help="Recipe that groups.yaml builds on.", metavar="RECIPE")] = "distilhubert",
    device: Device = "auto",
) -> None:
    from robustdistiller import pretrain  # slow to import
    from robustdistiller.common.settings import read
    from robustdistiller.pretrain.config.schema import TeacherConfig
    from robustdistiller.pretrain.data.roots import load_teacher
    from robustdistiller.pretrain.data.speech import speech_cuts
    from robustdistiller.pretrain.teacher.groups.find import GroupsConfig, find_groups
    from robustdistiller.pretrain.teacher.groups.report import summary, write_report
    from robustdistiller.upstream.device import usable_device

    config = GroupsConfig(similarity, linkage, count, utterances, layer_0, _numbers(layers), contiguous)
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
