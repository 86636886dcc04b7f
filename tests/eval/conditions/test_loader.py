"""The evaluation loader under a condition: the same bytes for any batch size and worker count, targets untouched."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from types import SimpleNamespace

import librosa
import numpy as np
import pandas as pd
import pytest
import soundfile
import torch
from torch.utils.data import DataLoader

from robustdistiller.acoustics import Condition
from robustdistiller.eval import tasks
from robustdistiller.eval.conditions.asv_sides import sides_apart
from robustdistiller.eval.conditions.loader import ConditionLoader
from robustdistiller.eval.conditions.manifest import audio_digest
from robustdistiller.eval.conditions.sources import Sources
from robustdistiller.eval.conditions.train_condition import TrainingPlan
from robustdistiller.mini import data_dir
from robustdistiller.mini.pack import read_pack

pytestmark = pytest.mark.usefixtures("bridge")


@pytest.fixture(scope="module")
def intents(toy_corpora, tmp_path_factory, bridge):
    """s3prl's own dataset of the toy intent corpus, all splits in one."""
    from s3prl.downstream.fluent_commands.dataset import FluentCommandsDataset

    root = tmp_path_factory.mktemp("ic")
    toy_corpora.build("IC", root)
    table = pd.concat([pd.read_csv(root / "data" / f"{split}_data.csv") for split in ("train", "test")])
    labels = {s: {v: i for i, v in enumerate(table[s].unique())} for s in ("action", "object", "location")}
    return FluentCommandsDataset(table.reset_index(drop=True), str(root), labels)


@pytest.fixture(scope="module")
def corruptors(noise_folder, rir_folder, tmp_path_factory):
    texts = ["clean", "noise:snr_db=5", "reverb", "noise+reverb:snr_db=0", "noise:snr_db=5,noise=white"]
    sources = Sources(noise=(str(noise_folder),), rir=(str(rir_folder),))
    found = sources.corruptors([Condition.parse(text) for text in texts])
    return {str(condition): corruptor for condition, corruptor in found.items()}


def corrupted_by(dataset, corruptor, batch_size=1, workers=0, order=None):
    loader = DataLoader(
        dataset, batch_size=batch_size, num_workers=workers, sampler=order, collate_fn=dataset.collate_fn
    )
    view = ConditionLoader(loader, corruptor, tasks.get("IC"))
    waveforms = {}
    for batch, _, names in view:
        waveforms.update({name: np.asarray(wave).copy() for name, wave in zip(names, batch)})
    return waveforms, view


@pytest.mark.parametrize("condition", ["noise:snr_db=5", "noise+reverb:snr_db=0", "noise:noise=white,snr_db=5"])
def test_bytes_do_not_depend_on_batches_workers_or_order(intents, corruptors, condition):
    corruptor = corruptors[str(Condition.parse(condition))]
    reference, view = corrupted_by(intents, corruptor)
    assert len(reference) == len(intents) == view.items_scored == view.items_expected
    backwards = list(range(len(intents)))[::-1]
    for batch_size, workers, order in ((4, 0, None), (3, 2, None), (2, 1, backwards)):
        again, other_view = corrupted_by(intents, corruptor, batch_size, workers, order)
        assert {name: wave.tobytes() for name, wave in again.items()} == {
            name: wave.tobytes() for name, wave in reference.items()
        }
        assert other_view.manifest_digest() == view.manifest_digest()


def test_another_seed_changes_audio_and_is_seen_in_the_manifest(intents, corruptors, noise_folder):
    reference, view = corrupted_by(intents, corruptors["noise:snr_db=5"])
    condition = Condition.parse("noise:snr_db=5")
    other = Sources(noise=(str(noise_folder),)).corruptors([condition], seed=1)[condition]
    changed, other_view = corrupted_by(intents, other)
    assert all(changed[name].tobytes() != wave.tobytes() for name, wave in reference.items())
    assert other_view.manifest_digest() != view.manifest_digest()


