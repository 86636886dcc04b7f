"""`robustdistiller data`: what lies in folders of noise, rooms and speech."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from robustdistiller.cli.command import command
from robustdistiller.cli.parameters import AsJson
from robustdistiller.common.names import hours_in_words

if TYPE_CHECKING:
    from robustdistiller.acoustics.corpora.survey import CorpusSurvey, FolderSurvey

_LISTED = 10  # troubles
_LABELS = 6
_TAKEN = {"training": "for distill"}


@command()
def data(
    roots: Annotated[list[Path], typer.Argument(help="Folders, audio files, .tsv manifests.", metavar="ROOT")],
    listen: Annotated[bool, typer.Option("--listen", help="Read all samples, not the headers only.")] = False,
    every: Annotated[bool, typer.Option("--all", help="List every useless file and every label.")] = False,
    as_json: AsJson = False,
) -> None:
    """
    \b
      robustdistiller data /data/musan /data/RIRS_NOISES
      robustdistiller data /data              # several corpora in one folder
      robustdistiller data speech --listen    # finds silent and damaged files too
      robustdistiller data noise.tsv --json   # a manifest, for machines

    \b
    A corpus, or a plain folder, has a line for each thing that it serves as
    (noise, rir, speech, music) with the amount of each part:
      train, dev, test   as published, or made by name
      for distill        what data.noise, data.rir and data.babble take, where
                         that is not train
    Evaluation takes all of a folder, unless a part is named.
      with only=         what is taken only if it is asked for
    Parts and labels are chosen in one line wherever a root is given:
      run_downstream.py ... --noise musan,split=test
      robustdistiller distill ... data.rir='RIRS_NOISES,only=real'

    Only headers are read, unless --listen. Files that cannot be read are counted nowhere; they are listed with the
    reason.

    Exit status: 0, also with files that cannot be used; 2 a root does not exist or holds no audio.
    """
    from robustdistiller.acoustics.audio.listing import list_pieces
    from robustdistiller.acoustics.corpora.survey import survey  # slow to import

    listed = {root: list_pieces(root.expanduser()) for root in roots}  # all of them, before headers are read
    found = [survey(root.expanduser(), pieces, listen, progress=True) for root, pieces in listed.items()]
    if as_json:
        typer.echo(json.dumps([dataclasses.asdict(one) for one in found], indent=2))
        return
    for one in found:
        for line in lines(one, None if every else _LISTED, None if every else _LABELS):
            typer.echo(line)


def lines(found: FolderSurvey, most_troubles: int | None, most_labels: int | None) -> list[str]:
    """What was found in one root, for people."""
    told = [found.path]
    for corpus in found.corpora:
        rates = corpus.sample_rates_hz.items()
        rates = ", ".join(f"{rate_hz} Hz" + f" ({n:,})" * (n < corpus.files) for rate_hz, n in rates)
        where = "" if corpus.root == found.path else f" in {corpus.root}"
        told.append(
            f"  {corpus.kind}{where}: {_files(corpus.files)}, {hours_in_words(corpus.hours)}{rates and ', '}{rates}"
        )
        told += [f"    {line}" for line in _services(corpus, most_labels)]
        told += [f"    cannot be used: {corpus.problem}"] if corpus.problem else []
    if found.troubles:
        shown = list(found.troubles.items())[:most_troubles]
        told.append(f"  {_files(len(found.troubles))} of no use:")
        told += [f"    {reason if name in reason else f'{name}: {reason}'}" for name, reason in shown]
        more = len(found.troubles) - len(shown)
        told += [f"    and {more:,} more (--all lists them)"] if more else []
    return told


def _services(corpus: CorpusSurvey, most_labels: int | None) -> list[str]:
    alike: dict[str, list[str]] = {}  # a plain folder is the same for most purposes
    for purpose, service in corpus.services.items():
        parts = dict(service.parts)
        if parts.get("training") == parts.get("train"):
            parts.pop("training", None)
        text = "; ".join(
            f"{_TAKEN.get(part, part)} {_files(one.files)}, {hours_in_words(one.hours)}" for part, one in parts.items()
        )
        for title, labels in (("labels", service.labels), ("with only=", service.on_request)):
            text += f"\n  {title}: {_counted(labels, most_labels)}" if labels else ""
        alike.setdefault(text, []).append(purpose)
    return [line for text, purposes in alike.items() for line in f"{', '.join(purposes)}: {text}".split("\n")]


def _counted(labels: Mapping[str, int], most: int | None) -> str:
    shown = [f"{label} {count:,}" for label, count in list(labels.items())[:most]]
    return ", ".join(shown) + (f" and {len(labels) - len(shown)} more" if len(labels) > len(shown) else "")


def _files(count: int) -> str:
    return f"{count:,} file{'s' * (count != 1)}"
