"""A table of recordings and labels is a task like any other: head, records, conditions, cache; wrong ones are told."""

from __future__ import annotations

import pickle
import runpy
from pathlib import Path

import numpy as np
import pytest
import soundfile

from robustdistiller.eval import tasks
from robustdistiller.eval.results.files import read_record_files
from robustdistiller.eval.results.item_scores import read_outcomes
from robustdistiller.eval.run.launcher import main
from robustdistiller.eval.tasks import csv_expert, csv_task
from robustdistiller.eval.tasks.configs import load_config
from robustdistiller.eval.tasks.csv_task import read_items
from robustdistiller.eval.tasks.rules import deviations, split

TONES_HZ = {"low": 300, "mid": 900, "high": 2500}
RATES_HZ = (16_000, 8_000, 22_050)


def write_table(folder: Path, head: str = "path,label,speaker", per_label: int = 12, **changes: str) -> Path:
    """Tones of three labels at odd lengths and several sampling rates, and their table; ``line7="..."`` changes one."""
    folder.mkdir(parents=True, exist_ok=True)
    rng, lines = np.random.default_rng(0), [head]
    for label, tone_hz in TONES_HZ.items():
        for number in range(per_label):
            rate_hz = RATES_HZ[number % 3]
            at_s = np.arange(round(rate_hz * (0.33 + 0.07 * (number % 4)))) / rate_hz
            wave = 0.05 * np.sin(2 * np.pi * tone_hz * at_s) + 0.001 * rng.standard_normal(len(at_s))
            name = f"{label} #{number}.wav"
            soundfile.write(folder / name, wave, rate_hz)
            part = ("train", "valid", "test")[max(0, number - per_label + 3)]
            values = {"path": name, "label": label, "speaker": f"spk{number}", "split": part, "length": "3"}
            lines.append(",".join(values[column] for column in head.split(",")))
    for key, line in changes.items():
        lines[int(key.removeprefix("line")) - 1] = line
    (folder / "labels.csv").write_text("\n".join(lines) + "\n", encoding="utf-8-sig")
    return folder / "labels.csv"


@pytest.mark.usefixtures("bridge")
def test_a_head_is_trained_scored_under_conditions_and_known_again(tmp_path, toy_student):
    table = write_table(tmp_path / "data")
    settings = {"total_steps": 20, "eval_step": 10, "save_step": 10}
    options = ",,".join([f"config.runner.{key}={value}" for key, value in settings.items()])
    options += ",,config.optimizer.lr=0.1,,config.downstream_expert.datarc.num_workers=0"
    folders = {"plain": [], "cached": ["--feature-cache", str(tmp_path / "cache")]}
    found = {}
    for name, cache in folders.items():
        upstream = ["-u", "robustdistiller_local", "-k", str(toy_student), "-p", str(tmp_path / name)]
        assert main(["-m", "train", *upstream, "-d", str(table), "-o", options, *cache]) == 0
        conditions = ["--condition", "clean", "--condition", "noise:snr_db=-30,noise=white"]
        assert main(["-m", "evaluate", "-e", str(tmp_path / name), *conditions, *cache]) == 0
        files = read_record_files(tmp_path / name / "records")
        found[name] = {record.condition: (record, read_outcomes(path, record)) for path, record in files.items()}
    (clean, items), (noisy, _) = found["plain"]["clean"], found["plain"]["noise:snr_db=-30,noise=white"]
    assert (clean.task, clean.split, clean.items_scored, clean.status) == ("labels", "test", 3, "ok")
    assert clean.main_metric.value == 100.0 > noisy.main_metric.value
    assert set(items.groups) == {items.ids[0].split("#")[1].removesuffix(".wav").join(["spk", ""])}, "one speaker"
    cached = found["cached"]["clean"][0]
    assert cached.feature_cache["training"] == "means float32" and cached.rules_digest == clean.rules_digest
    assert cached.main_metric.value == clean.main_metric.value
    assert all("total_steps" in phrase or "eval_step" in phrase for phrase in clean.non_standard)


