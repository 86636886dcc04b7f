"""White, pink and brown noise, and babble mixed from speech."""

from collections.abc import Iterable, Sequence
from functools import lru_cache

import numpy as np
import scipy

CORNER_HZ = 20.0
"""Below this, pink and brown noise are flat: otherwise most of their power would be an inaudible drift."""

TABLE_SAMPLES = 2**22
"""Of the white noise that stretches are taken from: 262 s at 16 kHz, 16 MB."""

_COLUMNS = 1024

_EXPONENT = {"white": 0.0, "pink": -0.5, "brown": -1.0}


def colored_noise(color: str, num_samples: int, seed: int, sample_rate_hz: int = 16000) -> np.ndarray:
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


def stretches_of_white_noise(num_samples: int, seed: int, starts: Sequence[int]) -> np.ndarray:
    """The sum of stretches of one long white noise, which goes round.

    A twentieth of the cost of new samples, and the sum of two has some 10^13 different courses.

    Args:
        num_samples: length.
        seed: of the long noise, whose length is `TABLE_SAMPLES`.
        starts: first sample of each stretch.

    Returns:
        (num_samples,) float32 of root mean square about the square root of the number of stretches.

    >>> noise = stretches_of_white_noise(16000, seed=0, starts=(5, 70000))
    >>> noise.shape, bool(1.3 < noise.std() < 1.5)
    ((16000,), True)
    """
    table = _table(seed)
    total = go_round(table, starts[0], num_samples)
    for start in starts[1:]:
        total = total + go_round(table, start, num_samples)
    return total


@lru_cache(maxsize=2)
def _table(seed: int) -> np.ndarray:
    table = colored_noise("white", TABLE_SAMPLES, seed)
    table.setflags(write=False)
    return table


def go_round(recording: np.ndarray, start: int, num_samples: int) -> np.ndarray:
    """Part of a recording, which is continued from its beginning when it is too short; a view where it can be.

    >>> go_round(np.arange(4), 3, 6)
    array([3, 0, 1, 2, 3, 0])
    """
    if start + num_samples <= len(recording):
        return recording[start : start + num_samples]
    part = np.empty(num_samples, recording.dtype)
    filled = len(recording) - start
    part[:filled] = recording[start:]
    while filled < num_samples:
        length = min(len(recording), num_samples - filled)
        part[filled : filled + length] = recording[:length]
        filled += length
    return part


def mix_talkers(talkers: Iterable[np.ndarray]) -> np.ndarray:
    """Babble: the sum of recordings, each brought to the same root mean square; silent ones are left out.

    Args:
        talkers: (num_samples,) each.

    >>> mix_talkers([np.array([1.0, -1.0]), np.array([0.1, 0.1]), np.zeros(2)])
    array([2., 0.])
    """
    babble = None
    for talker in talkers:
        level = rms(talker)
        scaled = talker / np.asarray(level or 1.0, talker.dtype)
        babble = scaled if babble is None else babble + scaled
    return babble


def rms(signal: np.ndarray) -> float:
    """Root mean square over all samples, right to some 1e-8 of it.

    The squares are added up in 1024 columns at their own precision, and the columns in double precision: less than
    half the time of double precision throughout. Nothing depends on threads.

    >>> rms(np.array([3.0, -3.0], np.float32))
    3.0
    """
    squares = np.square(signal)
    whole = len(squares) // _COLUMNS * _COLUMNS
    total = np.add.reduce(squares[:whole].reshape(-1, _COLUMNS), axis=0).sum(dtype=np.float64)
    return float(np.sqrt((total + squares[whole:].sum(dtype=np.float64)) / len(squares)))
