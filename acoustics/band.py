"""Band rejection: a linear-phase filter that removes one band of frequencies."""

import numpy as np
import scipy

_RIPPLE_DB = 70.0
"""Asked of the filter design: a narrow band adds up the ripples of two edges, and 60 dB have to be kept."""

TRANSITION_HZ = 40.0
"""Between the rejected band and what is left untouched, on each side."""


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


def band_reject_filter(low_hz: float, high_hz: float, sample_rate_hz: int = 16000) -> np.ndarray:
    """A band-stop filter: 60 dB less in the band, nothing changed 40 Hz away from it.

    Kaiser-windowed sinc (``scipy.signal.firwin``) with the transitions outside the band, so that the narrowest band
    falls by as much as a wide one. A transition that would reach below 0 Hz, or above half the sampling rate, makes it
    a high-pass or low-pass filter. Linear phase: its middle tap is time zero, and nothing is shifted in time.

    Args:
        low_hz, high_hz: edges of the band, at least 0, at most half the sampling rate.
        sample_rate_hz: sampling rate.

    Returns:
        (taps,) float32, an odd number (1731 at 16 kHz: 54 ms on each side of the middle).

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
    starts_at_zero = edges_hz[0] <= 0
    inner_hz = [edge for edge in edges_hz if 0 < edge < nyquist_hz]
    if not inner_hz:
        raise ValueError(f"rejecting {low_hz:g} to {high_hz:g} Hz leaves nothing; take a narrower band")
    taps, beta = scipy.signal.kaiserord(_RIPPLE_DB, TRANSITION_HZ / nyquist_hz)
    response = scipy.signal.firwin(
        taps | 1, inner_hz, window=("kaiser", beta), pass_zero=not starts_at_zero, scale=False, fs=sample_rate_hz
    )
    return response.astype(np.float32)
