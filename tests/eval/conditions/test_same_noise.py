"""Every upstream is tested in the same noise, whatever its frame rate: manifests and audio are equal, for all tasks."""

from __future__ import annotations

import importlib

import numpy as np
import pytest
import soundfile
from torch.utils.data import DataLoader

from robustdistiller.acoustics import Condition, Corruptor
from robustdistiller.eval import tasks
from robustdistiller.eval.conditions.loader import ConditionLoader
from robustdistiller.eval.conditions.manifest import Manifest, files_of, recordings_of
from robustdistiller.eval.conditions.replay import ReplayedCorruptor
from robustdistiller.eval.conditions.sources import Sources
from robustdistiller.eval.conditions.train_condition import TrainingCorruptor, TrainingPlan, training_batches
from robustdistiller.eval.tasks.configs import load_config
from robustdistiller.upstream.s3prl.bridge import sox_path

pytestmark = pytest.mark.usefixtures("bridge")

FRAME_SAMPLES = (160, 320, 640)  # FBANK, a student, an upstream at 25 frames a second
CONDITIONS = ("noise:snr_db=5", "noise+reverb+clipping:snr_db=0..10")
# ASR-LM has the data of ASR.
CORRUPTIBLE = [code for code, task in tasks.TASKS.items() if task.corruption != "none" and code != "ASR-LM"]


@pytest.fixture(scope="module")
def corruptors(noise_folder, rir_folder) -> dict[str, Corruptor]:
    found = Sources(noise=(str(noise_folder),), rir=(str(rir_folder),)).corruptors(map(Condition.parse, CONDITIONS))
    return {str(condition): corruptor for condition, corruptor in found.items()}


def expert_of(code: str, settings: dict, frame_samples: int, folder):
    """s3prl's expert of a task, for an upstream of this frame rate."""
    task = tasks.get(code)
    config = load_config(task)
    for key, value in settings.items():
        *parents, last = key.removeprefix("config.").split(".")
        node = config
        for part in parents:
            node = node.setdefault(part, {})
        node[last] = value
    folder.mkdir(exist_ok=True)
    module = importlib.import_module(f"s3prl.downstream.{task.downstream}.expert")
    arguments = {"expdir": str(folder), "mode": "evaluate", "init_ckpt": None, "evaluate_split": task.splits[0]}
    return module.DownstreamExpert(upstream_dim=16, upstream_rate=frame_samples, **{**config, **arguments})


@pytest.mark.parametrize("code", CORRUPTIBLE)
def test_manifests_are_equal_at_every_frame_rate(code, toy_corpora, corruptors, tmp_path) -> None:
    task = tasks.get(code)
    if code in ("ASV", "QbE") and sox_path() is None:
        pytest.skip("sox is not installed: s3prl trims silence and resamples with it")
    built = toy_corpora.build(code, tmp_path / "data")
    if code == "SD":
        built["config.downstream_expert.datarc.chunk_size"] = 45  # so that each rate cuts at other places
    digests = {}
    for frame_samples in FRAME_SAMPLES if code != "SE2" else (160, 320):  # s3prl takes no others there
        expert = expert_of(code, built, frame_samples, tmp_path / str(frame_samples))
        loader = expert.get_dataloader(task.splits[0])
        for condition, corruptor in corruptors.items():
            view = ConditionLoader(loader, corruptor, task)
            parts = [len(waveforms) for waveforms, *_ in view]
            assert len(view.drawn) == view.items_scored == view.items_expected > 1 and parts
            digests.setdefault(condition, set()).add((view.manifest_digest(), view.audio_digest()))
    assert {condition: len(found) for condition, found in digests.items()} == dict.fromkeys(corruptors, 1)
    assert len(set.union(*digests.values())) == len(corruptors)  # the comparison can fail


@pytest.fixture
def diarization(toy_corpora, tmp_path):
    """s3prl's dataset of a toy diarization corpus at some frame rate, in parts of 45 frames, and its recordings."""
    settings = toy_corpora.build("SD", tmp_path / "data")
    settings["config.downstream_expert.datarc.chunk_size"] = 45
    settings["config.downstream_expert.loaderrc.num_workers"] = 0
    whole = {path.stem: soundfile.read(path)[0] for path in (tmp_path / "data").rglob("*.wav")}

    def build(frame_samples, split):
        return expert_of("SD", settings, frame_samples, tmp_path / "exp").get_dataloader(split)

    return build, whole


