"""The drawn corruption of one utterance, as plain data that can be stored and replayed."""

import dataclasses
import hashlib
from dataclasses import dataclass

import numpy as np

from robustdistiller.common.names import refuse_unknown
from robustdistiller.common.settings import read

from .options import check_range
from .pitch import MAX_CENTS
from .plan import NOISE_KINDS, OPERATIONS, REVERB_LEVELS


def private_generator(seed: int, epoch: int, utterance_id: str, purpose: str = "") -> np.random.Generator:
    """A generator that depends on its arguments only (SHA-256), never on what was drawn before or elsewhere.

    >>> a, b = private_generator(0, 1, "utt", "noise"), private_generator(0, 1, "utt", "noise")
    >>> a.random() == b.random(), a.random() == private_generator(0, 2, "utt", "noise").random()
    (True, False)
    """
    key = repr((int(seed), int(epoch), str(utterance_id), purpose)).encode()
    digest = hashlib.sha256(key).digest()
    # NumPy takes the number in pieces of 32 bits anyway, and is slow to cut it.
    pieces = np.frombuffer(digest, "<u4")
    return np.random.Generator(np.random.PCG64(pieces if pieces[-1] else int.from_bytes(digest, "little")))


@dataclass(frozen=True)
class NoiseParameters:
    """Which noise is added.

    Attributes:
        kind: ``white``, ``pink``, ``brown``, ``file`` or ``babble``.
        seed: of the synthetic noises.
        names: recordings in the noise source (one for ``file``) or in the speech source (each talker of ``babble``).
        starts: first sample taken from each recording, at the working rate; of ``white`` without names, that of each
            stretch of the long noise of that seed (see ``stretches_of_white_noise``) instead of noise of its own.

    >>> NoiseParameters("file", names=("rain.wav",), starts=(160,)).names
    ('rain.wav',)
    """

    kind: str
    seed: int | None = None
    names: tuple[str, ...] = ()
    starts: tuple[int, ...] = ()

    def __post_init__(self):
        refuse_unknown([self.kind], NOISE_KINDS, "noise kind")
        if len(self.names) != len(self.starts) and (self.names or self.kind != "white"):
            raise ValueError(f"noise needs one start for each name, found {self.names} and {self.starts}")
        if self.kind in ("file", "babble") and not self.names:
            raise ValueError(f"noise of kind {self.kind!r} needs names of recordings, found none")
        if self.kind not in ("file", "babble") and self.seed is None:
            raise ValueError(f"noise of kind {self.kind!r} needs a seed")


@dataclass(frozen=True)
class RIRParameters:
    """Which impulse response is applied.

    Attributes:
        name: the file or piece in the RIR source.
        channel: its channel, from 0.
        level: ``rms``, ``direct`` or ``file``; see ``corrupt``.

    >>> RIRParameters("room.wav").level
    'rms'
    """

    name: str
    channel: int = 0
    level: str = "rms"

    def __post_init__(self):
        refuse_unknown([self.level], REVERB_LEVELS, "reverb level")


@dataclass(frozen=True)
class CorruptionParameters:
    """Everything needed to corrupt one utterance again, given the same sources.

    Recordings are named relative to their source, so the parameters mean the same on every machine.

    Attributes:
        operation: ``clean``, ``noise``, one of ``reverb``, ``pitch_shift`` and ``band_reject``, or one of these after
            ``noise+``.
        snr_db: signal-to-noise ratio in dB; with noise only.
        noise: which noise; with noise only.
        rir: which impulse response; with reverberation only.
        pitch_cents: pitch shift, -1200 to 1200; with a pitch shift only.
        band_hz: lowest and highest frequency of the rejected band; with band rejection only.

    >>> parameters = CorruptionParameters("noise", snr_db=5.0, noise=NoiseParameters("white", seed=7))
    >>> CorruptionParameters.from_dict(parameters.to_dict()) == parameters
    True
    """

    operation: str = "clean"
    snr_db: float | None = None
    noise: NoiseParameters | None = None
    rir: RIRParameters | None = None
    pitch_cents: float | None = None
    band_hz: tuple[float, float] | None = None

    def __post_init__(self):
        refuse_unknown([self.operation], OPERATIONS, "operation")
        has_noise = "noise" in self.operation
        if has_noise != (self.noise is not None) or has_noise != (self.snr_db is not None):
            raise ValueError(f"operation {self.operation!r} {'needs' if has_noise else 'excludes'} snr_db and noise")
        for distortion, key in (("reverb", "rir"), ("pitch_shift", "pitch_cents"), ("band_reject", "band_hz")):
            needed = distortion in self.operation
            if needed != (getattr(self, key) is not None):
                raise ValueError(f"operation {self.operation!r} {'needs' if needed else 'excludes'} {key}")
        if self.pitch_cents is not None:
            check_range("pitch_cents", self.pitch_cents, -MAX_CENTS, MAX_CENTS)
        if self.band_hz is not None and (len(self.band_hz) != 2 or not 0 <= self.band_hz[0] <= self.band_hz[1]):
            raise ValueError(f"band_hz must be (lowest, highest) in Hz, found {self.band_hz!r}")

    def to_dict(self) -> dict:
        """What is set, JSON-able.

        >>> CorruptionParameters("reverb", rir=RIRParameters("room.wav")).to_dict()
        {'operation': 'reverb', 'rir': {'name': 'room.wav', 'channel': 0, 'level': 'rms'}}
        """
        return _plain(dataclasses.asdict(self))

    @classmethod
    def from_dict(cls, values: dict) -> "CorruptionParameters":
        """The inverse of :meth:`to_dict`; unknown keys are refused.

        >>> CorruptionParameters.from_dict({"operation": "clean"})
        CorruptionParameters(operation='clean', snr_db=None, noise=None, rir=None, pitch_cents=None, band_hz=None)
        """
        return read(cls, values, "parameters")


def _plain(values: dict) -> dict:
    """Without unset or empty values, tuples as lists: what JSON gives back."""
    plain = {}
    for key, value in values.items():
        if value is not None and value != ():
            plain[key] = (
                _plain(value) if isinstance(value, dict) else list(value) if isinstance(value, tuple) else value
            )
    return plain
