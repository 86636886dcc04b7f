"""Listing and reading recordings: folders, files, manifests."""

import os
import pickle
import shutil
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
import soundfile

from robustdistiller.acoustics import AudioSource, Piece, corpus_pieces, load_audio, split_of
from robustdistiller.acoustics.audio import sources


def test_folder_is_listed_sorted_to_any_depth(library):
    source = AudioSource.from_path(library / "noise")
    assert source.names == ("deep/lossy.ogg", "deep/stereo.wav", "long.wav", "short.flac")
    assert source.duration_s() == pytest.approx(3 + 2 + 4 + 0.3)
    assert [source.num_samples(name) for name in source.names] == [48000, 32000, 64000, 4800]


def test_links_are_followed_once_and_hidden_or_foreign_files_left_out(tmp_path, library):
    (tmp_path / "linked").symlink_to(library / "noise")
    (tmp_path / "loop").symlink_to(tmp_path)
    (tmp_path / "._a.wav").touch()
    (tmp_path / ".git" / "annex").mkdir(parents=True)
    (tmp_path / ".git" / "annex" / "long.wav").touch()
    (tmp_path / "notes.txt").touch()
    assert len(AudioSource.from_path(tmp_path)) == 4


def test_files_and_lists(library):
    paths = [library / "noise" / "short.flac", library / "speech"]
    source = AudioSource.from_path(paths)
    assert source.names[:2] == ("noise/short.flac", "speech/talker0.wav")
    assert len(source) == 9
    assert AudioSource.from_path([library / "speech"]).names == AudioSource.from_path(library / "speech").names


def test_equal_file_names_in_several_folders_stay_apart(tmp_path):
    for folder in ("musan", "urban"):
        (tmp_path / folder).mkdir()
        soundfile.write(tmp_path / folder / "a.wav", np.zeros(10), 16000)
    names = AudioSource.from_path([tmp_path / "musan", tmp_path / "urban"]).names
    assert names == ("musan/a.wav", "urban/a.wav")


def test_listing_errors_name_the_path(tmp_path, library):
    with pytest.raises(FileNotFoundError, match=f"no audio files in {tmp_path}"):
        AudioSource.from_path(tmp_path)
    with pytest.raises(FileNotFoundError, match=r"absent does not exist"):
        AudioSource.from_path([library / "noise", tmp_path / "absent"])
    with pytest.raises(ValueError, match=r"'noise/long.wav' occurs twice"):
        AudioSource.from_path([library / "noise" / "long.wav", library / "noise"])
    with pytest.raises(ValueError, match="at least one recording"):
        AudioSource.from_path([])


def test_broken_file_in_a_folder_is_found_by_the_duration(tmp_path):
    soundfile.write(tmp_path / "a.wav", np.zeros(10), 16000)
    (tmp_path / "b.wav").touch()
    with pytest.raises(ValueError, match=r"b\.wav is an empty file"):
        AudioSource.from_path(tmp_path).duration_s()


@pytest.mark.parametrize("name", ["deep/lossy.ogg", "deep/stereo.wav", "long.wav"])
@pytest.mark.parametrize(("start", "length"), [(0, 100), (12345, 7000), (31999, 1)])
@pytest.mark.parametrize("cache_bytes", [1, 2**28])
def test_a_part_is_that_part_of_the_whole(library, name, start, length, cache_bytes):
    source = AudioSource.from_path(library / "noise", cache_bytes=cache_bytes)
    whole = load_audio(library / "noise" / name).numpy()
    part = source.read(name, start, length)
    assert len(part) == length
    assert np.abs(part - whole[start : start + length]).max() < 1e-6
    if length > 1:
        assert np.abs(part - whole[start + 1 : start + 1 + length]).max() > 0.01


@pytest.mark.parametrize("rate_hz", [8000, 11025, 48000])
def test_parts_of_resampled_recordings_fit_together(tmp_path, rate_hz):
    samples = np.random.default_rng(0).standard_normal(rate_hz) / 8
    soundfile.write(tmp_path / "a.wav", samples, rate_hz, subtype="FLOAT")
    source = AudioSource.from_path(tmp_path, cache_bytes=1)
    parts = [source.read("a.wav", start, 1000) for start in range(0, 16000, 1000)]
    assert np.abs(np.concatenate(parts) - source.read("a.wav")).max() < 1e-6


def test_long_compressed_files_are_not_decoded_whole(library, monkeypatch):
    source = AudioSource.from_path(library / "noise")
    whole = source.read("deep/lossy.ogg")
    assert source._decoded
    monkeypatch.setattr(sources, "WHOLE_FILE_S", 1.0)
    source = AudioSource.from_path(library / "noise", cache_bytes=100_000)  # which the files do not fit into
    assert not source.reads_exactly("deep/lossy.ogg")
    for start, length in ((0, 5000), (23456, 5000), (40000, 20000)):
        part = source.read("deep/lossy.ogg", start, length)
        assert np.abs(part - np.concatenate([whole, whole])[start : start + length]).max() < 1e-3
    assert not source._decoded
    source = AudioSource.from_path(library / "noise")
    assert np.array_equal(source.read("deep/lossy.ogg", 23456, 5000), whole[23456:28456]) and source._decoded


