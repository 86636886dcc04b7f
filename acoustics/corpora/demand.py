"""DEMAND (Thiemann, Ito and Vincent 2013): environments, heard by 16 microphones some centimetres apart.

``DKITCHEN/ch01.wav`` to ``ch16.wav``; of the 16 the first is taken.
"""

import re
from collections.abc import Sequence
from pathlib import Path

from .layout import Folder, Item, Layout

#: The environments that the test set of VoiceBank-DEMAND was mixed with (Valentini-Botinhao et al. 2016).
_TEST = ("DLIVING", "OOFFICE", "SCAFE", "SPSQUARE", "TBUS")


def _is_here(folder: Folder) -> bool:
    places = (name for name in folder.folders if re.fullmatch(r"[A-Za-z]+(_\d+k)?", name))
    return any((folder.path / place / "ch01.wav").is_file() for place in places)


def _items(root: Path, names: Sequence[str], purpose: str) -> list[Item]:
    items = []
    for name in names:
        folder, _, file = name.rpartition("/")
        if file.lower().startswith("ch01."):
            place = re.sub(r"_\d+k$", "", folder.split("/")[-1], flags=re.IGNORECASE)
            items.append(Item(name, (place,), place, "test" if place in _TEST else "train"))
    return items


LAYOUT = Layout(_is_here, _items)
