"""Everything that can happen to speech, one file for each; a new one is added to the list below."""

from .band_reject import BandReject
from .base import Effect, Range, Recordings, Sound
from .clipping import Clipping
from .codec import Codec
from .echo import Echo
from .gain import Gain
from .high_pass import HighPass
from .low_pass import LowPass
from .music import Music
from .noise import Noise
from .packet_loss import PacketLoss
from .pitch_shift import PitchShift
from .resampling import Resampling
from .reverb import Reverb
from .talker import Talker

__all__ = ["EFFECTS", "Effect", "Range", "Recordings", "Sound", "in_order", "joined"]

EFFECTS: dict[str, type[Effect]] = {
    effect.name: effect
    for effect in (
        # In the order in which they act, that in which sound travels: the voice and its room,
        *(PitchShift, Reverb, BandReject),
        # what else sounds there,
        *(Talker, Music, Noise),
        # the microphone and its amplifier,
        *(Gain, HighPass, LowPass, Clipping, Resampling),
        # and the line.
        *(Echo, Codec, PacketLoss),
    )
}


def in_order(names: set[str] | frozenset[str], first: str = "") -> list[str]:
    """Effects in the order in which they act.

    Args:
        names: of the effects.
        first: the one that acts before all others although it stands further down the list.

    >>> in_order({"noise", "codec", "reverb"}), in_order({"noise", "reverb"}, first="noise")
    (['reverb', 'noise', 'codec'], ['noise', 'reverb'])
    """
    return sorted((name for name in EFFECTS if name in names), key=lambda name: name != first)


def joined(names: set[str] | frozenset[str]) -> str:
    """How several effects are written: what is added first; ``clean`` for none.

    >>> joined({"noise", "codec", "reverb"}), joined(set())
    ('noise+reverb+codec', 'clean')
    """
    ordered = in_order(names)
    return "+".join(sorted(ordered, key=lambda name: not issubclass(EFFECTS[name], Sound))) or "clean"
