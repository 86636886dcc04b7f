"""Record files: written atomically, one per cell, read back strictly, looked up before work is repeated."""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import dataclass
from pathlib import Path

from robustdistiller.common.files import write_text
from robustdistiller.eval.results.record import Record, RecordError

#: What may happen to a cell that has a record, and to one that has none.
REUSE_POLICIES = {
    "only-missing": "reuse finished records, run everything else",
    "always": "run every cell again",
    "never": "never run a cell twice: what has a record, failed ones included, is left alone",
    "only-cache": "run nothing, show what there is",
}


def slug(text: str) -> str:
    """A readable file name for any text; different texts give different names.

    Example:
        >>> slug("noise:snr_db=10"), slug("robustdistiller_local")
        ('noise~snr_db=10', 'robustdistiller_local')
        >>> slug("noise:noise=/data/musan,snr_db=5").startswith("noise~noise=_data_musan,snr_db=5-")
        True
    """
    name = re.sub(r"[^A-Za-z0-9_.,+=~-]", "_", text.replace(":", "~")).lstrip(".")
    faithful = name.replace("~", ":") == text and len(name) <= 80
    return name if faithful else f"{name[:80]}-{hashlib.sha256(text.encode()).hexdigest()[:8]}"


def record_path(root: Path | str, record: Record) -> Path:
    """Where a record belongs: ``root/upstream/digest/task/condition/split[-fold]-seedN-head.json``.

    Example:
        >>> from robustdistiller.eval.results.record import example_record
        >>> record_path("records", example_record(seed=7)).as_posix()
        'records/fbank/none/IC/clean/test-seed7-abababab.json'
    """
    heard = f"@{record.condition_digest[:8]}" if record.sources or record.corruption_seed else ""
    condition = slug(record.condition) + heard
    part = slug(record.split) + (f"-{slug(record.fold)}" if record.fold else "")
    name = f"{part}-seed{record.seed}-{record.config_digest[:8]}.json"
    options = hashlib.sha256(record.upstream_options.encode()).hexdigest()[:8] if record.upstream_options else ""
    weights = record.checkpoint_digest[:12] + (f"@{options}" if options else "")
    return Path(root) / slug(record.upstream) / weights / slug(record.task) / condition / name


def write_record(root: Path | str, record: Record) -> Path:
    """Write a record at its place, through a temporary file and a rename; an older record of the cell is replaced.

    The file also holds the digest of its content, so that a number changed by hand is noticed.

    Example:
        >>> import tempfile
        >>> from robustdistiller.eval.results.record import example_record
        >>> root = tempfile.mkdtemp()
        >>> read_record(write_record(root, example_record())) == example_record()
        True
    """
    data = record.to_dict()
    text = json.dumps({**data, "digest": _digest(data)}, indent=1, allow_nan=False)
    return write_text(record_path(root, record), text + "\n")


def _digest(data: dict) -> str:
    return hashlib.sha256(json.dumps(data, sort_keys=True).encode()).hexdigest()


def read_record(path: Path | str) -> Record:
    """Read and validate one record.

    Raises:
        RecordError: with the path, when the file is not JSON, not a valid record, or was changed since it was written.

    Example:
        >>> read_record("missing.json")
        Traceback (most recent call last):
        FileNotFoundError: ...
    """
    try:
        data = json.loads(Path(path).read_text(encoding="utf-8"))
        has_digest = isinstance(data, dict) and data.get("schema_version") != 1  # the first schema had none
        digest = data.pop("digest", None) if has_digest else None
        record = Record.from_dict(data)
        if has_digest and digest != _digest(data):
            raise RecordError(
                "it was changed after it was written, its digest does not match its content; "
                "bring the file back or evaluate the cell again"
            )
        return record
    except (json.JSONDecodeError, UnicodeDecodeError, RecordError) as error:
        raise RecordError(f"{path} is not a valid record: {error}") from error


