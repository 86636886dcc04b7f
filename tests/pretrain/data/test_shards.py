"""Speech in shards: lhotse Shar folders and WebDataset tar files."""

from __future__ import annotations

import os
import pickle
import tarfile
from io import BytesIO
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from lhotse import CutSet, Recording

from robustdistiller.pretrain import SettingsError, distill
from robustdistiller.pretrain.data import shards as shards_module
from robustdistiller.pretrain.data.dataset import BatchStream, SpeechBatches, make_loader
from robustdistiller.pretrain.data.reading import read_cut
from robustdistiller.pretrain.data.shards import ShardedSpeech
from robustdistiller.pretrain.data.speech import SpeechCuts, speech_cuts

from ..conftest import assert_equal_states, last_checkpoint

MAX_SAMPLES = 24_000


@pytest.fixture(scope="module")
def shar(corpus, tmp_path_factory) -> Path:
    """The corpus in 7 Shar shards of 4, at the rates of its files."""
    folder = tmp_path_factory.mktemp("shards")
    cuts, _ = speech_cuts([corpus.speech], folder / "lists")
    originals = [cut.file for cut in cuts.listed]
    recordings = [Recording.from_file(path, recording_id=cut.id) for path, cut in zip(originals, cuts)]
    originals = CutSet.from_cuts(one.to_cut().with_id(one.id) for one in recordings)
    (folder / "shar").mkdir()
    originals.to_shar(folder / "shar", {"recording": "wav"}, shard_size=4)
    return folder / "shar"


@pytest.fixture(scope="module")
def webdataset(corpus, tmp_path_factory) -> Path:
    """The corpus in 3 WebDataset shards, with a text beside every recording."""
    folder = tmp_path_factory.mktemp("webdataset")
    files = sorted(file for file in corpus.speech.rglob("*") if file.is_file())
    for number in range(3):
        with tarfile.open(folder / f"speech-{number:06d}.tar", "w") as tar:
            for file in files[number::3]:
                tar.add(file, file.name)
                _add(tar, f"{file.stem}.txt", b"what was said")
    return folder


def _add(tar: tarfile.TarFile, name: str, content: bytes) -> None:
    member = tarfile.TarInfo(name)
    member.size = len(content)
    tar.addfile(member, BytesIO(content))


def order(cuts: SpeechCuts, seed: int, epoch: int = 0) -> list[str]:
    return [cut.id for _, cut in cuts.epoch(seed, epoch)]


def stream(cuts, **options) -> BatchStream:
    return BatchStream(cuts, MAX_SAMPLES, **{"batch_size": 4, "seed": 1, **options})


def read(cuts, count: int, num_workers: int = 0, **options) -> list:
    return list(islice(make_loader(stream(cuts, **options), SpeechBatches(), num_workers), count))


@pytest.mark.parametrize("kind", ["shar", "webdataset"])
def test_shards_hold_what_the_files_hold(kind: str, corpus, tmp_path: Path, request) -> None:
    folder = request.getfixturevalue(kind)
    files, _ = speech_cuts([corpus.speech], tmp_path)
    cuts, (report,) = speech_cuts([folder], tmp_path)
    (part,) = cuts.parts
    assert isinstance(part, ShardedSpeech) and len(cuts) == report.files == 26
    by_name = {Path(cut.id).name: cut for cut in cuts}
    assert len(by_name) == 26
    for file in files:
        cut = by_name[Path(file.id).name]
        assert cut.sampling_rate == 16000 and cut.num_samples == pytest.approx(file.num_samples, abs=1)
        length = min(cut.num_samples, file.num_samples)
        found, expected = read_cut(cut)[:length], read_cut(file)[:length]
        assert np.abs(found - expected).max() < (2e-2 if kind == "shar" else 1e-6)
        assert np.abs(found[1:] - expected[:-1]).max() > 0.05
    assert sorted(cuts.lengths()) == sorted(cut.num_samples for cut in cuts)


@pytest.mark.parametrize("kind", ["shar", "webdataset"])
@pytest.mark.parametrize("start", [2, 7, 11])
def test_shards_resume_anywhere_with_any_worker_count(kind: str, start: int, tmp_path: Path, request) -> None:
    cuts, _ = speech_cuts([request.getfixturevalue(kind)], tmp_path)
    straight = read(cuts, 12)
    resumed = read(cuts, 12 - start, num_workers=2, start=straight[start].position)
    assert {batch.position.epoch for batch in straight} == {0, 1}
    for one, other in zip(resumed, straight[start:], strict=True):
        assert (one.position, one.ids) == (other.position, other.ids)
        assert torch.equal(one.waveforms, other.waveforms) and torch.equal(one.lengths, other.lengths)
    assert [batch.ids for batch in read(cuts, 12 - start, seed=2)] != [batch.ids for batch in straight[start:]]


