"""Speech from plain folders, and the stream of batches."""

from __future__ import annotations

import gzip
import json
import os
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from lhotse import CutSet

from robustdistiller.acoustics import AudioSource, CorruptionPolicy, Corruptor, RIRSource
from robustdistiller.pretrain import SettingsError
from robustdistiller.pretrain.data.cuts import as_cut, id_digest
from robustdistiller.pretrain.data.dataset import Batch, BatchStream, Position, SpeechBatches, make_loader
from robustdistiller.pretrain.data.reading import read_cut
from robustdistiller.pretrain.data.speech import speech_cuts

MAX_SAMPLES = 24_000


@pytest.fixture
def cuts(corpus, tmp_path: Path) -> list:
    return listed(corpus.speech, tmp_path)[0]


def listed(root: Path, lists: Path, **options) -> tuple[list, list]:
    cuts, reports = speech_cuts([root], lists, **options)
    return cuts.listed, reports


def make_stream(cuts: list, **options) -> BatchStream:
    return BatchStream(cuts, MAX_SAMPLES, **{"batch_size": 5, "seed": 1, **options})


def take(stream: BatchStream, count: int, corpus=None, num_workers: int = 0) -> list[Batch]:
    corruptor = None
    if corpus is not None:
        noise, rir = AudioSource.from_path(corpus.noise), RIRSource.from_path(corpus.rir)
        corruptor = Corruptor(CorruptionPolicy(), noise, rir, seed=1)
    return list(islice(make_loader(stream, SpeechBatches(corruptor), num_workers), count))


def assert_same(found: list[Batch], expected: list[Batch]) -> None:
    assert len(found) == len(expected)
    for one, other in zip(found, expected):
        assert (one.position, one.ids) == (other.position, other.ids)
        assert torch.equal(one.waveforms, other.waveforms) and torch.equal(one.lengths, other.lengths)
        if one.corrupted is not None:
            assert torch.equal(one.corrupted.snr_db, other.corrupted.snr_db)
            assert torch.equal(one.corrupted.waveforms, other.corrupted.waveforms)


def test_every_format_rate_and_channel_count_is_read(corpus, tmp_path: Path) -> None:
    cuts, (report,) = listed(corpus.speech, tmp_path)
    assert report.files == len(cuts) == 26
    expected_s = 0.0
    for cut in cuts:
        info = soundfile.info(cut.file)
        expected_s += info.frames / info.samplerate
        samples = read_cut(cut)
        assert samples.dtype == np.float32 and samples.ndim == 1
        assert len(samples) == cut.num_samples == pytest.approx(info.frames * 16000 / info.samplerate, abs=1)
        level = 0.1 / np.sqrt(info.channels) * np.sqrt(min(16000 / info.samplerate, 1))
        assert samples.std() == pytest.approx(level, rel=0.25)
    assert report.hours * 3600 == pytest.approx(expected_s, rel=1e-4)
    assert {Path(cut.id).suffix for cut in cuts} == {".wav", ".flac", ".ogg", ".mp3"}
    assert cuts[0].id.startswith("speech/speaker")


def test_manifest_is_reused_until_a_file_changes(corpus, tmp_path: Path, monkeypatch) -> None:
    root = tmp_path / "speech"
    root.mkdir()
    soundfile.write(root / "a.wav", np.zeros(16000) + 0.1, 16000)
    first, _ = speech_cuts([root], tmp_path / "lists")
    reads = []
    from robustdistiller.pretrain.data import headers

    original = headers.audio_info
    monkeypatch.setattr(headers, "audio_info", lambda path: reads.append(path) or original(path))
    again, _ = speech_cuts([root], tmp_path / "lists")
    assert reads == [] and id_digest(again) == id_digest(first)
    soundfile.write(root / "a.wav", np.zeros(8000) + 0.1, 16000)
    os.utime(root / "a.wav", (1, 1))
    changed, _ = listed(root, tmp_path / "lists")
    assert len(reads) == 1 and changed[0].num_samples == 8000 and id_digest(changed) != id_digest(first)


def test_moved_speech_has_the_same_digest(corpus, tmp_path: Path, cuts: list) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "speech").symlink_to(corpus.speech)
    moved, _ = listed(tmp_path / "elsewhere" / "speech", tmp_path / "lists")
    assert id_digest(moved) == id_digest(cuts)
    assert id_digest(moved[1:]) != id_digest(cuts)


