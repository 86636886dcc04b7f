"""A sweep's file is read strictly: what makes no sense is refused in one sentence."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from robustdistiller.eval.sweep import Sweep, SweepError, TaskEntry, load
from robustdistiller.eval.sweep.cells import Head, expand, learning_rates
from robustdistiller.eval.sweep.engines import make_engine
from robustdistiller.eval.tasks import TASKS
from robustdistiller.upstream.pretrained import resolve as resolving


def file(folder: Path, **changes) -> Path:
    (folder / "corpus").mkdir(exist_ok=True)
    data = {"out": "out", "upstreams": ["fbank"], "tasks": [{"task": "IC", "data": {"file_path": str(folder)}}]}
    path = folder / "sweep.yaml"
    path.write_text(yaml.safe_dump({**data, **changes}))
    return path


def test_defaults_and_short_forms(tmp_path):
    config = load(file(tmp_path, learning_rates=["1e-3", 0.1], upstreams=["fbank", {"name": "mel", "label": "m"}]))
    assert [entry.label for entry in config.upstreams] == ["fbank", "m"]
    assert (config.conditions, config.seeds, config.policy) == (["clean"], [1337], "reuse")
    group = expand(config)[0]
    assert group.learning_rates == (0.1, 1e-3)
    assert group.config["runner"]["eval_dataloaders"] == ["dev"], "the test set takes no part in training"
    assert group.config["downstream_expert"]["datarc"]["file_path"] == str(tmp_path)


@pytest.mark.parametrize("code", TASKS)
def test_every_task_can_be_swept(code, tmp_path, monkeypatch):
    monkeypatch.setattr("robustdistiller.eval.sweep.entries.task_configs.check_roots", lambda *_: None)
    (plan, *_) = Sweep(load(file(tmp_path, tasks=[code]))).plans.values()
    assert len(plan.run) == 1 and len(plan.train) == len(plan.group.learning_rates)
    assert bool(plan.train) == TASKS[code].trainable


@pytest.mark.parametrize(
    ("code", "condition", "message"),
    [
        ("IC", "noise:snr_db=5,noise=white,side=test", "task IC: only speaker verification .* has a test side"),
        ("ST", "noise:snr_db=5,noise=white", "task ST: ST can be evaluated on clean audio only.*conditions of its own"),
    ],
)
def test_a_task_that_no_condition_fits_is_said_before_its_heads_are_trained(
    code, condition, message, tmp_path, monkeypatch
):
    monkeypatch.setattr("robustdistiller.eval.sweep.entries.task_configs.check_roots", lambda *_: None)
    tasks = ["ASV", {"task": code}] if code == "IC" else [code]
    with pytest.raises(SweepError, match=message):
        expand(load(file(tmp_path, tasks=tasks, conditions=["clean", condition])))
    tasks[-1] = {"task": code, "conditions": ["clean"]}
    assert expand(load(file(tmp_path, tasks=tasks, conditions=["clean", condition])))


def test_everything_may_lie_at_home(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    config = load(file(tmp_path, out="~/exp", feature_cache="auto"))
    assert config.root == tmp_path / "home" / "exp" and Path(config.feature_plan.folder) == config.root / "features"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"upstream": ["fbank"]}, "unknown key 'upstream'; did you mean 'upstreams'"),
        ({"executor": {"kind": "pool", "workes": 2}}, "unknown key 'executor.workes'; did you mean 'workers'"),
        ({"executor": {"kind": "slrum"}}, "executor.kind: found 'slrum', expected 'local', 'pool' or 'slurm'"),
        ({"executor": {"workers": "two"}}, "executor.workers: found 'two', expected a whole number"),
        ({"learning_rates": ["fast"]}, r"learning_rates\[0\]: found 'fast', expected a number"),
        ({"learning_rates": [-1.0]}, "learning_rates must be positive"),
        ({"seeds": []}, "seeds is empty"),
        ({"seeds": [1, -1]}, "seeds: found -1, expected a number from 0 to 4294967295"),
        ({"upstream_seeds": {"fbank": [2**32]}}, "seeds: found 4294967296, expected"),
        ({"policy": "sometimes"}, "policy must be one of reuse, rerun, show, found 'sometimes'"),
        ({"conditions": ["noise:snr=5"]}, "did you mean 'snr_db'"),
        ({"tasks": ["ICC"]}, "unknown task 'ICC'; did you mean 'IC'"),
        ({"tasks": ["IC"]}, r"needs data that is not there.*data: \{file_path: PATH\}"),
        (
            {"tasks": [{"task": "IC", "data": {"file_pat": "x"}}]},
            "unknown key 'data.file_pat'; did you mean 'file_path'",
        ),
        ({"tasks": [{"task": "IC", "folds": ["fold1"]}]}, "task IC: folds must be left out, each once, found fold1"),
        ({"tasks": [{"task": "ER", "folds": ["fold6"]}]}, "folds must be some of fold1, fold2, .*, found fold6"),
        (
            {"tasks": [{"task": "ER", "override": {"downstream_expert.datarc.test_fold": "fold2"}}]},
            r"override sets test_fold; give folds: \[FOLD\] instead",
        ),
        ({"upstreams": ["fbank", "fbank"]}, "two upstreams share the label 'fbank'"),
        ({"upstream_seeds": {"fbnk": [1]}}, "no upstream has the label 'fbnk'; did you mean 'fbank'"),
        ({"upstreams": [{"name": "fbank"}, {"name": "fbank", "label": "b"}]}, "are the same upstream"),
        (
            {"upstreams": [{"name": "robustdistiller_local", "checkpoint": "no.ckpt"}]},
            "no.ckpt: expected a file",
        ),
        ({"tasks": [{"task": "IC", "splits": ["tset"]}]}, "unknown split 'tset'; did you mean 'test'"),
        (
            {"tasks": [{"task": "ASR", "splits": ["test"]}]},
            "unknown split 'test'.* known: test-clean, test-other",
        ),
        ({"device": "gpu"}, "device must be auto, cpu, cuda or cuda:N, found 'gpu'"),
        (
            {"device": "cpu", "executor": {"kind": "pool", "devices": ["cuda:0", "cuda:1"]}},
            "device is cpu, but .* GPUs",
        ),
        ({"device": "cpu", "executor": {"kind": "slurm", "gpus": 1}}, "device is cpu, but .* GPUs"),
        (
            {"device": "cpu", "executor": {"kind": "slurm", "slurm": {"gres": "gpu:a100:1"}}},
            "device is cpu, but .* GPUs",
        ),
        ({"device": "cuda", "executor": {"kind": "pool", "devices": ["cpu"]}}, "device is cuda, but .* name cpu"),
        ({"device": "cuda", "executor": {"kind": "slurm"}}, r"given no GPU; add executor: \{gpus: 1\}"),
        ({"search": "twice"}, "search: found 'twice', expected 'once' or 'every'"),
        ({"upstreams": [{"checkpoint": "s.ckpt"}]}, r"upstreams\[0\].name is missing"),
    ],
)
def test_what_makes_no_sense_is_refused(tmp_path, changes, message):
    with pytest.raises(SweepError, match=f"(?s){message}"):
        expand(load(file(tmp_path, **changes)))


def test_nothing_is_downloaded_for_a_sweep_whose_data_are_missing(tmp_path, monkeypatch):
    asked = []

    def fetch(url, *_):
        asked.append(url)
        raise OSError("no route to host")

    monkeypatch.setattr(resolving, "fetch", fetch)
    student = {"upstreams": [{"name": "robustdistiller_local", "checkpoint": "robustdistiller_wavlm"}]}
    for changes in (
        {"tasks": [{"task": "IC", "data": {"file_path": "/no/corpus"}}]},
        {"learning_rates": [-1.0]},
    ):
        with pytest.raises(SweepError, match=r"/no/corpus|must be positive"):
            expand(load(file(tmp_path, **student, **changes)))
    assert asked == []
    with pytest.raises(SweepError, match=r"rd_wavlm\.ckpt, which could not be fetched"):
        expand(load(file(tmp_path, **student)))
    assert len(asked) == 1


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ({"runner.total_stps": 5}, "unknown key 'runner.total_stps'; did you mean 'total_steps'"),
        ({"runner.total_steps": 100}, "runner.eval_step is 4000 and runner.total_steps only 100"),
        ({"optimizer.lr": 0.1}, "give learning_rates"),
        ({"optimizer.lr.x": 0.1}, "unknown key 'optimizer.lr.x'"),
        ({"runner.evaluate_ratio": 0.5}, "gives numbers of a part of the test set; for a quick look set quick"),
    ],
)
def test_overrides_are_checked(tmp_path, override, message):
    task = {"task": "IC", "data": {"file_path": str(tmp_path)}, "override": override}
    with pytest.raises(SweepError, match=message):
        expand(load(file(tmp_path, tasks=[task])))


def test_development_sets_are_evaluated_too():
    assert TaskEntry("ASR", splits=["test-other", "dev-clean", "dev-other"]).splits[1:] == ["dev-clean", "dev-other"]


def test_settings_that_s3prl_reads_beyond_the_shipped_ones_are_let_through(tmp_path):
    override = {"scheduler": {"name": "cosine"}, "config.runner.fp16": True, "optimizer.weight_decay": 0.1}
    task = {"task": "IC", "data": {"file_path": str(tmp_path)}, "override": override}
    (group,) = expand(load(file(tmp_path, tasks=[task])))
    assert group.config["scheduler"] == {"name": "cosine"} and group.config["runner"]["fp16"] is True
    assert Head(group, 0.1).spec.config["optimizer"] == {**group.config["optimizer"], "lr": 0.1, "weight_decay": 0.1}


def test_a_task_without_a_development_set_takes_one_rate(tmp_path):
    config = load(file(tmp_path, tasks=[{"task": "ASV", "learning_rates": [0.1, 0.01]}]))
    head = {"runner": {"eval_dataloaders": []}, "optimizer": {"lr": 1e-4}}
    with pytest.raises(SweepError, match="scores no development set of it"):
        learning_rates(config, config.tasks[0], head)


def test_place_follows_weights_and_settings_but_not_labels_and_data_paths(tmp_path):
    def place(**changes):
        return expand(load(file(tmp_path, **changes)))[0].place

    weights = tmp_path / "student.ckpt"
    weights.write_bytes(b"one")
    student = {"name": "robustdistiller_local", "checkpoint": str(weights)}
    first = place(upstreams=[student])
    assert place(upstreams=[{**student, "label": "renamed"}], learning_rates=[1e-3]) == first
    others = {
        place(upstreams=[{**student, "feature_selection": "paper"}]),
        place(upstreams=[{**student, "layer": 1}]),
        place(upstreams=[student], seeds=[1]),
    }
    weights.write_bytes(b"two")
    others.add(place(upstreams=[student]))
    assert len(others | {first}) == 5


def test_an_upstream_may_have_seeds_of_its_own(tmp_path):
    groups = expand(load(file(tmp_path, upstreams=["fbank", "mel"], seeds=[1, 2], upstream_seeds={"mel": [3]})))
    assert [(group.system.upstream.label, group.seed) for group in groups] == [("fbank", 1), ("fbank", 2), ("mel", 3)]


def test_checkpoints_are_known_by_their_contents_folders_too(tmp_path):
    def place(folder: str, weights: bytes) -> str:
        model = tmp_path / folder
        model.mkdir(exist_ok=True)
        (model / "config.json").write_text("{}")
        (model / "model.safetensors").write_bytes(weights)
        return expand(load(file(tmp_path, upstreams=[{"name": "robustdistiller_local", "checkpoint": str(model)}])))[
            0
        ].place

    first = place("student-v1.2", b"one")
    assert place("student-v1.2", b"two") != first, "exported again with other weights"
    assert place("moved", b"one") == first


def test_names_stay_as_they_are_written(tmp_path):
    path = tmp_path / "names.yaml"
    (tmp_path / "corpus").mkdir()
    path.write_text(
        f"out: 4711_3\nupstreams: [{{name: fbank, label: 007}}, {{name: mel, label: 1.10}}]\n"
        f"tasks: [{{task: IC, name: 0x1f, data: {{file_path: {tmp_path}}}}}]\n"
    )
    config = load(path)
    assert (config.out, [entry.label for entry in config.upstreams]) == ("4711_3", ["007", "1.10"])
    assert config.tasks[0].name == "0x1f"


@pytest.mark.parametrize(
    ("settings", "gpus", "jobs", "devices"),
    [
        ({}, 2, "auto", None),
        ({"executor": {"kind": "pool"}}, 2, "auto", ["cuda:0", "cuda:1"]),
        ({"executor": {"kind": "pool"}}, 0, "auto", ["cpu"]),
        ({"device": "cpu", "executor": {"kind": "pool"}}, 2, "cpu", ["cpu"]),
        ({"executor": {"kind": "pool", "devices": ["cuda:0", "cuda:1"]}}, 2, "cuda", ["cuda:0", "cuda:1"]),
        ({"executor": {"kind": "slurm", "gpus": 1}}, 0, "cuda", None),
        ({"executor": {"kind": "slurm", "slurm": {"gres": "gpu:1"}}}, 0, "cuda", None),
        ({"executor": {"kind": "slurm"}}, 0, "auto", None),
    ],
)
def test_jobs_run_where_they_are_sent(tmp_path, monkeypatch, settings, gpus, jobs, devices):
    monkeypatch.setattr("torch.cuda.device_count", lambda: gpus)
    config = load(file(tmp_path, **settings))
    assert config.job_device == jobs
    if devices is not None:
        assert make_engine(config)._devices == devices


def test_a_gpu_that_is_asked_for_and_not_there_is_missed(tmp_path, monkeypatch):
    monkeypatch.setattr("torch.cuda.device_count", lambda: 0)
    with pytest.raises(SweepError, match="PyTorch finds no GPU here"):
        make_engine(load(file(tmp_path, device="cuda", executor={"kind": "pool"})))
