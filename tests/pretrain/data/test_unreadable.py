"""Audio that cannot be read, or becomes unreadable, in the middle of a run."""

from __future__ import annotations

import os
import shutil
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

from robustdistiller.acoustics import AudioSource, CorruptionPolicy, Corruptor
from robustdistiller.pretrain import distill
from robustdistiller.pretrain.data.dataset import BatchStream, SpeechBatches, make_loader
from robustdistiller.pretrain.data.speech import speech_cuts
from robustdistiller.pretrain.data.unreadable import UnreadableAudio, UnreadableAudioError

from ..conftest import assert_equal_states, last_checkpoint


@pytest.fixture
def broken(corpus, tmp_path: Path) -> Path:
    """The speech, of which two files break after they have been listed in `tmp_path/lists`."""
    root = tmp_path / "speech"
    shutil.copytree(corpus.speech, root)
    speech_cuts([root], tmp_path / "lists")
    return root


def spoil(root: Path) -> None:
    """Without changing size and time: what a list of files does not notice."""
    for name in ("speaker0/00.wav", "speaker1/01.flac"):
        file = root / name
        before = file.stat()
        file.write_bytes(bytes(before.st_size))
        os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))


def batches(root: Path, lists: Path, count: int, unreadable=None, num_workers: int = 0, **options) -> list:
    cuts, _ = speech_cuts([root], lists)
    stream = BatchStream(cuts, 24_000, **{"batch_size": 5, "seed": 1, **options})
    return list(islice(make_loader(stream, SpeechBatches(), num_workers, unreadable=unreadable), count))


@pytest.mark.parametrize("num_workers", [0, 2])
def test_unreadable_utterances_are_left_out_and_listed(broken: Path, tmp_path: Path, num_workers: int, caplog) -> None:
    before = batches(broken, tmp_path / "lists", 14)
    spoil(broken)
    unreadable = UnreadableAudio(budget=2, list_path=tmp_path / "unreadable.txt")
    after = batches(broken, tmp_path / "lists", 14, unreadable, num_workers)
    bad = {"speech/speaker0/00.wav", "speech/speaker1/01.flac"}
    assert {batch.position.epoch for batch in after} >= {0, 1}
    for one, other in zip(after, before, strict=True):
        assert one.position == other.position
        assert one.ids == tuple(name for name in other.ids if name not in bad)
        assert {key for key, _ in one.skipped} == bad & {*other.ids}
        for row, name in enumerate(one.ids):
            length = one.lengths[row]
            assert torch.equal(one.waveforms[row, :length], other.waveforms[other.ids.index(name), :length])
    lines = (tmp_path / "unreadable.txt").read_text().splitlines()
    assert len(lines) == 2 and all("cannot read" in line and str(broken) in line for line in lines)
    assert len([record for record in caplog.records if "left out" in record.message]) == 2


def test_more_than_the_budget_stops_and_names_them(broken: Path, tmp_path: Path) -> None:
    spoil(broken)
    with pytest.raises(UnreadableAudioError, match=r"2 recordings cannot be read, .*budget=1 allows: .*; ") as caught:
        batches(broken, tmp_path / "lists", 14, UnreadableAudio(budget=1))
    assert "00.wav" in str(caught.value) and "01.flac" in str(caught.value)
    with pytest.raises(UnreadableAudioError, match=r"1 recording cannot be read, and none may be missing: .*back, and"):
        batches(broken, tmp_path / "lists", 14)


def test_batches_of_which_nothing_is_left_come_without_rows(broken: Path, tmp_path: Path) -> None:
    spoil(broken)
    straight = batches(broken, tmp_path / "lists", 40, UnreadableAudio(), batch_size=1)
    assert [batch.position.batches for batch in straight] == list(range(40))
    empty = [place for place, batch in enumerate(straight) if not batch.ids]
    assert 2 <= len(empty) <= 4 and all(len(batch.ids) == 1 for batch in straight if batch.ids)
    assert all(straight[place].waveforms.shape[0] == 0 and straight[place].skipped for place in empty)
    for place in (empty[0], empty[0] + 1):
        start = straight[place].position
        resumed = batches(broken, tmp_path / "lists", 3, UnreadableAudio(), batch_size=1, start=start)
        expected = straight[place : place + 3]
        assert [(one.position, one.ids) for one in resumed] == [(one.position, one.ids) for one in expected]


