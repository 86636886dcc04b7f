"""White, pink and brown noise, and babble mixed from speech."""

from collections.abc import Iterable

import numpy as np
import scipy.fft

CORNER_HZ = 20.0
"""Below this, pink and brown noise are flat: otherwise most of their power would be an inaudible drift."""

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
    """Root mean square over all samples, summed in double precision.

    >>> rms(np.array([3.0, -3.0], np.float32))
    3.0
    """
    return float(np.sqrt(np.mean(np.square(signal, dtype=np.float64))))
