"""Codecs: what a recording or a call lost on its way through MP3, Opus, mu-law or a telephone."""

from __future__ import annotations

import io
from dataclasses import dataclass
from typing import Any

import numpy as np

from .base import Effect, Parameters, Recordings, choice, number
from .filtering import convolved, linear_phase

CODECS = ("mp3", "opus", "mulaw", "telephone")
TELEPHONE_HZ = (300.0, 3400.0)

_TELEPHONE_RATE_HZ = 8000
_BITRATES_KBPS = {"mp3": (8, 160), "opus": (6, 256)}
_USUAL_KBPS = {"mp3": 32, "opus": 16}
_RATE_HZ = 16000  # both codecs encode speech at this rate
_MP3_DELAY = 1105  # samples of LAME and of the decoder, where the file does not tell them: below 32 kbit/s


@dataclass(frozen=True)
class Codec(Effect):
    """Encodes and decodes again; nothing is shifted in time. What exceeds full scale is turned down for it and back up.

    Attributes:
        codec: ``mp3`` (LAME, constant bit rate) and ``opus`` by libsndfile; ``mulaw`` (ITU-T G.711 at 8 kHz);
            ``telephone``: the band from 300 to 3400 Hz, then mu-law.
        bitrate_kbps: of MP3 (8 to 160, 32 unless given) and Opus (6 to 256, 16 unless given). MP3 has steps (8, 16, 24,
            ...) and takes the one at or below; Opus is near it on average.

    >>> Codec(codec="telephone").draw(np.random.default_rng(0), 16000, Recordings())
    {'codec': 'telephone'}
    """

    name = "codec"
    keys = ("codec", "bitrate_kbps?")

    codec: str | None = choice(*CODECS, default="mp3")
    bitrate_kbps: Any = number(6, 256, whole=True)

    def __post_init__(self):
        super().__post_init__()
        low, high = _BITRATES_KBPS.get(self.codec, (0, 0))
        if self.bitrate_kbps is not None and not low <= self.bitrate_kbps.low <= self.bitrate_kbps.high <= high:
            allowed = f"{low} to {high}" if high else "no bitrate_kbps"
            raise ValueError(f"codec {self.codec} takes {allowed}, found bitrate_kbps={self.bitrate_kbps}")

    @staticmethod
    def apply(wave: np.ndarray, parameters: Parameters, recordings: Recordings) -> np.ndarray:
        """At the rate of the codec, through the codec, and back."""
        from ..audio.files import resample  # records of this effect are read where there is no audio

        codec, rate_hz = parameters["codec"], recordings.sample_rate_hz
        own_hz = _RATE_HZ if codec in _BITRATES_KBPS else _TELEPHONE_RATE_HZ
        if codec == "telephone":
            edges_hz = [edge for edge in TELEPHONE_HZ if edge < rate_hz / 2]  # at a low rate the upper one is passed
            response = linear_phase(edges_hz, False, 100.0, rate_hz)
            wave = convolved(wave, response, len(response) // 2)
        scale = np.float32(max(1.0, float(np.abs(wave).max()) * (1 + 1e-6)))
        sent = resample(wave / scale, rate_hz, own_hz)
        if codec in _BITRATES_KBPS:
            received = _through(codec, sent, parameters.get("bitrate_kbps") or _USUAL_KBPS[codec])
        else:
            received = _through_mulaw(sent)
        received = resample(received, own_hz, rate_hz)[: len(wave)] * scale
        return np.pad(received, (0, len(wave) - len(received)))


def encode(codec: str, wave: np.ndarray, bitrate_kbps: float) -> bytes:
    """Speech as an MP3 file or an Ogg file of Opus.

    Args:
        codec: ``mp3`` or ``opus``.
        wave: (samples,) at 16 kHz, within -1..1.
        bitrate_kbps: 8 to 160 for MP3, 6 to 256 for Opus.

    >>> len(encode("mp3", np.zeros(16000, np.float32), 64)) < 10000
    True
    """
    import soundfile

    low, high = _BITRATES_KBPS[codec]
    kind = {"format": "MP3", "bitrate_mode": "CONSTANT"} if codec == "mp3" else {"format": "OGG", "subtype": "OPUS"}
    file = io.BytesIO()
    # libsndfile counts from 0, the highest rate, to 1, which it refuses for MP3.
    level = min((high - bitrate_kbps) / (high - low), 0.999)
    soundfile.write(file, wave, _RATE_HZ, compression_level=level, **kind)
    return file.getvalue()


def _through(codec: str, wave: np.ndarray, bitrate_kbps: float) -> np.ndarray:
    import soundfile

    received, _ = soundfile.read(io.BytesIO(encode(codec, wave, bitrate_kbps)), dtype="float32")
    return received[_MP3_DELAY if codec == "mp3" and len(received) > len(wave) else 0 :][: len(wave)]


def _through_mulaw(wave: np.ndarray) -> np.ndarray:
    import soundfile

    file = io.BytesIO()
    soundfile.write(file, wave, _TELEPHONE_RATE_HZ, format="WAV", subtype="ULAW")
    file.seek(0)
    return soundfile.read(file, dtype="float32")[0]
