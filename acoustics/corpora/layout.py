"""What a layout of a corpus is, and the rule that divides corpora without official parts."""

from __future__ import annotations

import csv
import hashlib
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

PURPOSES = ("noise", "rir", "speech", "music")
PARTS = ("train", "dev", "test")


@dataclass(frozen=True, slots=True)
class Item:
    """One recording of a corpus, as its layout tells.

    Attributes:
        name: path relative to the corpus, with forward slashes.
        labels: its classes, empty where the corpus has none.
        group: what must not be divided between parts: a room, an original recording, a session.
        split: ``train``, ``dev`` or ``test`` where the corpus says so; None leaves it to `split_of`.

    >>> Item("noise/rain.wav", group="rain").is_in("training"), Item("tt/a.wav", split="test").is_in("training")
    (True, False)
    """

    name: str
    labels: tuple[str, ...] = ()
    group: str = ""
    split: str | None = None

    def is_in(self, split: str) -> bool:
        """Whether the recording belongs to a part, as `corpus_pieces` names them."""
        if split == "training":
            return self.split in (None, "train")
        return split in ("all", self.split or split_of(self.group))


@dataclass(frozen=True)
class Folder:
    """What lies directly in a folder, by which corpora are recognised.

    Attributes:
        path: of the folder.
        folders: names of the folders in it, hidden ones left out.
        files: names of the files in it.

    >>> Folder.read(Path("/no/such/folder")).folders
    frozenset()
    """

    path: Path
    folders: frozenset[str]
    files: frozenset[str]

    @classmethod
    def read(cls, path: Path) -> Folder:
        """Looks into a folder; what cannot be looked into seems empty."""
        try:
            with os.scandir(path) as entries:
                found = [(entry.name, entry.is_dir()) for entry in entries if not entry.name.startswith(".")]
        except OSError:
            found = []
        folders = frozenset(name for name, is_dir in found if is_dir)
        return cls(path, folders, frozenset(name for name, is_dir in found if not is_dir))


@dataclass(frozen=True)
class Layout:
    """How a corpus is recognised and read.

    Attributes:
        is_here: whether a folder is this corpus.
        items: its recordings that serve a purpose, given its folder, the names of all audio in it and the purpose.
        serves: the purposes that it has recordings for.
        default: by purpose, the labels that are taken unless others are asked for.

    >>> layout = Layout(lambda folder: "tr" in folder.folders, lambda root, names, purpose: list(map(Item, names)))
    >>> layout.serves, [item.name for item in layout.items(Path("wham"), ["tr/a.wav"], "noise")]
    (('noise',), ['tr/a.wav'])
    """

    is_here: Callable[[Folder], bool]
    items: Callable[[Path, Sequence[str], str], list[Item]]
    serves: tuple[str, ...] = ("noise",)
    default: Mapping[str, tuple[str, ...]] = field(default_factory=dict)


def split_of(group: str) -> str:
    """The part of a corpus without official parts that a group of recordings belongs to.

    It depends on the name only (SHA-256), so everyone holds out the same: 20 % of the groups are ``test``, 10 %
    ``dev``.

    >>> [split_of(f"room-{number}") for number in range(4)]
    ['train', 'test', 'train', 'dev']
    >>> sum(split_of(f"room-{number}") == "test" for number in range(1000))
    230
    """
    tenth = int(hashlib.sha256(group.encode(errors="surrogateescape")).hexdigest(), 16) % 10
    return "test" if tenth < 2 else "dev" if tenth == 2 else "train"


def read_table(file: Path, columns: Sequence[str]) -> list[dict[str, str]]:
    """The rows of a corpus's own table (CSV).

    Raises:
        FileNotFoundError: it is not there.
        ValueError: it has no rows, or lacks a column.

    >>> read_table(Path("meta/esc50.csv"), ["filename"])
    Traceback (most recent call last):
    FileNotFoundError: meta/esc50.csv is missing; it is part of the corpus and says what the recordings are
    """
    if not file.is_file():
        raise FileNotFoundError(f"{file} is missing; it is part of the corpus and says what the recordings are")
    with file.open(newline="", encoding="utf-8-sig") as lines:
        rows = list(csv.DictReader(lines))
    missing = [column for column in columns if rows and column not in rows[0]]
    if missing or not rows:
        raise ValueError(f"{file} has no column {missing[0]!r}" if missing else f"{file} has no rows")
    return rows
