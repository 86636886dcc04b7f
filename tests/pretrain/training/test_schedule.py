"""The learning rate over a run."""

from __future__ import annotations

import pytest

from robustdistiller.pretrain.training.optim import learning_rate_factor


def test_schedule_equals_s3prl() -> None:
    from s3prl.optimizers import WarmupLinearSchedule

    schedule = WarmupLinearSchedule(warmup=0.07, t_total=200)
    for step in range(1, 201):
        assert learning_rate_factor(step, 200, 0.07) == pytest.approx(schedule.get_lr(step), abs=1e-12)
    assert learning_rate_factor(150, 200, 0.07, decay=False) == 1.0
