"""Whole runs on a tiny corpus: what teacher and student hear, errors, and what a run leaves behind."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
import yaml

from robustdistiller.pretrain import NonFiniteLossError, SettingsError, distill
from robustdistiller.pretrain.data.roots import check_data, load_teacher
from robustdistiller.pretrain.training.build import make_distiller
from robustdistiller.pretrain.training.log import read_history
from robustdistiller.upstream import checkpoint_digest, load_encoder, read_checkpoint
from robustdistiller.upstream.fast.matrix_extractor import MatrixExtractor
from robustdistiller.upstream.fast.segment_extractor import SegmentExtractor
from tests.leftovers import leave_temporary_file

from ..conftest import assert_equal_states, last_checkpoint


def test_global_generators_are_left_alone(make_config, tmp_path: Path) -> None:
    before = torch.get_rng_state()
    distill(make_config(tmp_path, "trainer.max_steps=1"))
    assert torch.equal(torch.get_rng_state(), before)


class Listen:
    """Keeps what teacher and student were given."""

    def __init__(self):
        self.teacher, self.student, self.batches, self.layers = [], [], [], []

    def on_train_start(self, distiller) -> None:
        distiller.teachings[0].model.register_forward_pre_hook(lambda _, given: self.teacher.append(given[0].clone()))
        distiller.student.register_forward_pre_hook(lambda _, given: self.student.append(given[0].clone()))
        for index, layer in enumerate(distiller.teachings[0].model.transformer.layers, start=1):
            layer.register_forward_hook(lambda *_, index=index: self.layers.append(index))
        self.weights = {name: value.clone() for name, value in distiller.teachings[0].model.state_dict().items()}

    def on_batch_start(self, distiller, batch, step) -> None:
        self.batches.append(batch)

    def on_train_end(self, distiller) -> None:
        teacher = distiller.teachings[0].model
        assert not teacher.training and not any(part.training for part in teacher.modules())
        assert not any(weight.requires_grad or weight.grad is not None for weight in teacher.parameters())
        assert_equal_states(dict(teacher.state_dict()), self.weights)
        assert distiller.student.training


@pytest.mark.parametrize("recipe", ["robustdistiller", "distilhubert"])
def test_teacher_hears_clean_and_student_corrupted_speech(make_config, tmp_path: Path, recipe: str) -> None:
    heard = Listen()
    config = make_config(tmp_path, recipe=recipe)
    distill(config, callbacks=[heard])
    _, corruptor = check_data(config, tmp_path)
    assert len(heard.batches) == len(heard.teacher) == len(heard.student) == 6
    operations = []
    for batch, teacher, student in zip(heard.batches, heard.teacher, heard.student):
        assert torch.equal(teacher, batch.waveforms)
        if recipe == "distilhubert":
            assert batch.corrupted is None and torch.equal(student, teacher)
            continue
        for name, length, clean, noisy in zip(batch.ids, batch.lengths.tolist(), teacher, student):
            drawn = corruptor.draw(name, length, batch.position.epoch)
            operations.append(drawn["operation"])
            assert np.array_equal(noisy[:length], corruptor.apply(clean[:length].numpy(), drawn))
            assert not noisy[length:].any() and torch.equal(noisy, clean) == (drawn["operation"] == "clean")
    if recipe == "robustdistiller":
        assert set(operations) == {"clean", "noise", "reverb", "noise+reverb"}
    assert set(heard.layers) == {1, 2, 3, 4}, "layers above the last predicted one were run"


def test_loss_falls_and_every_term_is_logged(make_config, tmp_path: Path) -> None:
    left = leave_temporary_file(tmp_path / "checkpoints")
    distill(make_config(tmp_path, "trainer.max_steps=30", "optim.schedule_steps=30", "optim.lr=3e-3"))
    assert not left.exists(), "what a killed run left is removed"
    lines = read_history(tmp_path / "history.csv")
    assert [line["step"] for line in lines] == list(range(2, 31, 2))
    first, last = lines[0], lines[-1]
    for term in ("loss", "l1", "cosine", "l1_layer2", "l1_layer4"):
        assert last[term] < 0.97 * first[term]
    for line in lines:
        expected = line["l1"] + line["cosine"] + 2 * line["enhancement"]
        assert line["loss"] == pytest.approx(expected, rel=1e-4)
        assert line["l1"] == pytest.approx((line["l1_layer2"] + line["l1_layer4"]) / 2, rel=1e-4)
        assert line["audio_s_per_s"] > 0 and line["grad_norm"] > 0
    assert any((tmp_path / "tensorboard").iterdir())
    assert "Finished." in (tmp_path / "run.html").read_text(encoding="utf-8")


def test_student_file_says_where_it_comes_from(straight: Path, teacher_path: Path) -> None:
    checkpoint = read_checkpoint(straight / "student.ckpt")
    notes = checkpoint.metadata
    assert notes["teacher"]["file"] == "teacher.ckpt" and notes["teacher"]["metadata"]["name"] == "tiny teacher"
    assert notes["teacher"]["sha256"] == checkpoint_digest(teacher_path)
    assert (notes["recipe"], notes["step"]) == ("robustdistiller", 6)
    assert notes["config"] == yaml.safe_load((straight / "config.yaml").read_text())
    assert notes["corruption"]["tables"][0]["noise:snr_db=0..20"] == 0.175
    for package in ("robustdistiller", "torch", "lhotse", "lightning-fabric"):
        assert notes["versions"][package][0].isdigit()
    assert notes["parameters"]["student with prediction heads"] == checkpoint.build().count_parameters()
    assert notes["audio_hours"] > 0 and notes["last_losses"]["step"] == 6 and notes["date"].startswith("20")
    assert load_encoder(straight / "student.ckpt").config.prediction_layers == (2, 4)
    assert json.loads((straight / "run.json").read_text())["teachers"] == {"teacher": notes["teacher"]["sha256"]}


def test_non_finite_loss_stops_with_step_and_utterances(make_config, tmp_path: Path) -> None:
    class Poison:
        def on_batch_start(self, distiller, batch, step) -> None:
            if step == 3:
                self.ids = batch.ids
                batch.waveforms[1, 100] = float("nan")

    poison = Poison()
    with pytest.raises(NonFiniteLossError) as error:
        distill(make_config(tmp_path, "trainer.save_every_steps=1", recipe="distilhubert"), callbacks=[poison])
    message = str(error.value)
    assert "the loss is not finite at step 3 (epoch 0, batch 2): loss nan, l1 nan, cosine nan" in message
    assert f"first in the speech of {poison.ids[1]}." in message
    assert f"Utterances of the batch: {', '.join(poison.ids)}." in message
    assert last_checkpoint(tmp_path)["progress"]["step"] == 2
    assert all(torch.isfinite(value).all() for value in last_checkpoint(tmp_path)["model"].values())


def test_non_finite_gradient_stops(make_config, tmp_path: Path) -> None:
    class Poison:
        def on_after_backward(self, distiller, step) -> None:
            next(distiller.student.parameters()).grad[:] = float("nan")

    with pytest.raises(NonFiniteLossError, match=r"gradient is not finite at step 1 .*utterances: speech/"):
        distill(make_config(tmp_path), callbacks=[Poison()])


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["data.speech=[]"], r"data\.speech: no speech"),
        (["data.noise=[]"], r"data\.noise: the corruption adds noise from files .*corruption\.tables"),
        (["data.rir=[]"], r"data\.rir: the corruption adds reverberation .*corruption\.tables"),
        (["corruption.babble_probability=0.2"], r"data\.babble: the corruption adds voices"),
        (["corruption.tables=[{music: 1}]"], r"data\.music: the corruption adds music and there is none"),
        (["data.noise=/no/such/folder"], r"data\.noise: /no/such/folder does not exist"),
        (["teacher.checkpoint=null"], r"teacher\.checkpoint: which model"),
        (["out_dir=null"], r"out_dir: say where"),
        (["trainer.batch_size=null"], r"give batch_size .* or batch_seconds"),
        (["targets.layers=[2,9]"], r"the teacher has layers 0 to 5, found \[9\]"),
        (["trainer.precision=fp16"], "needs a CUDA device"),
        (["trainer.accelerator=gppu"], r"trainer\.accelerator=gppu, trainer\.devices=1: You selected an invalid"),
        (["trainer.accelerator=cuda", "trainer.devices=3"], r"trainer\.accelerator=cuda, trainer\.devices=3: "),
    ],
)
def test_what_cannot_work_is_refused_before_the_first_step(make_config, tmp_path: Path, overrides, message) -> None:
    with pytest.raises(SettingsError, match=message):
        distill(make_config(tmp_path / "run", *overrides))
    assert not (tmp_path / "run" / "checkpoints").exists()


def test_a_refused_run_leaves_no_folder(make_config, tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="no speech"):
        distill(make_config(tmp_path / "run", "data.speech=[]"))
    assert not (tmp_path / "run").exists()


def test_data_roots_are_counted(make_config, tmp_path: Path, caplog) -> None:
    with caplog.at_level("INFO"):
        distill(make_config(tmp_path, "trainer.max_steps=1"))
    lines = [record.getMessage() for record in caplog.records]
    found = [line for line in lines if line.startswith(("speech ", "noise ", "rir "))]
    assert [line.split(": ")[1].split(",")[0] for line in found] == ["26 files", "3 files", "2 files"]
    assert found[1].endswith("3 files, 6.0 s")
    assert any("student with prediction heads" in line for line in lines)
    assert sum(line.startswith("the student starts as the teacher in: ") for line in lines) == 1
    assert re.search(r"step 1 of 1: .*; [\d.,]+ s of audio per second$", "\n".join(lines), re.MULTILINE)


def test_noise_can_be_excluded_and_folders_may_share_names(make_config, corpus, tmp_path: Path) -> None:
    from robustdistiller.pretrain.data.roots import check_data

    both = f"data.noise=[{corpus.noise},{corpus.rir.parent / 'noise'}]"
    with pytest.raises(SettingsError, match="occurs twice"):
        check_data(make_config(tmp_path, both), tmp_path)
    (tmp_path / "other").symlink_to(corpus.noise)
    config = make_config(tmp_path, f"data.noise=[{corpus.noise},{tmp_path / 'other'}]", "data.noise_exclude=['*0.wav']")
    _, corruptor = check_data(config, tmp_path)
    assert corruptor.source("noise").names == (
        "noise/noise1.wav",
        "noise/noise2.wav",
        "other/noise1.wav",
        "other/noise2.wav",
    )
    with pytest.raises(SettingsError, match=r"data\.noise_exclude=\['\*'\] leaves none of the 3 files"):
        check_data(make_config(tmp_path, "data.noise_exclude=['*']"), tmp_path)


def test_test_sets_among_the_speech_are_pointed_out(make_config, corpus, tmp_path: Path, caplog) -> None:
    from robustdistiller.pretrain.data.roots import check_data

    root = tmp_path / "LibriSpeech"
    for part in ("train-clean-100", "test-clean", "DEV", "testimonies"):
        shutil.copytree(corpus.speech, root / part)
    check_data(make_config(tmp_path / "a", f"data.speech={root}"), tmp_path)
    assert "data.speech: the student is trained on LibriSpeech/DEV and LibriSpeech/test-clean, too" in caplog.text
    caplog.clear()
    for chosen in (root / "train-clean-100", root / "test-clean"):  # who asks for it gets it
        check_data(make_config(tmp_path / "a", f"data.speech=[{chosen}]"), tmp_path)
    assert "the student is trained on" not in caplog.text


def test_rooms_that_are_not_there_are_refused_before_the_first_step(make_config, corpus, tmp_path: Path) -> None:
    from robustdistiller.pretrain.data.roots import check_data

    tables = 'corruption={"tables": [{"clean": 99, "reverb:rt60_s=9": 1}]}'
    with pytest.raises(SettingsError, match=r"corruption: no impulse response within 15% of rt60_s=9"):
        check_data(make_config(tmp_path, tables), tmp_path)


def test_training_takes_rooms_as_rooms_and_no_test_noise(make_config, corpus, tmp_path: Path, caplog) -> None:
    from robustdistiller.pretrain.data.roots import check_data

    noise, room = (sorted(folder.glob("*.wav")) for folder in (corpus.noise, corpus.rir))
    places = {
        "wham_noise/tr/a.wav": noise[0],
        "wham_noise/cv/b.wav": noise[1],
        "wham_noise/tt/c.wav": noise[2],
        "own/test/d.wav": noise[0],
        "own/e.wav": noise[1],
        "RIRS_NOISES/simulated_rirs/smallroom/Room001/Room001-00001.wav": room[0],
        "RIRS_NOISES/real_rirs_isotropic_noises/RVB2014_type1_rir_largeroom2_far_angla.wav": room[1],
        "RIRS_NOISES/real_rirs_isotropic_noises/RVB2014_type1_rir_largeroom1_far_angla.wav": room[
            1
        ],  # by name, for test
        "RIRS_NOISES/real_rirs_isotropic_noises/RVB2014_type1_noise_largeroom2_1.wav": noise[0],
        "RIRS_NOISES/pointsource_noises/noise-free-sound-0000.wav": noise[1],
    }
    for name, file in places.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(file, tmp_path / name)
    roots = f"data.noise=[{tmp_path / 'wham_noise'},{tmp_path / 'own'}]"
    with caplog.at_level("INFO"):
        _, corruptor = check_data(
            make_config(tmp_path / "out", roots, f"data.rir=[{tmp_path / 'RIRS_NOISES'}]"), tmp_path
        )
    assert corruptor.source("noise").names == ("wham_noise/tr/a.wav", "own/e.wav")
    assert sorted(corruptor.source("rir").names) == sorted(
        name.removeprefix("RIRS_NOISES/") for name in places if "Room001" in name or "_rir_largeroom2" in name
    )
    assert "cv/b.wav and 1 more: not noise to train on" in caplog.text
    with pytest.raises(SettingsError, match=r"data\.rir: .*wham_noise \(wham\) has nothing that serves as rir"):
        check_data(make_config(tmp_path / "out", f"data.rir=[{tmp_path / 'wham_noise'}]"), tmp_path)


def test_training_takes_what_is_asked_of_a_corpus_in_one_line(make_config, corpus, tmp_path: Path) -> None:
    from robustdistiller.pretrain.data.roots import check_data

    noise, room = (sorted(folder.glob("*.wav")) for folder in (corpus.noise, corpus.rir))
    measured = "real_rirs_isotropic_noises/RVB2014_type1_rir_largeroom2_far_angla.wav"
    simulated = "simulated_rirs/smallroom/Room001/Room001-00001.wav"
    places = {
        f"RIRS_NOISES/{measured}": room[0],
        f"RIRS_NOISES/{simulated}": room[1],
        "wham, mine/tr/a.wav": noise[0],
        "wham, mine/tt/b.wav": noise[1],
    }
    for name, file in places.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(file, tmp_path / name)
    rooms = tmp_path / "RIRS_NOISES"

    def heard(*overrides: str):
        _, corruptor = check_data(make_config(tmp_path / "out", *overrides), tmp_path)
        return corruptor.source("noise").names, corruptor.source("rir").names

    own = f'data.noise=["{tmp_path / "wham, mine"}"]'
    assert heard(own, f'data.rir=["{rooms},only=real"]') == (("tr/a.wav",), (measured,))
    assert heard(own, f"data.rir={rooms},without=real")[1] == (simulated,)
    asked = f'data.noise=["{tmp_path / "wham, mine"},split=test"]'
    both = f'data.rir=["{rooms},only=real","{rooms},only=simulated"]'
    assert heard(asked, both) == (("tt/b.wav",), (f"RIRS_NOISES/{measured}", f"RIRS_NOISES/{simulated}"))
    manifests = tmp_path / "out" / "manifests"
    assert len(list((manifests if manifests.exists() else tmp_path / "manifests").glob("rir-*.json"))) == 3
    for key in ("noise", "rir"):
        with pytest.raises(SettingsError, match=rf"^data\.{key}: unknown option 'onyl' in .*; did you mean 'only'\?"):
            heard(f'data.{key}=["{rooms},onyl=real"]')
    with pytest.raises(SettingsError, match=r"data\.rir: 'only=real' has no path before its options; .*in quotes"):
        heard(f"data.rir=[{rooms},only=real]")


def test_urbansound_voices_and_music_are_excluded() -> None:
    from fnmatch import fnmatchcase

    from robustdistiller.pretrain import load_config

    patterns = load_config("robustdistiller").data.noise_exclude
    kept = ["fold1/101415-3-0-2.wav", "audio/fold10/2937-1-0-0.wav", "free-sound/noise-free-sound-0002.wav"]
    excluded = ["fold1/102106-2-0-0.wav", "audio/fold10/100795-9-1-0.wav"]
    matched = [name for name in kept + excluded if any(fnmatchcase(name, pattern) for pattern in patterns)]
    assert matched == excluded


def test_audio_that_vanishes_stops_with_its_name(make_config, corpus, tmp_path: Path) -> None:
    root = tmp_path / "speech"
    root.mkdir()
    for index in range(8):
        soundfile.write(root / f"{index}.wav", np.random.default_rng(index).normal(0, 0.1, 8000), 16000)

    class Remove:
        def on_batch_start(self, distiller, batch, step) -> None:
            for path in root.iterdir():
                path.unlink()

    config = make_config(tmp_path / "run", f"data.speech={root}", "trainer.max_steps=60", "optim.schedule_steps=60")
    with pytest.raises(ValueError, match=r"cannot read .*speech/\d\.wav \(utterance speech/\d\.wav\)"):
        distill(config, callbacks=[Remove()])


def test_last_hidden_state_and_other_terms_train(make_config, tmp_path: Path) -> None:
    options = ("objectives.enhancement.input=last_hidden", "objectives.enhancement.loss=l2")
    distill(make_config(tmp_path, *options, "objectives.feature_penalty=0.1", "trainer.max_steps=2"))
    line = read_history(tmp_path / "history.csv")[-1]
    expected = line["l1"] + line["cosine"] + 2 * line["enhancement"] + 0.1 * line["feature_penalty"]
    assert line["loss"] == pytest.approx(expected, rel=1e-4) and line["feature_penalty"] > 0


@pytest.mark.parametrize(("autocast", "kernel"), [(True, MatrixExtractor), (False, SegmentExtractor)])
def test_teacher_and_student_have_the_kernels_of_a_cpu(make_config, tmp_path, autocast, kernel) -> None:
    """Convolutions in bfloat16 take three times as long as matrix products."""
    config = make_config(tmp_path, f"teacher.autocast={str(autocast).lower()}")
    module = make_distiller(config, load_teacher(config.teacher)[0])
    module.place(torch.device("cpu"))
    assert isinstance(module.teachings[0].model.extractor, kernel) and isinstance(
        module.student.extractor, MatrixExtractor
    )


def test_terms_of_hidden_states_train(make_config, tmp_path: Path) -> None:
    """Relations of student and teacher of different widths, and an anchor to the clean view."""
    shape = ("student.embed_dim=16", "targets.match=layers", "targets.layers=[1,2]", "objectives.enhancement.weight=0")
    terms = ("objectives.relations=0.5", "objectives.anchor={weight: 0.1, features: last_hidden}")
    distill(make_config(tmp_path, *shape, *terms, "trainer.max_steps=2"))
    line = read_history(tmp_path / "history.csv")[-1]
    assert float(line["relations"]) > 0 and float(line["relations_layer2"]) > 0
    assert 0 < float(line["anchor"]) < 2
