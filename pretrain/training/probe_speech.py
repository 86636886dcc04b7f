"""The labelled speech of a probe: a CSV file, divided into training and test, with every recording read once."""

from __future__ import annotations

import csv
import hashlib
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from robustdistiller.acoustics import Piece, audio_info
from robustdistiller.acoustics.audio.files import read_audio
from robustdistiller.common.names import did_you_mean
from robustdistiller.common.settings import SettingsError
from robustdistiller.pretrain.data.cuts import FileCut, file_cuts

_COLUMNS = ("path", "label", "split")
_SPLITS = ("train", "test")


@dataclass(frozen=True)
class Labelled:
    """A recording and what it is to be recognised as.

    Attributes:
        line: of the CSV file, counted from 1.
        name: its path as the file has it.
        file: where that is.
        label: its class.
        split: `train` or `test`; empty as long as that is not decided.
    """

    line: int
    name: str
    file: Path
    label: str
    split: str = ""


def labelled_speech(path: Path, test_share: float, max_utterances: int | None, seed: int) -> list[Labelled]:
    """The recordings of a CSV file with the columns `path`, `label` and, if it wishes, `split` (`train` or `test`).

    What is chosen depends on the hash of a recording's path: the order of the lines does not matter, and little changes
    when lines are added.

    Args:
        path: the CSV file, in UTF-8. Paths in it are absolute or relative to its folder.
        test_share: of each label's recordings, if there is no column `split`; at least one, and never all.
        max_utterances: as many are used, with the shares of labels and splits kept as far as possible. `None`: all.
        seed: of the hash.

    Raises:
        SettingsError: the file cannot be used; the line is named where it is one line's fault.
    """
    rows = _read(path)
    groups: dict[str, list[Labelled]] = defaultdict(list)
    for row in sorted(rows, key=lambda row: hashlib.sha256(f"{seed}/{row.name}".encode()).digest()):
        groups[row.label].append(row)
    if len(groups) < 2:
        raise SettingsError(
            f"{path}: found {' and '.join(map(repr, groups)) or 'no lines'}, expected two labels or more to tell apart"
        )
    parts: dict[tuple[str, str], list[Labelled]] = defaultdict(list)
    for label, group in groups.items():
        if len(group) == 1:
            raise SettingsError(
                f"{path}, line {group[0].line}: {label!r} has this utterance only, expected two or more, to train on "
                "one and to test on the other; add some or remove the line"
            )
        tests = min(max(round(test_share * len(group)), 1), len(group) - 1)
        for index, row in enumerate(group):
            split = row.split or _SPLITS[index < tests]
            parts[label, split].append(replace(row, split=split))
        for split, other in zip(_SPLITS, reversed(_SPLITS)):
            if not parts[label, split]:
                raise SettingsError(
                    f"{path}, line {min(row.line for row in group)}: all {len(group)} utterances of {label!r} are for "
                    f"{other}, expected one or more for {split}; change their split or remove them"
                )
    chosen = {row.name for row in _thinned(path, parts, max_utterances)}
    kept = [row for group in parts.values() for row in group if row.name in chosen]
    return sorted(kept, key=lambda row: row.line)


def _thinned(path: Path, parts: dict[tuple[str, str], list[Labelled]], most: int | None) -> list[Labelled]:
    """First one of every part, then those that keep the parts in proportion."""
    if most is not None and most < len(parts):
        raise SettingsError(
            f"{path}: {len(parts) // 2} labels need one utterance to train on and one to test on each; found "
            f"max_utterances={most}, expected {len(parts)} or more"
        )
    ranked = [
        (index > 0, (index + 0.5) / len(group), key, row)
        for key, group in parts.items()
        for index, row in enumerate(group)
    ]
    return [row for *_, row in sorted(ranked, key=lambda one: one[:3])[:most]]


def _read(path: Path) -> list[Labelled]:
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file, skipinitialspace=True, strict=True)
            _check_header(path, list(reader.fieldnames or []))
            rows, first_lines = [], {}
            for values in reader:
                row = _row(path, reader.line_num, len(reader.fieldnames), values)
                first = first_lines.setdefault(row.file.resolve(), row.line)
                if first != row.line:
                    raise SettingsError(
                        f"{path}, line {row.line}: {row.name} is in line {first} already, expected each recording "
                        "once; remove one of the lines"
                    )
                rows.append(row)
            return rows
    except OSError as error:
        raise SettingsError(
            f"{path} cannot be read ({error.strerror}), expected a CSV file with the columns path and label"
        ) from error
    except UnicodeDecodeError as error:
        raise SettingsError(f"{path} is not UTF-8 ({error.reason}), expected a CSV file; save it as UTF-8") from error
    except csv.Error as error:
        raise SettingsError(f"{path}, line {reader.line_num}: not CSV ({error}); mend the quotes") from error


def _check_header(path: Path, header: list[str]) -> None:
    unknown = [name for name in header if name not in _COLUMNS]
    missing = [name for name in _COLUMNS[:2] if name not in header]
    twice = [name for name, count in Counter(header).items() if count > 1]
    if unknown or missing or twice:
        hint = did_you_mean(unknown[0], _COLUMNS) if unknown else ""
        raise SettingsError(
            f"{path}, line 1: found the columns {', '.join(map(repr, header)) or 'of an empty file'}, expected path, "
            f"label and, if wanted, split, each once{hint}"
        )


def _row(path: Path, line: int, columns: int, values: dict[str | None, str | None]) -> Labelled:
    where = f"{path}, line {line}"
    if None in values or None in values.values():
        found = sum(value is not None for key, value in values.items() if key) + len(values.get(None, ()))
        raise SettingsError(
            f"{where}: found {found} fields, expected {columns} as in line 1; put a value with a comma in quotes"
        )
    name, label, split = (values.get(column, "").strip() for column in _COLUMNS)
    if not name or not label:
        raise SettingsError(f"{where}: the {'label' if name else 'path'} is empty; give one or remove the line")
    if "split" in values and split not in _SPLITS:
        raise SettingsError(f"{where}: found the split {split!r}, expected train or test")
    return Labelled(line, name, path.parent / Path(name).expanduser(), label, split)


def probe_cuts(path: Path, rows: Sequence[Labelled], max_samples: int) -> list[FileCut]:
    """A cut of at most `max_samples` of each recording, called `probe/NAME`, after reading all of them.

    Raises:
        SettingsError: a file is missing, cannot be decoded, or is silent; its line in the CSV file `path` is named.
    """
    headers, pieces = {}, []
    for row in rows:
        try:
            headers[str(row.file)] = info = audio_info(row.file)
            samples = read_audio(row.file, info=info)[:max_samples]
        except (OSError, ValueError) as error:
            raise SettingsError(f"{path}, line {row.line}: {error}") from error
        if samples.min() == samples.max():
            raise SettingsError(
                f"{path}, line {row.line}: {row.name} is silent, each of its first {len(samples)} samples is "
                f"{samples[0]:g}; expected speech: remove the line"
            )
        pieces.append(Piece(row.name, str(row.file)))
    return file_cuts("probe", pieces, headers)[0]