def test_speech_that_is_gone_altogether_ends_the_run(broken: Path, tmp_path: Path) -> None:
    cuts, _ = speech_cuts([broken], tmp_path / "lists")
    shutil.rmtree(broken)
    loader = make_loader(BatchStream(cuts, 24_000, batch_size=5), SpeechBatches(), 0, unreadable=UnreadableAudio(99))
    with pytest.raises(UnreadableAudioError, match=r"nothing of the speech can be read: cannot read .*and 6 more"):
        list(loader)


def test_noise_that_breaks_is_counted_by_file(corpus, tmp_path: Path) -> None:
    noise = tmp_path / "noise"
    shutil.copytree(corpus.noise, noise)
    source = AudioSource.from_path(noise, cache_bytes=1)  # which nothing fits into
    source.duration_s()
    corruptor = Corruptor(CorruptionPolicy([{"noise:snr_db=0..20": 1}]), source, seed=1)
    cuts, _ = speech_cuts([corpus.speech], tmp_path / "lists")

    def read(unreadable: UnreadableAudio) -> list:
        stream = BatchStream(cuts, 24_000, batch_size=5, seed=1)
        dataset = SpeechBatches(corruptor, second_view=True)
        return list(islice(make_loader(stream, dataset, 0, unreadable=unreadable), 6))

    before = read(UnreadableAudio())
    (noise / "noise1.wav").unlink()
    unreadable = UnreadableAudio()
    after = read(unreadable)
    assert len(unreadable) == 1 and "noise1.wav" in unreadable.describe()
    dropped = 0
    for one, other in zip(after, before, strict=True):
        assert not one.ids or not torch.equal(one.second.waveforms, one.corrupted.waveforms)
        kept = [other.ids.index(name) for name in one.ids]
        dropped += len(other.ids) - len(kept)
        for view in ("corrupted", "second"):
            found, expected = getattr(one, view), getattr(other, view)
            assert torch.equal(found.snr_db, expected.snr_db[kept])
            assert torch.equal(found.waveforms, expected.waveforms[kept, : found.waveforms.shape[1]])
    assert 5 <= dropped <= 25


def test_a_run_counts_on_after_a_stop(make_config, broken: Path, tmp_path: Path) -> None:
    spoil(broken)
    options = [f"data.speech={broken}", f"data.manifest_dir={tmp_path / 'lists'}", "trainer.batch_size=1"]
    options += ["trainer.max_steps=40", "optim.schedule_steps=40", "trainer.save_every_steps=10"]
    distill(make_config(tmp_path / "straight", *options))
    saved = last_checkpoint(tmp_path / "straight")
    assert set(saved["unreadable"]) == {"speech/speaker0/00.wav", "speech/speaker1/01.flac"}
    assert saved["progress"]["position"]["batches"] > 40
    assert len((tmp_path / "straight" / "unreadable.txt").read_text().splitlines()) == 2
    # Stopped when there is one more than allowed, then allowed.
    with pytest.raises(UnreadableAudioError, match="2 recordings cannot be read"):
        distill(make_config(tmp_path / "stopped", *options, "data.unreadable_budget=1"))
    distill(make_config(tmp_path / "stopped", *options))
    for part in ("model", "optimizer", "progress", "unreadable"):
        assert_equal_states(last_checkpoint(tmp_path / "stopped")[part], saved[part])


def test_state_is_kept_and_merged(tmp_path: Path) -> None:
    one, other = UnreadableAudio(3), UnreadableAudio(3, tmp_path / "list.txt")
    one.add([("a", "a is broken")])
    other.add([("b", "b is broken")])
    other.load_state_dict(one.state_dict())
    assert other.state_dict() == {"a": "a is broken", "b": "b is broken"}
    assert (tmp_path / "list.txt").read_text() == "b is broken\na is broken\n"


def test_silence_is_no_reason(tmp_path: Path) -> None:
    (tmp_path / "speech").mkdir()
    soundfile.write(tmp_path / "speech" / "a.wav", np.zeros(4000), 16000)
    (batch,) = batches(tmp_path / "speech", tmp_path / "lists", 1, UnreadableAudio(0))
    assert batch.skipped == () and batch.ids == ("speech/a.wav",)
