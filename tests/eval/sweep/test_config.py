"""A sweep's file is read strictly: what makes no sense is refused in one sentence."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from robustdistiller.eval.sweep import SweepError, expand, load
from robustdistiller.eval.sweep.cells import learning_rates
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
        ({"policy": "sometimes"}, "policy must be one of reuse, rerun, show"),
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
        ({"upstreams": [{"name": "fbank"}, {"name": "fbank", "label": "b"}]}, "are the same upstream"),
        (
            {"upstreams": [{"name": "robustdistiller_local", "checkpoint": "no.ckpt"}]},
            "no.ckpt: expected a file",
        ),
        ({"upstreams": [{"name": "a", "checkpoint": "lr=1/s.ckpt"}]}, "takes no paths with '='"),
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
    ],
)
def test_overrides_are_checked(tmp_path, override, message):
    task = {"task": "IC", "data": {"file_path": str(tmp_path)}, "override": override}
    with pytest.raises(SweepError, match=message):
        expand(load(file(tmp_path, tasks=[task])))


def test_settings_that_s3prl_reads_beyond_the_shipped_ones_are_let_through(tmp_path):
    override = {"scheduler": {"name": "cosine"}, "config.runner.evaluate_ratio": 0.5, "optimizer.weight_decay": 0.1}
    task = {"task": "IC", "data": {"file_path": str(tmp_path)}, "override": override}
    (group,) = expand(load(file(tmp_path, tasks=[task])))
    assert group.config["scheduler"] == {"name": "cosine"} and group.config["runner"]["evaluate_ratio"] == 0.5
    assert group.heads[0].config["optimizer"] == {**group.config["optimizer"], "lr": 0.1, "weight_decay": 0.1}


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