def test_clean_is_untouched_and_the_loader_is_put_back(intents, corruptors):
    loader = DataLoader(intents, batch_size=3, collate_fn=intents.collate_fn)
    stock = [wave for wavs, *_ in loader for wave in wavs]
    before = loader.collate_fn
    view = ConditionLoader(loader, corruptors["clean"], tasks.get("IC"))
    seen = [wave for wavs, *_ in view for wave in wavs]
    assert all(a.tobytes() == b.tobytes() for a, b in zip(stock, seen, strict=True))
    assert view.manifest_digest() == "none"
    list(ConditionLoader(loader, corruptors["reverb"], tasks.get("IC")))
    assert loader.collate_fn == before
    assert [w.tobytes() for wavs, *_ in loader for w in wavs] == [w.tobytes() for w in stock]


def test_snr_is_what_was_asked_for(intents, corruptors):
    clean, _ = corrupted_by(intents, None)
    noisy, _ = corrupted_by(intents, corruptors["noise:snr_db=5"])
    for name, wave in clean.items():
        snr_db = 10 * np.log10(np.square(wave).sum() / np.square(noisy[name] - wave).sum())
        assert snr_db == pytest.approx(5, abs=0.05)
        assert len(noisy[name]) == len(wave)


def test_labels_and_names_are_those_of_s3prl(intents, corruptors):
    loader = DataLoader(intents, batch_size=4, collate_fn=intents.collate_fn)
    stock = [(np.stack(labels), names) for _, labels, names in loader]
    seen = [
        (np.stack(labels), names) for _, labels, names in ConditionLoader(loader, corruptors["reverb"], tasks.get("IC"))
    ]
    for (labels, names), (seen_labels, seen_names) in zip(stock, seen, strict=True):
        assert np.array_equal(labels, seen_labels) and tuple(names) == tuple(seen_names)


def test_a_batch_that_is_broken_off_at_is_not_counted(intents, corruptors):
    view = ConditionLoader(DataLoader(intents, batch_size=4, collate_fn=intents.collate_fn), None, tasks.get("IC"))
    for number, _ in enumerate(view):
        if number == 1:
            break
    assert (view.items_scored, view.items_expected) == (4, 9)


@pytest.mark.parametrize("workers", [0, 2])
def test_examples_to_listen_to_are_clean_and_corrupted_audio_and_what_was_drawn(intents, corruptors, tmp_path, workers):
    loader = DataLoader(intents, batch_size=2, collate_fn=intents.collate_fn, num_workers=workers)
    clean = {name: np.asarray(wave) for wavs, _, names in loader for name, wave in zip(names, wavs)}
    corruptor = corruptors["noise:snr_db=5"]
    view = ConditionLoader(loader, corruptor, tasks.get("IC"), tmp_path / "audio", 3)
    corrupted = {name: np.asarray(wave) for wavs, _, names in view for name, wave in zip(names, wavs)}
    names = sorted(path.stem for path in (tmp_path / "audio").glob("*.json"))
    assert len(names) == 3 and len(list((tmp_path / "audio").iterdir())) == 9
    for name in names:
        for suffix, expected in (("wav", corrupted), ("clean.wav", clean)):
            samples, rate = soundfile.read(tmp_path / "audio" / f"{name}.{suffix}", dtype="float32")
            assert rate == 16000 and np.array_equal(samples, expected[name])
        facts = json.loads((tmp_path / "audio" / f"{name}.json").read_text())
        drawn = corruptor.draw(name, len(clean[name]))
        audio = audio_digest(corrupted[name])
        assert facts == {"utterance_id": name, "num_samples": len(clean[name]), "audio": audio, **drawn}


def test_only_the_test_side_of_trials_is_corrupted(toy_corpora, corruptors, tmp_path, monkeypatch):
    from s3prl.downstream.sv_voxceleb1 import dataset as trials

    def read(path, _):
        samples, rate = soundfile.read(path, dtype="float32")
        return torch.from_numpy(samples)[None], rate

    monkeypatch.setattr(trials, "apply_effects_file", read)
    toy_corpora.build("ASV", tmp_path)
    stock = trials.SpeakerVerifi_test({}, str(tmp_path / "test" / "wav"), str(tmp_path / "test_trials.txt"))
    expert = SimpleNamespace(test_dataset=stock)
    before, task = list(stock.pair_table), tasks.get("ASV")
    loader = DataLoader(stock, batch_size=1, collate_fn=stock.collate_fn)
    clean = {name: wave for waves, names in loader for name, wave in zip(names, waves)}
    both = ConditionLoader(loader, corruptors["noise:snr_db=5"], task)
    noisy = {name: np.asarray(wave) for waves, names in both for name, wave in zip(names, waves)}
    assert all(noisy[name].tobytes() != wave.tobytes() for name, wave in clean.items())
    with sides_apart(expert, loader) as apart:
        view = ConditionLoader(apart, corruptors["noise:snr_db=5"], task)
        seen = {name: np.asarray(wave) for waves, names in view for name, wave in zip(names, waves)}
        assert view.items_scored == view.items_expected == len(stock) == 4
        for (_, first, second), (_, enrolled, tested) in zip(before, stock.pair_table, strict=True):
            assert seen[enrolled].tobytes() == clean[first].tobytes()
            assert seen[tested].tobytes() == noisy[second].tobytes()  # the same noise as with both sides
    assert {first for _, first, _ in before} & {second for *_, second in before}  # a file is on both sides
    assert stock.pair_table == before
    assert set(view.drawn) == {task.utterance_ids([[second]], 1)[0] for *_, second in before}


