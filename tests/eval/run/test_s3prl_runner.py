"""s3prl's runner with our notes beside it."""

from __future__ import annotations

from argparse import Namespace
from types import SimpleNamespace

import pytest
from torch import nn

from robustdistiller.eval import tasks
from robustdistiller.eval.run.head_note import HeadNote
from robustdistiller.eval.run.s3prl_runner import HeadRunner
from robustdistiller.eval.run.specs import HeadSpec, Upstream

pytestmark = pytest.mark.usefixtures("bridge")


def test_development_evaluation_during_training_is_s3prls_and_its_scores_are_noted(tmp_path):
    calls, written = [], []

    class Writer:
        def add_scalar(self, *arguments, **options):
            written.append((arguments, options))

    class Stock:
        def __init__(self, args, config):
            self.args, self.config, self.init_ckpt = args, config, {}
            self.upstream = self.downstream = SimpleNamespace(model=SimpleNamespace(get_dataloader=None))
            self.featurizer = SimpleNamespace(model=nn.Identity())

        def evaluate(self, split, writer, global_step):
            calls.append((split, global_step))
            writer.add_scalar("fluent_commands/dev-acc", 0.25, global_step=global_step)
            return ["dev-best.ckpt"]

    class Runner(HeadRunner, Stock):
        pass

    args = Namespace(expdir=str(tmp_path), mode="train", device="cpu", upstream="fbank")
    spec = HeadSpec(Upstream("fbank"), None, {}, tmp_path)
    runner = Runner(args, {}, spec, note=HeadNote())
    assert runner.evaluate("dev", Writer(), 2) == ["dev-best.ckpt"]
    assert calls == [("dev", 2)]
    assert written == [(("fluent_commands/dev-acc", 0.25), {"global_step": 2})]
    assert HeadNote.read(tmp_path).dev_score(tasks.get("IC")) == 25.0
