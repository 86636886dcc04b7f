"""RIRS_NOISES (Ko et al. 2017; OpenSLR 28): simulated and measured rooms, point-source and isotropic noises.

``simulated_rirs/SIZE/ROOM/``, ``pointsource_noises/``, and ``real_rirs_isotropic_noises/`` with responses and noises
side by side, which the corpus's own ``rir_list`` and ``noise_list`` tell apart.
"""

import re
from collections.abc import Sequence
from pathlib import Path

from .layout import Folder, Item, Layout

_FOLDERS = {"simulated_rirs", "real_rirs_isotropic_noises", "pointsource_noises"}
_LABELS = {"rir": ("simulated", "real"), "noise": ("pointsource", "isotropic")}


def rirs_noises_items(root: Path, names: Sequence[str], purpose: str) -> list[Item]:
    """The responses or the noises, below `root` or a folder in it.

    >>> rirs_noises_items(Path("RIRS_NOISES"), ["simulated_rirs/smallroom/Room001/Room001-00001.wav"], "rir")[0].group
    'smallroom/Room001'
    """
    rooms, isotropic = _listed(root)
    items = []
    for name in names:
        parts, stem = name.split("/"), Path(name).stem
        if any(part.startswith("simulated_rirs") for part in parts):
            items.append(Item(name, ("simulated",), "/".join(parts[-3:-1])))  # smallroom/Room001/Room001-00001.wav
        elif "pointsource_noises" in parts:
            items.append(Item(name, ("pointsource",), stem))
        elif "real_rirs_isotropic_noises" in parts:
            is_noise = stem in isotropic or (stem not in rooms and "_noise_" in stem)
            items.append(Item(name, ("isotropic" if is_noise else "real",), rooms.get(stem) or _room_of(stem)))
    return [item for item in items if item.labels[0] in _LABELS[purpose]]


def _listed(root: Path) -> tuple[dict[str, str], set[str]]:
    """File stems of the measured responses with their rooms, and of the isotropic noises, by the corpus's own lists."""
    rooms, noises = {}, set()
    for folder in (root / "real_rirs_isotropic_noises", root / "RIRS_NOISES" / "real_rirs_isotropic_noises"):
        for line in _lines(folder / "rir_list"):
            room, stem = re.search(r"--room-id\s+(\S+)", line), Path(line.split()[-1]).stem
            rooms[stem] = room[1] if room else _room_of(stem)
        noises |= {Path(line.split()[-1]).stem for line in _lines(folder / "noise_list")}
    return rooms, noises


def _lines(file: Path) -> list[str]:
    return [line for line in file.read_text(encoding="utf-8").splitlines() if line.strip()] if file.is_file() else []


def _room_of(stem: str) -> str:
    """``RVB2014_type1_rir_largeroom1_far_angla`` is of ``RVB2014 largeroom1``."""
    match = re.match(r"(RVB2014|RWCP|air)_.*?_(?:rir|noise|binaural|phone)_(?:BT_)?([a-zA-Z]+\d*)", stem)
    return f"{match[1]} {match[2]}" if match else stem


def _is_here(folder: Folder) -> bool:
    return bool(_FOLDERS & folder.folders) or folder.folders == {"RIRS_NOISES"}


LAYOUT = Layout(_is_here, rirs_noises_items, ("noise", "rir"))
