"""The teacher's targets on disk: what is stored, that it fits what it is read for, and whole runs with it."""

from __future__ import annotations

import copy
import errno
import json
import multiprocessing
import re
from pathlib import Path

import numpy as np
import pytest
import torch

from robustdistiller.pretrain import SettingsError, distill
from robustdistiller.pretrain.teacher import cache_plan as target_plan
from robustdistiller.pretrain.teacher.cache import TargetCache
from robustdistiller.pretrain.teacher.cache_size import TargetSize
from robustdistiller.pretrain.teacher.codec import TargetCodec
from robustdistiller.pretrain.training.errors import DiskFullError
from robustdistiller.pretrain.training.log import read_history
from robustdistiller.upstream import SpeechEncoder, save_checkpoint

from .conftest import TEACHER, assert_equal_states, last_checkpoint

WHOLE = "data.max_samples=48000"  # nothing is longer
TWO_EPOCHS = ("trainer.max_steps=10", "optim.schedule_steps=10", "trainer.log_every_steps=1")


def frames(samples: int) -> int:
    return samples // 320


def noise(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize(("dtype", "largest"), [("fp32", 0.0), ("fp16", 2**-11), ("int8", 1 / 254)])
def test_targets_come_back(dtype: str, largest: float) -> None:
    codec = TargetCodec(dtype, targets=2, width=48)
    targets = [noise(3, 7, 48), 30 * noise(3, 7, 48, seed=1)]
    targets[0][1, 2] = 0.0
    stored = codec.encode(targets)
    assert stored.shape == (3, 7, 2, codec.row_bytes) and stored.dtype == torch.uint8
    for found, target in zip(codec.decode(stored), targets):
        scale = target.abs() if dtype == "fp16" else target.abs().amax(-1, keepdim=True)
        assert ((found - target).abs() <= largest * scale * 1.001 + 1e-7).all()
        assert torch.equal(found, target) == (dtype == "fp32")


def test_a_single_frame_of_any_width_comes_back() -> None:
    for width in range(1, 9):
        codec, target = TargetCodec("int8", targets=1, width=width), noise(1, width)
        assert (codec.decode(codec.encode([target]))[0] - target).abs().max() <= target.abs().max() / 253


def test_size_of_what_is_kept() -> None:
    lengths = [320 * (n % 7 + 1) for n in range(40)]
    size = TargetSize.of(lengths, max_samples=1600, crops=3, num_frames=frames)
    assert size.longer == sum(samples > 1600 for samples in lengths)
    assert size.places == sum(3 if samples > 1600 else 1 for samples in lengths)
    assert size.frames == sum(3 * 5 if samples > 1600 else samples // 320 for samples in lengths)


@pytest.fixture
def cache(tmp_path: Path) -> TargetCache:
    return TargetCache(tmp_path / "targets-0", {"teacher": "x"}, TargetCodec("fp16", targets=2, width=8), frames)


def speech(*lengths: int) -> list[np.ndarray]:
    return [noise(length, seed=number).numpy() for number, length in enumerate(lengths)]


def test_what_was_written_is_read_by_others(cache: TargetCache) -> None:
    rows = speech(6400, 3200)
    asked = cache.read(rows)
    assert asked.known == (False, False) and asked.stored.shape[1] == 20 and len(cache.store) == 0
    stored = cache.codec.encode([noise(2, 20, 8), noise(2, 20, 8, seed=1)])
    cache.write(asked, [0, 1], stored)
    for other in (TargetCache(cache.store.folder, {"teacher": "x"}, cache.codec, frames), copy.deepcopy(cache)):
        again = other.read(rows)
        assert again.known == (True, True) and len(cache.store) == 2
        assert torch.equal(again.stored[0], stored[0]) and torch.equal(again.stored[1, :10], stored[1, :10])
        assert not again.stored[1, 10:].any()
    assert cache.read([rows[1][:-320]]).known == (False,)


def test_changed_audio_and_broken_files_are_as_if_nothing_was_there(cache: TargetCache) -> None:
    first, other = speech(3200, 6400)
    for row in (first, other):
        cache.write(cache.read([row]), [0], cache.codec.encode([noise(1, 20, 8)] * 2))
    assert cache.read([first]).known == (True,)
    assert cache.read([first * 1.001]).known == (False,)
    (numbers,) = cache.store.folder.glob("*.data")
    with numbers.open("r+b") as file:
        file.seek(100)
        file.write(b"?")
    assert cache.read([first]).known == (False,)
    assert cache.read([other]).known == (True,)
    cache.write(cache.read([first]), [0], cache.codec.encode([noise(1, 10, 8)] * 2))
    assert copy.deepcopy(cache).read([first]).known == (True,), "what is damaged is written anew"


def _fill(folder: Path, seed: int) -> None:
    codec = TargetCodec("fp32", targets=1, width=8)
    cache = TargetCache(folder, {"teacher": "x"}, codec, frames)
    for n in np.random.default_rng(seed).permutation(20):
        asked = cache.read([np.full(3200, n, np.float32)])
        if asked.missing:
            cache.write(asked, [0], codec.encode([torch.full((1, 10, 8), float(n))]))


def test_processes_that_make_and_fill_one_cache_at_once(tmp_path: Path) -> None:
    with multiprocessing.get_context("fork").Pool(4) as pool:
        pool.starmap(_fill, [(tmp_path, seed) for seed in range(4)])
    codec = TargetCodec("fp32", targets=1, width=8)
    cache = TargetCache(tmp_path, {"teacher": "x"}, codec, frames)
    for n in range(20):
        found = cache.read([np.full(3200, n, np.float32)])
        assert found.known == (True,) and (codec.decode(found.stored)[0] == n).all()


def test_a_full_disk_is_named(cache: TargetCache, monkeypatch) -> None:
    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    asked = cache.read(speech(3200))
    monkeypatch.setattr("robustdistiller.common.array_store._write", full)
    with pytest.raises(DiskFullError, match=r"targets-0 \(.*No space left on device\).*; .*targets\.cache=null"):
        cache.write(asked, [0], cache.codec.encode([noise(1, 10, 8)] * 2))


def test_a_folder_of_the_first_version_is_left_alone(make_config, tmp_path: Path, caplog) -> None:
    old = tmp_path / "targets" / "targets-0123456789ab"
    old.mkdir(parents=True)
    (old / "about.json").write_text(json.dumps({"teacher": "x", "dtype": "fp16"}))
    (old / "targets.bin").write_bytes(b"old")
    distill(make_config(tmp_path, WHOLE, "targets.cache={}", "trainer.max_steps=1"))
    assert "targets-0123456789ab is not used" in caplog.text and "format is null there, 2 now" in caplog.text
    assert (old / "targets.bin").read_bytes() == b"old" and len(list(old.parent.iterdir())) == 2


class Asked:
    """Counts the utterances that the teacher hears, step by step."""

    def on_train_start(self, distiller) -> None:
        self.rows = []
        distiller.teachings[0].model.register_forward_pre_hook(lambda _, given: self._count(len(given[0])))

    def on_batch_start(self, distiller, batch, step) -> None:
        self.rows.append(0)

    def _count(self, rows: int) -> None:
        self.rows[-1] += rows


def losses(out_dir: Path) -> list[float]:
    return [line["loss"] for line in read_history(out_dir / "history.csv")]


def test_a_run_with_the_cache_is_the_run_without_it(make_config, tmp_path: Path) -> None:
    found = {}
    for name, cache in (("plain", "null"), ("fp32", "{dtype: fp32}"), ("fp16", "{}"), ("int8", "{dtype: int8}")):
        asked = Asked()
        distill(make_config(tmp_path / name, WHOLE, *TWO_EPOCHS, f"targets.cache={cache}"), callbacks=[asked])
        found[name] = losses(tmp_path / name)
        if name == "plain":
            assert min(asked.rows) > 0
        else:  # 26 utterances in batches of at most 5
            assert sum(asked.rows) == 26 and asked.rows[6:] == [0] * 4
    assert found["fp32"] == pytest.approx(found["plain"], rel=2e-5)
    assert found["fp16"] == pytest.approx(found["plain"], rel=1e-3)
    assert found["int8"] == pytest.approx(found["plain"], rel=1e-2) and found["int8"] != found["fp16"]


def test_a_run_stopped_and_continued_is_the_same_run(make_config, tmp_path: Path) -> None:
    options = (WHOLE, *TWO_EPOCHS, "targets.cache={dtype: int8}")
    distill(make_config(tmp_path / "straight", *options))
    distill(make_config(tmp_path / "halves", *options, "trainer.max_steps=4"))
    distill(make_config(tmp_path / "halves", *options, "data.num_workers=2"))
    one, other = (last_checkpoint(tmp_path / name) for name in ("halves", "straight"))
    assert_equal_states(one["model"], other["model"])
    with pytest.raises(SettingsError, match=r"targets\.cache\.dtype: int8 there, None now"):
        distill(make_config(tmp_path / "halves", WHOLE, *TWO_EPOCHS))


def test_two_runs_share_a_folder(make_config, tmp_path: Path, caplog) -> None:
    shared = f"targets.cache.folder={tmp_path / 'shared'}"
    first, second, other = Asked(), Asked(), Asked()
    distill(make_config(tmp_path / "one", WHOLE, shared, "trainer.max_steps=5"), callbacks=[first])
    distill(make_config(tmp_path / "two", WHOLE, shared, "optim.lr=1e-3"), callbacks=[second])
    distill(make_config(tmp_path / "three", WHOLE, shared, "targets.layers=[1]", "trainer.max_steps=1"), [other])
    assert sum(first.rows) > 0 and sum(second.rows[:5]) == 0 and sum(other.rows) > 0
    (warning,) = [one.getMessage() for one in caplog.records if "is not used" in one.getMessage()]
    assert re.search(
        r"targets-\w+ is not used: layers is \[\[2\], \[4\]\] there, \[\[1\]\] now; the teacher's", warning
    )
    about = [json.loads((folder / "about.json").read_text()) for folder in (tmp_path / "shared").iterdir()]
    assert sorted(one["layers"] for one in about) == [[[1]], [[2], [4]]]


def test_another_teacher_or_other_speech_is_not_given_what_is_there(
    make_config, corpus, tmp_path: Path, caplog
) -> None:
    shared = (WHOLE, "trainer.max_steps=1", f"targets.cache.folder={tmp_path / 'shared'}")
    with torch.random.fork_rng():
        save_checkpoint(tmp_path / "other.ckpt", SpeechEncoder(TEACHER), {})
    distill(make_config(tmp_path / "one", *shared))
    changes = {"teacher": f"teacher.checkpoint={tmp_path / 'other.ckpt'}",
               "speech": f"data.speech={corpus.speech / 'speaker1'}"}  # fmt: skip
    for number, (key, change) in enumerate(changes.items(), start=2):
        asked = Asked()
        caplog.clear()
        distill(make_config(tmp_path / key, *shared, change), callbacks=[asked])
        (warning,) = [one.getMessage() for one in caplog.records if "is not used" in one.getMessage()]
        assert re.search(rf"is not used: {key} is \w{{12}} there, \w{{12}} now; the teacher's answers go to", warning)
        assert sum(asked.rows) > 0 and len(list((tmp_path / "shared").iterdir())) == number


def test_stretches_of_long_recordings_are_said_to_be_fixed(make_config, tmp_path: Path, caplog) -> None:
    asked = Asked()
    with caplog.at_level("INFO"):
        distill(make_config(tmp_path, *TWO_EPOCHS, "targets.cache.crops=2"), callbacks=[asked])
    lines = [record.getMessage() for record in caplog.records]
    (about_size,) = [line for line in lines if line.startswith("targets  ")]
    assert "fp16, 2 targets of" in about_size and "for 26 utterances" in about_size and about_size.endswith("0% there")
    (about_crops,) = [line for line in lines if "in 2 stretches in turn, not in a new one each epoch" in line]
    longer = int(about_crops.split()[1])
    assert 0 < longer < 26 and 0 < sum(asked.rows) - 26 <= longer  # the second epoch hears the second stretches


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["teacher.hears=independent"], r"the teacher of this recipe hears a corruption of its own"),
        (["targets.cache.max_gb=1e-5"], r"the targets are 0\.\d MB in .*targets, more than .*dtype=int8 \(0\.\d MB\)"),
        (["targets.cache.crops=0"], "crops: found 0, expected at least 1"),
        (["targets.cache.dtype=bf16"], "expected 'fp16', 'int8' or 'fp32'"),
    ],
)
def test_what_cannot_be_kept_is_refused(make_config, tmp_path: Path, overrides, message) -> None:
    with pytest.raises(SettingsError, match=message):
        distill(make_config(tmp_path, "targets.cache={}", *overrides))
    assert not (tmp_path / "run.json").exists()


def test_a_disk_that_is_too_small_is_refused(make_config, tmp_path: Path, monkeypatch) -> None:
    usage = target_plan.shutil.disk_usage(tmp_path)._replace(free=1000)
    monkeypatch.setattr(target_plan.shutil, "disk_usage", lambda folder: usage)
    with pytest.raises(SettingsError, match=r"still to be written in .* and the disk has 0\.0 MB free"):
        distill(make_config(tmp_path, "targets.cache={}"))


def test_values_beyond_half_precision_are_refused() -> None:
    TargetCodec("int8", 1, 4).require_range([torch.full((1, 4), 1e6)])
    with pytest.raises(SettingsError, match=r"holds values up to 65504, and the teacher's go to 1e\+06"):
        TargetCodec("fp16", 1, 4).require_range([torch.full((1, 4), 1e6)])
