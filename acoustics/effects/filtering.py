"""Filters that shift nothing in time: convolution with a response whose time zero is known, and their design."""

import numpy as np
import scipy

_RIPPLE_DB = 70.0
"""Asked of the design: a narrow band adds up the ripples of two edges, and 60 dB have to be kept."""


def convolved(wave: np.ndarray, response: np.ndarray, lead: int) -> np.ndarray:
    """The wave after a filter: as long, and at the same places in time.

    Args:
        wave: (samples,) float32.
        response: (taps,) float32.
        lead: taps before time zero, fewer than all.

    >>> convolved(np.array([1, 0, 0, 2], np.float32), np.array([0.5, 1, 0.25], np.float32), lead=1).round(6).tolist()
    [1.0, 0.25, 1.0, 2.0]
    """
    response = response[: len(wave) + lead]
    return scipy.signal.oaconvolve(wave, response)[lead : lead + len(wave)].astype(np.float32, copy=False)


def linear_phase(edges_hz: list[float], passes_zero: bool, transition_hz: float, sample_rate_hz: int) -> np.ndarray:
    """A Kaiser-windowed sinc, an odd number of taps float32, with -6 dB at its edges and at least -60 dB beyond."""
    taps, beta = scipy.signal.kaiserord(_RIPPLE_DB, 2 * transition_hz / sample_rate_hz)
    window = ("kaiser", beta)
    response = scipy.signal.firwin(
        taps | 1, edges_hz, window=window, pass_zero=passes_zero, scale=False, fs=sample_rate_hz
    )
    return response.astype(np.float32)
