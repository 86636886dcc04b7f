"""A plain folder, a file or a manifest: everything serves every purpose, parts are subfolders or made by name."""

from collections.abc import Sequence
from pathlib import Path

from .layout import PARTS, PURPOSES, Item, Layout


def _items(root: Path, names: Sequence[str], purpose: str) -> list[Item]:
    own = {name.split("/")[0].lower() for name in names if "/" in name} & set(PARTS)
    if own:  # the folder has parts of its own; what lies outside of them is for training, unless that is one of them
        outside = "none" if "train" in own else "train"
        parts = ((name, name.split("/")[0].lower()) for name in names)
        return [Item(name, split=part if part in own else outside) for name, part in parts]
    if purpose != "rir":
        return [Item(name, group=Path(name).stem) for name in names]
    # Responses of one room tend to lie in one folder.
    return [Item(name, group=str(Path(name).parent) if "/" in name else Path(name).stem) for name in names]


LAYOUT = Layout(lambda folder: True, _items, PURPOSES)
