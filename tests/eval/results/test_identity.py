"""Pairs of runs that differ in one thing: are they the same cell, comparable, and where do their records lie?"""

from __future__ import annotations

import copy
import dataclasses
import functools
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

from robustdistiller.acoustics import Condition
from robustdistiller.eval import tasks
from robustdistiller.eval.conditions.manifest import digest_of
from robustdistiller.eval.conditions.sources import Sources
from robustdistiller.eval.results.files import look_up, record_path, write_record
from robustdistiller.eval.results.frame import read_frame
from robustdistiller.eval.results.identity import (
    cell_id,
    condition_digest,
    differences,
    made_digest,
    readable_condition,
)
from robustdistiller.eval.results.record import Metric, Record
from robustdistiller.eval.tasks.configs import load_config
from robustdistiller.eval.tasks.rules import deviations, split
from tests.records import example_record

CLEAN, NOISE, ROOM = "clean", "noise:snr_db=5", "reverb:rt60_s=0.4"


@dataclasses.dataclass(frozen=True)
class Run:
    """What somebody may ask for; a head is made of all that its training depends on."""

    task: str = "IC"
    upstream: str = "robustdistiller_local"
    weights: bytes = b"weights"
    options: str = ""
    code: str = ""
    label: str = "student"
    checkpoint: str = "student.ckpt"
    settings: tuple[tuple[str, Any], ...] = ()
    arguments: tuple[tuple[str, Any], ...] = ()
    seed: int = 1337
    step: int = 4000
    train_condition: str = "clean"
    features: str = ""
    quick: str = ""
    condition: str = NOISE
    noise: str = "noise"
    room: str = "rooms"
    corruption_seed: int = 0
    test_split: str = "test"
    fold: str = ""
    items: int = 4
    device: str = "cpu"
    start_utc: str = "2025-01-01T00:00:00+00:00"

    def with_setting(self, key: str, value: Any) -> Run:
        return dataclasses.replace(self, settings=(*self.settings, (key, value)))


@functools.cache
def rules_of(task, settings, arguments, **told):
    config = copy.deepcopy(load_config(tasks.get(task)))
    for key, value in settings:
        node = config
        *parents, last = key.split(".")
        for part in parents:
            node = node.setdefault(part, {})
        node[last] = value
    run = (tasks.get(task), config, dict(arguments))
    return split(*run, **told), deviations(run[0], split(*run, **told)), config.get("optimizer", {}).get("lr")


def record_of(run: Run, folder: Path) -> Record:
    told = {"train_condition": run.train_condition, "features": run.features, "quick": run.quick}
    rules, deviating, learning_rate = rules_of(run.task, run.settings, run.arguments, **told)
    made_of = [run.weights, run.options.strip(), run.code, run.upstream, run.seed, run.step, run.fold]
    learned = {key: value for key, value in rules.free.items() if not key.endswith(("workers", "file_path", "root"))}
    sources = Sources(noise=(str(folder / run.noise),), rir=(str(folder / run.room),))
    condition = Condition.parse(run.condition)
    ((_, corruptor),) = sources.corruptors([condition], run.corruption_seed).items()
    drawn = {f"utt-{n}": corruptor.draw(f"utt-{n}", 16_000) for n in range(run.items)} if corruptor else None
    return Record(
        upstream=run.upstream,
        checkpoint_digest=made_digest(bytes=run.weights.decode()),
        checkpoint_digest_of="file",
        checkpoint=run.checkpoint,
        upstream_options=run.options,
        upstream_code=run.code,
        label=run.label,
        parameters=1,
        task=run.task,
        downstream=tasks.get(run.task).downstream,
        head_digest=made_digest(made_of=list(map(str, made_of)), rules=rules.digest, learned=learned),
        rules_digest=rules.digest,
        settings=rules.free,
        condition=condition.label,
        sources=sources.describe(condition, corruptor),
        corruption_seed=run.corruption_seed if corruptor else 0,
        manifest_digest=digest_of(drawn) if corruptor else "none",
        metrics=[Metric("accuracy", 75.0, True, "%")],
        items_expected=run.items,
        items_scored=run.items,
        learning_rate=learning_rate,
        seed=run.seed,
        step=run.step,
        split=run.test_split,
        fold=run.fold,
        train_condition=run.train_condition,
        quick=run.quick,
        feature_cache={"training": run.features} if run.features else {},
        non_standard=deviating,
        versions={},
        device=run.device,
        start_utc=run.start_utc,
        duration_s=1.0,
    )


def other(**changes):
    return lambda run: dataclasses.replace(run, **changes)


def setting(key, value):
    return lambda run: run.with_setting(key, value)


def argument(name, value):
    return lambda run: dataclasses.replace(run, arguments=((name, value),))