def test_parts_of_a_recording_are_cut_out_of_the_corrupted_recording(diarization, corruptors) -> None:
    build, whole = diarization
    corruptor = corruptors["noise:snr_db=5"]
    for frame_samples in FRAME_SAMPLES:
        loader = build(frame_samples, "test")
        stock = {recording: waveforms for waveforms, _, _, recording in loader}
        view = ConditionLoader(loader, corruptor, tasks.get("SD"))
        for waveforms, _, _, recording in view:
            samples = whole[recording].astype(np.float32)
            corrupted = corruptor.apply(samples, corruptor.draw(recording, len(samples)))
            joined = np.concatenate(waveforms)
            assert len(waveforms) > 1 and [*map(len, waveforms)] == [*map(len, stock[recording])]
            assert np.array_equal(joined, corrupted[: len(joined)])
        assert view.recordings == ["test0", "test1"]
        assert all(np.array_equal(a, b) for w, *_, name in loader for a, b in zip(w, stock[name]))  # put back


def test_training_recordings_are_corrupted_whole_too(diarization, corruptors) -> None:
    build, whole = diarization
    corruptor = corruptors["noise:snr_db=5"]
    corrupted = {
        name: corruptor.apply(wave.astype(np.float32), corruptor.draw(name, len(wave), epoch=3))
        for name, wave in whole.items()
        if name.startswith("train")
    }
    for frame_samples in FRAME_SAMPLES:
        loader = training_batches(TrainingCorruptor((corruptor,), 3), tasks.get("SD"), build(frame_samples, "train"))
        seen = [np.asarray(wave) for waveforms, *_ in loader for wave in waveforms]
        part = 45 * frame_samples
        places = {
            wave[start : start + part].tobytes() for wave in corrupted.values() for start in range(0, len(wave), part)
        }
        assert len(seen) > 2 and sum(wave.tobytes() in places for wave in seen) >= len(seen) - 2  # but for last parts
    assert TrainingPlan({Condition.parse("noise:snr_db=5"): corruptor}, (), 0, tasks.get("SD")).name == "noise:snr_db=5"


def test_examples_to_listen_to_are_whole_recordings(diarization, corruptors, tmp_path) -> None:
    build, whole = diarization
    view = ConditionLoader(build(320, "test"), corruptors["noise:snr_db=5"], tasks.get("SD"), tmp_path / "audio", 1)
    joined = {recording: np.concatenate(waveforms) for waveforms, _, _, recording in view}
    assert sorted(path.name for path in (tmp_path / "audio").iterdir()) == [
        "test0.clean.wav",
        "test0.json",
        "test0.wav",
    ]
    corrupted, _ = soundfile.read(tmp_path / "audio" / "test0.wav", dtype="float32")
    clean, _ = soundfile.read(tmp_path / "audio" / "test0.clean.wav", dtype="float32")
    assert np.array_equal(corrupted, joined["test0"]) and np.array_equal(clean, whole["test0"].astype(np.float32))


@pytest.mark.parametrize("workers", [0, 2])
def test_workers_change_nothing(diarization, corruptors, workers) -> None:
    build, _ = diarization
    loader = build(320, "test")
    again = DataLoader(loader.dataset, batch_size=1, num_workers=workers, collate_fn=loader.collate_fn)
    views = [ConditionLoader(one, corruptors["noise:snr_db=5"], tasks.get("SD")) for one in (loader, again)]
    joined = [[np.concatenate(waveforms).tobytes() for waveforms, *_ in view] for view in views]
    assert joined[0] == joined[1] and views[0].audio_digest() == views[1].audio_digest() != ""


def test_manifests_that_were_drawn_for_each_part_are_replayed(diarization, corruptors) -> None:
    """Up to the second format, ids were those of parts: REC-000, REC-001 ..."""
    build, whole = diarization
    live, loader, drawn, expected = corruptors["noise:snr_db=5"], build(320, "test"), {}, {}
    for waveforms, _, _, recording in loader:
        for number, wave in enumerate(waveforms):
            name = f"{recording}-{number:03d}"
            drawn[name] = {"num_samples": len(wave), **live.draw(name, len(wave))}
            expected[name] = live.apply(np.asarray(wave), {k: v for k, v in drawn[name].items() if k != "num_samples"})
    files = files_of(live, recordings_of(drawn.values()))
    manifest = Manifest("SD", "test", "noise:snr_db=5", utterances=drawn, files=files)
    view = ConditionLoader(loader, ReplayedCorruptor(manifest, live), tasks.get("SD"))
    for waveforms, _, _, recording in view:
        for number, wave in enumerate(waveforms):
            assert np.array_equal(wave, expected[f"{recording}-{number:03d}"])
    assert view.drawn.keys() == drawn.keys() and view.items_scored == len(whole) // 3
