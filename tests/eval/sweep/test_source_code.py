"""An upstream is known by its weights and its source code: what a change of either makes a sweep do again."""

from __future__ import annotations

import dataclasses
from types import SimpleNamespace

import pytest
import torch

from robustdistiller.eval.results.files import record_files
from robustdistiller.eval.run.specs import Upstream
from robustdistiller.eval.sweep import Sweep, SweepConfig
from robustdistiller.eval.sweep.engine import InProcess, Job
from robustdistiller.eval.sweep.work import Train

from .conftest import change, trainings, why


def test_an_upstream_whose_source_code_changed_is_another_system(config, one, go, engine, tmp_path):
    source = tmp_path / "expert.py"
    source.write_text("features = 1")
    engine.code = [str(source)]
    go(one)
    assert go(one).result.failures == [] and engine.done == []
    source.write_text("features = 2")
    assert set(why(one)) == {"runs: it has no record"}
    assert go(one).result.failures == []
    assert engine.done[0] == "fbank: looking at the upstream" and len(trainings(engine)) == 3
    assert go(one).result.failures == [] and engine.done == [] and len(record_files(one.out)) == 4
    source.write_text("features = 1")
    assert [line[:6] for line in why(one)] == ["reused"] * 2, "what was found of that code is still there"


def test_source_code_that_nobody_looked_at_is_not_missed(one, go, engine):
    go(change(one, check_upstreams=False))
    assert not any("looking" in title for title in engine.done)
    go(one)
    assert engine.done == []


@pytest.mark.parametrize(
    ("work", "again", "fresh"),
    [
        (Train(None, fresh=True), Train(None, fresh=True), [True, True]),
        (Train(None), Train(None), [False, False]),
        (Train(None, code="a"), Train(None, code="a"), [False, False]),
        (Train(None, code="a"), Train(None, code="b"), [False, True]),
        (Train(None), Train(None, code="b"), [False, False]),
    ],
)
def test_a_training_begins_anew_where_it_is_asked_to_or_the_code_changed(tmp_path, monkeypatch, work, again, fresh):
    found = []

    def train(_, resume):
        found.append(not resume)
        assert resume or not (tmp_path / "head" / "dev-best.ckpt").exists(), "gone before anything else can fail"
        raise ValueError("enough")

    monkeypatch.setattr("robustdistiller.eval.run.train.train_head", train)
    for one in (work, again):
        one = dataclasses.replace(one, head=SimpleNamespace(folder=tmp_path / "head"))
        (tmp_path / "head").mkdir(exist_ok=True)
        (tmp_path / "head" / "dev-best.ckpt").touch()
        job = Job("train", tmp_path / "job", one)
        InProcess().start([job])
        with pytest.raises(ValueError, match="enough"):
            one(job.folder)  # put back into the queue: it goes on
    assert found == [fresh[0], False, fresh[1], False]


def test_an_upstream_in_memory_is_known_by_its_weights_and_code(one, go, engine):
    def with_module(weight: float) -> SweepConfig:
        module = torch.nn.Linear(1, 1)
        torch.nn.init.constant_(module.weight, weight)
        torch.nn.init.zeros_(module.bias)
        return change(one, upstreams=[Upstream("Linear", module=module)])

    first, same, other = (Sweep(with_module(weight), engine).plans for weight in (1.0, 1.0, 2.0))
    places = [next(iter(plans)).place for plans in (first, same, other)]
    assert places[0] == places[1] != places[2]
