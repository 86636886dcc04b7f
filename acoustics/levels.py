"""How loud a signal is: root mean square, and the active speech level of ITU-T P.56."""

import numpy as np
import scipy

from robustdistiller.common.audio import SAMPLE_RATE_HZ

LEVELS = ("rms", "active")

_TIME_CONSTANT_S = 0.03
_HANGOVER_S = 0.2
_MARGIN_DB = 15.9
_THRESHOLDS = 15  # one bit apart


def rms(signal: np.ndarray) -> float:
    """Root mean square over all samples.

    >>> rms(np.array([3.0, -3.0], np.float32))
    3.0
    """
    return float(np.sqrt(np.mean(np.square(signal, dtype=np.float64))))


def level_of(signal: np.ndarray, level: str = "rms", sample_rate_hz: int = SAMPLE_RATE_HZ) -> float:
    """How loud speech is, as an amplitude.

    Args:
        signal: (samples,), at least one.
        level: ``rms``, over all samples, or ``active``, without the pauses (see `active_speech_level`).
        sample_rate_hz: sampling rate.

    >>> level_of(np.array([0.5, -0.5]))
    0.5
    """
    return rms(signal) if level == "rms" else active_speech_level(signal, sample_rate_hz)[0]


def active_speech_level(signal: np.ndarray, sample_rate_hz: int = SAMPLE_RATE_HZ) -> tuple[float, float]:
    """The level of speech while somebody speaks, by method B of ITU-T P.56.

    The envelope (two exponential averages of 30 ms) is compared with thresholds 6 dB apart; what lies within 200 ms
    after a sample above a threshold counts as active. The threshold is the one that lies 15.9 dB below the level of
    what is active by it, interpolated between two in dB.

    Args:
        signal: (samples,), nominal range -1 to 1.
        sample_rate_hz: sampling rate.

    Returns:
        Root mean square of the active part, and its share of the samples; the plain root mean square and a share of 1
        where no threshold fits (very short signals, silence).

    >>> time = np.arange(32000) / 16000
    >>> level, share = active_speech_level(np.where(time < 1, np.sin(2 * np.pi * 440 * time), 0))
    >>> round(level / 0.5**0.5, 1), round(share, 1)
    (0.9, 0.6)
    """
    plain = rms(signal)
    peak = float(np.abs(signal).max(initial=0.0))
    if not peak:
        return plain, 1.0
    g = np.exp(-1 / (sample_rate_hz * _TIME_CONSTANT_S))
    smooth = scipy.signal.lfilter([1 - g], [1, -g], np.abs(signal).astype(np.float64))
    envelope = scipy.signal.lfilter([1 - g], [1, -g], smooth)
    hangover = scipy.ndimage.maximum_filter1d(
        envelope, width := round(_HANGOVER_S * sample_rate_hz) + 1, origin=(width - 1) // 2, mode="constant"
    )
    energy = np.square(signal, dtype=np.float64).sum()
    margins = []
    for bit in range(_THRESHOLDS):
        threshold = peak * 2.0**-bit
        active = int(np.count_nonzero(hangover >= threshold))
        if active:
            level_db = 10 * np.log10(energy / active)
            margin_db = level_db - 20 * np.log10(threshold)
            margins.append((margin_db, level_db))
            if margin_db >= _MARGIN_DB:
                break
    if len(margins) < 2 or margins[-1][0] < _MARGIN_DB:
        return plain, 1.0
    (below_db, first_db), (above_db, second_db) = margins[-2:]
    share = (_MARGIN_DB - below_db) / (above_db - below_db) if above_db > below_db else 0.0
    level_db = first_db + np.clip(share, 0, 1) * (second_db - first_db)
    return float(10 ** (level_db / 20)), float(energy / len(signal) / 10 ** (level_db / 10))
