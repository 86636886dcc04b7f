"""Reading audio: values, rates, channels, parts, and every decided error."""

import numpy as np
import pytest
import soundfile
import torch

from robustdistiller.acoustics import AudioSource, audio_info, load_audio, resample


@pytest.fixture
def tone():
    return (0.5 * np.sin(2 * np.pi * 440 * np.arange(16000) / 16000)).astype(np.float32)


def test_samples_come_back_as_stored(tmp_path, tone):
    soundfile.write(tmp_path / "a.wav", tone, 16000, subtype="FLOAT")
    loaded = load_audio(tmp_path / "a.wav")
    assert loaded.dtype == torch.float32
    np.testing.assert_array_equal(loaded.numpy(), tone)


@pytest.mark.parametrize("rate_hz", [8000, 22050, 44100, 48000])
def test_other_rates_are_resampled_without_delay_or_gain(tmp_path, tone, rate_hz):
    seconds = np.arange(rate_hz) / rate_hz
    soundfile.write(tmp_path / "a.wav", 0.5 * np.sin(2 * np.pi * 440 * seconds), rate_hz, subtype="FLOAT")
    loaded = load_audio(tmp_path / "a.wav").numpy()
    assert len(loaded) == 16000
    assert np.abs(loaded - tone)[200:-200].max() < 0.005
    assert np.abs(loaded - np.roll(tone, 1))[200:-200].max() > 0.05  # one sample of delay would show


def test_frequencies_above_the_new_limit_do_not_fold_back():
    seconds = np.arange(48000) / 48000
    folded = resample(np.sin(2 * np.pi * 11000 * seconds).astype(np.float32), 48000, 16000)
    assert np.abs(folded[200:-200]).max() < 0.01


def test_stereo_is_averaged_and_a_channel_can_be_chosen(tmp_path, tone):
    soundfile.write(tmp_path / "a.wav", np.stack([tone, -0.5 * tone], axis=1), 16000, subtype="FLOAT")
    np.testing.assert_allclose(load_audio(tmp_path / "a.wav").numpy(), 0.25 * tone, atol=1e-7)
    np.testing.assert_array_equal(load_audio(tmp_path / "a.wav", channel=1).numpy(), -0.5 * tone)
    with pytest.raises(ValueError, match=r"a\.wav has 2 channels .*channel 2"):
        load_audio(tmp_path / "a.wav", channel=2)


@pytest.mark.parametrize("suffix", ["wav", "flac", "ogg", "mp3"])
def test_a_part_equals_the_slice_of_the_whole(tmp_path, tone, suffix):
    path = tmp_path / f"a.{suffix}"
    soundfile.write(path, tone, 16000)
    whole = load_audio(path)
    assert torch.equal(load_audio(path, frame_offset=5000, num_frames=3000), whole[5000:8000])
    assert audio_info(path).duration_s == pytest.approx(1.0, abs=0.1)


@pytest.mark.parametrize(("frequency_hz", "low_db", "high_db"), [(7000, -0.1, 0.1), (7500, -0.5, 0.1)])
def test_what_lies_below_the_new_limit_is_kept(frequency_hz, low_db, high_db):
    assert low_db <= _gain_db(frequency_hz) <= high_db


@pytest.mark.parametrize("frequency_hz", [8300, 8500, 9000, 12000, 23000])
def test_what_lies_above_the_new_limit_does_not_fold_back(frequency_hz):
    assert _gain_db(frequency_hz) < -60


def _gain_db(frequency_hz: float) -> float:
    tone = np.sin(2 * np.pi * frequency_hz * np.arange(48000) / 48000).astype(np.float32)
    return 20 * np.log10(np.std(resample(tone, 48000, 16000)[1000:-1000]) / np.std(tone) + 1e-12)


@pytest.mark.parametrize("num_samples", [1, 2, 3, 100, 441, 48001])
@pytest.mark.parametrize(("from_hz", "to_hz"), [(48000, 16000), (44100, 16000), (8000, 16000), (22050, 16000)])
def test_lengths_to_the_sample(num_samples, from_hz, to_hz):
    found = resample(np.ones(num_samples, np.float32), from_hz, to_hz)
    assert found.shape == (-(-num_samples * to_hz // from_hz),) and found.dtype == np.float32
    assert np.isfinite(found).all()


def test_a_file_that_ends_early_is_refused(tmp_path):
    """An MP3 whose header promises more than is there would be noise that stops in the middle."""
    soundfile.write(tmp_path / "a.mp3", 0.1 * np.random.default_rng(0).standard_normal(64000), 16000)
    whole = load_audio(tmp_path / "a.mp3")
    content = (tmp_path / "a.mp3").read_bytes()
    (tmp_path / "a.mp3").write_bytes(content[: int(0.6 * len(content))])
    if audio_info(tmp_path / "a.mp3").num_frames < len(whole):
        pytest.skip("this libsndfile counts the frames that are there")
    with pytest.raises(ValueError, match=r"a\.mp3 is cut short: its header promises 64000 frames, \d+ are there"):
        load_audio(tmp_path / "a.mp3")
    with pytest.raises(ValueError, match="cut short"):
        AudioSource.from_path(tmp_path / "a.mp3").read("a.mp3", 0, 60000)


def test_parts_outside_the_file_are_refused(tmp_path, tone):
    soundfile.write(tmp_path / "a.wav", tone, 16000)
    for offset, frames in [(16000, None), (0, 16001), (-1, 10), (5, 0)]:
        with pytest.raises(ValueError, match=r"a\.wav has 16000 frames"):
            load_audio(tmp_path / "a.wav", frame_offset=offset, num_frames=frames)


def test_silence_is_audio(tmp_path):
    soundfile.write(tmp_path / "a.wav", np.zeros(100), 16000)
    assert torch.equal(load_audio(tmp_path / "a.wav"), torch.zeros(100))


@pytest.mark.parametrize("bad", [np.nan, np.inf, 1e20])
def test_non_finite_samples_are_refused(tmp_path, tone, bad):
    tone[7] = bad
    soundfile.write(tmp_path / "a.wav", tone, 16000, subtype="FLOAT")
    with pytest.raises(
        ValueError, match=r"a\.wav has 1 samples that are NaN, infinite or above 1e\+15 times full scale"
    ):
        load_audio(tmp_path / "a.wav")


def test_unusable_files_are_named_with_what_to_do(tmp_path):
    (tmp_path / "empty.wav").touch()
    (tmp_path / "text.flac").write_text("not audio")
    soundfile.write(tmp_path / "no-samples.wav", np.zeros(0), 16000)
    with pytest.raises(FileNotFoundError, match=r"absent\.wav does not exist"):
        load_audio(tmp_path / "absent.wav")
    with pytest.raises(ValueError, match=r"empty\.wav is an empty file.*remove it"):
        load_audio(tmp_path / "empty.wav")
    with pytest.raises(ValueError, match=r"text\.flac cannot be read as audio.*ffmpeg"):
        load_audio(tmp_path / "text.flac")
    with pytest.raises(ValueError, match=r"no-samples\.wav holds no audio samples"):
        load_audio(tmp_path / "no-samples.wav")
    with pytest.raises(ValueError, match="is a folder"):
        load_audio(tmp_path)
