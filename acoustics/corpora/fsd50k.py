"""FSD50K (Fonseca et al. 2022): sounds with labels, an evaluation set, and a validation part of the other.

``FSD50K.dev_audio/``, ``FSD50K.eval_audio/``, and what is in them in ``FSD50K.ground_truth/dev.csv`` and ``eval.csv``.
"""

import re
from collections.abc import Sequence
from pathlib import Path

from .layout import Item, Layout, read_table

_FOLDERS = {"FSD50K.dev_audio": "dev", "FSD50K.eval_audio": "eval"}


def _items(root: Path, names: Sequence[str], purpose: str) -> list[Item]:
    rows: dict[tuple[str, str], tuple[tuple[str, ...], str]] = {}
    for folder, half in _FOLDERS.items():
        if not any(name.startswith(f"{folder}/") for name in names):
            continue  # its table may be missing too
        for row in read_table(root / "FSD50K.ground_truth" / f"{half}.csv", ("fname", "labels")):
            part = "test" if half == "eval" else "dev" if row.get("split") == "val" else "train"
            rows[folder, row["fname"]] = tuple(row["labels"].split(",")), part
    items = []
    for name in names:
        match = re.fullmatch(r"(FSD50K\.(?:dev|eval)_audio)/(\w+)\.\w+", name)
        if match and (match[1], match[2]) in rows:
            labels, part = rows[match[1], match[2]]
            items.append(Item(name, labels, match[2], part))
    return items


LAYOUT = Layout(lambda folder: bool(_FOLDERS.keys() & folder.folders), _items)
