"""MUSAN (Snyder, Chen and Povey 2015; OpenSLR 17): noise, music and speech.

``noise/``, ``music/`` and ``speech/`` hold a folder for each source, files are called like it with a number; of one
original there is one file.
"""

from collections.abc import Sequence
from pathlib import Path

from .layout import PARTS, Folder, Item, Layout

_KINDS = {"music", "noise", "speech"}


def _items(root: Path, names: Sequence[str], purpose: str) -> list[Item]:
    # Music and babble serve as noise for those who ask for them; noise serves as nothing else.
    kinds = _KINDS if purpose == "noise" else {purpose}
    found = ((name, name.split("/")[0]) for name in names)
    return [Item(name, (kind,), group=Path(name).stem) for name, kind in found if kind in kinds]


def _is_here(folder: Folder) -> bool:
    # Somebody's own recordings may be sorted like this too: what is held out of them must not be divided anew.
    if not folder.folders >= _KINDS:
        return False
    return not {name.lower() for kind in _KINDS for name in Folder.read(folder.path / kind).folders} & set(PARTS)


LAYOUT = Layout(_is_here, _items, ("noise", "speech", "music"), default={"noise": ("noise",)})
