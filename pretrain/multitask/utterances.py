"""Labelled utterances: who says what, and for which split it is meant, from folders or a table."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import pandas as pd

from robustdistiller.acoustics import AudioSource, Piece
from robustdistiller.common.settings import SettingsError

SPLITS = ("train", "dev", "test")
_SPLIT_NAMES = {"train": "train", "test": "test", "testing": "test", "dev": "dev"}
_SPLIT_NAMES |= dict.fromkeys(("valid", "validation", "val"), "dev")


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
        root: a folder `LABEL/...`, a folder with `train/` and others above the labels, VoxCeleb1's folder, or a `.tsv`.
        key: of the settings, for messages.

    Raises:
        SettingsError: it is not given, does not exist, holds no audio, or is not laid out like any of these.
    """
    if not root:
        raise SettingsError(f"{key}: which recordings? give a folder or a .tsv")
    path = Path(root).expanduser()
    if path.suffix == ".tsv":
        return _read_table(path, key), path.parent
    if not path.is_dir():
        raise SettingsError(f"{key}: {path} does not exist; expected a folder of audio or a .tsv")
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
                "labels, or a .tsv with a column split"
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
    present = {name for name in _SPLIT_NAMES if (root / name).is_dir()}
    if "train" in present and len(present) > 1:
        return {name: _SPLIT_NAMES[name] for name in present}
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
        table = pd.read_csv(path, sep="\t", dtype=str, keep_default_na=False, quoting=3, encoding="utf-8")
    except FileNotFoundError as error:
        raise SettingsError(f"{key}: {path} does not exist") from error
    except (ValueError, UnicodeDecodeError) as error:
        raise SettingsError(f"{key}: {path} cannot be read as tab-separated text: {error}") from error
    where = ["file", "offset_samples", "num_samples"] if "path" not in table else ["path"]
    missing = [column for column in (*where, "label", "split") if column not in table]
    if missing:
        raise SettingsError(
            f"{key}: {path} lacks the columns {', '.join(missing)} (found {', '.join(table.columns)}); expected path "
            "(or file, offset_samples, num_samples), label and split"
        )
    utterances = []
    for number, row in enumerate(table.to_dict("records"), start=2):
        if _SPLIT_NAMES.get(row["split"]) is None or not row["label"]:
            raise SettingsError(
                f"{key}: {path}, line {number}: found label {row['label']!r} and split {row['split']!r}; expected a "
                "label, and train, dev or test"
            )
        utterances.append(Utterance(_table_piece(path, row, number, key), row["label"], _SPLIT_NAMES[row["split"]]))
    twice = [name for name, count in Counter(one.piece.name for one in utterances).items() if count > 1]
    if twice:
        raise SettingsError(f"{key}: {path} lists {len(twice)} recordings more than once ({_some(twice)})")
    absent = sorted({str(one.piece.path) for one in utterances if not one.piece.path.is_file()})
    if absent:
        raise SettingsError(f"{key}: {path} names {len(absent)} files that are not there ({_some(absent)})")
    return utterances


def _table_piece(table: Path, row: dict[str, str], number: int, key: str) -> Piece:
    if "path" in row:
        return Piece(row["path"], table.parent / row["path"])
    try:
        offset, length = int(row["offset_samples"]), int(row["num_samples"])
    except ValueError as error:
        raise SettingsError(
            f"{key}: {table}, line {number}: offset_samples and num_samples must be whole numbers, found "
            f"{row['offset_samples']!r} and {row['num_samples']!r}"
        ) from error
    return Piece(f"{row['file']}@{offset}", table.parent / row["file"], offset, length)


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:3]) + ", ..." * (len(names) > 3)
