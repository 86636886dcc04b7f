"""`robustdistiller groups`: which layers of a teacher belong together."""

from __future__ import annotations

import logging
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NoReturn

import typer

if TYPE_CHECKING:
    from robustdistiller.pretrain.teacher.groups.find import LayerGroups


class Similarity(str, Enum):
    """What `--similarity` takes."""

    cka = "cka"
    cosine = "cosine"
    cca = "cca"


HELP = """
Find groups of similar layers in a teacher, to distil from their means.

\b
The teacher hears some utterances, its layers are compared on all frames, and
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
  groups.json      everything, with the utterances that were heard
  similarity.csv   the matrix

A run can do this by itself, on its own speech: targets.layers=auto.
"""


def groups(
    teacher: Annotated[
        str, typer.Argument(help="Model: a path, a URL, org/name on the Hub, or a registered name.", metavar="TEACHER")
    ],
    speech: Annotated[list[str], typer.Argument(help="Folders and files of clean speech.", metavar="SPEECH")],
    out: Annotated[Path, typer.Option(help="Folder for the results.", metavar="DIR")],
    similarity: Annotated[Similarity, typer.Option(help="How layers are compared.")] = Similarity.cka,
    linkage: Annotated[str, typer.Option(help="How clusters are compared: average, complete, single.")] = "average",
    count: Annotated[int, typer.Option(help="Groups to find.")] = 3,
    utterances: Annotated[int, typer.Option(help="Utterances to hear, drawn by seed; 15 s of each at most.")] = 64,
    seed: Annotated[int, typer.Option(help="Of the draw.")] = 0,
    contiguous: Annotated[bool, typer.Option("--contiguous", help="Groups of successive layers only.")] = False,
    layers: Annotated[
        str | None, typer.Option(help="Layers to group, such as 4,5,6,7; default: all.", metavar="N,N,...")
    ] = None,
    layer_0: Annotated[bool, typer.Option("--include-layer-0", help="Also group the first layer's input.")] = False,
    base: Annotated[str, typer.Option(help="Recipe that groups.yaml builds on.", metavar="RECIPE")] = "distilhubert",
    device: Annotated[str | None, typer.Option(help="Such as cpu or cuda:1; default: a GPU if there is one.")] = None,
) -> None:
    # The docstring is the help text, set below: it holds examples.
    import torch  # slow to import

    from robustdistiller import pretrain
    from robustdistiller.common.settings import read
    from robustdistiller.pretrain.config.schema import TeacherConfig
    from robustdistiller.pretrain.data.roots import load_teacher
    from robustdistiller.pretrain.data.speech import speech_cuts
    from robustdistiller.pretrain.teacher.groups.find import GroupsConfig, find_groups
    from robustdistiller.pretrain.teacher.groups.plot import draw_groups

    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    try:
        config = GroupsConfig(similarity.value, linkage, count, utterances, layer_0, _numbers(layers), contiguous)
        pretrain.load_config(base)
        encoder, notes = load_teacher(read(TeacherConfig, {"checkpoint": teacher}))
        config.choose_layers(encoder.num_layers)  # before a large corpus is searched
        cuts, _ = speech_cuts(speech, out.expanduser() / "manifests")
        device = device or ("cuda" if torch.cuda.is_available() else "cpu")
        found = find_groups(encoder, cuts, config, seed, device, notes, progress=True)
        written = _write(found, out.expanduser(), base)
        draw_groups(found, written[0])
    except pretrain.SettingsError as error:
        _fail(str(error).removeprefix("data.speech: "), code=2)
    except (OSError, ValueError, RuntimeError, AssertionError) as error:  # the last two: PyTorch about the device
        _fail(str(error).strip().partition("\n")[0], code=1)
    for line in summary(found):
        typer.echo(line)
    typer.echo(f"Written: {', '.join(map(str, written))}")


groups.__doc__ = HELP


def summary(found: LayerGroups) -> list[str]:
    """What was found, in some lines; the last one is a setting to paste.

    >>> import numpy as np
    >>> from robustdistiller.pretrain.teacher.groups.find import GroupsConfig, LayerGroups
    >>> groups = [[1, 2], [3]]
    >>> for line in summary(LayerGroups(groups, [1, 2, 3], np.eye(3), np.zeros((2, 4)), GroupsConfig(), {})):
    ...     print(line)
    group 1  layers 1, 2   similarity 0.000 within
    group 2  layer 3
    different groups: similarity 0.000
    targets.layers=[[1,2],[3]]
    """
    names = [f"layer{'s' * (len(group) > 1)} {', '.join(map(str, group))}" for group in found.groups]
    width = max(map(len, names))
    lines = []
    for number, (group, name) in enumerate(zip(found.groups, names), start=1):
        within = f"   similarity {found.similarity_within(group):.3f} within" if len(group) > 1 else ""
        lines.append(f"group {number}  {name:<{width}}{within}".rstrip())
    if len(found.groups) > 1:
        lines.append(f"different groups: similarity {found.similarity_between():.3f}")
    return [*lines, found.override()]


def _write(found: LayerGroups, out: Path, base: str) -> list[Path]:
    """Write everything but the picture; returns all paths, the picture's first."""
    import pandas as pd

    from robustdistiller.common.files import write_atomically, write_text

    picture, recipe, everything, matrix = (
        out / name for name in ("groups.png", "groups.yaml", "groups.json", "similarity.csv")
    )
    found.save(everything)
    text = _recipe(found, base)
    write_text(recipe, text)
    table = pd.DataFrame(found.similarity, pd.Index(found.layers, name="layer"), found.layers)
    write_atomically(matrix, lambda file: table.to_csv(file, float_format="%.6f"))
    return [picture, recipe, everything, matrix]


def _recipe(found: LayerGroups, base: str) -> str:
    settings, heard = found.settings, found.measured_on
    if base.endswith((".yaml", ".yml")):
        base = str(Path(base).expanduser().resolve())  # the recipe lies in another folder than it was named from
    notes = heard["teacher"]
    return (
        f"about: distillation from {len(found.groups)} groups of similar teacher layers\n"
        "source: groups as in SKILL (arXiv 2402.16830), found by `robustdistiller groups`\n"
        f"base: {base}\n"
        "\n"
        f"# Found in {notes['file']}, SHA-256 {notes['sha256']}, on {heard['utterances']} utterances\n"
        f"# ({heard['seconds']:.0f} s, seed {heard['seed']}): {settings.similarity}, {settings.linkage} linkage"
        f"{', successive layers only' * settings.contiguous}.\n"
        "# They belong to this teacher: give its checkpoint as teacher.checkpoint=...\n"
        "targets:\n"
        f"  layers: {found.groups}\n"
    )


def _numbers(text: str | None) -> tuple[int, ...] | None:
    from robustdistiller.pretrain import SettingsError

    if text is None:
        return None
    try:
        return tuple(int(part) for part in text.split(","))
    except ValueError:
        raise SettingsError(f"--layers {text!r}: expected numbers with commas between, such as 4,5,6,7") from None


def _fail(message: str, code: int) -> NoReturn:
    typer.secho(f"error: {message}", fg="red", err=True)
    raise typer.Exit(code)
