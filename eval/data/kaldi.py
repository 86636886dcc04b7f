"""Kaldi's tables: folders of ``wav.scp`` and what stands beside it, checked and written."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from functools import partial
from pathlib import Path

from tqdm import tqdm

from robustdistiller.common.files import write_text
from robustdistiller.eval.data.checks import Where, lines_of, not_there
from robustdistiller.eval.data.plan import MISSING, Plan

SPLITS = ("train", "dev", "test")
PREPARE_AGAIN = "prepare it again"


def write_table(path: Path, rows: Iterable[tuple[object, ...]]) -> Path:
    """Write rows of words, separated by blanks."""
    return write_text(path, "".join(" ".join(map(str, row)) + "\n" for row in rows))


def read_table(path: Path) -> dict[str, str]:
    """First word to the rest of each line."""
    return {first: rest for first, _, rest in (line.partition(" ") for line in lines_of(path))}


def write_lists(audio: Mapping[str, Mapping[str, Path]], work: Path, bar: tqdm) -> Path:
    """Write ``KIND/wav.scp`` for parallel recordings, as `Step.make` does.

    Args:
        audio: kind of recording, e.g. ``noisy``, to utterance to file.
        work, bar: see `Step`.

    Returns:
        The folder of all kinds.
    """
    for kind, files in audio.items():
        write_table(work / "result" / kind / "wav.scp", sorted((name, path.absolute()) for name, path in files.items()))
        bar.update(len(files))
    return work / "result"


def add_lists(
    plan: Plan, split: str, target: str, of: str, source: Path, audio: Mapping[str, Mapping[str, Path]]
) -> None:
    """Have the lists of a split made, see `write_lists`, and point s3prl at them."""
    count = len(next(iter(audio.values())))
    stamp = f"{source.absolute()} {count} {of}"
    make = partial(write_lists, audio)
    place = plan.add(target, f"lists of {target}", f"{count} {of}", make, count * len(audio), stamp)
    plan.set(f"{split}_dir", place)


def look_at_prepared(plan: Plan, given: Path, holds: str, look: Callable[[Plan, Path, str], None]) -> bool:
    """Look at the folders of splits that were prepared before; returns whether a path inside says that they are."""
    folder = Where((holds,)).locate(given)
    for split in SPLITS if folder is not None else ():
        look(plan, folder / split, split)
        plan.set(f"{split}_dir", folder / split)
    return folder is not None


def look_at_lists(plan: Plan, folder: Path, split: str, kinds: tuple[str, ...], official: int) -> None:
    """Check the ``KIND/wav.scp`` of one split: all there, of the same utterances, of files that exist."""
    tables = {}
    for kind in kinds:
        file = folder / kind / "wav.scp"
        if not file.is_file():
            what = f"{split}/{kind}/wav.scp"
            plan.note(what, "lines 'UTTERANCE PATH'", "not there", MISSING, PREPARE_AGAIN)
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