def read_records(root: Path | str) -> list[Record]:
    """Read all records below a folder, in path order. Other JSON files there are left alone.

    Raises:
        FileNotFoundError: the folder does not exist.
        RecordError: naming every broken file; none of the records is used then.

    Example:
        >>> import tempfile
        >>> from robustdistiller.eval.results.record import example_record
        >>> root = tempfile.mkdtemp()
        >>> _ = [write_record(root, example_record(seed=seed)) for seed in (1, 2)]
        >>> [record.seed for record in read_records(root)]
        [1, 2]
    """
    return list(read_record_files(root).values())


def read_record_files(root: Path | str) -> dict[Path, Record]:
    """As `read_records`, with the file of each record.

    Raises:
        FileNotFoundError: the folder does not exist.
        RecordError: naming every broken file.

    Example:
        >>> import tempfile
        >>> from robustdistiller.eval.results.record import example_record
        >>> root = tempfile.mkdtemp()
        >>> path = write_record(root, example_record())
        >>> list(read_record_files(root)) == [path]
        True
    """
    root = Path(root)
    if not root.is_dir():
        raise FileNotFoundError(f"no folder of records at {root}; records are written by run_downstream.py -m evaluate")
    records: dict[Path, Record] = {}
    broken = []
    for path in sorted(p for p in root.rglob("*-seed*-*.json") if not p.name.startswith(".")):
        try:
            records[path] = read_record(path)
        except RecordError as error:
            broken.append(str(error))
    if broken:
        raise RecordError("\n".join([*broken, "Delete or repair these files; nothing was read."]))
    return records


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
    """The record of a cell, whatever its status; the error when its file is broken, None when there is none.

    Args:
        root: folder of records.
        wanted: a record of the same cell; its scores do not matter.

    Example:
        >>> import tempfile
        >>> from robustdistiller.eval.results.record import example_record
        >>> root = tempfile.mkdtemp()
        >>> look_up(root, example_record()) is None
        True
        >>> _ = write_record(root, example_record())
        >>> look_up(root, example_record()).main_metric.value
        75.0
    """
    path = record_path(root, wanted)
    if not path.exists():
        return None
    try:
        record = read_record(path)
    except RecordError as error:
        return error
    return record if record.key() == wanted.key() else None


def decide(found: Record | RecordError | None, policy: str = "only-missing") -> Decision:
    """Whether a cell is run, given what `look_up` found of it.

    Args:
        found: the cell's record, the error in reading it, or None.
        policy: one of `REUSE_POLICIES`.

    Raises:
        ValueError: unknown policy.

    Example:
        >>> from robustdistiller.eval.results.record import example_record
        >>> done, failed = example_record(), example_record(status="failed", reason="disk full")
        >>> [decide(done, policy).run for policy in REUSE_POLICIES]
        [False, True, False, False]
        >>> [decide(failed, policy).run for policy in REUSE_POLICIES]
        [True, True, False, False]
        >>> [decide(None, policy).run for policy in REUSE_POLICIES]
        [True, True, True, False]
        >>> decide(failed).why
        'runs: its record is failed, disk full'
    """
    if policy not in REUSE_POLICIES:
        raise ValueError(f"unknown policy {policy!r}; expected one of {', '.join(REUSE_POLICIES)}")
    finished = isinstance(found, Record) and found.status == "ok"
    if found is None:
        state = "it has no record"
    elif isinstance(found, RecordError):
        state = f"its record cannot be read ({found})"
    else:
        state = f"its record is {'finished' if finished else f'{found.status}, {found.reason}'}"
    if policy == "always":
        return Decision(True, None, f"runs: everything is run again ({state})")
    if finished:
        return Decision(False, found, f"reused: {_one_line(found)}")
    if policy == "only-cache":
        return Decision(False, None, f"skipped: {state}, and only-cache runs nothing")
    if policy == "never" and found is not None:
        return Decision(False, None, f"skipped: {state}, and never runs nothing twice")
    return Decision(True, None, f"runs: {state}")


def _one_line(record: Record) -> str:
    """The headline number of a finished record and its date."""
    metric = record.main_metric
    score = "no score" if metric.value is None else f"{metric.name} {metric.value:.2f}{metric.unit}"
    return f"{score} of {record.start_utc[:10]}"
