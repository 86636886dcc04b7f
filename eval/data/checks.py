"""What must lie on disk, as data: a corpus lists its checks, and `Plan.look` makes findings of them."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from robustdistiller.acoustics.audio.files import audio_info
from robustdistiller.acoustics.audio.listing import walk_audio
from robustdistiller.eval.data.plan import MISSING, OK, UNPACK_AGAIN, Plan, PrepareError

if TYPE_CHECKING:
    import pandas as pd


class Check(Protocol):
    """Something that is looked at in the folder of a corpus."""

    def look(self, plan: Plan, folder: Path) -> Any:
        """Note what was expected and found; returns what was read, None where it cannot be read."""


@dataclass(frozen=True)
class Where:
    """The folder that holds a corpus: downloads unpack into a folder of their own, and people give either.

    Attributes:
        holds: names relative to the folder that is looked for, of which it holds one; shell patterns are allowed.
        expected, otherwise, fix: what is said where a folder was given that is not it.
    """

    holds: tuple[str, ...]
    expected: str = ""
    otherwise: str = ""
    fix: str = ""

    def locate(self, given: Path) -> Path | None:
        """The given folder, or the only one directly below it that holds one of the names."""
        if not given.is_dir():
            return None
        below = sorted(child for child in given.iterdir() if child.is_dir() and not child.name.startswith("."))
        holding = [folder for folder in (given, *below) if any(next(folder.glob(name), None) for name in self.holds)]
        return holding[0] if holding and (holding[0] == given or len(holding) == 1) else None


@dataclass(frozen=True)
class File:
    """A file is there."""

    name: str
    fix: str = UNPACK_AGAIN
    expected: str = "a file"

    def look(self, plan: Plan, folder: Path) -> bool:
        """Whether it is there."""
        there = (folder / self.name).is_file()
        found, state, fix = ("there", OK, "") if there else ("not there", MISSING, self.fix)
        plan.note(self.name, self.expected, found, state, fix)
        return there


@dataclass(frozen=True)
class Lines:
    """Every line of a text file has a form.

    Attributes:
        file: relative to the corpus.
        form: regular expression of a whole line.
        expected: the form in words.
        fix: where a line has another.
    """

    file: str
    form: str
    expected: str
    fix: str

    def look(self, plan: Plan, folder: Path) -> list[re.Match[str]] | None:
        """The lines; None where a line is odd or the file is not there."""
        path = folder / self.file
        if not path.is_file():
            plan.note(path.name, f"lines '{self.expected}'", "not there", MISSING, UNPACK_AGAIN)
            return None
        matches = []
        for line in lines_of(path):
            match = re.fullmatch(self.form, line)
            if match is None:
                plan.note(path.name, f"lines '{self.expected}'", repr(line[:80]), MISSING, self.fix)
                return None
            matches.append(match)
        return matches


@dataclass(frozen=True)
class Table:
    """A CSV table has some columns and as many rows as the official one; the audio that it lists is there.

    Attributes:
        file: relative to the corpus.
        columns: the first one holds the paths of audio, relative to the corpus.
        official: number of rows.
        audio: the audio in words.
    """

    file: str
    columns: tuple[str, ...]
    official: int
    audio: str

    def look(self, plan: Plan, folder: Path) -> pd.DataFrame | None:
        """The table; None where it cannot be used."""
        import pandas as pd

        if not (folder / self.file).is_file():
            plan.note(self.file, "a table", "not there", MISSING, UNPACK_AGAIN)
            return None
        table = pd.read_csv(folder / self.file)
        absent = [column for column in self.columns if column not in table.columns]
        fix = "take the table of the official archive"
        if plan.odd(self.file, f"columns {', '.join(self.columns)}", absent, "no {names}", fix, most=len(absent)):
            return None
        plan.count(self.file, len(table), self.official, "utterances")
        plan.listed(self.audio, not_there(folder, table[self.columns[0]]), len(table))
        return table


def audio_below(folder: Path, suffix: str) -> list[str]:
    """Audio files of one kind below a folder, links followed, relative to it, sorted."""
    return sorted(name for name in walk_audio(folder) if name.lower().endswith(suffix)) if folder.is_dir() else []


def not_there(root: Path, names: Iterable[str]) -> list[str]:
    """Those of many files that do not exist, in order. Each folder is listed once, which is fast on network disks."""
    listed: dict[str, set[str]] = {}
    missing = []
    for name in names:
        folder, _, file = name.rpartition("/")
        if folder not in listed:
            try:
                listed[folder] = {entry.name for entry in os.scandir(root / folder)}
            except (FileNotFoundError, NotADirectoryError):
                listed[folder] = set()
        if file not in listed[folder]:
            missing.append(name)
    return missing


def beside(corpus: Path, names: tuple[str, ...]) -> list[Path]:
    """Files in or beside the folder of a corpus, where all of them lie in one place; else none."""
    places = ([folder / name for name in names] for folder in (corpus, corpus.parent))
    return next((files for files in places if all(file.is_file() for file in files)), [])


def lines_of(path: Path) -> list[str]:
    """The lines of a text file that are not empty.

    Raises:
        PrepareError: it is no UTF-8 text.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise PrepareError(f"{path} is no text file ({error.reason} at byte {error.start}); expected UTF-8") from error
    return [line.strip() for line in text.splitlines() if line.strip()]


def look_at_rates(plan: Plan, what: str, folder: Path, names: Iterable[str], rate_hz: int, fix: str) -> None:
    """Note files that are not at the rate that s3prl, which does not resample them, expects."""
    rates = {name: audio_info(folder / name).sample_rate_hz for name in names}
    odd = [f"{name} at {found} Hz" for name, found in rates.items() if found != rate_hz]
    plan.odd(what, f"{rate_hz} Hz", odd, "another rate: {names}", fix)
