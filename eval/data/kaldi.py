"""Kaldi's tables: folders of ``wav.scp`` and what stands beside it, checked and written."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path

from tqdm import tqdm

from robustdistiller.common.files import write_text
from robustdistiller.eval.data.checks import lines_of, locate, not_there
from robustdistiller.eval.data.plan import MISSING, Plan

#: Splits to the names that their folders have.
SPLITS = {"train": ("train-100", "train"), "dev": ("dev", "dev_1000"), "test": ("test",)}
PREPARE_AGAIN = "prepare it again"


def write_table(path: Path, rows: Iterable[tuple[object, ...]]) -> Path:
    """Write rows of words, separated by blanks."""
    return write_text(path, "".join(" ".join(map(str, row)) + "\n" for row in rows))


def read_table(path: Path) -> dict[str, str]:
    """First word to the rest of each line."""
    return {first: rest for first, _, rest in (line.partition(" ") for line in lines_of(path))}


def add_lists(
    plan: Plan, split: str, target: str, of: str, source: Path, audio: Mapping[str, Mapping[str, Path]]
) -> None:
    """Have ``KIND/wav.scp`` made for the parallel recordings of a split, and point s3prl at them.

    Args:
        plan: is added to.
        split, target, of, source: train, dev or test; what is made; what the recordings are; where they are.
        audio: kind of recording, e.g. ``noisy``, to utterance to file.
    """
    count = len(next(iter(audio.values())))
    stamp = f"{source.absolute()} {count} {of}"
    make = partial(_write_lists, audio)
    place = plan.add(target, f"lists of {target}", f"{count} {of}", make, count * len(audio), stamp)
    plan.set(f"{split}_dir", place)


def _write_lists(audio: Mapping[str, Mapping[str, Path]], result: Path, bar: tqdm) -> None:
    for kind, files in audio.items():
        write_table(result / kind / "wav.scp", sorted((name, path.absolute()) for name, path in files.items()))
        bar.update(len(files))


def look_at_prepared(
    plan: Plan, given: Path, holds: str, look: Callable[[Plan, Path, str], None], dev: Sequence[str] = SPLITS["dev"]
) -> bool:
    """Look at the folders of splits that were prepared before; returns whether a path inside says that they are."""
    folder = locate(given, *(f"{name}/{holds}" for name in SPLITS["train"]))
    for split, names in {**SPLITS, "dev": dev}.items() if folder is not None else ():
        place = folder_of(folder, names) or folder / split
        look(plan, place, split)
        plan.set(f"{split}_dir", place)
    return folder is not None


def folder_of(root: Path, names: Iterable[str]) -> Path | None:
    """The first of some folders that is there."""
    return next((root / name for name in names if (root / name).is_dir()), None)


def look_at_lists(plan: Plan, folder: Path, split: str, kinds: Sequence[str], official: int) -> None:
    """Check the ``KIND/wav.scp`` of one split: all there, of the same utterances, of files that exist."""
    tables = {}
    for kind in kinds:
        file = folder / kind / "wav.scp"
        if not file.is_file():
            plan.note(f"{split}/{kind}/wav.scp", "lines 'UTTERANCE PATH'", "not there", MISSING, PREPARE_AGAIN)
            return
        tables[kind] = read_table(file)
    first = tables[kinds[0]]
    plan.count(split, len(first), official, "utterances")
    for kind, table in tables.items():
        what, expected = f"{split}/{kind}", f"the utterances of {kinds[0]}"
        plan.odd(what, expected, sorted(first.keys() ^ table.keys()), "others, e.g. {names}", PREPARE_AGAIN)
        refuse_blanks(plan, f"{what}/wav.scp", table.values())
        look_at_audio(plan, what, table.values(), folder)


def look_at_audio(plan: Plan, what: str, paths: Iterable[str], folder: Path) -> None:
    """Note whether the files of a table exist; one line for all of them when they do."""
    paths = [str(Path(path).absolute()).lstrip("/") for path in paths]
    missing = [f"/{path}" for path in not_there(Path("/"), paths)]
    plan.listed(f"audio of {what}", missing, len(paths), f"they moved since {folder} was written: {PREPARE_AGAIN}")


def refuse_blanks(plan: Plan, what: str, paths: Iterable[str]) -> None:
    """Note a path with a blank in it: s3prl splits these lines at every blank."""
    odd = [repr(path) for path in paths if len(path.split()) != 1]
    plan.odd(what, "paths without blanks", odd[:1], "{names}", "move the corpus to a path without blanks")