def test_too_short_recordings_go_round(library):
    source = AudioSource.from_path(library / "noise")
    whole = load_audio(library / "noise" / "short.flac").numpy()
    expected = np.tile(whole, 4)[4000 : 4000 + 10000]
    np.testing.assert_array_equal(source.read("short.flac", 4000, 10000), expected)
    with pytest.raises(ValueError, match=r"'short\.flac' has 4800 samples"):
        source.read("short.flac", 4800, 10)
    with pytest.raises(ValueError, match="no recording called 'none'"):
        source.read("none")


def test_decoded_audio_stays_within_its_bound_and_is_not_pickled(tmp_path):
    for name in "abc":
        soundfile.write(tmp_path / f"{name}.ogg", np.zeros(16000), 16000)
    source = AudioSource.from_path(tmp_path, cache_bytes=2 * 64000)
    for start, name in enumerate(("a.ogg", "b.ogg", "a.ogg", "c.ogg")):
        source.read(name, start, 10)
    assert [path.name for path in source._decoded] == ["a.ogg", "c.ogg"]
    assert not pickle.loads(pickle.dumps(source))._decoded


@pytest.fixture
def manifest(tmp_path):
    (tmp_path / "noise").mkdir()
    samples = np.arange(16000, dtype=np.float32) / 16384
    soundfile.write(tmp_path / "noise" / "all.wav", samples, 16000, subtype="FLOAT")
    rows = ["file\toffset_samples\tnum_samples\tname\tkind\tsplit"]
    rows += ["all.wav\t0\t4000\train\tnoise\ttrain", 'all.wav\t4000\t4000\twind"\tnoise\ttest']
    rows += ["all.wav\t8000\t8000\ttune\tmusic\ttest"]
    (tmp_path / "noise.tsv").write_text("\n".join(rows) + "\n")
    return tmp_path / "noise.tsv"


def test_manifest_pieces(manifest):
    source = AudioSource.from_manifest(manifest)
    assert source.names == ("rain", 'wind"', "tune")
    assert AudioSource.from_path(manifest).names == source.names
    assert AudioSource.from_manifest(manifest, split="test", kind="noise").names == ('wind"',)
    np.testing.assert_array_equal(source.read('wind"') * 16384, np.arange(4000, 8000))
    np.testing.assert_array_equal(source.read("tune", 7998, 4) * 16384, [15998, 15999, 8000, 8001])


def test_a_manifest_may_begin_with_a_byte_order_mark(manifest):
    names = AudioSource.from_manifest(manifest).names
    manifest.write_text(manifest.read_text(), encoding="utf-8-sig")  # as spreadsheets write it
    assert AudioSource.from_manifest(manifest).names == names


def test_manifest_without_a_file_column_uses_the_audio_called_like_it(tmp_path):
    soundfile.write(tmp_path / "rir.flac", np.zeros(100), 16000)
    (tmp_path / "rir.tsv").write_text("offset_samples\tnum_samples\n0\t50\n50\t50\n")
    assert AudioSource.from_manifest(tmp_path / "rir.tsv").names == ("rir.flac@0", "rir.flac@50")


def test_manifest_mistakes(manifest, tmp_path):
    with pytest.raises(ValueError, match=r"unknown column 'splitt' .*did you mean 'split'"):
        AudioSource.from_manifest(manifest, splitt="test")
    with pytest.raises(ValueError, match=r"no row with split=dev"):
        AudioSource.from_manifest(manifest, split="dev")
    with pytest.raises(FileNotFoundError, match="does not exist"):
        AudioSource.from_manifest(tmp_path / "none.tsv")
    text = manifest.read_text()
    manifest.write_text(text.replace("8000\t8000", "8000\tmany"))
    with pytest.raises(ValueError, match=r"noise\.tsv, line 4: .*whole numbers"):
        AudioSource.from_manifest(manifest)
    manifest.write_text(text.replace("8000\t8000", "8000\t8001"))
    with pytest.raises(ValueError, match=r"'tune' should be frames 8000 to 16001 of .*which has 16000"):
        AudioSource.from_manifest(manifest).duration_s()
    manifest.write_text(text.replace("8000\t8000", "-8000\t8000"))
    with pytest.raises(ValueError, match=r"'tune' should be frames -8000 to 0 of .*which has 16000"):
        AudioSource.from_manifest(manifest).duration_s()
    manifest.write_text(text.replace("all.wav", "lost.wav"))
    with pytest.raises(FileNotFoundError, match=r"audio of .*noise\.tsv not found: looked for .*lost\.wav"):
        AudioSource.from_manifest(manifest)
    manifest.write_text(text.replace("offset_samples", "offset"))
    with pytest.raises(ValueError, match="offset_samples"):
        AudioSource.from_manifest(manifest)


