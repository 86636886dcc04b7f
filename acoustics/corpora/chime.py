"""Backgrounds of CHiME-3 and CHiME-4 (Barker et al. 2015): four environments, several channels.

``BGD_150203_010_BUS.CH1.wav``: date, number, environment, channel; the first channel that is there is taken. They lie
in ``data/audio/16kHz/backgrounds`` of the corpora, whose other recordings are of speech.
"""

import re
from collections.abc import Sequence
from pathlib import Path

from .layout import Folder, Item, Layout

_BACKGROUNDS = Path("data", "audio", "16kHz", "backgrounds")


def _items(root: Path, names: Sequence[str], purpose: str) -> list[Item]:
    first: dict[str, Item] = {}
    for name in sorted(names):
        match = re.fullmatch(r"(?:.*/)?BGD_\w+?_([A-Z]+)(?:\.CH\d+)?\.\w+", name)
        if match:
            session = re.sub(r"\.CH\d+(?=\.\w+$)", "", name)
            first.setdefault(session, Item(name, (match[1],), Path(session).stem))
    return list(first.values())


def _is_here(folder: Folder) -> bool:
    return any(name.startswith("BGD_") for name in folder.files) or (folder.path / _BACKGROUNDS).is_dir()


LAYOUT = Layout(_is_here, _items)
