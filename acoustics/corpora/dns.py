"""The DNS challenge's archives (Dubey et al. 2022): noise in one flat folder, rooms that are OpenSLR 26 and 28.

``noise_fullband/*.wav`` (or ``noise/``), ``impulse_responses/SLR26/`` and ``impulse_responses/SLR28/RIRS_NOISES/``.
"""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from .layout import Item, Layout
from .rirs_noises import rirs_noises_items

_FOLDERS = {"SLR26", "SLR28", "impulse_responses", "noise_fullband"}


def _items(root: Path, names: Sequence[str], purpose: str) -> list[Item]:
    if purpose == "noise":
        return [Item(name, group=Path(name).stem) for name in names if "noise" in name.split("/")[0] or "/" not in name]
    items = [
        Item(name, ("simulated", "SLR26"), "/".join(name.split("/")[-3:-1]))
        for name in names
        if "SLR26" in name.split("/")
    ]
    inside: dict[str, list[str]] = {}  # by the folder called SLR28, names in it
    for name in names:
        above, found, below = f"/{name}".partition("/SLR28/")
        if found:
            inside.setdefault(f"{above}/SLR28".lstrip("/"), []).append(below)
    for above, below in inside.items():
        items += [
            replace(one, name=f"{above}/{one.name}", labels=(*one.labels, "SLR28"))
            for one in rirs_noises_items(root / above, below, "rir")
        ]
    return items


LAYOUT = Layout(lambda folder: bool(_FOLDERS & folder.folders), _items, ("noise", "rir"))