def test_digest_follows_the_listing(library, tmp_path):
    digest = AudioSource.from_path(library / "noise").digest()
    assert AudioSource.from_path(library / "noise").digest() == digest
    assert AudioSource.from_path(library / "speech").digest() != digest
    path = library / "noise" / "long.wav"
    assert AudioSource([Piece("a", path, 0, 5)]).digest() != AudioSource([Piece("a", path, 0, 6)]).digest()


def test_content_digest_is_of_samples_and_order_not_of_names(library, tmp_path):
    original = AudioSource.from_path(library / "noise").content_digest
    moved = shutil.copytree(library / "noise", tmp_path / "elsewhere" / "musan")
    assert AudioSource.from_path(moved).content_digest == original
    path = sorted(moved.rglob("*.wav"))[0]
    samples, rate = soundfile.read(path)
    soundfile.write(path, samples[::-1], rate)  # as many samples of as many bytes
    assert AudioSource.from_path(moved).content_digest != original
    assert AudioSource.from_path(moved).digest() == AudioSource.from_path(library / "noise").digest()
    pieces = AudioSource.from_path(library / "noise").pieces
    digests = {AudioSource(some, weights=w).content_digest for some, w in ((pieces, None), (pieces[::-1], None))}
    digests.add(AudioSource(pieces, weights=[1.0] * (len(pieces) - 1) + [2.0]).content_digest)
    assert len(digests) == 3


@pytest.mark.parametrize("subtype", ["wav", "flac"])
def test_a_collection_that_fits_into_the_cache_is_decoded_once(tmp_path, monkeypatch, subtype):
    generator = np.random.default_rng(0)
    samples = {f"{n}.{subtype}": generator.uniform(-0.5, 0.5, 3001 + n).astype(np.float32) for n in range(3)}
    for name, values in samples.items():
        soundfile.write(tmp_path / name, values, 16_000, subtype="PCM_24")
    opened = []
    monkeypatch.setattr(
        soundfile, "read", lambda *args, read=soundfile.read, **more: opened.append(args) or read(*args, **more)
    )
    whole, parts = AudioSource.from_path(tmp_path), AudioSource.from_path(tmp_path, cache_bytes=4 * 9000)
    wanted = [(name, start, 1500) for name in samples for start in (0, 777, 1501, 2999)]
    for one in wanted:
        assert np.array_equal(whole.read(*one), parts.read(*one)), "not a bit differs"
    assert len(opened) == len(samples) + len(wanted) + len(samples), "what goes round is read in two parts"
    (tmp_path / f"0.{subtype}").write_bytes(b"")
    broken = AudioSource.from_path(tmp_path)
    assert np.array_equal(broken.read(f"1.{subtype}", 5, 900), whole.read(f"1.{subtype}", 5, 900))


def test_nothing_that_is_not_audio_has_a_content_digest(library, tmp_path):
    # A digest is the first that is asked of what was given to corrupt with, before anything is trained.
    page = tmp_path / "page.wav"
    page.write_text("<html>")
    with pytest.raises(ValueError, match=r"page\.wav cannot be read as audio"):
        _ = AudioSource.from_path(page).content_digest
    with pytest.raises(ValueError, match=r"page\.wav cannot be read as audio"):
        _ = AudioSource.from_path([library / "noise", tmp_path]).content_digest
    pieces = [Piece("all", library / "noise" / "long.wav", 0, 10**9)]
    with pytest.raises(ValueError, match="should be frames 0 to 1000000000"):
        _ = AudioSource(pieces).content_digest


def noises(folder, **samples):
    folder.mkdir()
    for name, values in samples.items():
        soundfile.write(folder / f"{name}.wav", np.asarray(values, np.float32), 16000, subtype="FLOAT")
    return folder


def drawn(source, count=4000, seed=0):
    rng = np.random.default_rng(seed)
    return [source.draw(rng, 400)[0][0] for _ in range(count)]


