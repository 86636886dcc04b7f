"""The study end to end on generated audio: cells, resuming, locks, report."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

from research.recipe_study import evaluate, run, upstreams
from research.recipe_study.evaluate import Evaluation
from research.recipe_study.heads import HeadOptions
from research.recipe_study.outcomes import OutcomeError, load_outcome, outcome_path, read_outcomes
from research.recipe_study.plan import STUDENTS
from research.recipe_study.pool import BABBLE_VOICES, HELD_OUT_RANKS, StudyData, prepare, read_table
from research.recipe_study.report import write_report
from research.recipe_study.run import Study, run_study
from research.recipe_study.tasks import TASKS, build_tasks
from research.recipe_study.variants import Variant, score_variants
from research.recipe_study.variants_report import losses, report
from robustdistiller.common.locks import locked
from robustdistiller.mini.pack import rank_of
from robustdistiller.pretrain import load_config
from robustdistiller.upstream import EncoderConfig, SpeechEncoder, save_checkpoint

TEACHER = EncoderConfig(
    conv_layers=((12, 10, 5), (12, 3, 2), (12, 3, 2), (12, 3, 2), (12, 3, 2), (12, 2, 2), (12, 2, 2)),
    embed_dim=24,
    num_layers=5,
    num_heads=4,
    ffn_dim=48,
    position_kernel=16,
    position_groups=4,
)
SPLIT_OF_RANK = {0: "test", 1: "dev"}


@pytest.fixture(scope="module")
def pool(tmp_path_factory) -> Path:
    """A pool of tones: the pitch tells the word, the timbre the voice."""
    root = tmp_path_factory.mktemp("pool")
    generator = np.random.default_rng(0)
    speech, words, voices = [], [], []
    for file in range(2):
        audio, offset = [], 0
        for index in range(150):
            name, voice, word = f"u{file}_{index}", BABBLE_VOICES[0] if index % 5 == 4 else f"v{index % 2}", index % 3
            samples = _tone(16000 if index % 5 == 4 else 8000, 200 * (word + 1), index % 2, generator)
            row = [f"long-{file}.flac", offset, len(samples), name, voice]
            speech.append([*row, "xx", "made", "none", 0, ""])
            split = SPLIT_OF_RANK.get(rank_of(name), "train")
            words.append([*row, f"word{word}", split])
            voices.append([*row, f"v{index % 2}", split])
            audio.append(samples)
            offset += len(samples)
        _write(root / "speech" / f"long-{file}.flac", np.concatenate(audio))
    noise = []
    for split in ("train", "test"):
        _write(root / "noise" / f"{split}.flac", generator.normal(0, 0.1, 40000))
        noise += [[f"{split}.flac", 20000 * i, 20000, f"{split}{i}", "noise", split, "made"] for i in range(2)]
    piece = ["file", "offset_samples", "num_samples"]
    _table(
        root / "speech.tsv", [*piece, "utterance_id", "voice", "language", "source", "licence", "trim", "text"], speech
    )
    _table(root / "word30.tsv", [*piece, "utterance_id", "voice", "label", "split"], words)
    _table(root / "voice20.tsv", [*piece, "utterance_id", "voice", "label", "split"], voices)
    _table(root / "noise.tsv", [*piece, "name", "kind", "split", "source"], noise)
    return root


def _tone(num_samples: int, pitch_hz: float, timbre: int, generator: np.random.Generator) -> np.ndarray:
    phase = 2 * np.pi * np.arange(num_samples) * pitch_hz * generator.uniform(0.95, 1.05) / 16000
    return 0.3 * np.sin(phase) + 0.2 * np.sin(phase * (3 if timbre else 5)) + generator.normal(0, 0.01, num_samples)


def _write(path: Path, samples: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, samples, 16000)


def _table(path: Path, header: list[str], rows: list[list]) -> None:
    path.write_text("\n".join("\t".join(map(str, row)) for row in [header, *rows]) + "\n", encoding="utf-8")


@pytest.fixture(scope="module")
def data(pool, corpus, tmp_path_factory):
    work = tmp_path_factory.mktemp("work")
    (work / "corpus").symlink_to(corpus.root)
    return prepare(pool, work)


@pytest.fixture(scope="module")
def teacher(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("teacher") / "teacher.ckpt"
    with torch.random.fork_rng():
        torch.manual_seed(3)
        save_checkpoint(path, SpeechEncoder(TEACHER), {"name": "tiny"})
    return path


@pytest.fixture(scope="module")
def evaluation(data) -> Evaluation:
    options = {"classes": HeadOptions((3e-2,), 200, 32)}
    return Evaluation(data, ("words", "voices"), ("clean", "noise0", "babble10", "room_noise10"), options)


@pytest.fixture(scope="module")
def finished(evaluation, teacher, tmp_path_factory) -> Study:
    """One student and all baselines, one seed."""
    out = tmp_path_factory.mktemp("out")
    study = Study(evaluation, out, teacher, 2, (0,), ("distilhubert",), ("teacher", "random"), "the command")
    assert run_study(study) == []
    return study


def test_ways_to_compute_a_student_are_scored_beside_it(evaluation, teacher, tmp_path):
    once = dataclasses.replace(evaluation, tasks=("words",), conditions=("clean", "noise0"))
    ways = {"float32": Variant("plain", onnx=False), "again": Variant("again", onnx=False)}
    ways["stream"] = Variant("stream", onnx=False, chunks=(4, 1))
    found = score_variants(once, teacher, tmp_path, ways)
    for key in ("words/clean", "words/noise0"):
        assert found["again"]["feature_error"][key] == 0 == found["again"]["cells"][key]["difference"]
        assert found["stream"]["feature_error"][key] > 0.01
        plain, stream = (found[name]["cells"][key] for name in ("float32", "stream"))
        assert stream["difference"] == pytest.approx(stream["score"] - plain["score"], abs=0.02)
    assert found["stream"]["file"] == {"latency_ms": 105.0}
    assert losses({"words/clean": {"difference": -2.0}, "prompts/clean": {"difference": 3.0}}) == {
        "words/clean": 2.0,
        "prompts/clean": 3.0,
    }
    result = {"name": "tiny", "command": "c", "date": "d", "seed": 0, "checkpoint": "0" * 64, "versions": {}}
    page = report([{**result, "variants": found}])
    assert "| stream |  | 105.0 |" in page and "(+0.0)" in page


def test_held_out_speech_is_in_no_training_manifest(data):
    trained = [row["name"].split("/")[1] for row in read_table(data.speech)]
    assert len(trained) > 100
    assert not any(rank_of(name) in HELD_OUT_RANKS for name in trained)
    assert not any(row["voice"] in BABBLE_VOICES for row in read_table(data.speech))
    babble = read_table(data.babble)
    assert babble and all(row["voice"] in BABBLE_VOICES for row in babble)
    assert all(rank_of(row["name"].split("/")[1]) in HELD_OUT_RANKS for row in babble)


def test_manifest_pieces_are_the_pool_s_samples(data, pool):
    row = read_table(data.speech)[-1]
    original = next(r for r in read_table(pool / "speech.tsv") if r["utterance_id"] == row["name"].split("/")[1])
    start, length = int(original["offset_samples"]), int(original["num_samples"])
    expected = soundfile.read(pool / "speech" / original["file"], dtype="int16")[0][start : start + length]
    offset = int(row["offset_samples"])
    found = soundfile.read(data.speech.with_suffix("") / row["file"], dtype="int16")[0][offset : offset + length]
    assert np.array_equal(found, expected)


def test_every_cell_is_written_with_its_provenance(finished):
    outcome = load_outcome(outcome_path(finished.out, "distilhubert", 0))
    assert set(outcome.cells) == {(t, c) for t in finished.evaluation.tasks for c in finished.evaluation.conditions}
    assert outcome.notes["steps"] == 2 and outcome.notes["command"] == "the command"
    assert outcome.notes["training_seconds"] > 0 and len(outcome.notes["teacher"]) == 64
    assert "words under noise0" in outcome.notes["digests"]
    # Pitch and timbre of a tone are easy to tell: the pipeline from audio to score works.
    assert outcome.cells["words", "clean"].score("accuracy") > 55  # by chance 33
    assert outcome.cells["voices", "clean"].score("accuracy") > 70  # by chance 50
    assert outcome.cells["words", "noise0"].score("accuracy") < outcome.cells["words", "clean"].score("accuracy")


def test_a_second_run_does_nothing(finished, monkeypatch):
    monkeypatch.setattr(run, "train_student", lambda *_: pytest.fail("trained again"))
    monkeypatch.setattr(Evaluation, "run", lambda *_: pytest.fail("scored again"))
    assert run_study(finished) == []


def test_another_number_of_steps_is_another_study(finished, monkeypatch):
    monkeypatch.setattr(run, "train_student", lambda *arguments: (_ for _ in ()).throw(RuntimeError("trained again")))
    changed = Study(finished.evaluation, finished.out, finished.teacher, 3, (0,), ("distilhubert",), ())
    assert run_study(changed) == ["distilhubert seed0: trained again"]


def test_other_heads_are_scored_again_without_training(finished, monkeypatch):
    monkeypatch.setattr(upstreams.subprocess, "run", lambda *_, **__: pytest.fail("trained again"))
    monkeypatch.setattr(Evaluation, "run", lambda *_: (_ for _ in ()).throw(RuntimeError("scored again")))
    options = {"classes": HeadOptions((1e-2,), 200, 32)}
    changed = dataclasses.replace(finished, evaluation=dataclasses.replace(finished.evaluation, options=options))
    assert run_study(changed) == [f"{name} seed0: scored again" for name in ("distilhubert", "teacher", "random")]


def test_killed_between_tasks_goes_on_there(finished, evaluation, teacher, tmp_path, monkeypatch):
    """What a kill leaves behind is the finished task; it is not computed again, and the result is the same."""
    scored = []
    pooled = evaluate.pooled

    def counting(upstream, waveforms, autocast):
        scored.append(len(waveforms))
        if dying and len(scored) > len(evaluation.conditions) + 2:
            raise KeyboardInterrupt  # no handler in the code catches this, as none catches a kill
        return pooled(upstream, waveforms, autocast)

    monkeypatch.setattr(evaluate, "pooled", counting)
    for path in (evaluation.data.work / "partial").glob("random-*"):
        path.unlink()
    study = Study(evaluation, tmp_path, teacher, 2, (0,), (), ("random",))
    dying = True
    with pytest.raises(KeyboardInterrupt):
        run_study(study)
    assert not outcome_path(tmp_path, "random", 0).exists()
    dying, scored = False, []
    assert run_study(study) == []
    assert len(scored) == len(evaluation.conditions) + 2  # the second task only: train, dev, conditions
    first, second = (load_outcome(outcome_path(out, "random", 0)) for out in (finished.out, tmp_path))
    for key, cell in first.cells.items():
        assert np.array_equal(cell.errors, second.cells[key].errors)


def test_a_cell_that_another_process_holds_is_left_alone(evaluation, teacher, tmp_path):
    study = Study(evaluation, tmp_path, teacher, 2, (0,), (), ("teacher",))
    with locked(evaluation.data.work / "locks" / "teacher-seed0.lock"):
        assert run_study(study) == ["teacher seed0: another process works on it"]


def test_the_report_says_what_was_measured(finished):
    text = write_report(finished.out).read_text(encoding="utf-8")
    outcome = load_outcome(outcome_path(finished.out, "teacher", 0))
    assert f"{outcome.cells['words', 'clean'].score('accuracy'):.1f} ±" in text
    assert outcome.notes["teacher"] in text and "`the command`" in text
    for name in ("scores.png", "gains.png", "clean-noisy.png", "cells.csv"):
        assert (finished.out / name).stat().st_size > 1000


def test_outcomes_of_another_teacher_are_refused(finished, tmp_path):
    from research.recipe_study.outcomes import Outcome, save_outcome

    for name in ("teacher", "random"):
        outcome = load_outcome(outcome_path(finished.out, name, 0))
        notes = {**outcome.notes, "teacher": name}
        save_outcome(outcome_path(tmp_path, name, 0), Outcome(notes, outcome.cells))
    with pytest.raises(OutcomeError, match="differ in teacher"):
        read_outcomes(tmp_path)


@pytest.mark.parametrize("name", STUDENTS)
def test_every_recipe_takes_its_settings(name):
    places = StudyData(Path("work"), Path("pool"))
    recipe, *settings = STUDENTS[name].arguments(places, Path("teacher.ckpt"), 1, 90, Path("out"))
    config = load_config(recipe, settings)
    second = config.stages.get("distil", {}).get("trainer", {}).get("max_steps", 0)
    assert config.trainer.max_steps + second == 90
    assert (config.corruption is not None) == STUDENTS[name].corrupted == bool(config.data.noise)
    assert (config.pruning is not None) == STUDENTS[name].pruned == bool(second)


def test_other_settings_are_another_run():
    student = STUDENTS["robustdistiller"]
    changed = dataclasses.replace(student, overrides=(*student.overrides, "optim.lr=5e-4"))
    assert student.config_digest(90) == student.config_digest(90)
    assert len({student.config_digest(90), student.config_digest(91), changed.config_digest(90)}) == 3


def test_training_labels_cover_the_others(data):
    items = build_tasks(data, ["words"])["words"]
    assert items["train"].sizes == (3,) and len(items["train"]) > len(items["test"]) > 10
    assert not set(items["train"].ids) & set(items["test"].ids)
    assert TASKS["words"].most["train"] >= len(items["train"])


def test_a_worker_whose_study_was_killed_starts_nothing(monkeypatch) -> None:
    class Dead:
        @staticmethod
        def is_alive() -> bool:
            return False

    monkeypatch.setattr(run.multiprocessing, "parent_process", Dead)
    assert run._attempt(None, "ours", [2]) == ["ours seed2: the study was killed"]
