"""The labelled speech of a probe: a table, divided into training and test, with every recording read once."""

from __future__ import annotations

import hashlib
import logging
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from robustdistiller.acoustics import Piece, audio_info
from robustdistiller.acoustics.audio.files import read_audio
from robustdistiller.acoustics.audio.labelled import Labelled, read_labelled
from robustdistiller.pretrain.data.cuts import FileCut, file_cuts

logger = logging.getLogger(__name__)

_SPLITS = ("train", "test")


def labelled_speech(path: Path, test_share: float, max_utterances: int | None, seed: int) -> list[Labelled]:
    """The recordings of a table, each to train on (`train`) or to test on (`test`).

    A probe is for choices: where the table has a development set, that is what it tests on, and recordings that the
    table has for the test are left out. What a label has only to train on can still be confused with others. What is
    chosen depends on the hash of a recording's path: the order of the lines does not matter, and little changes when
    lines are added.

    Args:
        path: see :func:`~robustdistiller.acoustics.audio.labelled.read_labelled`.
        test_share: of each label's recordings, if there is no column `split`; at least one, and never all: of a label
            with one recording none.
        max_utterances: as many are used, with the shares of labels and splits kept as far as possible. `None`: all.
        seed: of the hash.

    Raises:
        FileNotFoundError: the table or one of its recordings is not there.
        ValueError: the table cannot be used; the line is named where it is one line's fault.
    """
    rows = read_labelled(path)
    has_dev = any(row.split == "dev" for row in rows)
    if has_dev:
        rows = [replace(row, split="test" if row.split == "dev" else row.split) for row in rows if row.split != "test"]
    groups: dict[str, list[Labelled]] = defaultdict(list)
    for row in sorted(rows, key=lambda row: hashlib.sha256(f"{seed}/{row.name}".encode()).digest()):
        groups[row.label].append(row)
    if len(groups) < 2:
        raise ValueError(
            f"{path}: found {' and '.join(map(repr, groups)) or 'no lines'}, expected two labels or more to tell apart"
        )
    parts: dict[tuple[str, str], list[Labelled]] = defaultdict(list)
    for group in groups.values():
        tests = min(max(round(test_share * len(group)), 1), len(group) - 1)
        for index, row in enumerate(group):
            row = replace(row, split=row.split or _SPLITS[index < tests])
            parts[row.label, row.split].append(row)
    tested = "dev" if has_dev else "test"
    for label, group in groups.items():
        if (label, "train") not in parts:
            raise ValueError(
                f"{path}, line {min(row.line for row in group)}: all {len(group)} utterances of {label!r} are for "
                f"{tested}, expected one or more for train; change their split or remove them"
            )
    untested = [label for label in groups if (label, "test") not in parts]
    if len(untested) == len(groups):
        raise ValueError(f"{path}: no utterance to test on, expected some; give some the split {tested}, or add some")
    if untested:
        logger.info("%s: %d labels have no utterance to test on, e.g. %r", path, len(untested), untested[0])
    chosen = {row.name for row in _thinned(path, parts, max_utterances)}
    kept = [row for group in parts.values() for row in group if row.name in chosen]
    return sorted(kept, key=lambda row: row.line)


def _thinned(path: Path, parts: dict[tuple[str, str], list[Labelled]], most: int | None) -> list[Labelled]:
    """First one of every part, then those that keep the parts in proportion."""
    if most is not None and most < len(parts):
        raise ValueError(
            f"{path}: {len({label for label, _ in parts})} labels need one utterance to train on and one to test on "
            f"each; found max_utterances={most}, expected {len(parts)} or more"
        )
    ranked = [
        (index > 0, (index + 0.5) / len(group), key, row)
        for key, group in parts.items()
        for index, row in enumerate(group)
    ]
    return [row for *_, row in sorted(ranked, key=lambda one: one[:3])[:most]]


def probe_cuts(path: Path, rows: Sequence[Labelled], max_samples: int) -> list[FileCut]:
    """A cut of at most `max_samples` of each recording, called `probe/NAME`, after reading all of them.

    Raises:
        ValueError: a file is missing, cannot be decoded, or is silent; its line in the table `path` is named.
    """
    headers, pieces = {}, []
    for row in rows:
        try:
            headers[str(row.path)] = info = audio_info(row.path)
            samples = read_audio(row.path, info=info)[:max_samples]
        except (OSError, ValueError) as error:
            raise ValueError(f"{path}, line {row.line}: {error}") from error
        if samples.min() == samples.max():
            raise ValueError(
                f"{path}, line {row.line}: {row.name} is silent, each of its first {len(samples)} samples is "
                f"{samples[0]:g}; expected speech: remove the line"
            )
        pieces.append(Piece(row.name, str(row.path)))
    return file_cuts("probe", pieces, headers)[0]
