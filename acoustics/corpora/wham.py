"""WHAM! noise (Wichern et al. 2019): ``tr``, ``cv`` and ``tt`` are ``train``, ``dev`` and ``test``."""

from collections.abc import Sequence
from pathlib import Path

from .layout import Item, Layout

_PARTS = {"tr": "train", "cv": "dev", "tt": "test"}


def _items(root: Path, names: Sequence[str], purpose: str) -> list[Item]:
    found = ((name, _PARTS.get(name.split("/")[0])) for name in names)
    return [Item(name, group=name, split=part) for name, part in found if part]


LAYOUT = Layout(lambda folder: {"tr", "tt"} <= folder.folders, _items)
