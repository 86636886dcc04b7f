"""Labelled utterances: who says what, and for which split it is meant, from folders or a table."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from robustdistiller.acoustics import AudioSource, Piece
from robustdistiller.acoustics.audio.labelled import SPLIT_SPELLINGS, SPLITS, read_labelled
from robustdistiller.common.settings import SettingsError


@dataclass(frozen=True)
class Utterance:
    """One labelled recording.

    Attributes:
        piece: where its audio is; the name is unique.
        label: word or speaker.
        split: train, dev or test; `None` where the data do not say.
    """

    piece: Piece
    label: str
    split: str | None = None


def read_utterances(root: str | None, key: str) -> tuple[list[Utterance], Path]:
    """All utterances of a folder or table, and the folder, or the table's folder.

    Args:
        root: a folder `LABEL/...`, a folder with `train/` and others above the labels, VoxCeleb1's folder, or a
            table, `.csv` or `.tsv`.
        key: of the settings, for messages.

    Raises:
        SettingsError: it is not given, does not exist, holds no audio, or is not laid out like any of these.
    """
    if not root:
        raise SettingsError(f"{key}: which recordings? give a folder, a .csv or a .tsv")
    path = Path(root).expanduser()
    if path.suffix in (".csv", ".tsv"):
        return _read_table(path, key), path.parent
    if not path.is_dir():
        raise SettingsError(f"{key}: {path} does not exist; expected a folder of audio, a .csv or a .tsv")
    try:
        pieces = AudioSource.from_path(path).pieces
    except (FileNotFoundError, ValueError) as error:
        raise SettingsError(f"{key}: {error}") from error
    names = _split_folders(path)
    utterances = [_from_folder(piece, names) for piece in pieces]
    stray = [piece.name for piece, found in zip(pieces, utterances) if found is None]
    if stray:
        above = "SPLIT/LABEL/" if names else "LABEL/"
        raise SettingsError(
            f"{key}: {path} should hold its audio as {above}..., found {_some(stray)}; move or remove it"
        )
    return utterances, path


def with_split_lists(utterances: Sequence[Utterance], root: Path, key: str) -> list[Utterance]:
    """Splits of a Speech-Commands-like folder: what `validation_list.txt` and `testing_list.txt` do not name trains."""
    splits = {}
    for split, name in (("dev", "validation_list.txt"), ("test", "testing_list.txt")):
        if not (root / name).is_file():
            raise SettingsError(
                f"{key}: {root} has no {name}; expected it and its companion, or folders train, dev and test above the "
                "labels, or a table with a column split"
            )
        lines = (root / name).read_text(encoding="utf-8").split("\n")
        splits |= dict.fromkeys(filter(None, map(str.strip, lines)), split)
    missing = sorted(splits.keys() - {one.piece.name for one in utterances})
    if missing:
        raise SettingsError(
            f"{key}: the lists in {root} name {len(missing)} files that are not there ({_some(missing)}); "
            "unpack the data again or correct the lists"
        )
    return [replace(one, split=splits.get(one.piece.name, "train")) for one in utterances]


def check_classes(utterances: Iterable[Utterance], key: str, closed: bool) -> None:
    """Make sure that something can be learnt and measured; `closed` tasks have no labels in dev and test only."""
    counts: dict[str, Counter[str]] = {split: Counter() for split in SPLITS}
    for one in utterances:
        counts[one.split][one.label] += 1
    empty = [split for split in SPLITS if not counts[split]]
    if empty:
        found = ", ".join(f"{split} {counts[split].total()}" for split in SPLITS)
        raise SettingsError(f"{key}: no utterances for {' and '.join(empty)} (found {found}); all three are needed")
    train = counts["train"]
    if len(train) < 2:
        raise SettingsError(f"{key}: the training split has one class, {next(iter(train))!r}; expected two or more")
    single = sorted(label for label, count in train.items() if count == 1)
    if single:
        raise SettingsError(
            f"{key}: {len(single)} of {len(train)} classes have one training utterance ({_some(single)}); expected two "
            "or more each: add some or remove the class"
        )
    for split in ("dev", "test"):
        unseen = sorted(set(counts[split]) - set(train))
        if closed and unseen:
            raise SettingsError(
                f"{key}: {len(unseen)} labels are in {split} but not in train ({_some(unseen)}), so they cannot be "
                "learnt; remove them or add training utterances"
            )


def _split_folders(root: Path) -> dict[str, str]:
    """Names of the folders above the labels, with the splits they mean; none if the labels come first."""
    present = {name for name in SPLIT_SPELLINGS if (root / name).is_dir()}
    if "train" in present and len(present) > 1:
        return {name: SPLIT_SPELLINGS[name] for name in present}
    if {"dev", "test"} <= present:
        return {"dev": "train", "test": "test"}  # VoxCeleb calls its training set dev
    return {}


def _from_folder(piece: Piece, names: dict[str, str]) -> Utterance | None:
    split, parts = None, piece.name.split("/")[:-1]
    if names:
        if not parts or parts[0] not in names:
            return None
        split, parts = names[parts[0]], parts[1:]
    if parts and parts[0] in ("wav", "aac"):  # above VoxCeleb's speakers
        parts = parts[1:]
    return Utterance(piece, parts[0], split) if parts else None


def _read_table(path: Path, key: str) -> list[Utterance]:
    try:
        rows = read_labelled(path, pieces=True)
    except (OSError, ValueError) as error:
        raise SettingsError(f"{key}: {error}") from error
    if rows and not rows[0].split:
        raise SettingsError(f"{key}: {path} has no column 'split'; expected train, dev or test for each recording")
    return [
        Utterance(Piece(row.name, row.path, row.frame_offset, row.num_frames), row.label, row.split) for row in rows
    ]


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:3]) + ", ..." * (len(names) > 3)
