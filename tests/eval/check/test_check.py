"""`robustdistiller check`: right upstreams pass, wrong ones are told apart, whatever they are built on."""

from __future__ import annotations

import json

import pytest
import torch
from typer.testing import CliRunner

from robustdistiller.cli.main import app
from robustdistiller.eval.check import one_task
from robustdistiller.eval.check.one_task import Run, differences
from robustdistiller.eval.check.run import check_on_tasks
from robustdistiller.upstream import EncoderConfig, SpeechEncoder, save_checkpoint
from robustdistiller.upstream.checkpoints.export import export_checkpoint

SHAPE = {"embed_dim": 16, "num_layers": 2, "num_heads": 2, "ffn_dim": 32, "position_kernel": 8, "position_groups": 4}
SHAPE |= {"conv_layers": ((16, 10, 5), *((16, 3, 2),) * 4, *((16, 2, 2),) * 2)}


@pytest.fixture(scope="module")
def hubert(tmp_path_factory):
    """A small HuBERT of random weights for s3prl's own `hubert_local`, which takes its layers by hooks."""
    folder = tmp_path_factory.mktemp("hubert")
    torch.manual_seed(0)
    config = EncoderConfig(**SHAPE, reference_mask="block", feature_norm=True)
    save_checkpoint(folder / "own.ckpt", SpeechEncoder(config), {})
    exported = export_checkpoint(folder / "own.ckpt", folder / "hubert.pt", "s3prl")
    assert "hubert_local" in exported.model
    return folder / "hubert.pt"


def test_an_upstream_of_hooks_with_and_without_cache(hubert, tmp_path):
    seen = []
    found = check_on_tasks(
        "hubert_local", str(hubert), folder=tmp_path, codes=["KS", "PR"], steps=4, on_result=seen.append
    )
    assert found.ok, found
    assert [(one.task, one.status) for one in found.tasks] == [("KS", "ok"), ("PR", "ok")] and len(seen) == 2
    keyword_spotting, phonemes = found.tasks
    assert set(keyword_spotting.scores) == {"s3prl", "here", "cached"}
    assert keyword_spotting.scores["s3prl"] == keyword_spotting.scores["here"]
    assert keyword_spotting.cache == "means float32" and phonemes.cache == "frames float32"
    assert json.loads(json.dumps(found.to_dict()))["ok"] is True


def test_a_student_of_ours_has_heads_that_begin_as_s3prls(toy_student, tmp_path):
    """It is run on faster kernels, whose making must not draw from the generator that the head's weights come from."""
    codes = ["KS", "PR"]
    found = check_on_tasks("robustdistiller_local", str(toy_student), folder=tmp_path, codes=codes, steps=4)
    assert found.ok, found


def test_a_broken_contract_ends_it_before_any_task(tmp_path):
    result = CliRunner().invoke(app, ["check", "hubert_local", "-k", str(tmp_path / "absent.pt"), "--json"])
    assert result.exit_code == 1
    found = json.loads(result.stdout)
    assert found["ok"] is False and found["tasks"] == [] and "absent.pt" in found["contract"][0]["found"]


def test_unknown_tasks_and_devices_are_refused():
    for arguments, message in (
        (["--task", "KSS"], "did you mean"),
        (["--task", "ST"], "no toy corpus of ST; there are KS"),
        (["--device", "cudda"], "device 'cudda' cannot be used"),
    ):
        result = CliRunner().invoke(app, ["check", "fbank", *arguments])
        assert result.exit_code == 2 and message in result.output and "Traceback" not in result.output


def test_the_heads_and_records_of_an_earlier_check_are_not_taken_for_this_ones(tmp_path):
    (tmp_path / "KS" / "plain" / "records").mkdir(parents=True)
    result = CliRunner().invoke(app, ["check", "fbank", "--task", "ks", "--out", str(tmp_path)])
    assert result.exit_code == 2 and "holds an earlier check of KS" in result.stderr and "new folder" in result.stderr


@pytest.mark.parametrize("spoilt", ["here", "cached"])
def test_another_number_is_told(spoilt, tmp_path, monkeypatch):
    """A runner that scores otherwise than stock s3prl, or only with a cache."""
    here = one_task.Trial.here

    def wrong(trial, name, cache=None):
        run, corrupted = here(trial, name, cache)
        if (cache is not None) == (spoilt == "cached"):
            run = Run({"accuracy": run.scores["accuracy"] + 25}, run.head, run.output, run.cache)
        return run, corrupted

    monkeypatch.setattr(one_task.Trial, "here", wrong)
    found = one_task.examine("KS", {"-u": "fbank"}, 2, "cpu", str(tmp_path))
    assert found["status"] == "differs" and "accuracy" in found["why"]
    assert ("s3prl and this package differ" in found["why"]) == (spoilt == "here")


def test_heads_are_compared_by_their_weights(tmp_path):
    for name, weight in (("a", 1.0), ("b", 1.0 + 1e-4), ("c", 2.0)):
        torch.save(
            {"Downstream": {"w": torch.full((3,), weight)}, "Step": 2, "Args": None, "Config": {}},
            tmp_path / f"{name}.ckpt",
        )
    runs = {name: Run({}, tmp_path / f"{name}.ckpt") for name in "abc"}
    assert differences(runs["a"], runs["a"], 1e-6) == []
    assert differences(runs["a"], runs["b"], 1e-2) == []
    assert differences(runs["a"], runs["b"], 1e-6) == ["the head's weights by 1.0e-04"]
    assert differences(runs["a"], runs["c"], 1e-2) == ["the head's weights by 1.0e+00"]


def test_a_process_that_dies_is_a_failed_task(tmp_path, monkeypatch):
    monkeypatch.setattr("robustdistiller.common.process.sys.executable", "/bin/false")
    found = check_on_tasks("fbank", folder=tmp_path, codes=["KS", "ks"], jobs=2)  # one task, in one folder
    assert [(one.status, "no message (exit status 1)" in one.why) for one in found.tasks] == [("failed", True)]


@pytest.mark.parametrize(("device", "visible", "inside"), [("cpu", "", "cpu"), ("cuda:1", "7", "cuda")])
def test_the_runs_of_a_task_see_no_other_device(device, visible, inside, tmp_path, monkeypatch):
    asked = []

    def answer(*arguments, environment, **_):
        asked.append((arguments[-2], environment["CUDA_VISIBLE_DEVICES"]))
        return {"status": "ok", "why": "", "scores": {}}

    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3,7")
    monkeypatch.setattr("robustdistiller.eval.check.run.call_apart", answer)
    monkeypatch.setattr("robustdistiller.eval.check.run.check_upstream", lambda *_: [])
    assert check_on_tasks("fbank", folder=tmp_path, codes=["IC"], device=device).tasks[0].status == "ok"
    assert asked == [(inside, visible)]