@pytest.mark.usefixtures("bridge")
def test_recordings_are_read_once_while_there_is_room(tmp_path, monkeypatch):
    items, _ = read_items(write_table(tmp_path, per_label=3), 0)
    read: list[Path] = []
    monkeypatch.setattr(csv_expert, "read_audio", lambda path, *_, **__: (read.append(path), np.ones(1000))[1])
    monkeypatch.setattr(csv_expert, "KEPT_SAMPLES", 4500)
    kept: dict[Path, np.ndarray] = {}
    for _ in range(3):  # s3prl makes a loader for every epoch
        recordings = csv_expert.Recordings(items, sorted(TONES_HZ), kept)
        for wave, _, _ in map(recordings.__getitem__, range(len(items))):
            assert np.array_equal(wave, np.ones(1000))
            wave *= 0  # an upstream may normalise what it is given
    assert len(kept) == 4 and len(read) == 4 + 3 * (len(items) - 4)


def test_the_split_is_drawn_by_speaker_and_is_the_same_wherever_the_table_lies(tmp_path):
    items, drawn = read_items(write_table(tmp_path / "a"))
    assert drawn and {part: sum(i.split == part for i in items) for part in ("train", "dev", "test")} == {
        "train": 30, "dev": 3, "test": 3
    }  # fmt: skip
    of_speaker = {item.speaker: {i.split for i in items if i.speaker == item.speaker} for item in items}
    assert all(len(splits) == 1 for splits in of_speaker.values())
    here, there = csv_task(write_table(tmp_path / "a")), csv_task(write_table(tmp_path / "b" / "c"))
    digests = {split(task, load_config(task), {}).digest for task in (here, there)}
    assert len(digests) == 1 and deviations(there, split(there, load_config(there), {})) == []
    other = csv_task(tmp_path / "a" / "labels.csv", split_seed=1)
    assert split(other, load_config(other), {}).digest not in digests and "drawn with seed 1" in other.rules.test
    without, _ = read_items(write_table(tmp_path / "d", "path,label"))
    assert {(i.label, i.split) for i in without} == {(t, s) for t in TONES_HZ for s in ("train", "dev", "test")}
    stated, drawn = read_items(write_table(tmp_path / "e", "split,label,path,length"))
    assert not drawn and sum(item.split == "dev" for item in stated) == 3


@pytest.mark.parametrize(
    ("head", "changes", "error", "message"),
    [
        ("path,label", {"line4": "gone.wav,low"}, FileNotFoundError, r"labels.csv, line 4: no file .*gone.wav"),
        ("path,label", {"line5": "low #3.wav,"}, ValueError, "labels.csv, line 5: no label"),
        ("path,label", {"line5": "low #3.wav"}, ValueError, "line 5: found 1 fields, expected 2"),
        ("path,label", {"line5": "low, #3.wav,low"}, ValueError, "found 3 fields, .* with a comma in quotes"),
        ("path,label,speaker", {"line5": "low #3.wav,low,"}, ValueError, "labels.csv, line 5: no speaker"),
        ("path,label", {"line5": "low #2.wav,low"}, ValueError, r"line 5: low #2.wav stands in line 4 already"),
        ("path,label,split", {"line2": "low #0.wav,low,eval"}, ValueError,
         "line 2: the split must be train, dev or test, found 'eval'"),
        ("path,label,split", {"line14": "mid #0.wav,odd,test"}, ValueError, "no item of the split train has the label"),
        ("path,label", {"line1": "path,lable"}, ValueError, "has no column 'label', found path, lable"),
        ("path,label", {"line1": "file,label"}, ValueError, "has no column 'path', found file, label"),
        ("path,label,split", {"line1": "path,label,splits"}, ValueError, "has no column 'split', found"),
    ],
)  # fmt: skip
def test_a_wrong_table_is_refused_in_one_sentence_with_the_line(tmp_path, head, changes, error, message):
    with pytest.raises(error, match=message) as raised:
        csv_task(write_table(tmp_path, head, **changes))
    assert "\n" not in str(raised.value)