def test_training_batches_are_corrupted_by_epoch_and_one_of_several_conditions(intents, corruptors):
    plan = TrainingPlan(
        {Condition(): None, Condition.parse("noise:snr_db=5"): corruptors["noise:snr_db=5"]}, (), 0, tasks.get("IC")
    )
    loader = DataLoader(intents, batch_size=2, collate_fn=intents.collate_fn)
    clean, _ = corrupted_by(intents, None)
    get = plan.wrap(lambda split: loader, "train")

    def epoch(number, split="train"):
        return {
            n: np.asarray(w).tobytes() for waves, _, names in get(split, epoch=number) for n, w in zip(names, waves)
        }

    first, second = epoch(0), epoch(1)
    assert epoch(0) == first != second
    kept = [name for name, wave in clean.items() if first[name] == wave.tobytes()]
    assert 0 < len(kept) < len(clean)
    assert get("dev") is loader  # the development set stays clean


@pytest.mark.slow
def test_a_head_trained_on_mixtures_in_noise_gets_their_features(toy_corpora, corruptors, tmp_path):
    task = tasks.get("SE2")
    toy_corpora.build("SE2", tmp_path)
    dataset = mixture_dataset(task.downstream, tmp_path / "train")
    loader = DataLoader(dataset, batch_size=2, collate_fn=dataset.collate_fn)
    plan = TrainingPlan({Condition.parse("noise:snr_db=5"): corruptors["noise:snr_db=5"]}, (), 0, task)
    ((stock_waves, *stock),) = loader
    ((waves, _, source, _, *targets),) = plan.wrap(lambda split: loader, "train")("train", epoch=3)
    assert not torch.equal(waves[0], stock_waves[0]) and equal(targets, stock[3:])
    stft = librosa.stft(waves[0].numpy(), n_fft=512, hop_length=320, win_length=512, window="hann", center=True).T
    assert np.array_equal(source["stft"][0].numpy(), stft)


@pytest.mark.parametrize("code", ["SE2", "SS2", "SE"])
def test_mixture_features_are_rebuilt_and_targets_are_not(code, toy_corpora, corruptors, tmp_path):
    task = tasks.get(code)
    toy_corpora.build(code, tmp_path)
    dataset = mixture_dataset(task.downstream, tmp_path / "test")
    loader = DataLoader(dataset, batch_size=2, collate_fn=dataset.collate_fn)
    (stock,) = loader
    ((corrupted, names, source, source_wav, *targets),) = ConditionLoader(
        loader, corruptors["noise+reverb:snr_db=0"], task
    )
    assert list(names) == list(stock[1])
    for row, wave in enumerate(corrupted):
        assert not torch.equal(wave, stock[0][row])
        assert torch.equal(source_wav[row, : len(wave)], wave)
        stft = librosa.stft(wave.numpy(), n_fft=512, hop_length=320, win_length=512, window="hann", center=True).T
        assert np.array_equal(source["stft"][row].numpy(), stft)
        assert np.array_equal(source["magnitude"][row].numpy(), np.abs(stft))
        assert np.array_equal(source["phase"][row].numpy(), np.angle(stft))
    assert equal(targets, stock[4:])
    assert not equal(source, stock[2])  # the comparison can fail


