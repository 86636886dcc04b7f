"""How the continuous noise is cut from packages: what is written, where it lies, what is refused."""

from __future__ import annotations

import numpy as np
import pytest
import soundfile

from research.embedded_noise.__main__ import PIECES, main, make
from research.embedded_noise.cut import cut, find_recording, joined, measures, without_rumble
from robustdistiller.mini import data_dir
from robustdistiller.mini.pack import read_rows, read_table

FREE = {"CC0-1.0", "public domain", "CC-BY-3.0", "CC-BY-4.0", "CC-BY-SA-2.0", "CC-BY-SA-3.0"}


def part(**changed):
    return {
        "split": "test",
        "package": "mill",
        "name": "saw",
        "file": "saw.wav",
        "start_s": "1",
        "length_s": "3",
    } | changed


@pytest.fixture
def packages(tmp_path):
    rng = np.random.default_rng(0)
    for path, rate_hz, level in (("mill/usr/saw.wav", 44100, 0.01), ("town/street.wav", 16000, 0.3)):
        (tmp_path / path).parent.mkdir(parents=True)
        soundfile.write(tmp_path / path, level * rng.standard_normal((8 * rate_hz, 2)), rate_hz)
    return tmp_path


def test_pieces_lie_where_the_table_says(packages, tmp_path):
    parts = [
        part(),
        part(name="saw-2"),
        part(start_s="4", name="saw-2"),
        part(split="train", package="town", file="street.wav"),
    ]
    rows = make(packages, tmp_path, parts)
    assert [(row["file"], row["name"], row["split"], row["source"]) for row in rows] == [
        ("continuous-train.ogg", "town__saw.flac", "train", "town"),
        ("continuous-test.ogg", "mill__saw.flac", "test", "mill"),
        ("continuous-test.ogg", "mill__saw-2.flac", "test", "mill"),
    ]
    assert [int(row["num_samples"]) for row in rows] == [48000, 48000, 2 * 48000 - 4000]
    written = {row["name"]: samples / 32768 for row, samples in read_rows(tmp_path, rows)}
    for name, of_piece in (("mill__saw.flac", parts[:1]), ("mill__saw-2.flac", parts[1:3])):
        expected = cut(packages, of_piece)
        assert np.sqrt(np.mean(expected**2)) == pytest.approx(0.05, rel=1e-3)
        assert np.corrcoef(expected, written[name])[0, 1] > 0.8  # Opus, not moved by a sample


def test_rows_of_other_recordings_stay(packages, tmp_path, monkeypatch):
    out = tmp_path / "data"
    (out / "noise").mkdir(parents=True)
    header = "file\toffset_samples\tnum_samples\tname\tkind\tsplit\tsource\n"
    (out / "noise.tsv").write_text(
        header + "rain.ogg\t0\t9\train\tnoise\ttrain\tx\n" + "continuous-test.ogg\t0\t9\told\tnoise\ttest\tx\n"
    )
    monkeypatch.setattr(
        "research.embedded_noise.__main__.read_table", lambda path: [part()] if path == PIECES else read_table(path)
    )
    main([str(packages), "--out", str(out)])
    assert [row["name"] for row in read_table(out / "noise.tsv")] == ["mill__saw.flac", "rain"]


def test_a_recording_that_is_missing_double_or_too_short_is_named(packages):
    with pytest.raises(FileNotFoundError, match=r"0 recordings in .*mill are called axe\.wav"):
        find_recording(packages / "mill", "axe.wav")
    (packages / "mill" / "saw.wav").write_bytes(b"")
    with pytest.raises(FileNotFoundError, match="2 recordings"):
        find_recording(packages / "mill", "saw.wav")
    assert find_recording(packages / "mill", "usr/saw.wav") == packages / "mill" / "usr" / "saw.wav"
    with pytest.raises(ValueError, match=r"street\.wav ends before 6 s \+ 3 s"):
        cut(packages, [part(package="town", file="street.wav", start_s="6")])


def test_rumble_goes_and_the_rest_stays():
    time_s = np.arange(16000) / 16000
    tones = {hz: np.sin(2 * np.pi * hz * time_s).astype(np.float32) for hz in (20, 60, 1000)}
    assert np.abs(without_rumble(tones[20] + tones[1000]) - tones[1000]).max() < 1e-3
    assert np.abs(without_rumble(tones[60]) - tones[60]).max() < 1e-3


def test_a_crossfade_keeps_the_power():
    rng = np.random.default_rng(1)
    whole = joined(*rng.standard_normal((2, 40000)).astype(np.float32))
    assert len(whole) == 76000
    assert np.std(whole[36000:40000]) == pytest.approx(1, rel=0.05)


def test_measures_tell_clicks_from_noise():
    rng = np.random.default_rng(2)
    noise = rng.standard_normal(32000).astype(np.float32)
    clicks = np.zeros(32000, np.float32)
    clicks[::8000] = 1
    assert measures(noise)["quiet"] == 0
    assert measures(noise)["crest_db"] < 15
    assert measures(noise)["centroid_hz"] == pytest.approx(4000, rel=0.05)
    assert measures(clicks)["quiet"] > 0.7
    assert measures(clicks)["crest_db"] > 30


def test_the_table_is_what_is_shipped_and_may_be_shipped():
    parts = read_table(PIECES)
    listed = {(part["split"], f"{part['package']}__{part['name']}.flac") for part in parts}
    rows = read_table(data_dir() / "noise.tsv")
    assert listed == {(row["split"], row["name"]) for row in rows if row["file"].startswith("continuous-")}
    assert {part["licence"] for part in parts} <= FREE
    licences = (data_dir() / "LICENSES.md").read_text(encoding="utf-8")
    for part in parts:
        assert part["author"] in licences
        assert part["file"] in licences
    for split in ("train", "test"):
        assert {part["class"] for part in parts if part["split"] == split} == {"street", "crowd", "machine", "nature"}
