"""Reading cuts into their place gives what lhotse gives, and cuts in waiting are the cuts they become."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import soundfile
from lhotse import Recording

from robustdistiller.acoustics import AudioInfo, Piece, audio_info
from robustdistiller.pretrain.data import reading
from robustdistiller.pretrain.data.cuts import at_16_khz, file_cuts
from robustdistiller.pretrain.data.reading import read_cut, read_into

RNG = np.random.default_rng(5)


def _into(cut) -> np.ndarray:
    out = np.full(cut.num_samples, 7.0, np.float32)
    read_into(cut, out)
    return out


@pytest.mark.parametrize("offset_s", [0.0, 0.3, 0.123])
@pytest.mark.parametrize(
    ("name", "rate_hz", "channels", "subtype", "direct"),
    [
        ("a.wav", 16_000, 1, "PCM_16", True),
        ("a.flac", 16_000, 1, "PCM_24", True),
        ("a.wav", 16_000, 1, "FLOAT", True),
        ("a.flac", 16_000, 2, "PCM_16", False),
        ("a.wav", 22_050, 1, "PCM_16", False),
        ("a.ogg", 16_000, 1, "VORBIS", False),
    ],
)
def test_bytes_are_those_of_lhotse(tmp_path, monkeypatch, name, rate_hz, channels, subtype, direct, offset_s) -> None:
    soundfile.write(tmp_path / name, 0.2 * RNG.standard_normal((rate_hz, channels)), rate_hz, subtype)
    cut = at_16_khz(Recording.from_file(tmp_path / name).to_cut())
    cut = cut.truncate(offset=offset_s, duration=0.5, preserve_id=True)
    expected = read_cut(cut)
    if direct:  # nothing of it is lhotse's
        monkeypatch.setattr(reading, "read_cut", None)
    assert _into(cut).tobytes() == expected.tobytes() and len(expected) == 8000


def test_a_file_that_is_not_what_its_cut_says_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.wav"
    soundfile.write(path, np.zeros(16_000), 16_000)
    cut = Recording.from_file(path).to_cut()
    soundfile.write(path, np.zeros(48_000), 16_000)
    with pytest.raises(ValueError, match=r"a\.wav"):
        _into(cut)
    samples = np.zeros(16_000, np.float32)
    samples[77] = np.nan
    soundfile.write(path, samples, 16_000, "FLOAT")
    with pytest.raises(ValueError, match=r"a\.wav .* has NaN or infinite samples"):
        _into(cut)
    path.write_bytes(path.read_bytes()[:9000])
    with pytest.raises(ValueError, match=r"cannot read .*a\.wav"):
        _into(cut)
    path.unlink()
    with pytest.raises(ValueError, match=r"cannot read .*a\.wav"):
        _into(cut)


@pytest.mark.parametrize("rate_hz", [8000, 11_025, 16_000, 22_050, 44_100, 48_000, 96_000])
def test_a_cut_in_waiting_knows_the_length_of_the_cut(rate_hz: int) -> None:
    for frames in RNG.integers(rate_hz, 40 * rate_hz, 40).tolist():
        first, part = frames // 3, frames // 5
        headers = {"/a.wav": AudioInfo(rate_hz, frames, 1, True)}
        found, wrong = file_cuts("x", [Piece("all", "/a.wav"), Piece("part", "/a.wav", first, part)], headers)
        assert not wrong
        for waiting in found:
            cut = waiting.cut()
            assert (cut.id, cut.num_samples, cut.sampling_rate) == (waiting.id, waiting.num_samples, 16_000)
            assert cut.duration == pytest.approx(waiting.num_frames / rate_hz, abs=1e-9)
            assert cut.start == pytest.approx(waiting.first_frame / rate_hz, abs=1e-9)


def test_a_piece_becomes_its_own_samples(tmp_path: Path) -> None:
    samples = RNG.integers(-9000, 9000, 16_000).astype(np.int16)
    soundfile.write(tmp_path / "a.wav", samples, 16_000)
    piece = Piece("p", str(tmp_path / "a.wav"), 1234, 4321)
    (waiting,), _ = file_cuts("x", [piece], {piece.file: audio_info(piece.file)})
    np.testing.assert_array_equal(_into(waiting.cut()), samples[1234 : 1234 + 4321] / np.float32(32768))
