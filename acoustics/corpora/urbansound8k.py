"""UrbanSound8K (Salamon, Jacoby and Bello 2014): ten classes in ten folds.

``audio/fold5/FREESOUNDID-CLASS-OCCURRENCE-SLICE.wav``: the names say everything that its table does.
"""

import re
from collections.abc import Sequence
from pathlib import Path

from .layout import Folder, Item, Layout

_CLASSES = (
    *("air_conditioner", "car_horn", "children_playing", "dog_bark", "drilling"),
    *("engine_idling", "gun_shot", "jackhammer", "siren", "street_music"),
)
_PARTS = {"10": "test", "9": "dev"}


def _is_here(folder: Folder) -> bool:
    return "audio" in folder.folders and (folder.path / "audio" / "fold1").is_dir()


def _items(root: Path, names: Sequence[str], purpose: str) -> list[Item]:
    items = []
    for name in names:
        match = re.fullmatch(r"(?:.*/)?fold(\d+)/(\d+)-(\d)-\d+-\d+\.\w+", name)
        if match:
            items.append(Item(name, (_CLASSES[int(match[3])],), match[2], _PARTS.get(match[1], "train")))
    return items


LAYOUT = Layout(_is_here, _items)
