"""ESC-50 (Piczak 2015): 50 classes of sounds of five seconds, in five folds by the table ``meta/esc50.csv``."""

from collections.abc import Sequence
from pathlib import Path

from .layout import Folder, Item, Layout, read_table

_PARTS = {"5": "test", "4": "dev"}


def _is_here(folder: Folder) -> bool:
    return "meta" in folder.folders and (folder.path / "meta" / "esc50.csv").is_file()


def _items(root: Path, names: Sequence[str], purpose: str) -> list[Item]:
    table = read_table(root / "meta" / "esc50.csv", ("filename", "fold", "category"))
    rows = {row["filename"]: row for row in table}
    found = ((name, rows.get(Path(name).name)) for name in names)
    return [
        Item(name, (row["category"],), row.get("src_file") or name, _PARTS.get(row["fold"], "train"))
        for name, row in found
        if row
    ]


LAYOUT = Layout(_is_here, _items)
