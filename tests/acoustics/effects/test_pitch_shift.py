"""Pitch shift: where the pitch lands, and that length and timing stay."""

import math

import numpy as np
import pytest

from robustdistiller.acoustics.effects.pitch_shift import pitch_shift

RATE_HZ = 16000


def harmonic(f0_hz, num_samples=RATE_HZ, count=10):
    seconds = np.arange(num_samples) / RATE_HZ
    return sum(np.sin(2 * np.pi * f0_hz * k * seconds + k * k) / k for k in range(1, count + 1)).astype(np.float32)


def spectrum(signal):
    """Power per bin of 1 Hz of the middle of (samples,)."""
    middle = signal[2000:-2000] * np.hanning(len(signal) - 4000)
    return np.abs(np.fft.rfft(middle, RATE_HZ)) ** 2


@pytest.mark.parametrize("cents", [-1200, -500, -137, 1, 50, 500, 1200])
def test_a_tone_lands_on_its_shifted_frequency(cents):
    tone = np.sin(2 * np.pi * 220 * np.arange(2 * RATE_HZ) / RATE_HZ).astype(np.float32)
    shifted = pitch_shift(tone, cents).astype(np.float64)
    middle = shifted[4000:-4000] * np.hanning(len(tone) - 8000)
    bins_per_hz = 50
    peak_hz = np.argmax(np.abs(np.fft.rfft(middle, RATE_HZ * bins_per_hz))) / bins_per_hz
    expected_hz = 220 * 2 ** (cents / 1200)
    assert abs(1200 * math.log2(peak_hz / expected_hz)) < 1  # cents; a bin is a sixth to half of one
    assert np.sum(shifted**2) == pytest.approx(np.sum(tone.astype(np.float64) ** 2), rel=1e-4)


@pytest.mark.parametrize(("f0_hz", "cents"), [(90, -500), (90, 500), (220, -500), (220, 500)])
def test_a_voice_stays_harmonic(f0_hz, cents):
    shifted = pitch_shift(harmonic(f0_hz), cents)
    power, hz = spectrum(shifted), np.arange(RATE_HZ // 2 + 1)
    f_hz = f0_hz * 2 ** (cents / 1200)
    on_harmonic = np.abs(hz[:, None] - f_hz * np.arange(1, 11)).min(axis=1) < 6
    assert 10 * np.log10(power[on_harmonic].sum() / power[~on_harmonic].sum()) > 30


@pytest.mark.parametrize("cents", [-500, -60, 300, 500])
def test_timing_stays_within_a_frame(cents):
    """Bursts of a tone come out where they were, at the start and at the end of the utterance."""
    starts = [800, 20000, 52345, 76000]
    signal = np.zeros(80000, np.float32)
    for start in starts:
        signal[start : start + 1600] = harmonic(150, 1600) * np.hanning(1600)
    shifted = pitch_shift(signal, cents).astype(np.float64)
    assert len(shifted) == len(signal)
    for start in starts:
        window = np.arange(start - 800, start + 2400)
        energy = np.square(shifted[window])
        centre = float((window * energy).sum() / energy.sum())
        expected = np.square(signal[window].astype(np.float64))
        assert abs(centre - float((window * expected).sum() / expected.sum())) < 80  # 5 ms; a frame is 20 ms
        assert energy.sum() == pytest.approx(expected.sum(), rel=0.02)


def test_the_measurement_would_notice_a_shift_that_drifts():
    """Resampling alone moves the last burst by seconds."""
    signal = np.zeros(80000, np.float32)
    signal[76000:77600] = harmonic(150, 1600)
    ratio = 2 ** (300 / 1200)
    careless = np.interp(np.arange(80000) * ratio, np.arange(80000), signal)
    centre = np.average(np.arange(80000), weights=np.square(careless))
    assert abs(centre - 76800) > 320


def test_unison_silence_and_very_short_signals(make_speech):
    speech = make_speech(4001)
    np.testing.assert_allclose(pitch_shift(speech, 0), speech, atol=1e-6)
    assert not np.shares_memory(pitch_shift(speech, 0), speech)
    assert not pitch_shift(np.zeros(3000, np.float32), 300).any()
    for num_samples in (1, 2, 159, 641):
        for cents in (700, -1200):
            short = pitch_shift(np.ones(num_samples, np.float32), cents)
            assert short.shape == (num_samples,) and short.dtype == np.float32
            assert np.isfinite(short).all() and short.any()


@pytest.mark.parametrize("cents", [1300, math.nan])
def test_mistakes_are_refused(cents):
    with pytest.raises(ValueError, match=f"between -1200 and 1200 cents, found {cents}"):
        pitch_shift(np.zeros(900, np.float32), cents)
