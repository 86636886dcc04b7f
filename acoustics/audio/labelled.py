"""Tables of labelled recordings: what heads, probes and fine-tuning take to know which recording has which label."""

from __future__ import annotations

import csv
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from robustdistiller.common.names import nearest

SPLITS = ("train", "dev", "test")
#: What is written for each split, in lower case.
SPLIT_SPELLINGS = {
    **{name: name for name in SPLITS},
    **{"training": "train", "valid": "dev", "val": "dev", "validation": "dev", "testing": "test"},
}
_NEEDED, _WANTED = ("path", "label"), ("speaker", "split")
_PIECE = ("file", "offset_samples", "num_samples")


@dataclass(frozen=True)
class Labelled:
    """One line of a table: a recording, and what the table says of it.

    Attributes:
        line: in the file, counted from 1.
        name: the path as it is written; of a piece of a longer recording ``FILE@OFFSET``.
        path: where the recording is.
        label: its class.
        speaker: who speaks, empty where the table has no such column.
        split: ``train``, ``dev`` or ``test``, empty where the table has no such column.
        frame_offset: first sample, at the file's own rate.
        num_frames: number of samples at the file's own rate; None means to the end of the file.
    """

    line: int
    name: str
    path: Path
    label: str
    speaker: str = ""
    split: str = ""
    frame_offset: int = 0
    num_frames: int | None = None


def read_labelled(table: str | Path, *, pieces: bool = False) -> list[Labelled]:
    """The recordings of a table, in its order.

    Args:
        table: a CSV file, or tab-separated values without quotes (``.tsv``), in UTF-8, with the columns ``path``
            (relative to the table's folder, or absolute) and ``label``, and if wanted ``speaker`` and ``split`` (train,
            dev or test). Further columns are not read.
        pieces: whether ``file``, ``offset_samples`` and ``num_samples`` may stand in place of ``path``.

    Raises:
        FileNotFoundError: the table or one of its recordings is not there.
        ValueError: it cannot be read as a table, a column or a value is missing or makes no sense, or a recording
            stands in it twice. The line is named.

    >>> read_labelled("/no/such/labels.csv")
    Traceback (most recent call last):
    FileNotFoundError: /no/such/labels.csv: no such file; expected a table with the columns path and label
    """
    table = Path(table)
    if not table.is_file():
        found = "no such file" if not table.exists() else "this is no file"
        raise FileNotFoundError(f"{table}: {found}; expected a table with the columns path and label")
    how = {"delimiter": "\t", "quoting": csv.QUOTE_NONE} if table.suffix == ".tsv" else {"skipinitialspace": True}
    try:
        with table.open(encoding="utf-8-sig", newline="") as stream:
            reader = csv.DictReader(stream, strict=True, **how)
            columns = [str(column).strip() for column in reader.fieldnames or ()]
            reader.fieldnames = columns
            needed = (*_PIECE, "label") if pieces and "path" not in columns and "file" in columns else _NEEDED
            _check_columns(table, columns, needed)
            rows = [_row(table, reader.line_num, columns, values, needed) for values in reader]
    except csv.Error as error:
        line = reader.reader.line_num
        raise ValueError(f"{table}, line {line}: this is no table ({error}); mend the quotes") from error
    except UnicodeDecodeError as error:
        raise ValueError(f"{table} is not in UTF-8 ({error.reason}); save it as UTF-8") from error
    first: dict[tuple[Path, int], int] = {}
    for row in rows:
        line = first.setdefault((row.path, row.frame_offset), row.line)
        if line != row.line:
            raise ValueError(
                f"{table}, line {row.line}: {row.name} stands in line {line} already; expected each recording once"
            )
    return rows


def _check_columns(table: Path, columns: Sequence[str], needed: Sequence[str]) -> None:
    for column in (*needed, *_WANTED):
        if column not in columns and (column in needed or nearest(column, columns, cutoff=0.8)):
            raise ValueError(f"{table} has no column {column!r}, found {', '.join(columns) or 'an empty file'}")
        if columns.count(column) > 1:
            raise ValueError(f"{table} has the column {column!r} {columns.count(column)} times; expected it once")


def _row(
    table: Path, line: int, columns: Sequence[str], values: dict[str | None, str | None], needed: Sequence[str]
) -> Labelled:
    where = f"{table}, line {line}"
    if None in values or None in values.values():
        found = sum(value is not None for key, value in values.items() if key) + len(values.get(None) or ())
        raise ValueError(
            f"{where}: found {found} fields, expected {len(columns)} as in line 1; put a value with a comma in quotes"
        )
    given = {column: (values.get(column) or "").strip() for column in (*needed, *_WANTED)}
    for column, value in given.items():
        if not value and column in columns:
            raise ValueError(f"{where}: no {column}; expected one in every line")
    split = SPLIT_SPELLINGS.get(given["split"].lower(), "")
    if given["split"] and not split:
        raise ValueError(f"{where}: the split must be train, dev or test, found {given['split']!r}")
    name = given[needed[0]]
    path = Path(os.path.normpath(table.absolute().parent / Path(name).expanduser()))
    if not path.is_file():
        raise FileNotFoundError(f"{where}: no file {path}; expected a path relative to the table, or absolute")
    if needed is _NEEDED:
        return Labelled(line, name, path, given["label"], given["speaker"], split)
    try:
        offset, length = int(given["offset_samples"]), int(given["num_samples"])
    except ValueError:
        raise ValueError(
            f"{where}: offset_samples and num_samples must be whole numbers, found {given['offset_samples']!r} and "
            f"{given['num_samples']!r}"
        ) from None
    return Labelled(line, f"{name}@{offset}", path, given["label"], given["speaker"], split, offset, length)
