"""Distillation on a device other than the CPU: the same losses, and no step waits for the device."""

from __future__ import annotations

from pathlib import Path

import pytest

from robustdistiller.pretrain import distill, load_config
from robustdistiller.pretrain.training.log import read_history
from robustdistiller.upstream import load_encoder
from tests.pretended_device import call_with_device

from ..test_recipes import _overrides

#: Enhancement (an LSTM); pruning, groups, correlation.
RECIPES = ["robustdistiller", "ours"]


#: Two devices draw dropout differently.
SHORT = ["data.max_samples=4000", "trainer.batch_size=3", "trainer.ema_decay=0.9"]
SHORT += [f"student.{name}=0" for name in ("dropout", "attention_dropout", "activation_dropout", "feature_dropout")]


def test_the_losses_are_those_of_a_cpu_and_no_step_waits(corpus, teacher_path, tmp_path: Path):
    def overrides(recipe: str, place: str) -> list[str]:
        more = ["objectives.enhancement.dropout=0"] if recipe == "robustdistiller" else []
        return [*_overrides(recipe, teacher_path, corpus, tmp_path / place / recipe, 2), *SHORT, *more]

    waits = call_with_device(
        "tests.pretrain.training.on_a_device:distilled_there", {name: overrides(name, "there") for name in RECIPES}
    )
    assert waits == {name: [] for name in RECIPES}
    for name in RECIPES:
        distill(load_config(name, overrides(name, "here")))
        here, there = (read_history(tmp_path / place / name / "history.csv") for place in ("here", "there"))
        assert len(here) == len(there) >= 2
        first = [pair for pair in zip(here, there) if pair[0]["stage"] == here[0]["stage"]]
        for one, other in first:  # which of equal gates close, and so what comes after them, is a matter of rounding
            assert other["loss"] == pytest.approx(one["loss"], rel=1e-4), name
        configs = [load_encoder(tmp_path / place / name / "student.ckpt").config for place in ("here", "there")]
        assert configs[0].num_layers == configs[1].num_layers