def test_missing_and_empty_roots_are_named(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"data\.speech: .*nowhere does not exist"):
        speech_cuts([tmp_path / "nowhere"], tmp_path)
    (tmp_path / "empty").mkdir()
    with pytest.raises(SettingsError, match=r"data\.speech: no audio files in .*empty"):
        speech_cuts([tmp_path / "empty"], tmp_path)
    with pytest.raises(SettingsError, match=r"gone\.jsonl\.gz does not exist"):
        speech_cuts([tmp_path / "gone.jsonl.gz"], tmp_path)


def test_one_broken_file_is_left_out_many_are_refused(tmp_path: Path) -> None:
    root = tmp_path / "speech"
    root.mkdir()
    for index in range(4):
        soundfile.write(root / f"{index}.wav", np.zeros(4000) + 0.1, 16000)
    (root / "broken0.wav").write_bytes(b"")
    cuts, (report,) = speech_cuts([root], tmp_path)
    assert len(cuts) == 4 and "left out: " in str(report) and "broken0.wav is an empty file" in str(report)
    (root / "broken1.flac").write_bytes(b"not audio")
    with pytest.raises(SettingsError, match=r"2 of 6 files in .* cannot be read; first: .*broken0\.wav"):
        speech_cuts([root], tmp_path)


def test_short_files_are_left_out(corpus, tmp_path: Path) -> None:
    cuts, (report,) = speech_cuts([corpus.speech], tmp_path, min_samples=4000)
    assert len(cuts) == 25 and report.left_out == ("1 shorter than 4000 samples",)
    with pytest.raises(SettingsError, match=r"holds no usable speech: 26 shorter than 99999999 samples"):
        speech_cuts([corpus.speech], tmp_path, min_samples=99_999_999)


def test_equal_folder_names_get_different_ids(corpus, tmp_path: Path) -> None:
    cuts, reports = speech_cuts([corpus.speech, corpus.speech], tmp_path)
    assert len({cut.id for cut in cuts}) == 52 and len(reports) == 2


def test_lhotse_manifest_is_a_root(cuts: list, tmp_path: Path) -> None:
    CutSet.from_cuts(map(as_cut, cuts[:3])).to_file(tmp_path / "mine.jsonl.gz")
    found, (report,) = speech_cuts([tmp_path / "mine.jsonl.gz"], tmp_path)
    assert id_digest(found) == id_digest(cuts[:3]) and report.files == 3


@pytest.mark.parametrize(
    ("name", "damage", "message"),
    [
        ("cuts.jsonl.gz", lambda text: gzip.compress(text.encode())[:200], "cannot be read .*cuts: .*ended"),
        ("cuts.jsonl.gz", str.encode, "cannot be read as lhotse's cuts: Not a gzipped file"),
        ("cuts.jsonl", lambda text: text[:500].encode(), "cannot be read as lhotse's cuts: .*line 1"),
        ("cuts.jsonl", lambda text: b"", "cannot be read as lhotse's cuts"),
        ("cuts.jsonl", lambda text: _recordings(text).encode(), "holds a Recording, expected cuts: `lhotse cut"),
    ],
)
def test_a_damaged_manifest_is_named(cuts: list, tmp_path: Path, name: str, damage, message: str) -> None:
    CutSet.from_cuts(map(as_cut, cuts[:3])).to_file(tmp_path / "whole.jsonl")
    (tmp_path / name).write_bytes(damage((tmp_path / "whole.jsonl").read_text()))
    with pytest.raises(SettingsError, match=rf"data\.speech: .*{name} {message}"):
        speech_cuts([tmp_path / name], tmp_path)


def _recordings(cuts: str) -> str:
    return "\n".join(json.dumps(json.loads(line)["recording"]) for line in cuts.splitlines())


def test_windows_use_all_of_a_long_file(cuts: list, corpus, tmp_path: Path) -> None:
    pieces, _ = listed(corpus.speech, tmp_path, min_samples=1600, windows_of=8000)
    assert max(piece.num_samples for piece in pieces) == 8000
    whole = next(cut for cut in cuts if cut.id.endswith("wav") and cut.num_samples > 20_000)
    parts = [piece for piece in pieces if piece.id == whole.id or piece.id.startswith(whole.id + "@")]
    samples = np.concatenate([read_cut(part) for part in parts])
    np.testing.assert_allclose(samples, read_cut(whole)[: len(samples)], atol=2e-3)
    assert whole.num_samples - len(samples) < 1600


