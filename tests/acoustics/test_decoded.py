"""Decoded recordings: the samples of the files, made once, shared, made anew when files change."""

import os
import pickle

import numpy as np
import pytest
import soundfile

from robustdistiller.acoustics import AudioSource, CorruptionPolicy, Corruptor, RIRSource, decoded, sources
from robustdistiller.acoustics.decoded import decode


@pytest.fixture
def noise(library, tmp_path):
    """The files of the library and some at other rates, with another number of channels, or in float."""
    rng = np.random.default_rng(3)
    soundfile.write(tmp_path / "float.wav", 2 * rng.standard_normal(5000), 16000, subtype="FLOAT")
    soundfile.write(tmp_path / "stereo.wav", rng.uniform(-1, 1, (5000, 2)), 16000)
    soundfile.write(tmp_path / "deep.wav", rng.uniform(-1, 1, 5000), 16000, subtype="PCM_24")
    soundfile.write(tmp_path / "full.wav", np.tile(np.array([-32768, 32767], np.int16), 400), 16000)
    return [library / "noise", tmp_path]


@pytest.fixture
def read_files(monkeypatch):
    """Names of the files that are decoded."""
    names = []
    original = sources.read_audio
    monkeypatch.setattr(sources, "read_audio", lambda path, *more: names.append(str(path)) or original(path, *more))
    return names


def test_every_part_of_every_recording_is_that_of_its_file(noise, tmp_path, read_files):
    plain, kept = AudioSource.from_path(noise), AudioSource.from_path(noise)
    kept.decoded = decode(kept, tmp_path / "kept")
    expected = {name: plain.read(name) for name in plain.names}
    read_files.clear()
    rng = np.random.default_rng(0)
    for name, whole in expected.items():
        np.testing.assert_array_equal(kept.read(name), whole)
        for start, length in rng.integers(1, len(whole) // 2, (20, 2)):
            np.testing.assert_array_equal(kept.read(name, start, length), whole[start : start + length])
    assert read_files == []
    # A channel by itself is not in there, and is read from its file.
    name = next(name for name in kept.names if name.endswith("stereo.wav"))
    np.testing.assert_array_equal(kept.read(name, channel=1), plain.read(name, channel=1))
    assert read_files
    # 16 bits where they are enough.
    assert (tmp_path / "kept" / "samples.int16").stat().st_size >= 2 * (64000 + 4800 + 800)
    assert (tmp_path / "kept" / "samples.float32").stat().st_size >= 4 * (5000 * 3)


def test_training_corruption_is_the_same(library, tmp_path, read_files):
    parameters, batches = [], []
    for kept in (False, True):
        noise, rir = AudioSource.from_path(library / "noise"), RIRSource.from_path(library / "rir")
        speech = AudioSource.from_path(library / "speech")
        if kept:
            noise.decoded, speech.decoded = decode(noise, tmp_path / "noise"), decode(speech, tmp_path / "speech")
            rir.source.decoded = decode(rir.source, tmp_path / "rir", of_channels=True)
            read_files.clear()
        corruptor = pickle.loads(pickle.dumps(Corruptor(CorruptionPolicy(babble_probability=0.2), noise, rir, speech)))
        parameters.append([corruptor.draw(f"utt-{index}", 16000) for index in range(80)])
        batches.append(corruptor.prepare(parameters[-1], [16000] * 80))
    assert parameters[0] == parameters[1] and {one.rir and one.rir.channel for one in parameters[0]} == {None, 0, 1}
    assert batches[0].noise.numpy().tobytes() == batches[1].noise.numpy().tobytes()
    assert batches[0].responses.numpy().tobytes() == batches[1].responses.numpy().tobytes()
    assert read_files == []


def test_it_is_made_once_and_again_when_a_file_changes(tmp_path, read_files):
    (tmp_path / "noise").mkdir()
    for name in "ab":
        soundfile.write(tmp_path / "noise" / f"{name}.wav", np.full(100, 0.25), 16000)

    def made():
        read_files.clear()
        source = AudioSource.from_path(tmp_path / "noise")
        source.decoded = decode(source, tmp_path / "kept")
        return source, len(read_files)

    old, count = made()
    assert count == 2 and made()[1] == 0
    soundfile.write(tmp_path / "noise" / "a.wav", np.full(100, 0.5), 16000)
    os.utime(tmp_path / "noise" / "a.wav", (1, 1))
    new, count = made()
    assert count == 2 and new.read("a.wav")[0] == 0.5
    assert old.read("a.wav")[0] == 0.25  # what is open stays what it was
    (tmp_path / "kept" / "about.json").write_text("{")
    assert made()[1] == 2 and made()[1] == 0
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".kept.") and path.is_dir()] == []


def test_what_cannot_be_read_is_left_to_its_file(tmp_path, monkeypatch):
    (tmp_path / "noise").mkdir()
    soundfile.write(tmp_path / "noise" / "good.wav", np.full(100, 0.25), 16000)
    soundfile.write(tmp_path / "noise" / "nan.wav", np.full(100, np.nan), 16000, subtype="FLOAT")
    source = AudioSource.from_path(tmp_path / "noise")
    source.decoded = decode(source, tmp_path / "kept")
    assert source.read("good.wav")[0] == 0.25
    with pytest.raises(ValueError, match=r"nan\.wav has 100 samples that are NaN"):
        source.read("nan.wav")


def test_long_files_that_are_compressed_or_at_another_rate_are_left_to_their_files(library, tmp_path, monkeypatch):
    monkeypatch.setattr(sources, "WHOLE_FILE_S", 1.0)
    source = AudioSource.from_path(library / "noise")
    kept = decode(source, tmp_path / "kept")
    found = {name: kept.read(index, None, 0, 10) is not None for index, name in enumerate(source.names)}
    assert found == {"deep/lossy.ogg": False, "deep/stereo.wav": False, "long.wav": True, "short.flac": True}


def test_limits(library, tmp_path, monkeypatch, caplog):
    source = AudioSource.from_path(library / "noise")
    total = sum(source.num_samples(name) for name in source.names)
    assert decode(source, tmp_path / "kept", limit_bytes=4 * total - 1) is None and not (tmp_path / "kept").exists()
    assert decode(source, tmp_path / "kept", limit_bytes=4 * total) is not None
    full = type("Usage", (), {"free": 4 * total})()
    monkeypatch.setattr(decoded.shutil, "disk_usage", lambda folder: full)
    assert decode(source, tmp_path / "other") is None and "not decoded" in caplog.text


def test_somebody_elses_folder_is_left_alone(tmp_path):
    soundfile.write(tmp_path / "a.wav", np.zeros(100), 16000)
    source, mine = AudioSource.from_path(tmp_path / "a.wav"), tmp_path / "mine"
    mine.mkdir()
    decode(source, mine)  # an empty folder is nobody's
    for kept in (mine, tmp_path / "other"):
        kept.mkdir(exist_ok=True)
        (kept / "thesis.txt").write_text("a year of work")
        soundfile.write(tmp_path / "a.wav", np.zeros(200), 16000)  # something to decode anew
        with pytest.raises(FileExistsError, match="holds something else than decoded audio"):
            decode(AudioSource.from_path(tmp_path / "a.wav"), kept)
        assert (kept / "thesis.txt").read_text() == "a year of work"
    (tmp_path / "file").write_text("mine")
    with pytest.raises(FileExistsError, match="holds something else"):
        decode(source, tmp_path / "file")
