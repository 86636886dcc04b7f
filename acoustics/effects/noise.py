"""Noise: of files, white, pink, brown, or babble mixed from speech."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import PurePath
from typing import TYPE_CHECKING, Any

import numpy as np
import scipy

from robustdistiller.common.audio import SAMPLE_RATE_HZ

from ..levels import rms
from .base import Parameters, Recordings, Sound, choice, number, scaled, speech_level, spoken

if TYPE_CHECKING:
    from ..audio.sources import AudioSource

CORNER_HZ = 20.0
"""Below this, pink and brown noise are flat: otherwise most of their power would be an inaudible drift."""

TALKERS = 5
_EXPONENT = {"white": 0.0, "pink": -0.5, "brown": -1.0}
COLORS = tuple(_EXPONENT)


@dataclass(frozen=True)
class Noise(Sound):
    """Noise at a signal-to-noise ratio over the utterance, whose samples it is added to as it is.

    With reverberation, the speech is reverberated first, so that the ratio is that of the *reverberant* speech, unless
    `noise_added` says otherwise. Nothing is clipped or renormalised: samples may leave -1..1. A silent utterance stays
    silent.

    Attributes:
        snr_db: signal-to-noise ratio in dB; of a range, whole numbers are drawn.
        noise: ``white``, ``pink``, ``brown``, ``babble``, or a path of noise audio; None takes the noise files given.
        speech: path of the speech that babble is mixed from; None takes the speech given.
        talkers: voices in the babble (5).
        speech_level: ``rms`` (pauses included, as usual) or ``active`` (ITU-T P.56) level of the speech.
        noise_added: ``first`` adds it to the dry speech, before anything else is done to either: rooms and distortions
            then act on the mixture, and the ratio is that of the dry speech, as in the released code of RobustDistiller
            (arXiv 2302.09437) and of arXiv 2210.07978.

    >>> from robustdistiller.acoustics.effects import Range
    >>> Noise(snr_db=Range(5.0, 5.0), noise="white").draw(np.random.default_rng(0), 16000, Recordings())
    {'snr_db': 5.0, 'noise': {'kind': 'white', 'seed': 3653403231}}
    """

    name = "noise"
    keys = ("snr_db", "noise", "speech_level?")

    snr_db: Any = number(-40, 100, whole=True)
    noise: str | None = None
    speech: str | None = None
    talkers: Any = number(1, 100, whole=True)
    speech_level: str | None = speech_level()
    noise_added: str | None = choice("first")

    def __post_init__(self):
        super().__post_init__()
        if self.snr_db is None:
            raise ValueError("noise needs snr_db, as in 'noise:snr_db=5'")
        if self.noise != "babble" and (self.speech is not None or self.talkers is not None):
            raise ValueError(f"speech and talkers belong to noise=babble, found noise={self.noise or 'nothing'}")
        if self.talkers is not None and not self.talkers.low.is_integer():
            raise ValueError(f"talkers must be a whole number, found {self.talkers}")

    def needs(self) -> tuple[str, ...]:
        """Noise files, speech for babble, or nothing."""
        return ("speech",) if self.noise == "babble" else () if self.noise in COLORS else ("noise",)

    def draw(self, rng: np.random.Generator, num_samples: int, recordings: Recordings) -> dict[str, Any]:
        """A seed for what is synthesised, recordings and first samples for what is not."""
        if self.noise in COLORS:
            noise = {"kind": self.noise, "seed": int(rng.integers(2**32))}
        else:
            babble = self.noise == "babble"
            source = recordings.speech if babble else recordings.noise
            voices = int(self.talkers.low) if self.talkers else TALKERS
            names, starts = source.draw(rng, num_samples, voices if babble else 1)
            noise = {"kind": "babble" if babble else "file", "names": names, "starts": starts}
        if self.noise_added:
            noise["added"] = self.noise_added
        level = {"speech_level": self.speech_level} if self.speech_level else {}
        return {"snr_db": self.snr_db.low, "noise": noise, **level}

    @staticmethod
    def recordings(parameters: Parameters) -> list[tuple[str, str]]:
        """Voices are speech, files are noise."""
        kind = "speech" if parameters["noise"]["kind"] == "babble" else "noise"
        return [(kind, name) for name in parameters["noise"].get("names", ())]

    @classmethod
    def sound(cls, speech: np.ndarray, parameters: Parameters, recordings: Recordings) -> np.ndarray:
        """The noise at its level."""
        noise, rate_hz = parameters["noise"], recordings.sample_rate_hz
        if noise["kind"] in COLORS:
            signal = colored_noise(noise["kind"], len(speech), noise["seed"], rate_hz)
        else:
            source = recordings.speech if noise["kind"] == "babble" else recordings.noise
            if source is None:
                named = f"{noise['kind']} recordings ({noise['names'][0]}, ...)"
                raise ValueError(f"parameters name {named}, no source was given")
            parts = [part_of(source, *part, len(speech)) for part in zip(noise["names"], noise["starts"], strict=True)]
            signal = mix_talkers(parts) if noise["kind"] == "babble" else parts[0]
        return scaled(signal, rms(signal), parameters["snr_db"], speech, parameters, rate_hz)

    def title(self) -> str:
        """As in ``chime noise 10 to 20 dB``."""
        source = PurePath(self.noise or "").name
        sound = source if source == "babble" else f"{source} noise".strip()
        talkers = f", {spoken('talkers', self.talkers)}" if self.talkers else ""
        active = " (active level)" if self.speech_level == "active" else ""
        first = " (added first)" if self.noise_added else ""
        return f"{sound} {spoken('snr_db', self.snr_db)}{talkers}{active}{first}"


def part_of(source: AudioSource, name: str, start: int, num_samples: int) -> np.ndarray:
    """The part of a recording that was drawn; where it is silent, as in some old records, the next sound."""
    sounds_from = source.sounding(name, start, num_samples)
    if sounds_from is None:
        raise ValueError(f"recording {name!r} ({source.piece(name).path}) is silent; remove it")
    return source.read(name, sounds_from, num_samples)


def colored_noise(color: str, num_samples: int, seed: int, sample_rate_hz: int = SAMPLE_RATE_HZ) -> np.ndarray:
    """Gaussian noise with a power spectrum falling by 0 (white), 3 (pink) or 6 dB (brown) per octave above 20 Hz.

    Args:
        color: ``white``, ``pink`` or ``brown``.
        num_samples: length.
        seed: the noise is a function of the arguments only.
        sample_rate_hz: sampling rate.

    Returns:
        (num_samples,) float32 of root mean square about 1.

    >>> noise = colored_noise("pink", 16000, seed=0)
    >>> noise.shape, bool(0.9 < noise.std() < 1.1)
    ((16000,), True)
    """
    generator = np.random.Generator(np.random.PCG64(seed))
    if color == "white":
        return generator.standard_normal(num_samples, dtype=np.float32)
    size = scipy.fft.next_fast_len(max(num_samples, 2), real=True)
    frequency_hz = np.arange(size // 2 + 1, dtype=np.float32) * np.float32(sample_rate_hz / size)
    amplitude = np.maximum(frequency_hz, np.float32(CORNER_HZ)) ** np.float32(_EXPONENT[color])
    amplitude[0] = 0.0
    # Unit expected power: the spectrum below has E|X|^2 = 2 amplitude^2 at every bin, counted twice (both signs).
    amplitude *= np.float32(size / 2 / np.sqrt(np.square(amplitude, dtype=np.float64).sum()))
    spectrum = generator.standard_normal(2 * len(amplitude), dtype=np.float32).view(np.complex64) * amplitude
    return scipy.fft.irfft(spectrum, size)[:num_samples]


def mix_talkers(talkers: Iterable[np.ndarray]) -> np.ndarray:
    """Babble: the sum of recordings, each brought to the same root mean square; silent ones are left out.

    Args:
        talkers: (num_samples,) each.

    >>> mix_talkers([np.array([1.0, -1.0]), np.array([0.1, 0.1]), np.zeros(2)])
    array([2., 0.])
    """
    return sum(talker / np.asarray(rms(talker) or 1.0, talker.dtype) for talker in talkers)
