"""MUSAN (Snyder, Chen and Povey 2015; OpenSLR 17): noise, music and speech.

``noise/``, ``music/`` and ``speech/`` hold a folder for each source, files are called like it with a number; of one
original there is one file.
"""

from collections.abc import Sequence
from pathlib import Path

from .layout import Item, Layout

_PARTS = {"music", "noise", "speech"}


def _items(root: Path, names: Sequence[str], purpose: str) -> list[Item]:
    # Music and babble serve as noise for those who ask for them; noise serves as nothing else.
    parts = _PARTS if purpose == "noise" else {purpose}
    found = ((name, name.split("/")[0]) for name in names)
    return [Item(name, (part,), group=Path(name).stem) for name, part in found if part in parts]


LAYOUT = Layout(
    lambda folder: folder.folders >= _PARTS, _items, ("noise", "speech", "music"), default={"noise": ("noise",)}
)
