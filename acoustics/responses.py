"""What an impulse response says of its room: direct path, reverberation time, direct-to-reverberant ratio."""

import numpy as np

from robustdistiller.common.audio import SAMPLE_RATE_HZ

LEAD_S = 0.0025
"""What is kept of a response before its direct path: the rising edge of the band-limited direct sound."""


def direct_path_index(response: np.ndarray, sample_rate_hz: int = SAMPLE_RATE_HZ) -> int:
    """Index of the direct sound in an impulse response.

    The onset is the first sample within 12 dB of the strongest one; the direct path is the strongest sample of the
    millisecond after it. (The strongest sample of all can be a later reflection when the source is far away.)

    Args:
        response: (taps,) one channel.
        sample_rate_hz: sampling rate.

    Raises:
        ValueError: the response is silent.

    >>> direct_path_index(np.array([0, 0.01, 0.8, 0.2, 0.1]))
    2
    """
    magnitude = np.abs(response)
    peak = magnitude.max(initial=0.0)
    if peak == 0:
        raise ValueError("the impulse response is silent")
    onset = int(np.argmax(magnitude >= peak * 10 ** (-12 / 20)))
    return onset + int(np.argmax(magnitude[onset : onset + max(sample_rate_hz // 1000, 1)]))


def measure_rt60_s(response: np.ndarray, sample_rate_hz: int = SAMPLE_RATE_HZ) -> float | None:
    """Reverberation time by backward integration of the squared response (Schroeder 1965; ISO 3382).

    A line is fitted to the decay curve from -5 to -25 dB (T20), or from -5 to -15 dB (T10) when the noise floor of the
    response is less than 10 dB below that, and extrapolated to 60 dB.

    Args:
        response: (taps,) one channel.
        sample_rate_hz: sampling rate.

    Returns:
        Seconds, or None when the response decays too little to tell.

    >>> decay = np.random.default_rng(0).standard_normal(16000) * 10 ** (-3 * np.arange(16000) / 16000 / 0.5)
    >>> abs(measure_rt60_s(decay) - 0.5) < 0.03
    True
    """
    energy = np.square(response[direct_path_index(response, sample_rate_hz) :], dtype=np.float64)
    frame = sample_rate_hz // 100
    if len(energy) < 4 * frame:
        return None
    frames = energy[: len(energy) // frame * frame].reshape(-1, frame).mean(axis=1)
    floor = frames[-max(len(frames) // 10, 1) :].mean()
    # Beyond the point where the decay meets the floor, integrating adds noise instead of reverberation.
    above = np.flatnonzero(frames > 4 * floor)
    end = (above[-1] + 1) * frame if len(above) else len(energy)
    curve = np.cumsum(energy[:end][::-1])[::-1]
    with np.errstate(divide="ignore"):
        decay_db = 10 * np.log10(curve / curve[0])
    range_db = 10 * np.log10(frames.max() / max(floor, frames.max() * 1e-12))
    for depth_db in (25, 15):
        chosen = (decay_db <= -5) & (decay_db >= -depth_db)
        if range_db >= depth_db + 10 and np.count_nonzero(chosen) >= frame:
            slope_db_per_s = np.polyfit(np.flatnonzero(chosen) / sample_rate_hz, decay_db[chosen], 1)[0]
            return float(-60 / slope_db_per_s) if slope_db_per_s < 0 else None
    return None


def measure_drr_db(response: np.ndarray, sample_rate_hz: int = SAMPLE_RATE_HZ) -> float:
    """Direct-to-reverberant ratio: energy within 2.5 ms of the direct path against that of all that comes later.

    Args:
        response: (taps,) one channel.
        sample_rate_hz: sampling rate.

    Returns:
        dB; infinite without reflections.

    >>> response = np.zeros(1000)
    >>> response[[100, 400]] = 1.0, 0.1
    >>> round(measure_drr_db(response))
    20
    """
    direct, reach = direct_path_index(response, sample_rate_hz), round(LEAD_S * sample_rate_hz)
    energy = np.square(response, dtype=np.float64)
    later = energy[direct + reach + 1 :].sum()
    return float(10 * np.log10(energy[max(direct - reach, 0) : direct + reach + 1].sum() / later)) if later else np.inf


def with_drr(response: np.ndarray, lead: int, drr_db: float) -> np.ndarray:
    """A response whose direct path is scaled so that the direct-to-reverberant ratio is as given.

    Args:
        response: (lead + taps,) with the direct path at index ``lead``, as :meth:`RIRSource.read` gives it.
        lead: samples before the direct path; as many after it belong to it.
        drr_db: the ratio. A response without reflections is left as it is.

    >>> with_drr(np.array([0, 1, 0, 0.1, 0.0]), 1, 0.0).tolist()
    [0.0, 0.1, 0.0, 0.1, 0.0]
    """
    energy = np.square(response, dtype=np.float64)
    direct, later = energy[: 2 * lead + 1].sum(), energy[2 * lead + 1 :].sum()
    if not later:
        return response
    scaled = response.copy()
    scaled[: 2 * lead + 1] *= scaled.dtype.type(np.sqrt(10 ** (drr_db / 10) * later / direct))
    return scaled
