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
from robustdistiller.pretrain.teacher.cache import CachedTargets, TargetCache, TargetCodec
from robustdistiller.pretrain.training.errors import DiskFullError
from robustdistiller.pretrain.training.log import read_history
from robustdistiller.upstream import SpeechEncoder, load_encoder, save_checkpoint

from ..conftest import TEACHER, assert_equal_states, last_checkpoint

WHOLE = "data.max_samples=48000"  # nothing is longer
TWO_EPOCHS = ("trainer.max_steps=10", "optim.schedule_steps=10", "trainer.log_every_steps=1")


def noise(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("units", [False, True])
@pytest.mark.parametrize(("dtype", "largest"), [("fp32", 0.0), ("fp16", 2**-11), ("int8", 1 / 254)])
def test_targets_and_units_come_back(dtype: str, largest: float, units: bool) -> None:
    codec = TargetCodec(dtype, widths=(48, 5), units=units)
    targets = [noise(3, 7, 48), 30 * noise(3, 7, 5, seed=1)]
    targets[0][1, 2] = 0.0
    of_frames = torch.arange(21).reshape(3, 7) * 3120  # up to 62400
    stored = codec.encode([*targets, of_frames] if units else targets)
    size = {"fp32": 212, "fp16": 106, "int8": 61}[dtype] + 2 * units
    assert stored.shape == (3, 7, size) and size == codec.frame_bytes and stored.dtype == torch.uint8
    found = codec.decode(stored)
    assert len(found) == 2 + units and (not units or torch.equal(found[2], of_frames))
    for one, target in zip(found, targets):
        scale = target.abs() if dtype == "fp16" else target.abs().amax(-1, keepdim=True)
        assert ((one - target).abs() <= largest * scale * 1.001 + 1e-7).all()
        assert torch.equal(one, target) == (dtype == "fp32")


def test_units_alone_take_two_bytes_a_frame() -> None:
    codec, units = TargetCodec("fp16", widths=(), units=True), torch.tensor([[0, 255, 256, 65535]])
    assert codec.frame_bytes == 2 and torch.equal(codec.decode(codec.encode([units]))[0], units)


def test_a_single_frame_of_any_width_comes_back() -> None:
    for width in range(1, 9):
        codec, target = TargetCodec("int8", widths=(width,)), noise(1, width)
        assert (codec.decode(codec.encode([target]))[0] - target).abs().max() <= target.abs().max() / 253


CODEC = TargetCodec("fp16", widths=(8, 8))


@pytest.fixture
def cache(tmp_path: Path) -> TargetCache:
    return TargetCache(tmp_path / "targets-0", {"teacher": "x"}, CODEC)


def speech(*lengths: int) -> list[np.ndarray]:
    return [noise(length, seed=number).numpy() for number, length in enumerate(lengths)]


def say(cache: TargetCache, cached: CachedTargets, frames: list[int], targets: list[torch.Tensor]) -> tuple:
    """What the cache gives of a batch, and the rows that it asks for; the teacher says `targets` of all rows."""
    asked: list[int] = []

    def ask(rows: list[int]) -> list[torch.Tensor]:
        asked.extend(rows)
        return [one[rows, : max(frames[row] for row in rows)] for one in targets]

    return cache.complete(cached, ask, frames), asked


def test_what_was_written_is_read_by_others(cache: TargetCache) -> None:
    rows, targets = speech(6400, 3200), [noise(2, 20, 8), noise(2, 20, 8, seed=1)]
    before = cache.read(rows)
    assert before.known == (False, False) and before.stored.shape[1] == 0 and len(cache.store) == 0
    first, asked = say(cache, before, [20, 10], targets)
    assert asked == [0, 1] and len(cache.store) == 2
    for other in (TargetCache(cache.store.folder, {"teacher": "x"}, CODEC), copy.deepcopy(cache)):
        again = other.read(rows)
        assert again.known == (True, True)
        found, asked = say(other, again, [20, 10], targets)
        assert asked == []
        for one, expected in zip(found, first):
            assert torch.equal(one[0], expected[0]) and torch.equal(one[1, :10], expected[1, :10])
            assert not one[1, 10:].any()
    more = cache.read([*rows, noise(9600, seed=9).numpy()])
    found, asked = say(cache, more, [20, 10, 30], [noise(3, 30, 8, seed=2)] * 2)
    assert asked == [2] and torch.equal(found[0][0, :20], first[0][0]) and found[0].shape == (3, 30, 8)
    assert cache.read([rows[1][:-320]]).known == (False,)


def test_what_others_wrote_since_a_batch_was_read_is_not_asked_again(cache: TargetCache) -> None:
    rows, targets = speech(6400, 3200), [noise(2, 20, 8), noise(2, 20, 8, seed=1)]
    before = cache.read(rows)
    first, _ = say(cache, before, [20, 10], targets)
    found, asked = say(cache, before, [20, 10], targets)
    assert asked == [] and all(torch.equal(one[1, :10], other[1, :10]) for one, other in zip(found, first))


def test_answers_that_are_not_finite_are_not_kept(cache: TargetCache) -> None:
    found, _ = say(cache, cache.read(speech(3200)), [10], [torch.full((1, 10, 8), torch.nan)] * 2)
    assert found[0].isnan().all() and len(cache.store) == 0


def test_changed_audio_and_broken_files_are_as_if_nothing_was_there(cache: TargetCache) -> None:
    first, other = speech(3200, 6400)
    targets = [noise(1, 20, 8)] * 2
    for row in (first, other):
        say(cache, cache.read([row]), [len(row) // 320], targets)
    assert cache.read([first]).known == (True,)
    assert cache.read([first * 1.001]).known == (False,)
    (numbers,) = cache.store.folder.glob("*.data")
    with numbers.open("r+b") as file:
        file.seek(100)
        file.write(b"?")
    assert cache.read([first]).known == (False,)
    assert cache.read([other]).known == (True,)
    say(cache, cache.read([first]), [10], targets)
    assert copy.deepcopy(cache).read([first]).known == (True,), "what is damaged is written anew"


def _fill(folder: Path, seed: int) -> None:
    cache = TargetCache(folder, {"teacher": "x"}, TargetCodec("fp32", widths=(8,)))
    for n in np.random.default_rng(seed).permutation(20):
        say(cache, cache.read([np.full(3200, n, np.float32)]), [10], [torch.full((1, 10, 8), float(n))])


def test_processes_that_make_and_fill_one_cache_at_once(tmp_path: Path) -> None:
    with multiprocessing.get_context("fork").Pool(4) as pool:
        pool.starmap(_fill, [(tmp_path, seed) for seed in range(4)])
    cache = TargetCache(tmp_path, {"teacher": "x"}, TargetCodec("fp32", widths=(8,)))
    for n in range(20):
        found = cache.read([np.full(3200, n, np.float32)])
        assert found.known == (True,) and (cache.codec.decode(found.stored)[0] == n).all()


def test_a_full_disk_is_named(cache: TargetCache, monkeypatch) -> None:
    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    before = cache.read(speech(3200))
    monkeypatch.setattr("robustdistiller.common.array_store._write", full)
    with pytest.raises(DiskFullError, match=r"targets-0 \(.*No space left on device\).*; .*targets\.cache=null"):
        say(cache, before, [10], [noise(1, 10, 8)] * 2)


def test_a_folder_of_the_first_version_is_left_alone(make_config, tmp_path: Path, caplog) -> None:
    old = tmp_path / "targets" / "targets-0123456789ab"
    old.mkdir(parents=True)
    (old / "about.json").write_text(json.dumps({"teacher": "x", "dtype": "fp16"}))
    (old / "targets.bin").write_bytes(b"old")
    distill(make_config(tmp_path, WHOLE, "targets.cache={}", "trainer.max_steps=1"))
    assert "targets-0123456789ab is not used" in caplog.text and "format is null there, 3 now" in caplog.text
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


class Taught:
    """Every batch, and its targets."""

    def on_train_start(self, distiller) -> None:
        self.batches, teach = [], distiller.teach

        def recorded(batch) -> tuple:
            targets, units = teach(batch)
            self.batches.append((batch, [one.clone() for one in targets]))
            return targets, units

        distiller.teach = recorded


def test_targets_of_a_stretch_are_what_the_teacher_says_of_it_alone(make_config, teacher_path, tmp_path: Path) -> None:
    """Whatever it is batched with, whether it is a whole recording or a part, and whether it was asked for or kept."""
    taught = Taught()
    distill(make_config(tmp_path, *TWO_EPOCHS, "targets.cache={dtype: fp32}"), callbacks=[taught])
    teacher, stretches, kinds = load_encoder(teacher_path).eval(), {}, set()
    for batch, targets in taught.batches:
        for row, (name, length) in enumerate(zip(batch.ids, batch.lengths.tolist())):
            samples = batch.waveforms[row, :length]
            assert torch.equal(stretches.setdefault(name, samples), samples)
            with torch.no_grad():
                states = teacher(samples[None], layers=(2, 4)).hidden_states
            for target, layer in zip(targets, (2, 4), strict=True):
                found = target[row, : states[layer].shape[1]]
                torch.testing.assert_close(found, states[layer][0], rtol=0, atol=1e-5)
            kinds.add((length == 24000, batch.cached.known[row]))
    assert kinds == {(cropped, known) for cropped in (False, True) for known in (False, True)}


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


def test_another_teacher_is_not_given_what_is_there_and_other_speech_is(
    make_config, corpus, tmp_path: Path, caplog
) -> None:
    shared = (WHOLE, f"targets.cache.folder={tmp_path / 'shared'}")
    with torch.random.fork_rng():
        save_checkpoint(tmp_path / "other.ckpt", SpeechEncoder(TEACHER), {})
    distill(make_config(tmp_path / "one", *shared))  # more than an epoch
    asked = Asked()
    options = (f"data.speech={corpus.speech / 'speaker1'}", f"data.noise={corpus.noise}", "seed=7")
    distill(make_config(tmp_path / "two", *shared, *options), callbacks=[asked])
    assert sum(asked.rows) == 0 and "is not used" not in caplog.text
    change = f"teacher.checkpoint={tmp_path / 'other.ckpt'}"
    distill(make_config(tmp_path / "three", *shared, "trainer.max_steps=1", change), callbacks=[asked])
    (warning,) = [one.getMessage() for one in caplog.records if "is not used" in one.getMessage()]
    assert re.search(r"is not used: teacher is \w{12} there, \w{12} now; the teacher's answers go to", warning)
    assert sum(asked.rows) > 0 and len(list((tmp_path / "shared").iterdir())) == 2


def test_an_encoder_that_computes_something_else_is_another_teacher(
    make_config, tmp_path: Path, caplog, monkeypatch
) -> None:
    from robustdistiller.upstream.model.transformer import TransformerLayer

    shared = (WHOLE, "trainer.max_steps=1", f"targets.cache.folder={tmp_path / 'shared'}")
    forward = TransformerLayer.forward
    for name, change, folders in (("one", 0.0, 1), ("rounded", 1e-6, 1), ("changed", 0.01, 2), ("again", 0.01, 2)):

        def changed(self, x, *rest, change=change):
            return forward(self, x + change * x.roll(1, dims=-1), *rest)

        monkeypatch.setattr(TransformerLayer, "forward", changed)
        caplog.clear()
        distill(make_config(tmp_path / name, *shared))
        assert len(list((tmp_path / "shared").iterdir())) == folders
        assert ("the same teacher computed something else there" in caplog.text) == (name == "changed")


def test_seeds_share_the_stretches_of_long_recordings(make_config, tmp_path: Path) -> None:
    shared = (f"targets.cache.folder={tmp_path / 'shared'}", "trainer.max_steps=6")
    asked = Asked()
    distill(make_config(tmp_path / "one", *shared))
    distill(make_config(tmp_path / "two", *shared, "seed=5"), callbacks=[asked])
    assert sum(asked.rows) == 0


def test_stretches_of_long_recordings_are_said_to_be_fixed(make_config, tmp_path: Path, caplog) -> None:
    asked = Asked()
    with caplog.at_level("INFO"):
        distill(make_config(tmp_path, *TWO_EPOCHS, "targets.cache.crops=2"), callbacks=[asked])
    lines = [record.getMessage() for record in caplog.records]
    (about_size,) = [line for line in lines if line.startswith("targets  ")]
    assert (
        "fp16, 2 targets of" in about_size
        and "for 26 utterances" in about_size
        and about_size.endswith("; 0 stretches there")
    )
    (about_crops,) = [line for line in lines if "in 2 stretches in turn, not in a new one each epoch" in line]
    longer = int(about_crops.split()[1])
    assert 0 < longer < 26 and 0 < sum(asked.rows) - 26 <= longer  # the second epoch hears the second stretches


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["teacher.hears=independent"], r"the teacher of this recipe gets a corruption of its own"),
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
    with pytest.raises(SettingsError, match=r"MB are to be written in .* and the disk has 0\.0 MB free"):
        distill(make_config(tmp_path, "targets.cache={}"))


def test_types_that_do_not_suit_the_values_are_refused() -> None:
    def keep(dtype: str, target: torch.Tensor) -> None:
        codec = TargetCodec(dtype, (48,))
        codec.require_precision([target], codec.encode([target]))

    alike, few_large = noise(20, 48), noise(20, 48)
    few_large[:, 3] = 300.0  # as in some layers of large models: the step of int8 is then above all other values
    for dtype in ("fp32", "fp16", "int8"):
        keep(dtype, alike)
        keep(dtype, torch.zeros(2, 48))
    keep("fp16", few_large)
    keep("int8", 1e6 * alike)
    with pytest.raises(SettingsError, match=r"int8 changes the teacher's values by \d+%.* up to 300; give fp16"):
        keep("int8", few_large)
    with pytest.raises(SettingsError, match=r"holds values up to 65504, and the teacher's go to \d.\de.06; give fp32"):
        keep("fp16", 1e6 * alike)
