"""Band rejection: what is gone, what is left, and what the filter does to time."""

import numpy as np
import pytest

from robustdistiller.acoustics.effects.band_reject import band_reject_filter

BANDS_HZ = [(900, 1100), (0, 60), (12.5, 30), (3000, 3000), (50, 55), (6000, 7000), (7500, 8000), (400, 8000)]


@pytest.mark.parametrize("band_hz", BANDS_HZ)
def test_the_band_falls_by_60_db_and_the_rest_stays(band_hz):
    gain = np.abs(np.fft.rfft(band_reject_filter(*band_hz).astype(np.float64), 160000))
    hz = np.arange(len(gain)) / 10
    low, high = band_hz
    assert 20 * np.log10(gain[(hz >= low) & (hz <= high)].max()) < -60
    assert np.abs(gain[(hz <= low - 40) | (hz >= high + 40)] - 1).max() < 1e-3
    assert gain.max() < 1.001


@pytest.mark.parametrize("sample_rate_hz", [8000, 16000, 44100])
def test_it_is_symmetric_about_its_middle_tap(sample_rate_hz):
    taps = band_reject_filter(1000, 1300, sample_rate_hz)
    assert len(taps) % 2 == 1
    np.testing.assert_array_equal(taps, taps[::-1])
    assert np.argmax(np.abs(taps)) == len(taps) // 2


@pytest.mark.parametrize("band_hz", [(1100, 900), (-5, 100), (7000, 8001), (float("nan"), 100)])
def test_impossible_bands_are_refused(band_hz):
    with pytest.raises(ValueError, match="must lie between 0 and 8000 Hz, lower edge first"):
        band_reject_filter(*band_hz)
    with pytest.raises(ValueError, match="0 to 8000 Hz leaves nothing"):
        band_reject_filter(0, 8000)