def split_batch(run):
    """The utterances of an update in several parts."""
    datarc = load_config(tasks.get(run.task))["downstream_expert"]["datarc"]
    key = next(key for key in ("train_batch_size", "train_batchsize", "batch_size") if key in datarc)
    smaller = run.with_setting(f"downstream_expert.datarc.{key}", datarc[key] // 4)
    return smaller.with_setting("runner.gradient_accumulate_steps", 4)


def move_corpus(run):
    return run.with_setting(tasks.get(run.task).roots[0].key.removeprefix("config."), "/elsewhere/corpus")


# What differs: (change, same cell, comparable, same folder). Files are the same exactly where cells are.
ANYWHERE = {
    "the label": (other(label="renamed"), True, True, True),
    "the name of the checkpoint's file": (other(checkpoint="copy.ckpt"), True, True, True),
    "the device": (other(device="cuda:0 (H100)"), True, True, True),
    "the date": (other(start_utc="2026-01-01T00:00:00+00:00"), True, True, True),
    "kept features, exact": (other(features="means float32"), True, True, True),
    "kept features, half precision": (other(features="frames float16"), False, False, True),
    "workers": (setting("downstream_expert.datarc.num_workers", 7), True, True, True),
    "the corpus's folder": (move_corpus, True, True, True),
    "the learning rate": (setting("optimizer.lr", 0.03), False, True, True),
    "how an update is put together": (split_batch, False, True, True),
    "the length of the training": (setting("runner.total_steps", 7), False, False, True),
    "another head of the same training": (other(step=2000), False, True, True),
    "the seed": (other(seed=1), False, True, True),
    "the condition of the training": (other(train_condition=NOISE), False, False, True),
    "the layer": (argument("upstream_layer_selection", 3), False, False, True),
    "the weights": (other(weights=b"other"), False, True, False),
    "the options": (other(options="chunk_frames: 8"), False, True, False),
    "blanks around the options": (other(options=" \n"), True, True, True),
    "the upstream's code": (other(code="ab" * 32), False, True, True),
    "the upstream": (other(upstream="fbank"), False, True, False),
    "the split": (other(test_split="dev"), False, False, True),
    "a quick look": (other(quick="10 % of items"), False, False, True),
    "the number of items": (other(items=3), False, False, True),
}
CORRUPTED = {
    "the noise's folder": (other(noise="same_noise", room="same_rooms"), True, True, True),
    "the noise itself": (other(noise="other_noise", room="other_rooms"), False, False, False),
    "the draws": (other(corruption_seed=1), False, False, False),
}
ON_CLEAN_AUDIO = {
    "the draws of others": (other(corruption_seed=1), True, True, True),
    "the noise of others": (other(noise="other_noise"), True, True, True),
}
UNTRAINED = {"the layer of a task without training": (argument("upstream_layer_selection", 3), False, True, True)}
FOLDS = {"the fold": (other(fold="fold2"), False, False, True)}


def cases():
    bases = [Run(condition=CLEAN), Run(), Run(condition=ROOM, corruption_seed=5), Run(task="KS", seed=2, label="other")]
    for base in bases:
        for name, case in (ANYWHERE | (ON_CLEAN_AUDIO if base.condition == CLEAN else CORRUPTED)).items():
            yield pytest.param(base, *case, id=f"{base.task} {base.condition} {name}")
    yield pytest.param(Run(task="QbE", condition=CLEAN), *UNTRAINED["the layer of a task without training"], id="QbE")
    yield pytest.param(Run(task="ER", fold="fold1"), *FOLDS["the fold"], id="ER")


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """Noise and rooms, the same under another name, and others with equal names, sizes and lengths."""
    root = tmp_path_factory.mktemp("sources")
    for seed, names in ((0, ("noise", "same_noise", "rooms", "same_rooms")), (1, ("other_noise", "other_rooms"))):
        for name in names:
            (root / name).mkdir()
            wave = np.random.default_rng(seed).normal(size=16_000) * 0.1
            decay = np.exp(-np.arange(16_000) / 16_000 * 6.9 / 0.4) if "rooms" in name else 1.0
            soundfile.write(root / name / "a.wav", wave * decay, 16_000)
    return root


@pytest.mark.parametrize(("base", "change", "same_cell", "comparable", "same_folder"), cases())
def test_runs_that_differ_in_one_thing(base, change, same_cell, comparable, same_folder, folder):
    one, two = record_of(base, folder), record_of(change(base), folder)
    assert (cell_id(one) == cell_id(two)) is same_cell
    assert (differences(one, two) == [] == differences(two, one)) is comparable, differences(one, two)
    paths = [record_path("records", record) for record in (one, two)]
    assert (paths[0] == paths[1]) is same_cell and (paths[0].parent == paths[1].parent) is same_folder
    assert (cell_id(one).digest() == cell_id(two).digest()) is same_cell


def test_no_two_different_cells_share_a_file(folder):
    """Random pairs of changes: as many files as cells, as many systems in the frame as there are."""
    generator = np.random.default_rng(0)
    changes = [case[0] for case in (ANYWHERE | CORRUPTED).values()]
    runs = []
    for first, second in (generator.choice(len(changes), 2, replace=False) for _ in range(60)):
        runs.append(changes[first](changes[second](Run())))
    records = [record_of(run, folder) for run in runs]
    cells = {cell_id(record) for record in records}
    assert len({record_path("r", record) for record in records}) == len(cells) == len({c.digest() for c in cells})
    assert 10 < len(cells) < len(records)


def test_the_frame_puts_together_what_is_comparable_and_nothing_else(folder, tmp_path):
    """Rows that agree in these columns are comparable, and the other way round."""
    alike = ["task", "split", "fold", "metric", "items", "rules", "condition_id", "draws"]
    base = record_of(Run(), folder)
    for number, (name, (change, _, comparable, _)) in enumerate((ANYWHERE | CORRUPTED).items()):
        root = tmp_path / str(number)
        write_record(root / "one", base)
        write_record(root / "two", dataclasses.replace(record_of(change(Run()), folder), start_utc="2027-01-01"))
        frame = read_frame([root])
        assert (len(frame[alike].drop_duplicates()) == 1) is comparable, name


def test_the_file_of_a_cell_stays_where_earlier_releases_look_for_it():
    record = example_record(condition="noise:snr_db=5", seed=7)
    place = "records/fbank/none/IC/noise~snr_db=5@cfc2f4a4/test-seed7-c548f03f.json"
    assert record_path("records", record).as_posix() == place


def test_what_is_different_is_said(folder):
    base = record_of(Run(), folder)
    said = {
        other(items=3): "the number of items: 4 and 3",
        other(train_condition=ROOM): f"the rules: of one only, the head was trained under {ROOM}, not on clean audio",
        other(quick="10 % of items"): "the rules: of one only, a quick look (10 % of items), not the full task",
        other(corruption_seed=1): f"the audio under {NOISE}",
        setting("runner.total_steps", 7): "the rules: of one only, runner.total_steps is 7, not 200000",
    }
    for change, phrase in said.items():
        assert differences(base, record_of(change(Run()), folder)) == [phrase]
    asr = dataclasses.replace(base, task="ASR", metrics=[Metric("wer", 5.0, False, "%")])
    assert differences(base, asr) == ["the task: IC and ASR", "the metric: accuracy % and wer %"]
    assert differences(base, record_of(Run(condition=CLEAN), folder)) == [], "conditions are there to be compared"


def test_equal_audio_is_equal_however_it_was_drawn():
    """Several folders name their recordings otherwise than one does, and give the same corrupted samples."""
    one = example_record(condition=NOISE, manifest_digest="01" * 32, audio_digest="aa" * 32)
    two = dataclasses.replace(one, manifest_digest="02" * 32)
    assert differences(one, two) == []
    assert differences(one, dataclasses.replace(two, audio_digest="bb" * 32)) == [f"the audio under {NOISE}"]
    assert differences(one, dataclasses.replace(one, audio_digest="bb" * 32)) == [], "the last bits of another machine"


@pytest.mark.parametrize(
    ("text", "readable"),
    [
        ("noise:noise=musan,snr_db=5", "noise:snr_db=5"),
        ('noise:snr_db=5,noise="rain, heavy.wav"', "noise:snr_db=5"),
        (
            "noise+reverb:snr_db=5..9,noise=musan,side=test",
            "noise+reverb:snr_db=5..9,side=test",
        ),
        ("noise:noise=musan", "noise"),
        ("noise:snr_db=5", "noise:snr_db=5"),
    ],
)
def test_names_of_sources_are_left_out_of_a_condition(text, readable):
    known = {"noise": {"name": "x", "digest": "ab"}}
    assert readable_condition(text, known) == readable
    assert readable_condition(text, {}) == text, "white or babble is no folder"
    assert condition_digest(text, known, 0) == condition_digest(readable, known, 0) != condition_digest(readable, {}, 0)


def test_one_head_on_two_test_sets_is_two_records_of_which_both_count(tmp_path):
    small = example_record()
    large = example_record(items_expected=3793, items_scored=3793, start_utc="2027-01-01T00:00:00+00:00")
    for record in (small, large):
        assert look_up(tmp_path, record) is None
        write_record(tmp_path, record)
    assert [look_up(tmp_path, one) for one in (small, large)] == [small, large]
    unloaded = {"status": "failed", "reason": "no head", "items_scored": 0, "items_expected": None, "metrics": []}
    write_record(tmp_path, example_record(**unloaded))
    frame = read_frame([tmp_path]).sort_values("items")
    assert [(line.items, line.superseded) for line in frame.itertuples()] == [(0, True), (4, False), (3793, False)]