def test_replaying_opens_no_tar_file(shar: Path, tmp_path: Path, monkeypatch) -> None:
    cuts, _ = speech_cuts([shar], tmp_path)
    place = read(cuts, 6)[5].position
    monkeypatch.setattr(shards_module, "with_audio", lambda cut: pytest.fail("audio was read"))
    monkeypatch.setattr(tarfile, "open", lambda *args: pytest.fail("a shard was opened"))
    assert next(iter(stream(cuts, start=place))).position == place


@pytest.mark.parametrize("kind", ["shar", "webdataset"])
def test_processes_share_the_steps_of_shards(kind: str, tmp_path: Path, request) -> None:
    cuts, _ = speech_cuts([request.getfixturevalue(kind)], tmp_path)
    options = {"batch_size": 1, "batches_per_step": 4}
    alone = list(islice(stream(cuts, **options), 80))
    for start in (alone[0].position, alone[10].resume_at, alone[27].resume_at):
        first = start.batches
        for size in (1, 2, 4):
            ranks = [
                list(islice(stream(cuts, start=start, rank=rank, world_size=size, **options), (80 - first) // size))
                for rank in range(size)
            ]
            for rank, found in enumerate(ranks):
                assert found == alone[first + rank :: size]


def test_epochs_shuffle_shards_and_their_cuts(shar: Path, tmp_path: Path) -> None:
    cuts, _ = speech_cuts([shar], tmp_path)
    listed = [cut.id for cut in cuts]
    orders = [order(cuts, seed) for seed in (1, 1, 2)]
    assert orders[0] == orders[1] != orders[2] and listed not in orders
    assert sorted(orders[0]) == sorted(orders[2]) == sorted(listed)


def test_folders_and_shards_are_mixed_evenly(corpus, shar: Path, webdataset: Path, tmp_path: Path) -> None:
    cuts, reports = speech_cuts([corpus.speech, shar, webdataset], tmp_path)
    found = order(cuts, 3)
    assert [report.files for report in reports] == [26, 26, 26] and len(found) == 78
    in_tar = ["/speech-0000" in name for name in found]
    assert sum(in_tar) == 26 and 7 <= sum(in_tar[:39]) <= 19
    alone = [cut.id for cut in speech_cuts([corpus.speech], tmp_path)[0]]
    assert set(alone) < {*found}


def test_windows_and_short_recordings_in_shards(webdataset: Path, tmp_path: Path) -> None:
    whole = {cut.id: cut for cut in speech_cuts([webdataset], tmp_path)[0]}
    cuts, (report,) = speech_cuts([webdataset], tmp_path, min_samples=4000, windows_of=9000)
    pieces = list(cuts)
    assert report.left_out == ("1 shorter than 4000 samples",)
    assert sorted(cuts.lengths()) == sorted(piece.num_samples for piece in pieces) and len(pieces) == len(cuts) > 26
    assert all(4000 <= piece.num_samples <= 9000 for piece in pieces)
    second = next(piece for piece in pieces if piece.id.endswith(".wav@9000"))
    expected = read_cut(whole[second.id.removesuffix("@9000")])[9000 : 9000 + second.num_samples]
    np.testing.assert_allclose(read_cut(second), expected, atol=2e-3)


def test_only_changed_shards_are_indexed_again(corpus, tmp_path: Path, monkeypatch) -> None:
    folder = tmp_path / "wds"
    folder.mkdir()
    for number in range(3):
        _write_shard(folder / f"{number}.tar", {"a.wav": 8000, "b.wav": 9000})
    first, _ = speech_cuts([folder], tmp_path / "lists")
    opened = []
    original = tarfile.open
    monkeypatch.setattr(tarfile, "open", lambda path, *rest: opened.append(Path(path).name) or original(path, *rest))
    again, _ = speech_cuts([folder], tmp_path / "lists")
    assert opened == [] and again.digest() == first.digest()
    monkeypatch.undo()
    _write_shard(folder / "1.tar", {"a.wav": 8000, "b.wav": 7000})
    os.utime(folder / "1.tar", (1, 1))
    monkeypatch.setattr(tarfile, "open", lambda path, *rest: opened.append(Path(path).name) or original(path, *rest))
    changed, _ = speech_cuts([folder], tmp_path / "lists")
    assert opened == ["1.tar"] and changed.digest() != first.digest()
    assert sorted(changed.lengths()) == [7000, 8000, 8000, 8000, 9000, 9000]


def test_damaged_lists_of_shards(tmp_path: Path) -> None:
    """Notes are made anew; an index, which is read in each epoch, is named."""
    _write_shard(tmp_path / "a.tar", {"a.wav": 8000, "b.wav": 9000})
    whole, _ = speech_cuts([tmp_path / "a.tar"], tmp_path / "lists")
    (notes,) = (tmp_path / "lists").rglob("*.json")
    notes.write_text(notes.read_text()[:20])
    again, _ = speech_cuts([tmp_path / "a.tar"], tmp_path / "lists")
    assert again.digest() == whole.digest()
    (index,) = (tmp_path / "lists").rglob("*.jsonl.gz")
    index.write_bytes(index.read_bytes()[:60])
    with pytest.raises(ValueError, match=r"a\.jsonl\.gz cannot be read .*remove it, and it is made anew"):
        list(again.epoch(0, 0))


def _write_shard(path: Path, lengths: dict[str, int]) -> None:
    with tarfile.open(path, "w") as tar:
        for name, length in lengths.items():
            content = BytesIO()
            soundfile.write(content, np.full(length, 0.1), 16000, format="WAV")
            _add(tar, name, content.getvalue())


def test_an_order_takes_no_memory_for_the_corpus(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(shards_module, "_SHUFFLED_LINES", 10)
    _write_shard(tmp_path / "a.tar", {f"{index:03d}.wav": 100 for index in range(200)})
    cuts, _ = speech_cuts([tmp_path / "a.tar"], tmp_path / "lists")
    read_so_far = []
    original = shards_module._lines
    monkeypatch.setattr(
        shards_module, "_lines", lambda index: (read_so_far.append(line) or line for line in original(index))
    )
    order = cuts.epoch(1, 0)
    names = []
    for taken in range(1, 150):
        names.append(next(order)[1].id)
        assert len(read_so_far) == taken + 10
    assert names != sorted(names)


def test_broken_shards_are_named(corpus, shar: Path, tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"is no whole Shar folder: .* found 0 and 0"):
        speech_cuts([f"shar:{corpus.speech}"], tmp_path)
    cut_short = tmp_path / "short.tar"
    cut_short.write_bytes((shar / "recording.000000.tar").read_bytes()[:1000])
    with pytest.raises(SettingsError, match=r"short\.tar cannot be read as an uncompressed tar"):
        speech_cuts([cut_short], tmp_path)
    with tarfile.open(tmp_path / "pickled.tar", "w") as tar:
        _add(tar, "utterance.data", pickle.dumps({"id": "utterance"}))
    with pytest.raises(SettingsError, match=r"0 of 0 recordings in .*pickled\.tar .*use CutSet\.to_shar"):
        speech_cuts([tmp_path / "pickled.tar"], tmp_path)
    with tarfile.open(tmp_path / "text.tar", "w") as tar:
        for index in range(3):
            _add(tar, f"{index}.wav", b"not audio")
    with pytest.raises(SettingsError, match=r"3 of 3 recordings in .*text\.tar .*0\.wav cannot be read as audio"):
        speech_cuts([tmp_path / "text.tar"], tmp_path)
    mixed = tmp_path / "mixed"
    mixed.mkdir()
    (mixed / "cuts.000000.jsonl.gz").symlink_to(shar / "cuts.000000.jsonl.gz")
    (mixed / "recording.000000.tar").symlink_to(shar / "recording.000001.tar")
    with pytest.raises(SettingsError, match=r"recording\.000000\.tar does not belong to .*cuts\.000000"):
        speech_cuts([mixed], tmp_path)


def test_a_folder_with_its_archive_beside_it_is_a_folder(corpus, tmp_path: Path) -> None:
    (tmp_path / "corpus").mkdir()
    (tmp_path / "corpus" / "speech").symlink_to(corpus.speech)
    _write_shard(tmp_path / "corpus" / "archive.tar", {"a.wav": 100})
    cuts, _ = speech_cuts([tmp_path / "corpus"], tmp_path / "lists")
    assert len(cuts.listed) == len(cuts) == 26


def test_a_recording_that_goes_missing_names_its_shard(tmp_path: Path) -> None:
    _write_shard(tmp_path / "a.tar", {"a.wav": 4000})
    (cut,) = speech_cuts([tmp_path / "a.tar"], tmp_path / "lists")[0]
    (tmp_path / "a.tar").write_bytes(b"")
    with pytest.raises(ValueError, match=r"cannot read .*a\.tar \(byte 512\) \(utterance a\.tar/a\.wav\)"):
        read_cut(cut)


def test_a_run_on_shards_is_continued_exactly(make_config, shar: Path, tmp_path: Path) -> None:
    options = [f"data.speech={shar}", "data.num_workers=1", "trainer.batch_size=4"]
    distill(make_config(tmp_path / "straight", *options))
    distill(make_config(tmp_path / "stopped", *options, "trainer.max_steps=3", "optim.schedule_steps=6"))
    distill(make_config(tmp_path / "stopped", *options))
    for part in ("model", "optimizer", "progress"):
        one, other = (last_checkpoint(tmp_path / name)[part] for name in ("stopped", "straight"))
        assert_equal_states(one, other)
