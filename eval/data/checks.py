"""What lies on disk: finding folders, audio and lines of text, with what is said where they are not as expected."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from pathlib import Path

from robustdistiller.acoustics.audio.files import audio_info
from robustdistiller.acoustics.audio.listing import walk_audio
from robustdistiller.common.files import read_text
from robustdistiller.eval.data.plan import MISSING, UNPACK_AGAIN, NotThere, Plan


def locate(given: Path, *holds: str) -> Path | None:
    """The folder of a corpus: downloads unpack into a folder of their own, and people give either.

    Args:
        given: the folder as it was given.
        holds: names or shell patterns, relative to the folder that is looked for, of which it holds one.

    Returns:
        The given folder, or the only one directly below it that holds one of the names.
    """
    if not given.is_dir():
        return None
    below = sorted(child for child in given.iterdir() if child.is_dir() and not child.name.startswith("."))
    holding = [folder for folder in (given, *below) if any(next(folder.glob(name), None) for name in holds)]
    return holding[0] if holding and (holding[0] == given or len(holding) == 1) else None


def find(plan: Plan, given: Path, holds: Sequence[str], expected: str, fix: str) -> Path:
    """The folder that :func:`locate` finds."""
    folder = locate(given, *holds)
    if folder is None:
        found = f"no {holds[0].rstrip('*')}" if given.is_dir() else "no such folder"
        plan.note(str(given), expected, found, MISSING, fix)
        raise NotThere
    return folder


def read_lines(plan: Plan, file: Path, form: str, expected: str, fix: str) -> list[re.Match[str]] | None:
    """The lines of a text file; None, with a note, where one is odd or the file is not there."""
    if not file.is_file():
        plan.note(file.name, f"lines '{expected}'", "not there", MISSING, UNPACK_AGAIN)
        return None
    lines = lines_of(file)
    matches = [re.fullmatch(form, line) for line in lines]
    if None in matches:
        odd = matches.index(None)
        plan.note(file.name, f"lines '{expected}'", f"line {odd + 1}: {lines[odd][:80]!r}", MISSING, fix)
        return None
    return matches


def look_at_rates(plan: Plan, what: str, folder: Path, names: Iterable[str], rate_hz: int, fix: str) -> None:
    """Note files that are not at the rate that s3prl, which does not resample them, expects."""
    rates = {name: audio_info(folder / name).sample_rate_hz for name in names}
    odd = [f"{name} at {found} Hz" for name, found in rates.items() if found != rate_hz]
    plan.odd(what, f"{rate_hz} Hz", odd, "another rate: {names}", fix)


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
                listed[folder] = {path.name for path in (root / folder).iterdir()}
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
    """The lines of a text file that are not empty."""
    return [line.strip() for line in read_text(path).splitlines() if line.strip()]