def test_unreadable_and_nan_audio_name_the_file(tmp_path: Path) -> None:
    path = tmp_path / "speech" / "a.wav"
    path.parent.mkdir()
    soundfile.write(path, np.full(4000, np.nan, np.float32), 16000, subtype="FLOAT")
    (cut,), _ = listed(path.parent, tmp_path)
    with pytest.raises(ValueError, match=r"a\.wav .utterance speech/a\.wav. has NaN"):
        read_cut(cut)
    path.unlink()
    with pytest.raises(ValueError, match=r"cannot read .*a\.wav .utterance speech/a\.wav."):
        read_cut(cut)


def test_an_epoch_holds_every_utterance_once(cuts: list) -> None:
    epoch = [request for request in islice(make_stream(cuts), 60) if request.position.epoch == 1]
    assert sorted(cut.id for request in epoch for cut in request.cuts) == sorted(cut.id for cut in cuts)
    order = {e: [r for r in islice(make_stream(cuts), 60) if r.position.epoch == e] for e in (0, 1)}
    assert [c.id for r in order[0] for c in r.cuts] != [c.id for r in order[1] for c in r.cuts]


def test_small_sets_lose_nothing() -> None:
    from lhotse.testing.dummies import dummy_cut

    for count in (1, 2, 7, 23):
        few = [dummy_cut(index, duration=0.3 + index / 3) for index in range(count)]
        seen = [request for request in islice(make_stream(few, batch_size=4), 40) if request.position.epoch == 2]
        assert sorted(cut.id for request in seen for cut in request.cuts) == sorted(cut.id for cut in few)


def test_batches_are_of_similar_length_and_within_limits() -> None:
    from lhotse.testing.dummies import dummy_cut

    durations = np.random.default_rng(0).uniform(1, 10, 400)
    many = [dummy_cut(index, duration=round(duration, 2)) for index, duration in enumerate(durations)]
    stream = BatchStream(many, 16000 * 8, batch_size=None, batch_seconds=40, num_buckets=8, seed=0)
    batches = [[cut.duration for cut in request.cuts] for request in islice(stream, 40)]
    padded = [len(lengths) * max(lengths) for lengths in batches]
    assert max(map(max, batches)) == 8
    assert max(padded) < 50 and 32 < np.median(padded) < 42
    assert sum(map(sum, batches)) / sum(padded) > 0.8  # 0.6 without buckets


@pytest.mark.parametrize("start", [3, 6, 8])
def test_stream_resumes_anywhere_with_any_worker_count(cuts: list, corpus, start: int) -> None:
    straight = take(make_stream(cuts), 10, corpus)
    place = straight[start].position
    assert_same(take(make_stream(cuts, start=place), 10 - start, corpus, num_workers=2), straight[start:])
    assert {batch.position.epoch for batch in straight} == {0, 1}
    with pytest.raises(AssertionError):
        assert_same(take(make_stream(cuts, start=place, seed=2), 10 - start, corpus), straight[start:])


def test_corruption_and_crops_change_with_the_epoch(cuts: list, corpus) -> None:
    batches = take(make_stream(cuts), 12, corpus)
    drawn: dict[int, dict] = {0: {}, 1: {}}
    audio: dict[int, dict] = {0: {}, 1: {}}
    for batch in batches:
        for row, name in enumerate(batch.ids):
            heard = batch.corrupted.waveforms - batch.waveforms
            drawn[batch.position.epoch][name] = heard[row, : batch.lengths[row]]
            audio[batch.position.epoch][name] = batch.waveforms[row, : batch.lengths[row]]
    both = drawn[0].keys() & drawn[1].keys()
    assert sum(not torch.equal(drawn[0][name], drawn[1][name]) for name in both) > len(both) / 2
    cropped = [name for name in both if len(audio[0][name]) == MAX_SAMPLES]
    whole = [name for name in both if len(audio[0][name]) < MAX_SAMPLES]
    assert cropped and all(not torch.equal(audio[0][name], audio[1][name]) for name in cropped)
    assert whole and all(torch.equal(audio[0][name], audio[1][name]) for name in whole)


def test_padding_is_zero_and_lengths_are_right(cuts: list) -> None:
    by_id = {cut.id: cut for cut in cuts}
    for batch in take(make_stream(cuts), 6):
        for name, row, length in zip(batch.ids, batch.waveforms, batch.lengths):
            assert length == min(by_id[name].num_samples, MAX_SAMPLES)
            assert torch.all(row[length:] == 0) and row[:length].abs().max() > 0
        assert batch.seconds == pytest.approx(batch.lengths.sum().item() / 16000)


def test_position_counts_on() -> None:
    assert Position(2, 3, 40).next() == Position(2, 4, 41)
