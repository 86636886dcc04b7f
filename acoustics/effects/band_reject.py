"""Band rejection: a linear-phase filter that removes one band of frequencies."""

from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np

from robustdistiller.common.audio import SAMPLE_RATE_HZ

from .base import Effect, Parameters, Recordings, number
from .filtering import convolved, linear_phase

TRANSITION_HZ = 40.0
"""Between the rejected band and what is left untouched, on each side."""


@dataclass(frozen=True)
class BandReject(Effect):
    """Nothing is left of one band of frequencies (a distortion of Huang et al. 2022, arXiv 2210.07978).

    Width and place are uniform on the mel scale.

    Attributes:
        band_width_mel: width of the band.
        band_range_hz: what the bands lie in.

    >>> BandReject().draw(np.random.default_rng(0), 16000, Recordings())
    {'band_hz': [650.3, 769.8]}
    """

    name = "band_reject"
    keys = ("band_hz",)

    band_width_mel: Any = number(0, 4000, default=(0, 150), drawn=False)
    band_range_hz: Any = number(0, 10**6, default=(0, 8000), drawn=False)

    def __post_init__(self):
        super().__post_init__()
        room_mel = hz_to_mel(self.band_range_hz.high) - hz_to_mel(self.band_range_hz.low)
        if self.band_width_mel.high > room_mel / 2:
            raise ValueError(
                f"band_width_mel goes up to {self.band_width_mel.high:g} mel, more than half of the {room_mel:.0f} mel "
                f"of band_range_hz={self.band_range_hz}; take narrower bands or a wider range"
            )

    def check_sample_rate(self, sample_rate_hz: int) -> None:
        """Bands end at half the sampling rate at most."""
        if self.band_range_hz.high > sample_rate_hz / 2:
            raise ValueError(
                f"band_range_hz must end at half the sampling rate, {sample_rate_hz / 2:g} Hz, or below; "
                f"found {self.band_range_hz}"
            )

    def draw(self, rng: np.random.Generator, num_samples: int, recordings: Recordings) -> dict[str, Any]:
        """Edges to a tenth of a Hz, for records that can be read; never beyond the range."""
        low_mel, high_mel = hz_to_mel(self.band_range_hz.low), hz_to_mel(self.band_range_hz.high)
        width_mel = rng.uniform(self.band_width_mel.low, self.band_width_mel.high)
        start_mel = rng.uniform(low_mel, high_mel - width_mel)
        edges_hz = (round(float(mel_to_hz(mel)), 1) for mel in (start_mel, start_mel + width_mel))
        return {"band_hz": [min(max(edge, self.band_range_hz.low), self.band_range_hz.high) for edge in edges_hz]}

    @staticmethod
    def apply(wave: np.ndarray, parameters: Parameters, recordings: Recordings) -> np.ndarray:
        """The middle tap of the filter acts at lag 0."""
        response = band_reject_filter(*parameters["band_hz"], recordings.sample_rate_hz)
        return convolved(wave, response, len(response) // 2)


def hz_to_mel(frequency_hz: float) -> float:
    """Mel of O'Shaughnessy (1987): ``2595 log10(1 + f / 700)``.

    >>> round(hz_to_mel(1000.0))
    1000
    """
    return 2595.0 * np.log10(1.0 + frequency_hz / 700.0)


def mel_to_hz(mel: float) -> float:
    """The inverse of :func:`hz_to_mel`.

    >>> round(mel_to_hz(hz_to_mel(440.0)))
    440
    """
    return 700.0 * (10.0 ** (mel / 2595.0) - 1.0)


@lru_cache(maxsize=64)
def band_reject_filter(low_hz: float, high_hz: float, sample_rate_hz: int = SAMPLE_RATE_HZ) -> np.ndarray:
    """A band-stop filter: 60 dB less in the band, nothing changed 40 Hz away from it.

    Its transitions lie outside the band, so that the narrowest band falls by as much as a wide one. A transition that
    would reach below 0 Hz, or above half the sampling rate, makes it a high-pass or low-pass filter. Linear phase.

    Args:
        low_hz, high_hz: edges of the band, at least 0, at most half the sampling rate.
        sample_rate_hz: sampling rate.

    Returns:
        (taps,) float32, an odd number (1731 at 16 kHz: 54 ms on each side of the middle). Do not change it in place.

    Raises:
        ValueError: edges out of order or range, or a band that leaves nothing.

    >>> taps = band_reject_filter(900, 1100)
    >>> gain = np.abs(np.fft.rfft(taps, 16000))  # one bin per Hz
    >>> len(taps), bool(gain[900:1101].max() < 1e-3), bool(np.abs(gain[[860, 1140]] - 1).max() < 2e-3)
    (1731, True, True)
    """
    nyquist_hz = sample_rate_hz / 2
    if not 0 <= low_hz <= high_hz <= nyquist_hz:
        raise ValueError(
            f"a rejected band must lie between 0 and {nyquist_hz:g} Hz, lower edge first; "
            f"found {low_hz:g} to {high_hz:g} Hz"
        )
    edges_hz = [low_hz - TRANSITION_HZ / 2, high_hz + TRANSITION_HZ / 2]
    inner_hz = [edge for edge in edges_hz if 0 < edge < nyquist_hz]
    if not inner_hz:
        raise ValueError(f"rejecting {low_hz:g} to {high_hz:g} Hz leaves nothing; take a narrower band")
    return linear_phase(inner_hz, edges_hz[0] > 0, TRANSITION_HZ, sample_rate_hz)