def test_splits_that_lack_items_are_refused(tmp_path):
    table = write_table(tmp_path, "path,label,split")
    table.write_text(table.read_text(encoding="utf-8-sig").replace("valid", "train"))
    with pytest.raises(ValueError, match=r"no item of the split dev; expected .* leave the column out"):
        csv_task(table)
    table.write_text("path,label,speaker\nlow #0.wav,low,one\nmid #0.wav,mid,one\n")
    with pytest.raises(ValueError, match=r"no item of the split dev; .*too few speakers"):
        csv_task(table)
    with pytest.raises(FileNotFoundError, match=r"nowhere.csv: no such file"):
        tasks.get(str(tmp_path / "nowhere.csv"))
    table.write_text("path,label\n")
    with pytest.raises(ValueError, match="has no line below its head"):
        csv_task(table)


def test_a_table_that_changed_is_not_the_heads(tmp_path):
    from robustdistiller.eval.tasks.csv_expert import DownstreamExpert

    table = write_table(tmp_path)
    settings = load_config(csv_task(table))["downstream_expert"]
    write_table(tmp_path, line3="low #1.wav,mid,spk1")
    with pytest.raises(ValueError, match="other recordings or labels than when this task was made"):
        DownstreamExpert(upstream_dim=4, downstream_expert=settings, expdir=str(tmp_path))


def test_a_recording_that_is_no_audio_is_found_before_training(tmp_path):
    from robustdistiller.eval.tasks.csv_expert import DownstreamExpert

    settings = load_config(csv_task(write_table(tmp_path)))["downstream_expert"]
    items, _ = read_items(tmp_path / "labels.csv")
    tested = next(item for item in items if item.split == "test")
    tested.path.write_text("version https://git-lfs.github.com/spec/v1")
    with pytest.raises(ValueError, match=f"{tested.path.name} cannot be read as audio"):
        DownstreamExpert(upstream_dim=4, downstream_expert=settings, expdir=str(tmp_path))


def test_a_task_of_a_table_can_be_registered_sent_and_found(tmp_path, monkeypatch):
    table = write_table(tmp_path)
    task = csv_task(table, "tones")
    monkeypatch.setattr(tasks.TASKS, "_tasks", dict(tasks.TASKS))
    assert tasks.register(task) is task and tasks.register(csv_task(table, "tones")).code == "tones"
    assert tasks.get("TONES").code == "tones"
    assert tasks.identify(task.downstream, load_config(task)).code == "tones"
    monkeypatch.undo()
    assert tasks.identify(task.downstream, load_config(task)).code == "labels", "known by its table alone"
    table.unlink()
    assert tasks.identify(task.downstream, load_config(task)) is None
    assert pickle.loads(pickle.dumps(task)) == task


@pytest.mark.usefixtures("bridge")
def test_the_example_scores_labels_of_ones_own_in_twenty_lines(tmp_path, toy_student, monkeypatch):
    example = Path(__file__).parents[3] / "examples" / "own_task.py"
    assert len(example.read_text().splitlines()) <= 20
    monkeypatch.setattr(tasks.TASKS, "_tasks", dict(tasks.TASKS))
    table = write_table(tmp_path / "data")
    settings = dict.fromkeys(("runner.total_steps", "runner.eval_step", "runner.save_step"), 4)
    settings["downstream_expert.datarc.num_workers"] = 0
    score = runpy.run_path(str(example))["score"]
    options = {"out": tmp_path / "exp", "overrides": {"labels": settings}}
    frame = score(str(toy_student), str(table), **options)
    assert frame.condition.tolist() == ["clean", "noise:snr_db=10", "noise:snr_db=0", "reverb"]
    assert set(frame.task) == {"labels"} and set(frame["items"]) == {3} and frame.value.between(0, 100).all()
    write_table(tmp_path / "data", per_label=15)  # the same file with more in it is the same task, made anew
    again = score(str(toy_student), str(table), **{**options, "out": tmp_path / "again"})
    assert set(again["items"]) == {6}
