"""BUT Speech@FIT Reverb Database (Szöke et al. 2019, IEEE JSTSP 13(4)): responses and silences measured in nine rooms.

``ROOM/MicID01/SpkID01_20170920_S/07/RIR/IR_sweep_15s_45Hzto22kHz_FS16kHz.v00.wav`` is the response from a loudspeaker
position to microphone 07, and ``silence/`` beside ``RIR/`` holds what that microphone heard without it. Rooms are
called ``VUT_FIT_...`` and ``Hotel_SkalskyDvur_...``. The files are mono at 16 kHz. Retransmitted speech (``english/``)
serves no purpose here.

The layout is that of the release ``BUT_ReverbDB_rel_19_06_RIR-Only``, as lhotse's recipe and other public code read
it. We have not had the archive itself in hand: unverified are the names in ``silence/`` (any are taken), the layout of
the LibriSpeech-Only release, and whether a response was measured more than once (``.v01``; all are taken). The corpus
has no official parts; a room is never divided between ours, and of the nine only ``VUT_FIT_L212`` is held out for
test, none for development.
"""

import re
from collections.abc import Sequence
from pathlib import Path

from .layout import Item, Layout

_ROOMS = ("VUT_FIT_", "Hotel_SkalskyDvur_")
_FOLDERS = {"rir": "RIR", "noise": "silence"}
_LABELS = {"rir": "measured", "noise": "silence"}


def _items(root: Path, names: Sequence[str], purpose: str) -> list[Item]:
    items = []
    for name in names:
        *folders, _ = name.split("/")
        if folders and folders[-1] == _FOLDERS[purpose]:
            room = re.search(r"([^/]+)/MicID", f"{root.absolute().name}/{name}")
            place = room[1] if room else folders[0]
            items.append(Item(name, (place, _LABELS[purpose]), place))
    return items


LAYOUT = Layout(lambda folder: any(name.startswith(_ROOMS) for name in folder.folders), _items, ("noise", "rir"))
