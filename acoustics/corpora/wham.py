"""WHAM! noise (Wichern et al. 2019): ``tr``, ``cv`` and ``tt`` are ``train``, ``dev`` and ``test``.

The archive of the noise has its files there; the mixtures made with it have ``noise``, beside the speech in ``s1``,
``mix_both`` and so on.
"""

from collections.abc import Sequence
from pathlib import Path

from .layout import Item, Layout

_PARTS = {"tr": "train", "cv": "dev", "tt": "test"}


def _items(root: Path, names: Sequence[str], purpose: str) -> list[Item]:
    noise = [name for name in names if "/noise/" in name]
    found = ((name, _PARTS.get(name.split("/")[0])) for name in noise or names)
    return [Item(name, group=name, split=part) for name, part in found if part]


LAYOUT = Layout(lambda folder: {"tr", "tt"} <= folder.folders, _items)
