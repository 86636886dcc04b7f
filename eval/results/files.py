"""Record files: one per cell, written atomically, read back strictly, looked up before work is repeated."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from robustdistiller.common.files import write_text
from robustdistiller.common.names import did_you_mean
from robustdistiller.eval.results.identity import cell_id, made_digest, readable_condition
from robustdistiller.eval.results.record import Record, RecordError

WRITERS = "robustdistiller evaluate, robustdistiller sweep and run_downstream.py -m evaluate write records"
#: What may happen to a cell that has a finished record, and to one that has none.
POLICIES = {
    "reuse": "keep finished records, run everything else",
    "rerun": "run every cell again",
    "show": "run nothing, show what there is",
}
# As files and scripts of earlier releases say it.
_OLD_POLICIES = {"only-missing": "reuse", "never": "reuse", "always": "rerun", "only-cache": "show"}


def read_policy(word: str) -> str:
    """One of `POLICIES`; the words of earlier releases are read too."""
    policy = _OLD_POLICIES.get(word, word)
    if policy not in POLICIES:
        raise ValueError(f"policy must be one of {', '.join(POLICIES)}, found {word!r}{did_you_mean(word, POLICIES)}")
    return policy


def record_path(root: Path | str, record: Record) -> Path:
    """Where a record belongs, see `CellId.path`."""
    return cell_id(record).path(root, readable_condition(record.condition, record.sources))


def write_record(root: Path | str, record: Record) -> Path:
    """Write a record at its place, through a temporary file and a rename; an older record of the cell is replaced.

    The file also holds the digest of its content, so that a number changed by hand is noticed.

    Raises:
        RecordError: a value has the wrong type or form, so that nobody could read the record again.
    """
    data = record.to_dict()
    Record.from_dict(data)
    text = json.dumps({**data, "digest": made_digest(**data)}, indent=1, allow_nan=False)
    return write_text(record_path(root, record), text + "\n")


def read_record(path: Path | str) -> Record:
    """Read and validate one record.

    Raises:
        FileNotFoundError: no such file.
        RecordError: with the path, when the file cannot be read, is no valid record, or was changed since it was
            written.
    """
    path = Path(path)
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
        has_digest = isinstance(data, dict) and data.get("schema_version") != 1  # the first schema had none
        digest = data.pop("digest", None) if has_digest else None
        record = Record.from_dict(data)
        if has_digest and digest != made_digest(**data):
            raise RecordError(
                "it was changed after it was written, its digest does not match its content; "
                "bring the file back or evaluate the cell again"
            )
        return record
    except FileNotFoundError:
        raise
    except (OSError, ValueError, RecursionError) as error:  # the last from brackets without end
        raise RecordError(f"{path} is not a valid record: {error}") from error


def record_files(root: Path | str) -> list[Path]:
    """Files of records below a folder, in path order, whether or not they can be read.

    An experiment or a sweep keeps its records in ``records/``: of its folder, only that one is looked through. What an
    earlier release set aside below ``superseded/`` is left out, and so are hidden files.
    """
    root = Path(root)
    if not root.is_dir():
        raise FileNotFoundError(f"no folder of records at {root}; {WRITERS}")
    root = root / "records" if (root / "records").is_dir() else root
    found = sorted(path.relative_to(root) for path in root.rglob("*-seed*-*.json"))
    return [root / path for path in found if not any(p == "superseded" or p.startswith(".") for p in path.parts)]


def read_each(root: Path | str) -> Iterator[tuple[Path, Record | RecordError]]:
    """The files of records below a folder, in path order, each with its record or the error in reading it."""
    for path in record_files(root):
        try:
            yield path, read_record(path)
        except (RecordError, FileNotFoundError) as error:
            yield path, RecordError(str(error))


def read_record_files(root: Path | str) -> dict[Path, Record]:
    """All records below a folder with their files, in path order. Other JSON files there are left alone.

    Raises:
        FileNotFoundError: the folder does not exist.
        RecordError: naming every broken file; none of the records is used then.
    """
    found = dict(read_each(root))
    if broken := [str(one) for one in found.values() if isinstance(one, RecordError)]:
        raise RecordError("\n".join([*broken, "Delete or repair these files; nothing was read."]))
    return found


def read_records(root: Path | str) -> list[Record]:
    """As `read_record_files`, the records alone."""
    return list(read_record_files(root).values())


@dataclass(frozen=True)
class Decision:
    """Whether a cell is run, and why, in words.

    Attributes:
        run: the cell is evaluated now.
        reused: the finished record that stands for it; None when it is run, or left without a number.
        why: one line.
    """

    run: bool
    reused: Record | None
    why: str


def look_up(root: Path | str, wanted: Record) -> Record | RecordError | None:
    """The record of a cell, whatever its status; the error when its file is broken, None when there is none."""
    try:
        record = read_record(record_path(root, wanted))
    except FileNotFoundError:
        return None
    except RecordError as error:
        return error
    return record if cell_id(record) == cell_id(wanted) else None


def decide(found: Record | RecordError | None, policy: str = "reuse") -> Decision:
    """Whether a cell is run, given what `look_up` found of it."""
    policy = read_policy(policy)
    finished = isinstance(found, Record) and found.finished
    if found is None:
        state = "it has no record"
    elif isinstance(found, RecordError):
        state = f"its record cannot be read ({found})"
    else:
        unfinished = f"without its number, {found.trouble}" if found.status == "ok" else found.trouble
        state = f"its record is {'finished' if finished else unfinished}"
    if policy == "rerun":
        return Decision(True, None, f"runs: everything is run again ({state})")
    if finished:
        return Decision(False, found, f"reused: {found.main_metric} of {found.start_utc[:10]}")
    if policy == "show":
        return Decision(False, None, f"skipped: {state}, and the policy is to run nothing")
    return Decision(True, None, f"runs: {state}")
