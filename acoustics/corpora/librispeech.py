"""LibriSpeech (Panayotov et al. 2015; OpenSLR 12) and LibriTTS: speech in ``train-``, ``dev-`` and ``test-`` subsets.

``train-clean-100/SPEAKER/CHAPTER/*.flac``, ``dev-clean/``, ``test-other/`` and so on; the subset is the label. Speakers
are in one subset only. As published: what SUPERB tests with is in ``test-clean``.
"""

import re
from collections.abc import Sequence
from pathlib import Path

from .layout import Item, Layout

_SUBSET = re.compile(r"(train|dev|test)-(clean|other)(-\d+)?")


def _items(root: Path, names: Sequence[str], purpose: str) -> list[Item]:
    found = ((name, _SUBSET.fullmatch(name.split("/")[0])) for name in names)
    return [Item(name, (subset[0],), name, subset[1]) for name, subset in found if subset]


LAYOUT = Layout(lambda folder: any(map(_SUBSET.fullmatch, folder.folders)), _items, ("speech",))