def test_weights_decide_how_often_a_recording_is_drawn(tmp_path):
    hiss = 0.1 * np.random.default_rng(0).standard_normal(800)
    folder = noises(tmp_path / "n", **dict.fromkeys("abcde", hiss))
    plain, pieces = AudioSource.from_path(folder), AudioSource.from_path(folder).pieces
    weighted = AudioSource(pieces, weights=[3.0, 0.25, 0.25, 0.25, 0.25])
    assert drawn(weighted).count("a.wav") == pytest.approx(3000, abs=150)
    assert drawn(plain).count("a.wav") == pytest.approx(800, abs=120)
    assert plain.digest() != weighted.digest() != AudioSource(pieces, weights=[4.0, 1, 1, 1, 1]).digest()
    assert weighted.digest() == AudioSource(pieces, weights=[6.0, 0.5, 0.5, 0.5, 0.5]).digest()
    names, _ = weighted.draw(np.random.default_rng(0), 400, 5)
    assert sorted(names) == sorted(weighted.names)  # none twice
    with pytest.raises(ValueError, match="5 recordings need as many weights above 0"):
        AudioSource(pieces, weights=[1.0, 0.0, 1, 1, 1])


def test_a_passed_over_recording_gives_way_to_others_by_their_weights(tmp_path):
    hiss = 0.1 * np.random.default_rng(0).standard_normal(800)
    folder = noises(tmp_path / "n", a=np.zeros(800), b=hiss, c=hiss)
    source = AudioSource(AudioSource.from_path(folder).pieces, weights=[1.0, 3.0, 1.0])
    found = drawn(source)
    assert found.count("b.wav") == pytest.approx(3000, abs=150) and set(source.skipped) == {"a.wav"}


def test_a_constant_recording_is_no_sound(tmp_path):
    hiss = 0.1 * np.random.default_rng(0).standard_normal(800)
    offset = np.concatenate([np.full(3200, 0.3), 0.3 + hiss])
    folder = noises(tmp_path / "n", dc=np.full(3200, 0.3), one=[0.5], step=np.repeat([0.0, 0.3], 3200), late=offset)
    source = AudioSource.from_path(folder)
    assert source.sounding("dc.wav", 100, 400) is None
    assert source.sounding("step.wav", 100, 400) is None  # what follows the silence is constant
    assert source.sounding("step.wav", 3000, 400) == 3000
    assert source.sounding("late.wav", 100, 400) == 3200 and source.sounding("late.wav", 3300, 400) == 3300
    assert set(drawn(source, 200)) <= {"late.wav", "step.wav"}
    assert "silent or constant" in source.skipped["dc.wav"] and "1 samples" in source.skipped["one.wav"]


@pytest.mark.parametrize(("suffix", "rate_hz"), [("wav", 16000), ("wav", 24000), ("ogg", 16000)])
def test_the_next_sound_is_the_same_in_blocks_and_at_once(tmp_path, monkeypatch, suffix, rate_hz):
    samples = np.zeros(6 * rate_hz)
    for second in (1, 4):
        samples[second * rate_hz :][:1000] = 0.1 * np.random.default_rng(second).standard_normal(1000)
    soundfile.write(tmp_path / f"a.{suffix}", samples, rate_hz)
    starts, found = (0, 17_500, 40_000, 66_000, 90_000), []
    for whole_file_s, block_s in ((300.0, 60.0), (1.0, 60.0), (300.0, 0.3), (1.0, 0.3)):
        monkeypatch.setattr(sources, "WHOLE_FILE_S", whole_file_s)
        monkeypatch.setattr(sources, "_BLOCK_S", block_s, raising=False)
        source = AudioSource.from_path(tmp_path)
        found.append([source.sounding(f"a.{suffix}", start, 400) for start in starts])
    assert found[1:] == found[:1] * 3
    assert suffix == "ogg" or np.abs(np.array(found[0]) - [16_000, 64_000, 64_000, 16_000, 16_000]).max() < 200


def test_a_long_silence_is_looked_through_in_pieces(tmp_path):
    """Ten minutes are 38 MB as floats; in an hour of silence a training would run out of memory."""
    samples = np.zeros(600 * 16000, np.int16)
    samples[-800:] = 1000
    samples[-400:] = -1000
    soundfile.write(tmp_path / "a.wav", samples, 16000)
    source = AudioSource.from_path(tmp_path, cache_bytes=1_000_000)
    tracemalloc.start()
    try:
        assert source.sounding("a.wav", 100, 16000) == 600 * 16000 - 800
        assert tracemalloc.get_traced_memory()[1] < 40e6
    finally:
        tracemalloc.stop()
    assert sum(part.nbytes for part in source._recent.values()) < 40e6


def test_a_name_that_is_no_utf_8_is_a_name(tmp_path):
    file = Path(os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9.wav"))
    soundfile.write(os.fsencode(file), 0.1 * np.random.default_rng(0).standard_normal(800), 16000)
    source = AudioSource.from_path(tmp_path)
    assert source.draw(np.random.default_rng(0), 400)[0] == [file.name] and len(source.content_digest) == 64
    parts = [split for split in ("train", "dev", "test") if split_of(file.stem) == split]
    assert [piece.name for piece in corpus_pieces(tmp_path, split=parts[0])] == [file.name]