def mixture_dataset(downstream: str, folder: Path):
    import importlib

    module = importlib.import_module(f"s3prl.downstream.{downstream}.dataset")
    separation = downstream.startswith("separation")
    kind = module.SeparationDataset
    names = {"src": ["mix_clean"], "tgt": ["s1", "s2"]} if separation else {"src": ["noisy"], "tgt": ["clean"]}
    return kind(str(folder), rate=16000, n_fft=512, hop_length=320, win_length=512, window="hann", center=True, **names)


def equal(left, right) -> bool:
    if isinstance(left, dict):
        return left.keys() == right.keys() and all(equal(left[key], right[key]) for key in left)
    if isinstance(left, torch.Tensor):
        return torch.equal(left, right)
    return len(left) == len(right) and all(equal(a, b) for a, b in zip(left, right))


def test_shipped_sources_are_the_default_and_are_announced(caplog):
    caplog.set_level("INFO")
    condition = Condition.parse("noise+reverb:snr_db=5")
    corruptor = Sources().corruptors([condition])[condition]
    assert "using the shipped test noise" in caplog.text and "using the shipped test rir" in caplog.text
    described = Sources().describe(condition, corruptor)
    assert {kind: source["name"] for kind, source in described.items()} == {
        "noise": "shipped test noise",
        "rir": "shipped test rir",
    }


def test_shipped_babble_is_mixed_from_training_utterances_only():
    condition = Condition.parse("noise:snr_db=5,noise=babble")
    corruptor = Sources().corruptors([condition])[condition]
    splits = {utterance.utterance_id: utterance.split for utterance in read_pack(data_dir())}
    assert len(corruptor.source("speech")) > 1000
    assert {splits[name] for name in corruptor.source("speech").names} == {"train"}
    assert Sources().describe(condition, corruptor)["speech"]["name"] == "shipped training speech"


def test_named_sources_are_described_without_their_folders(noise_folder):
    inside = Condition.parse(f"noise:snr_db=5,noise={noise_folder}")
    for sources, condition in (
        (Sources(noise=(str(noise_folder),)), Condition.parse("noise:snr_db=5")),
        (Sources(), inside),
    ):
        corruptor = sources.corruptors([condition])[condition]
        assert sources.describe(condition, corruptor)["noise"]["name"] == noise_folder.name
        assert str(noise_folder.parent) not in condition.label


def test_a_source_is_the_same_under_another_folder_name(noise_folder, tmp_path):
    condition = Condition.parse("noise:snr_db=5")
    moved = shutil.copytree(noise_folder, tmp_path / "musan_noise")
    described = []
    for folder in (noise_folder, moved):
        sources = Sources(noise=(str(folder),))
        described.append(sources.describe(condition, sources.corruptors([condition])[condition])["noise"])
    assert described[0]["name"] != described[1]["name"] and described[0]["digest"] == described[1]["digest"]
    samples, rate = soundfile.read(moved / "noise0.wav")
    soundfile.write(moved / "noise0.wav", samples[::-1], rate)  # as long, under the same name
    sources = Sources(noise=(str(moved),))
    changed = sources.describe(condition, sources.corruptors([condition])[condition])["noise"]
    assert changed["digest"] != described[0]["digest"]


def test_a_head_trained_in_noise_is_the_same_under_another_folder_name(noise_folder, tmp_path):
    condition = Condition.parse("noise:snr_db=5")
    plans = []
    for folder in (noise_folder, shutil.copytree(noise_folder, tmp_path / "musan_noise")):
        sources = Sources(noise=(str(folder),))
        found = sources.corruptors([condition])
        described = [sources.describe(condition, found[condition])]
        plans.append(TrainingPlan(found, described, 0, tasks.get("IC")))
    assert plans[0].note() != plans[1].note() and plans[0].identity() == plans[1].identity()


def test_the_digest_of_audio_is_of_every_sample(intents, corruptors):
    _, view = corrupted_by(intents, corruptors["noise:snr_db=5"])
    _, again = corrupted_by(intents, corruptors["noise:snr_db=5"], batch_size=3)
    _, other = corrupted_by(intents, corruptors["noise+reverb:snr_db=0"])
    _, clean = corrupted_by(intents, None)
    assert len(view.audio_digest()) == 64 and view.audio_digest() == again.audio_digest() != other.audio_digest()
    assert clean.audio_digest() == ""
    view.drawn["new"] = {"audio": "0"}
    assert view.audio_digest() != again.audio_digest()
