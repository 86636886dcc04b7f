"""Validation during training: what it measures, that it disturbs nothing, and what it keeps."""

from __future__ import annotations

import csv
import random
import shutil
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import soundfile
import torch

from robustdistiller.acoustics import AudioSource, Corruptor, RIRSource, corrupt_utterance
from robustdistiller.pretrain import RunInterrupted, SettingsError, distill, load_config
from robustdistiller.pretrain.data.cuts import LengthRule
from robustdistiller.pretrain.data.dataset import Batch, Position
from robustdistiller.pretrain.data.shards import ShardedSpeech
from robustdistiller.pretrain.data.speech import SpeechCuts, speech_cuts
from robustdistiller.pretrain.objectives.enhancement import Enhancement
from robustdistiller.pretrain.training import log, stopping, validate
from robustdistiller.pretrain.training.step import Lesson
from robustdistiller.pretrain.training.validation_speech import hold_out
from robustdistiller.upstream import load_encoder, read_checkpoint

from ..conftest import assert_equal_states, last_checkpoint, run_overrides

EVERY_TWO = "validation.every_steps=2"


def read_lines(out_dir: Path) -> list[dict[str, str]]:
    with (out_dir / "validation.csv").open(newline="") as file:
        return list(csv.DictReader(file))


@pytest.fixture(scope="module")
def other_speech(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three utterances of different length that are not trained on; one is longer than data.max_samples."""
    root = tmp_path_factory.mktemp("other")
    generator = np.random.default_rng(5)
    for index, samples in enumerate((5_000, 16_000, 30_000)):
        soundfile.write(root / f"{index}.wav", generator.normal(0, 0.1, samples), 16_000)
    return root


@pytest.fixture(scope="module")
def validated(tmp_path_factory, corpus, teacher_path, other_speech) -> Path:
    """The run of `straight`, with validation on other speech."""
    out_dir = tmp_path_factory.mktemp("validated")
    overrides = [*run_overrides(corpus, teacher_path, out_dir), EVERY_TWO, f"validation.speech={other_speech}"]
    distill(load_config("robustdistiller", overrides))
    return out_dir


def test_training_is_the_same_with_and_without_validation(validated: Path, straight: Path) -> None:
    one, other = last_checkpoint_of_steps(validated), last_checkpoint(straight)
    one["progress"]["best"] = None
    for part in ("model", "optimizer", "progress"):
        assert_equal_states(one[part], other[part], part)


def last_checkpoint_of_steps(out_dir: Path) -> dict:
    return torch.load(max((out_dir / "checkpoints").glob("distil-*[0-9].ckpt")), weights_only=True)


class Fail:
    def on_before_optimizer_step(self, distiller, step) -> None:
        if step == 6:
            raise OSError("the power went out")


def test_a_resumed_run_writes_the_same_lines(make_config, validated: Path, other_speech, tmp_path: Path) -> None:
    config = make_config(tmp_path, EVERY_TWO, f"validation.speech={other_speech}", "trainer.save_every_steps=3")
    with pytest.raises(OSError, match="power"):
        distill(config, callbacks=[Fail()])  # step 4 is validated, but the last checkpoint is that of step 3
    assert read_lines(tmp_path)[-1]["step"] == "4"
    distill(config)
    assert (tmp_path / "validation.csv").read_bytes() == (validated / "validation.csv").read_bytes()
    best = [read_checkpoint(path / "student_best.ckpt") for path in (tmp_path, validated)]
    assert best[0].metadata["best"] == best[1].metadata["best"]
    assert_equal_states(best[0].state_dict, best[1].state_dict)


def test_values_are_those_of_each_utterance_alone(validated: Path, teacher_path, other_speech, corpus) -> None:
    lines = {line["condition"]: line for line in read_lines(validated) if line["step"] == "6"}
    assert list(lines) == ["clean", "noise:snr_db=5", "reverb", "noise+reverb:snr_db=10"]
    teacher, student = load_encoder(teacher_path).eval(), load_encoder(validated / "student.ckpt").eval()
    noise, rooms = AudioSource.from_path(corpus.noise), RIRSource.from_path(corpus.rir)
    for condition, line in lines.items():
        corruptor = Corruptor(condition, noise, rooms)
        sums, frames = torch.zeros(2, 2), 0
        for index in range(3):
            samples = soundfile.read(other_speech / f"{index}.wav", dtype="float32")[0][:24_000]
            clean = torch.from_numpy(samples)
            heard = corrupt_utterance(clean, corruptor, f"{other_speech.name}/{index}.wav")
            with torch.no_grad():
                target, found = teacher(clean[None]), student(heard[None])
            for row, (layer, p) in enumerate(zip((2, 4), found.predictions)):
                t = target.hidden_states[layer]
                sums[0, row] += (p - t).abs().mean(-1).sum()
                sums[1, row] += (1 - torch.nn.functional.cosine_similarity(p, t, dim=-1)).sum()
            frames += p.shape[1]
        for values, measure in zip(sums / frames, ("l1", "cosine")):
            assert float(line[measure]) == pytest.approx(float(values.mean()), rel=1e-4)
            for value, layer in zip(values, (2, 4)):
                assert float(line[f"{measure}_layer{layer}"]) == pytest.approx(float(value), rel=1e-4)
    assert len({line["cosine"] for line in lines.values()}) == 4


def test_best_checkpoint_is_kept_and_exported(make_config, other_speech, tmp_path: Path) -> None:
    class Spoil:
        def on_batch_start(self, distiller, batch, step) -> None:
            if step == 5:
                with torch.no_grad():
                    distiller.student.heads.bias += 3.0

    options = (EVERY_TWO, f"validation.speech={other_speech}", "validation.criterion=l1", "trainer.keep_checkpoints=3")
    distill(make_config(tmp_path, *options, "trainer.save_every_steps=2"), callbacks=[Spoil()])
    means = {
        step: np.mean([float(line["l1"]) for line in read_lines(tmp_path) if line["step"] == step]) for step in "246"
    }
    assert min(means, key=means.get) == "4" and means["6"] > 2 * means["4"]
    best, last = (read_checkpoint(tmp_path / name) for name in ("student_best.ckpt", "student.ckpt"))
    assert best.metadata["step"] == 4 and last.metadata["step"] == 6
    assert best.metadata["best"]["value"] == pytest.approx(means["4"], rel=1e-5)
    at_four = torch.load(tmp_path / "checkpoints" / "distil-00000004.ckpt", weights_only=True)["model"]
    weights = dict(load_encoder(tmp_path / "student_best.ckpt").state_dict())
    assert_equal_states(weights, {name: at_four[f"student.{name}"] for name in weights})
    assert best.metadata["audio_hours"] < last.metadata["audio_hours"]


def test_where_nothing_predicts_the_loss_chooses(make_config, other_speech, tmp_path: Path) -> None:
    """Maps that are not trained predict nothing, so that their distance from the teacher would choose by chance."""
    options = (EVERY_TWO, f"validation.speech={other_speech}", "targets.layers=[1,2]", "student.mask={share: 0.5}")
    options = (*options, "validation.conditions=[clean]")
    with pytest.raises(
        SettingsError, match=r"criterion=l1 measures what is predicted.*give validation\.criterion=loss"
    ):
        distill(make_config(tmp_path, *options, "validation.criterion=l1", recipe="star"))
    losses = []

    class Look:
        def on_step_end(self, distiller, report) -> None:
            if report.step % 2 == 0:
                losses.append(_loss_of_each_alone(distiller.eval(), other_speech))
                distiller.train()

    distill(make_config(tmp_path, *options, recipe="star"), callbacks=[Look()])
    lines = read_lines(tmp_path)
    assert [float(line["loss"]) for line in lines] == pytest.approx(losses, rel=1e-4)
    best = read_checkpoint(tmp_path / "student_best.ckpt").metadata["best"]
    assert best["criterion"] == "loss" and best["step"] == 2 * (1 + np.argmin(losses))


@torch.no_grad()
def _loss_of_each_alone(distiller, speech: Path) -> float:
    losses = []
    for path in sorted(speech.iterdir()):
        waveforms = torch.from_numpy(soundfile.read(path, dtype="float32")[0][None, :24_000])
        batch = Batch(Position(), (path.name,), waveforms, torch.tensor([waveforms.shape[1]]))
        targets, _ = distiller.teach(batch)
        step = distiller.hear(Lesson(batch, None, {}, targets=targets), None)
        losses.append(13 * distiller.objectives["relations"](step).mean().item())
    return sum(losses) / len(losses)


def test_enhancement_gains_nothing_over_what_was_heard(make_config, other_speech, tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(Enhancement, "estimate_waveforms", lambda self, step, head: step.student_input)
    options = ("validation.every_steps=1", f"validation.speech={other_speech}", "trainer.max_steps=1")
    distill(make_config(tmp_path, *options))
    lines = {line["condition"]: line for line in read_lines(tmp_path)}
    assert lines["clean"]["si_snr_improvement_db"] == "" and float(lines["clean"]["si_snr_db"]) > 60
    noisy = lines["noise:snr_db=5"]
    assert float(noisy["si_snr_improvement_db"]) == 0 and float(noisy["si_snr_db"]) == pytest.approx(5, abs=0.5)


def test_enhancement_estimates_count(make_config, other_speech, tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(Enhancement, "estimate_waveforms", lambda self, step, head: step.batch.waveforms)
    options = ("validation.every_steps=1", f"validation.speech={other_speech}", "trainer.max_steps=1")
    distill(make_config(tmp_path, *options, "validation.conditions=['noise:snr_db=5,noise=pink']"))
    (line,) = read_lines(tmp_path)
    assert float(line["si_snr_improvement_db"]) == pytest.approx(float(line["si_snr_db"]) - 5, abs=0.5)
    assert line["condition"] == "noise:snr_db=5,noise=pink" and float(line["si_snr_db"]) > 60


def test_speech_is_held_out_by_recording(make_config, tmp_path: Path, caplog) -> None:
    class Listen:
        def __init__(self):
            self.ids = set()

        def on_batch_start(self, distiller, batch, step) -> None:
            self.ids.update(batch.ids)

    with caplog.at_level("INFO"):
        heard = Listen()
        distill(make_config(tmp_path, "validation.every_steps=6", recipe="distilhubert"), callbacks=[heard])
    assert len(heard.ids) == 24  # of 26; all of them in six steps
    messages = [record.getMessage() for record in caplog.records]
    assert "validation on 2 utterances held out of data.speech, every 6 steps" in "\n".join(messages)
    assert [line["condition"] for line in read_lines(tmp_path)] == [
        "clean",
        "noise:snr_db=5",
        "reverb",
        "noise+reverb:snr_db=10",
    ]
    assert "si_snr_db" not in read_lines(tmp_path)[0]


def test_hold_out_depends_on_names_only() -> None:
    cuts = [SimpleNamespace(id=f"{n}@{part}", recording_id=str(n)) for n in range(50) for part in range(3)]
    training, held = hold_out(cuts, 9)
    shuffled = random.Random(0).sample(cuts, len(cuts))
    assert {cut.id for cut in hold_out(shuffled, 9)[1]} == {cut.id for cut in held} and len(held) == 9
    assert not {cut.recording_id for cut in training} & {cut.recording_id for cut in held}
    assert training == [cut for cut in cuts if cut in training]
    assert len(hold_out(cuts, 1000)[1]) == 15
    with pytest.raises(ValueError, match="all one recording"):
        hold_out(cuts[:3], 1)


def test_validation_speech_is_left_out_of_the_training(make_config, corpus, tmp_path: Path) -> None:
    from robustdistiller.pretrain.data.roots import check_data
    from robustdistiller.pretrain.training.validation_speech import prepare_validation

    config = make_config(tmp_path, EVERY_TWO, f"validation.speech={corpus.speech / 'speaker1'}")
    cuts, corruptor = check_data(config, tmp_path)
    training, speech = prepare_validation(config, tmp_path, cuts, corruptor)
    assert len(cuts) == 26 and len(training) == 18
    assert not any("speaker1" in cut.id for cut in training)
    assert len([cut for request in speech.requests for cut in request.cuts]) == 8


def test_other_pieces_of_a_file_are_trained_on(make_config, tmp_path: Path) -> None:
    from robustdistiller.pretrain.data.roots import check_data
    from robustdistiller.pretrain.training.validation_speech import prepare_validation

    soundfile.write(tmp_path / "all.wav", np.random.default_rng(0).normal(0, 0.1, 20 * 8_000), 8_000)

    def listed(name: str, pieces) -> Path:
        rows = [f"all.wav\t{first}\t{count}\t{name}{first}" for first, count in pieces]
        path = tmp_path / f"{name}.tsv"
        path.write_text("\n".join(["file\toffset_samples\tnum_samples\tname", *rows]))
        return path

    speech = listed("train", [(second * 8_000, 8_000) for second in range(20)])
    # One piece of the training, a half of another, and one that reaches into two.
    held = listed("dev", [(0, 8_000), (40_000, 4_000), (100_000, 8_000)])
    config = make_config(tmp_path / "run", EVERY_TWO, f"data.speech={speech}", f"validation.speech={held}")
    cuts, corruptor = check_data(config, tmp_path)
    training, _ = prepare_validation(config, tmp_path, cuts, corruptor)
    left_out = {cut.id for cut in cuts.listed} - {cut.id for cut in training}
    assert sorted(int(name.rpartition("train")[2]) // 8_000 for name in left_out) == [0, 5, 12, 13]


def sharded(cuts: list) -> ShardedSpeech:
    return ShardedSpeech((), np.array([cut.num_samples for cut in cuts]), "digest", LengthRule())


def test_speech_in_shards_is_trained_on_as_it_is(make_config, corpus, tmp_path: Path) -> None:
    from robustdistiller.pretrain.data.roots import check_data
    from robustdistiller.pretrain.training.validation_speech import prepare_validation

    config = make_config(tmp_path, EVERY_TWO, "validation.conditions=[clean]")
    cuts, _ = check_data(config, tmp_path)
    with pytest.raises(SettingsError, match=r"held out of data\.speech in shards; give validation\.speech"):
        prepare_validation(config, tmp_path, SpeechCuts([sharded(cuts.listed)]), None)
    for weights, kept in ((None, 24), ([1, 2], 24)):
        parts = [cuts.listed[:20], sharded(cuts.listed[20:])]
        training, _ = prepare_validation(config, tmp_path, SpeechCuts(parts, weights), None)
        assert len(training.listed) == 18 and len(training) == kept and training.weights == weights


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["validation.every_steps=0"], r"validation.every_steps: found 0, expected at least 1 or null"),
        (["validation.conditions=['noise:snr=5']"], r"validation: unknown key 'snr'"),
        (["validation.conditions=[clean,clean]"], r"one or more different conditions"),
    ],
)
def test_settings_are_checked(make_config, tmp_path: Path, overrides, message) -> None:
    with pytest.raises(SettingsError, match=message):
        make_config(tmp_path, *overrides)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (
            ["validation.conditions=['reverb']", "data.rir=[]"],
            r"validation: .*room impulse responses.*rir=PATH",
        ),
        (["validation.speech=/no/such/folder"], r"/no/such/folder does not exist"),
        (["validation.noise=/no/such/folder"], r"validation: /no/such/folder does not exist"),
    ],
)
def test_what_is_missing_is_named_before_the_first_step(make_config, tmp_path: Path, overrides, message) -> None:
    with pytest.raises(SettingsError, match=message):
        distill(make_config(tmp_path, EVERY_TWO, *overrides, recipe="distilhubert"))
    assert not (tmp_path / "checkpoints").exists()


def test_validation_of_a_clean_recipe_hears_the_training_part_of_the_noise(make_config, corpus, tmp_path: Path) -> None:
    """The best student is not chosen on the noise of the test; a part that is asked for is taken."""
    from robustdistiller.pretrain.training.validation_speech import prepare_validation

    noise = sorted(corpus.noise.glob("*.wav"))
    for part, file in zip(("tr", "cv", "tt"), noise):
        (tmp_path / "wham" / part).mkdir(parents=True)
        shutil.copy(file, tmp_path / "wham" / part / "a.wav")
    cuts = speech_cuts([corpus.speech], tmp_path / "manifests")[0]

    def heard(*overrides: str) -> tuple[str, ...]:
        options = (EVERY_TWO, "validation.conditions=['noise:snr_db=5']", *overrides)
        _, speech = prepare_validation(make_config(tmp_path, *options, recipe="distilhubert"), tmp_path, cuts, None)
        return next(iter(speech.corruptors.values())).source("noise").names

    assert heard(f"data.noise={tmp_path / 'wham'}") == ("tr/a.wav",)
    assert heard(f"validation.noise={tmp_path / 'wham'},split=dev") == ("cv/a.wav",)
    assert len(heard(f"validation.noise={tmp_path / 'wham'}")) == 3


def test_another_validation_in_the_same_folder_is_refused(make_config, validated, other_speech, corpus) -> None:
    for speech, message in (
        (other_speech, r"validation\.utterances: 64 there, 2 now"),
        (corpus.speech / "speaker0", r"distil\.validation: "),
    ):
        with pytest.raises(SettingsError, match=message):
            distill(make_config(validated, EVERY_TWO, f"validation.speech={speech}", "validation.utterances=2"))


def test_time_of_the_validation_counts_for_the_limit_but_not_for_the_speed(
    make_config, other_speech, tmp_path: Path, monkeypatch
) -> None:
    clock = SimpleNamespace(now_s=0.0)
    fake = SimpleNamespace(monotonic=lambda: clock.now_s)
    for module in (log, stopping, validate):
        monkeypatch.setattr(module, "time", fake)
    measure = validate.measure_distances

    def slow_measure(training, speech):
        clock.now_s += 3600
        return measure(training, speech)

    class Tick:
        def on_batch_start(self, distiller, batch, step) -> None:
            clock.now_s += 1

    monkeypatch.setattr(validate, "measure_distances", slow_measure)
    options = (EVERY_TWO, f"validation.speech={other_speech}", "trainer.log_every_steps=3")
    with pytest.raises(RunInterrupted, match=r"stopped by trainer\.max_hours=1\.5 at step 4"):
        distill(make_config(tmp_path, *options, "trainer.max_hours=1.5"), callbacks=[Tick()])
    line = log.read_history(tmp_path / "history.csv")[0]
    assert line["audio_s_per_s"] > 1  # an hour's pause would leave nearly 0
