"""Kaldi's tables: folders of ``wav.scp`` and what stands beside it, checked and written."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

from tqdm import tqdm

from robustdistiller.common.files import write_text
from robustdistiller.eval.data.looking import lines_of, not_there
from robustdistiller.eval.data.plan import MISSING, OK, Plan, named

SPLITS = ("train", "dev", "test")


def write_table(path: Path, rows: Iterable[tuple[object, ...]]) -> Path:
    """Write rows of words, separated by blanks.

    Example:
        >>> import tempfile
        >>> write_table(Path(tempfile.mkdtemp()) / "wav.scp", [("a", "/a.wav")]).read_text()
        'a /a.wav\\n'
    """
    return write_text(path, "".join(" ".join(map(str, row)) + "\n" for row in rows))


def write_lists(audio: Mapping[str, Mapping[str, Path]], work: Path, bar: tqdm) -> Path:
    """Write ``KIND/wav.scp`` for parallel recordings.

    Args:
        audio: kind of recording, e.g. ``noisy``, to utterance to file.
        work: folder to write to.
        bar: progress, one for each utterance.

    Returns:
        The folder of all kinds.
    """
    for kind, files in audio.items():
        write_table(work / "result" / kind / "wav.scp", sorted((name, path.absolute()) for name, path in files.items()))
        bar.update(len(files))
    return work / "result"


def read_table(path: Path) -> dict[str, str]:
    """First word to the rest of each line.

    Example:
        >>> import tempfile
        >>> with tempfile.NamedTemporaryFile("w") as file:
        ...     print("a /data/a.wav", file=file, flush=True)
        ...     read_table(Path(file.name))
        {'a': '/data/a.wav'}
    """
    return {first: rest for first, _, rest in (line.partition(" ") for line in lines_of(path))}


def look_at_lists(plan: Plan, folder: Path, kinds: tuple[str, ...], official: Mapping[str, int], split: str) -> None:
    """Check the ``KIND/wav.scp`` of one split: all there, of the same utterances, of files that exist."""
    tables = {}
    for kind in kinds:
        file = folder / kind / "wav.scp"
        if not file.is_file():
            plan.note(f"{split}/{kind}/wav.scp", "lines 'UTTERANCE PATH'", "not there", MISSING, "prepare it again")
            return
        tables[kind] = read_table(file)
    first = tables[kinds[0]]
    plan.count(split, len(first), official.get(split), "utterances")
    for kind, table in tables.items():
        odd = sorted(first.keys() ^ table.keys())
        if odd:
            found = f"others, e.g. {odd[0]}"
            plan.note(f"{split}/{kind}", f"the utterances of {kinds[0]}", found, MISSING, "prepare it again")
        refuse_blanks(plan, f"{split}/{kind}/wav.scp", table.values())
        look_at_audio(plan, f"{split}/{kind}", table.values(), folder)


def look_at_audio(plan: Plan, what: str, paths: Iterable[str], folder: Path) -> None:
    """Note whether the files of a table exist; one line for all of them when they do."""
    paths = list(paths)
    missing = not_there(Path("/"), [str(Path(path).absolute()).lstrip("/") for path in paths])
    if missing:
        found = f"{len(missing)} are not there: {named(['/' + one for one in missing])}"
        fix = f"they moved since {folder} was written: prepare it again"
        plan.note(f"audio of {what}", f"{len(paths)} files that are listed", found, MISSING, fix)
    else:
        plan.note(f"audio of {what}", f"{len(paths)} files that are listed", "all of them", OK)


def refuse_blanks(plan: Plan, what: str, paths: Iterable[str]) -> None:
    """Note a path with a blank in it: s3prl splits these lines at every blank."""
    odd = [path for path in map(str, paths) if len(path.split()) != 1]
    if odd:
        plan.note(what, "paths without blanks", repr(odd[0]), MISSING, "move the corpus to a path without blanks")
