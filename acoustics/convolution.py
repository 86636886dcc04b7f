"""Convolution of one waveform with one impulse response, in blocks of a size that suits both.

Overlap-save (Stockham 1966). SciPy's FFT transforms four rows of a matrix at once, at half the cost of one at a time,
and gives each the bytes it would have alone; so a waveform is laid out as such a matrix, with the response as its last
row. Sizes come from a short list: SciPy keeps the tables of the last sixteen.
"""

import math
from functools import lru_cache

import numpy as np
import scipy

_TOGETHER = 4
"""Rows that SciPy's FFT transforms at once (128-bit vectors of float32)."""
_SMALLEST = 8
"""No FFT of less than 4 times two to this power: what surrounds it would take longer."""
_OTHER_WORK = 5.0
"""Copying and multiplying, as a number of passes of the FFT (of which there are log2(size))."""


def convolve(signal: np.ndarray, response: np.ndarray, lead: int = 0) -> np.ndarray:
    """Samples ``lead`` to ``lead + len(signal)`` of the full convolution.

    The cost per sample grows with the logarithm of the length of the response; what the bytes depend on is the two
    arrays only, not the number of threads.

    Args:
        signal: (samples,) float32, at least one.
        response: (taps,) float32, at least one.
        lead: taps before time zero.

    Returns:
        (samples,) float32, a new array.

    >>> convolve(np.array([1, 0, 0, 2], np.float32), np.array([0.5, 1, 0.25], np.float32), lead=1).round(6).tolist()
    [1.0, 0.25, 1.0, 2.0]
    """
    length, taps = len(signal), len(response)
    size, blocks = _layout(length, taps)
    step = size - taps + 1  # samples that a block gives
    rows = np.empty((_whole_rows(blocks + 1), size), np.float32)
    for block, row in enumerate(rows[:blocks]):
        first = lead + block * step - taps + 1
        begin, end = min(max(first, 0), length), min(max(first + size, 0), length)
        row[: begin - first] = 0.0
        row[begin - first : end - first] = signal[begin:end]
        row[end - first :] = 0.0
    rows[blocks, :taps] = response
    rows[blocks, taps:] = 0.0
    rows[blocks + 1 :] = 0.0
    spectra = scipy.fft.rfft(rows, overwrite_x=True)
    # What the rows beyond the blocks hold is transformed back for the speed of it, and not used.
    kept = spectra[: _whole_rows(blocks)]
    kept[:blocks] *= spectra[blocks].copy()
    filtered = scipy.fft.irfft(kept, size, overwrite_x=True)[:blocks, taps - 1 :]
    return filtered.reshape(-1)[:length]


@lru_cache(maxsize=1 << 14)
def _layout(length: int, taps: int) -> tuple[int, int]:
    """Size of the FFT and number of blocks that cost least."""
    return min(_layouts(length, taps), key=_cost)


def _layouts(length: int, taps: int):
    for power in range(max((taps - 1).bit_length() - 3, _SMALLEST), 64):
        for factor in (4, 5, 6, 7):
            size = factor << power
            if size < taps:
                continue
            blocks = -(-length // (size - taps + 1))
            yield size, blocks
            if blocks == 1:
                return


def _cost(layout: tuple[int, int]) -> float:
    size, blocks = layout
    transforms = _row_cost(blocks + 1) + _row_cost(blocks)
    return size * (transforms * math.log2(size) + _OTHER_WORK * 2 * (blocks + 1) / _TOGETHER)


def _row_cost(rows: int) -> float:
    return rows // _TOGETHER + min(rows % _TOGETHER * 0.5, 1.0)


def _whole_rows(rows: int) -> int:
    """One more where three would be transformed one by one: four at once take less."""
    return rows + (rows % _TOGETHER == _TOGETHER - 1)
