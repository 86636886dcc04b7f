"""Pitch shift: where the pitch lands, that length and timing stay, and that rows do not touch each other."""

import math

import numpy as np
import pytest
import torch

from robustdistiller.acoustics import pitch_shift
from robustdistiller.acoustics.pitch import shift_together

RATE_HZ = 16000


def shift_as_accelerator(waveforms, lengths, cents):
    """The path of accelerators, on the CPU."""
    num_samples = [waveforms.shape[1]] * len(waveforms) if lengths is None else lengths.tolist()
    return shift_together(waveforms, num_samples, cents)


PATHS = [pitch_shift, shift_as_accelerator]


def harmonic(f0_hz, num_samples=RATE_HZ, count=10):
    seconds = np.arange(num_samples) / RATE_HZ
    return sum(np.sin(2 * np.pi * f0_hz * k * seconds + k * k) / k for k in range(1, count + 1)).astype(np.float32)


def spectrum(signal):
    """Power per bin of 1 Hz of the middle of (samples,)."""
    middle = signal[2000:-2000] * np.hanning(len(signal) - 4000)
    return np.abs(np.fft.rfft(middle, RATE_HZ)) ** 2


@pytest.mark.parametrize("shift", PATHS)
@pytest.mark.parametrize("cents", [-1200, -500, -137, 1, 50, 500, 1200])
def test_a_tone_lands_on_its_shifted_frequency(shift, cents):
    tone = np.sin(2 * np.pi * 220 * np.arange(2 * RATE_HZ) / RATE_HZ).astype(np.float32)
    shifted = shift(torch.from_numpy(tone)[None], None, [cents])[0].double().numpy()
    middle = shifted[4000:-4000] * np.hanning(len(tone) - 8000)
    bins_per_hz = 50
    peak_hz = np.argmax(np.abs(np.fft.rfft(middle, RATE_HZ * bins_per_hz))) / bins_per_hz
    expected_hz = 220 * 2 ** (cents / 1200)
    assert abs(1200 * math.log2(peak_hz / expected_hz)) < 1  # cents; a bin is a sixth to half of one
    assert np.sum(shifted**2) == pytest.approx(np.sum(tone.astype(np.float64) ** 2), rel=1e-4)


@pytest.mark.parametrize("shift", PATHS)
@pytest.mark.parametrize(("f0_hz", "cents"), [(90, -500), (90, 500), (220, -500), (220, 500)])
def test_a_voice_stays_harmonic(shift, f0_hz, cents):
    shifted = shift(torch.from_numpy(harmonic(f0_hz))[None], None, [cents])[0].numpy()
    power, hz = spectrum(shifted), np.arange(RATE_HZ // 2 + 1)
    f_hz = f0_hz * 2 ** (cents / 1200)
    on_harmonic = np.abs(hz[:, None] - f_hz * np.arange(1, 11)).min(axis=1) < 6
    assert 10 * np.log10(power[on_harmonic].sum() / power[~on_harmonic].sum()) > 30


@pytest.mark.parametrize("shift", PATHS)
@pytest.mark.parametrize("cents", [-500, -60, 300, 500])
def test_timing_stays_within_a_frame(shift, cents):
    """Bursts of a tone come out where they were, at the start and at the end of the utterance."""
    starts = [800, 20000, 52345, 76000]
    signal = np.zeros(80000, np.float32)
    for start in starts:
        signal[start : start + 1600] = harmonic(150, 1600) * np.hanning(1600)
    shifted = shift(torch.from_numpy(signal)[None], None, [cents])[0].numpy().astype(np.float64)
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


@pytest.mark.parametrize("shift", PATHS)
def test_rows_of_a_padded_batch_are_those_of_single_utterances(shift, utterances):
    names = list(utterances)[:6]
    cents = [-500, 499, 0, 33, -7, 250]
    lengths = torch.tensor([len(utterances[name]) for name in names])
    batch = torch.full((6, int(lengths.max()) + 500), math.nan)
    for row, name in zip(batch, names):
        row[: len(utterances[name])] = torch.from_numpy(utterances[name])
    before = batch.clone()
    together = shift(batch, lengths, cents)
    torch.testing.assert_close(batch, before, equal_nan=True)
    assert torch.isfinite(together).all()
    for row, (name, value) in enumerate(zip(names, cents)):
        length = len(utterances[name])
        alone = shift(torch.from_numpy(utterances[name])[None], None, [value])[0]
        assert not together[row, length:].any()
        assert together[row, :length].any()
        if shift is pitch_shift:
            assert torch.equal(together[row, :length], alone)
        else:
            torch.testing.assert_close(together[row, :length], alone, atol=1e-6, rtol=0)


def test_both_paths_agree_and_the_cpu_does_not_depend_on_threads(utterances):
    waveform = torch.from_numpy(utterances["utt-7"])[None].repeat(3, 1)
    cents = [-480, 5, 480]
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        one = pitch_shift(waveform, None, cents)
        torch.set_num_threads(4)
        assert torch.equal(pitch_shift(waveform, None, cents), one)
    finally:
        torch.set_num_threads(before)
    together = shift_as_accelerator(waveform, None, cents)
    assert float((together - one).abs().max()) < 1e-5 * float(one.abs().max())
    assert float((one[0] - one[2]).abs().max()) > 0.1 * float(one.abs().max())


@pytest.mark.parametrize("shift", PATHS)
def test_unison_silence_and_very_short_rows(shift, make_speech):
    speech = torch.from_numpy(make_speech(4001))[None]
    torch.testing.assert_close(shift(speech, None, [0]), speech, atol=1e-6, rtol=0)
    assert not shift(torch.zeros(1, 3000), None, [300]).any()
    for num_samples in (1, 2, 159, 641):
        short = shift(torch.ones(2, num_samples), None, [700, -1200])
        assert short.shape == (2, num_samples)
        assert torch.isfinite(short).all()


def test_types_are_kept_and_mistakes_refused():
    assert pitch_shift(torch.ones(1, 900).half(), None, [100]).dtype == torch.float16
    with pytest.raises(ValueError, match="2 rows need as many cents"):
        pitch_shift(torch.zeros(2, 900), None, [100])
    with pytest.raises(ValueError, match="between -1200 and 1200 cents, found 1300"):
        pitch_shift(torch.zeros(1, 900), None, [1300])
    with pytest.raises(ValueError, match="found nan"):
        pitch_shift(torch.zeros(1, 900), None, [math.nan])
