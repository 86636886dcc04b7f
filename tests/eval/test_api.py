"""`robustdistiller.evaluate`: models by name, by path and in memory; records, a table, and files to go on from."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
import torch
from torch import nn

import robustdistiller
from robustdistiller.acoustics import Condition
from robustdistiller.common.errors import RunFailed
from robustdistiller.eval.api import Results
from robustdistiller.eval.results.files import read_record, write_record
from robustdistiller.eval.run.quick import Quick
from robustdistiller.eval.tasks import Metric, OfficialScore, csv_task
from tests.records import example_record

STEPS = {"runner.total_steps": 4, "runner.eval_step": 2, "runner.save_step": 2, "runner.log_step": 2}


class Frames(nn.Module):
    """A model that follows the contract: linear maps of 20 ms frames."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(320, 8), nn.Linear(8, 8)
        self.dropout = nn.Dropout(0.5)

    def get_downsample_rates(self, key: str) -> int:
        return 320

    def forward(self, wavs):
        frames = nn.utils.rnn.pad_sequence([wav[: len(wav) // 320 * 320].view(-1, 320) for wav in wavs], True)
        hidden = self.dropout(self.first(frames))
        return {"hidden_states": [hidden, self.second(hidden.relu())]}


@pytest.fixture(scope="module")
def data(toy_corpora, tmp_path_factory):
    """Data and settings of the toy corpora, as the function takes them."""
    found, settings = {}, {}
    for code in ("IC", "KS"):
        built = toy_corpora.build(code, tmp_path_factory.mktemp(code))
        short = {key.removeprefix("config."): value for key, value in built.items()}
        found[code] = {key.rsplit(".", 1)[-1]: value for key, value in short.items() if isinstance(value, str)}
        settings[code] = {**STEPS, **{key: value for key, value in short.items() if not isinstance(value, str)}}
    return {"data": found, "overrides": settings}


@pytest.fixture
def model(bridge) -> Frames:
    torch.manual_seed(0)
    return Frames()


def test_a_folder_of_data_may_begin_at_home(model, toy_corpora, tmp_path, monkeypatch, caplog):
    toy_corpora.build("KS", tmp_path / "home" / "speech")
    (tmp_path / "home" / "speech" / "test").rename(tmp_path / "home" / "speech" / "speech_commands_test_set_v0.01")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    data = {"KS": "~/speech"}
    assert robustdistiller.evaluate(model, ["KS"], data=data, out=tmp_path / "out", policy="show").records == []
    assert "KS: " in caplog.text and "expected" in caplog.text, "a corpus that is not whole is told"


def test_a_module_in_memory_is_scored_and_left_as_it_was(model, data, tmp_path):
    model.train()
    model.first.eval()
    torch.manual_seed(7)
    conditions = ["clean", "noise:snr_db=0,noise=white"]
    results = robustdistiller.evaluate(model, ["KS", "IC"], conditions, out=tmp_path, label="frames", **data)
    assert torch.equal(torch.rand(1), torch.rand(1, generator=torch.Generator().manual_seed(7)))
    assert model.training and model.dropout.training and not model.first.training
    assert [(one.task, one.condition, one.status) for one in results.records] == [
        (task, condition, "ok") for task in ("KS", "IC") for condition in conditions
    ]
    assert {(one.upstream, one.label, one.checkpoint_digest_of) for one in results.records} == {
        ("Frames", "frames", "tensors")
    }
    assert all(one.upstream_code for one in results.records)  # nobody knows the version of this class
    frame = results.frame
    assert list(frame["task"]) == [one.task for one in results.records] and set(frame["label"]) == {"frames"}
    assert sorted(frame["value"]) == sorted(one.main_metric.value for one in results.records)


def test_a_broken_record_beside_hides_no_number(tmp_path):
    path = write_record(tmp_path, example_record())
    path.with_name("test-seed1-00000000.json").write_text("{")
    assert Results([read_record(path)], tmp_path).frame.value.tolist() == [75.0]


def test_changed_weights_are_another_system_and_the_same_ones_are_not_scored_again(model, data, tmp_path):
    first = robustdistiller.evaluate(model, ["IC"], out=tmp_path, **data_of("IC", data))
    again = robustdistiller.evaluate(model, ["IC"], out=tmp_path, **data_of("IC", data))
    assert again.records == first.records  # dates and durations too
    with torch.no_grad():
        model.second.weight += 1
    changed = robustdistiller.evaluate(model, ["IC"], out=tmp_path, **data_of("IC", data))
    assert changed.records[0].checkpoint_digest != first.records[0].checkpoint_digest
    assert changed.records[0].head_digest != first.records[0].head_digest
    assert len(first.frame) == len(changed.frame) == 1 and len(list((tmp_path / "records").rglob("*-seed*.json"))) == 2


def test_recordings_of_ones_own_go_over_those_of_a_suite(model, data, tmp_path, toy_corpora):
    for number, name in enumerate(("hiss", "cafe", "street")):
        toy_corpora.write(tmp_path / name / "one.wav", pitch_hz=300 + number)
    suite = tmp_path / "mine.yaml"
    conditions = ["noise:snr_db=5,noise=hiss", "noise:snr_db=5"]
    suite.write_text(f"noise: {{hiss: {tmp_path / 'hiss'}}}\nconditions: {conditions}\n")

    def names(**options) -> list[str]:
        results = robustdistiller.evaluate(model, ["IC"], [str(suite)], out=tmp_path, **options, **data_of("IC", data))
        found = {one.condition: one.sources["noise"]["name"] for one in results.records}
        return [found[condition] for condition in conditions]

    assert names(sources={})[0] == "hiss: hiss"
    assert names(sources={"noise": [tmp_path / "cafe"]}) == ["hiss: hiss", "cafe"]
    assert names(sources={"noise": [f"hiss={tmp_path / 'street'}"]})[0] == "hiss: street"
    with pytest.raises(ValueError, match="unknown kind of source 'nois'"):
        names(sources={"nois": []})


def test_a_condition_that_is_parsed_keeps_the_folder_that_it_names(model, data, tmp_path, toy_corpora):
    toy_corpora.write(tmp_path / "cafe" / "one.wav", pitch_hz=300)
    text = f"noise:snr_db=5,noise={tmp_path / 'cafe'}"
    written, parsed = (
        robustdistiller.evaluate(model, ["IC"], [one], out=tmp_path / type(one).__name__, **data_of("IC", data))
        for one in (text, Condition.parse(text))
    )
    assert written.records[0].sources["noise"]["name"] == "cafe"
    assert parsed.records[0].sources == written.records[0].sources


def test_the_learning_rate_is_chosen_on_the_development_set(model, data, tmp_path):
    results = robustdistiller.evaluate(
        model, ["IC"], out=tmp_path, seeds=[1, 2], learning_rates=[1e-2, 1e-4], **data_of("IC", data)
    )
    assert [one.seed for one in results.records] == [1, 2]
    for record in results.records:
        tried = record.selection["tried"]
        assert [one["learning_rate"] for one in tried] == [1e-2, 1e-4]
        assert record.learning_rate == record.selection["learning_rate"]
        assert record.selection["dev_score"] == max(one["dev_score"] for one in tried)


def pitches(toy_corpora, folder, name, **changes):
    """A table of two labels whose recordings are all called alike, in folders of their own."""
    tab = "\t" if name.endswith(".tsv") else ","
    lines = [tab.join(("path", "label", "split"))]
    for split, count in (("train", 6), ("dev", 2), ("test", 4)):
        for index in range(count):
            path = f"audio/{split}{index}/room/near/a.wav"
            toy_corpora.write(folder / path, pitch_hz=(100, 900)[index % 2])
            lines.append(tab.join((path, "low" if index % 2 else "high", split)))
    return toy_corpora.text(folder / name, *lines)


def test_a_number_of_ones_own_stands_without_its_items(model, toy_corpora, tmp_path):
    def score(expert, split, recordings):
        return OfficialScore("mine", 42.0, "", None, ("a", "b"), ([1, 1], [1, 1]))

    task = csv_task(pitches(toy_corpora, tmp_path, "pitch.csv"))
    task = dataclasses.replace(task, code="OWN", metrics=(Metric("mine", None, True), *task.metrics), score=score)
    [record] = robustdistiller.evaluate(model, [task], out=tmp_path / "out", overrides={"OWN": STEPS}).records
    assert (record.status, record.main_metric.value, record.outcomes) == ("ok", 42.0, None)


def test_a_table_is_not_called_like_a_task_of_the_benchmark(model, toy_corpora, tmp_path):
    table = pitches(toy_corpora, tmp_path, "ks.csv")
    with pytest.raises(ValueError, match=r"would be called ks, as the task KS \(keyword spotting.*rename the file"):
        robustdistiller.evaluate(model, csv=table, out=tmp_path / "out")


def test_a_table_of_labels_is_a_task(model, toy_corpora, tmp_path):
    table = pitches(toy_corpora, tmp_path, "pitch.tsv")
    conditions = ["clean", "noise:snr_db=-30,noise=white"]
    out = tmp_path / "out"
    results = robustdistiller.evaluate(model, conditions=conditions, csv=table, out=out, overrides={"pitch": STEPS})
    assert [(one.task, one.condition, one.items_scored, one.status) for one in results.records] == [
        ("pitch", condition, 4, "ok") for condition in conditions
    ]
    assert all(one.outcomes for one in results.records), "names that end alike are told apart"
    again = robustdistiller.evaluate(model, conditions=conditions, csv=table, out=out, overrides={"pitch": STEPS})
    assert again.records == results.records
    other = table.read_text().replace("train0/room/near/a.wav\thigh", "train0/room/near/a.wav\tlow")
    table.write_text(other)  # other labels: another task
    relabelled = robustdistiller.evaluate(model, csv=table, out=out, overrides={"pitch": STEPS})
    assert relabelled.records[0].head_digest != results.records[0].head_digest


def test_of_a_table_the_features_of_a_checkpoint_are_computed_once(toy_student, toy_corpora, tmp_path):
    lines = ["path,label"]
    for number in range(20):
        toy_corpora.write(tmp_path / "audio" / f"{number}.wav", pitch_hz=(100, 900)[number % 2])
        lines.append(f"audio/{number}.wav,{'ab'[number % 2]}")
    table = toy_corpora.text(tmp_path / "two.csv", *lines)
    robustdistiller.evaluate(toy_student, csv=table, out=tmp_path / "out", overrides={"two": STEPS})
    assert any((tmp_path / "out/features").rglob("*.*")), "every epoch would compute them again"


def test_a_checkpoint_by_its_path_with_odd_signs_and_a_quick_look(toy_student, data, tmp_path):
    path = tmp_path / "lr=3, #4: a" / "student [1].ckpt"
    path.parent.mkdir()
    path.write_bytes(toy_student.read_bytes())
    look = Quick(share=0.5, steps=3)
    out = tmp_path / "out=1 #2: b"
    full, quick = (
        robustdistiller.evaluate(path, ["IC"], out=out, quick=quick, **data_of("IC", data)).records[0]
        for quick in (False, look)
    )
    assert (full.upstream, full.quick, full.items_scored, full.step) == ("robustdistiller_local", "", 3, 4)
    assert (quick.quick, quick.items_expected, quick.items_scored) == ("quick: 50 % of items, 3 steps", 2, 2)
    assert quick.step == 3 and quick.rules_digest != full.rules_digest
    assert any("quick" in phrase for phrase in quick.non_standard)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"tasks": ["ICC"]}, "unknown task 'ICC'"),
        ({"tasks": [], "data": None, "overrides": None}, "no task is given"),
        ({"tasks": [], "data": None, "overrides": None, "csv": "/no/such.csv"}, "/no/such.csv: no such file"),
        ({"conditions": ["noise:snr=5"]}, "did you mean 'snr_db'"),
        ({"conditions": "clean"}, "conditions: expected a list, found 'clean'"),
        ({"tasks": "IC"}, "tasks: expected a list, found 'IC'"),
        ({"sources": {"noise": "/data/cafe"}}, "sources of noise: expected a list, found '/data/cafe'"),
        ({"sources": {"rir": Path("/data/rooms")}}, "sources of rir: expected a list, found '/data/rooms'"),
        ({"data": {"KS": "/data"}}, "data or settings of 'KS', which is not among the tasks: IC"),
        ({"data": {"IC": "/no/such"}}, "given as '/no/such', which does not exist"),
        ({"model": "robustdistiller_minni"}, "did you mean 'robustdistiller_mini'"),
        ({"model": nn.Linear(2, 2)}, "'Linear' object has no attribute 'get_downsample_rates'"),
        ({"device": "cuda:77"}, "cuda:77"),
    ],
)
def test_what_cannot_be_is_said_in_one_sentence(changes, message, model, data, tmp_path):
    arguments = {"model": model, "tasks": ["IC"], "out": tmp_path, **data_of("IC", data), **changes}
    with pytest.raises((ValueError, FileNotFoundError, RunFailed), match=message.replace("(", r"\(")):
        robustdistiller.evaluate(**arguments)


def data_of(code: str, data: dict) -> dict:
    return {name: {code: values[code]} for name, values in data.items()}
