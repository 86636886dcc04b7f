"""Parameters and MACs of encoders, and the measured parts of a step."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest
import torch
import typer
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode
from typer.testing import CliRunner

from robustdistiller.cli.distill import distill as distill_command
from robustdistiller.pretrain import distill, run
from robustdistiller.pretrain.cost import encoder_cost, encoder_macs
from robustdistiller.pretrain.module import Distiller
from robustdistiller.pretrain.step_time import CostReport, StepClock
from robustdistiller.upstream import EncoderConfig, SpeechEncoder

from .conftest import TEACHER, assert_equal_states, last_checkpoint, run_overrides

SMALL = TEACHER.replace(conv_layers=((12, 10, 5), (16, 3, 2), (20, 2, 2)), num_layers=2)
PARTS = ["data wait", "teacher", "corruption", "student", "objectives", "backward", "optimizer"]


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"prediction_layers": (1, 2), "prediction_dim": 40, "prediction_inner_dim": 12},
        {"num_heads": (3, 0), "head_dim": 6, "ffn_dim": (0, 17)},
        {"num_layers": 3, "attention_reuse": (1, 2)},
        {"relative_position": True, "gated_relative_position": True, "norm_first": True, "conv_norm": "layer"},
        {"num_heads": (2, 1), "head_dim": 6, "relative_position": True, "gated_relative_position": True,
         "position_bias_heads": ((0, 3), (2,))},
        {"position_depth": 3, "position_kernel": 19, "projection": True, "conv_bias": True},
    ],
)  # fmt: skip
def test_macs_are_those_that_pytorch_counts(changes: dict) -> None:
    encoder = SpeechEncoder(SMALL.replace(**changes)).eval()
    with torch.no_grad(), sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        encoder(torch.randn(1, 8_000))
    counted = counter.get_total_flops() / 2
    assert sum(encoder_macs(encoder.config, 0.5, heads=True).values()) == pytest.approx(counted, rel=0.01)
    without = {**SMALL.replace(**changes).to_dict(), "num_layers": 1}  # the comparison notices a layer
    if not changes:
        assert sum(encoder_macs(EncoderConfig.from_dict(without), 0.5).values()) != pytest.approx(counted, rel=0.01)


def test_macs_up_to_a_layer_and_at_other_lengths() -> None:
    encoder = SpeechEncoder(SMALL).eval()
    with torch.no_grad(), sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        encoder(torch.randn(1, 8_000), max_layer=1, predict=False)
    macs = encoder_macs(SMALL, 0.5, max_layer=1)
    assert sum(macs.values()) == pytest.approx(counter.get_total_flops() / 2, rel=0.01)
    twice = encoder_macs(SMALL, 1.0, max_layer=1)
    assert twice["attention_products"] / macs["attention_products"] == pytest.approx(4, rel=0.02)
    assert twice["feed_forward"] / macs["feed_forward"] == pytest.approx(2, rel=0.02)
    with pytest.raises(ValueError, match="10 samples are too few"):
        encoder_macs(SMALL, 10 / 16_000)


def test_used_parameters_leave_out_the_heads() -> None:
    encoder = SpeechEncoder(SMALL.replace(prediction_layers=(1, 2)))
    cost = encoder_cost(encoder)
    assert cost.parameters_stored == sum(weight.numel() for weight in encoder.parameters())
    assert cost.parameters_stored - cost.parameters_used == sum(weight.numel() for weight in encoder.heads.parameters())
    assert cost.macs["heads"] == 0 and cost.macs_per_s == sum(cost.macs.values()) / 10


def test_parts_of_a_step_are_measured_and_written(make_config, tmp_path: Path, caplog, monkeypatch) -> None:
    teach = Distiller.teach

    def slow(self, batch):
        time.sleep(0.1)
        return teach(self, batch)

    monkeypatch.setattr(Distiller, "teach", slow)
    with caplog.at_level("INFO"):
        distill(make_config(tmp_path, "trainer.max_steps=5", "trainer.accumulate=2"))
    report = json.loads((tmp_path / "cost.json").read_text())
    assert report["measured_steps"] == 2 and list(report["step_s"]) == PARTS
    assert 0.2 < report["step_s"]["teacher"] < 2 and all(value > 0 for value in report["step_s"].values())
    assert report["encoders"]["student"]["parameters_used"] == 14_896
    assert 1 < report["audio_s_per_step"] < 15
    lines = [record.getMessage() for record in caplog.records if "step_time" in record.name]
    assert sum(line.startswith("encoder ") for line in lines) == 1
    assert [line.split("  ")[0] for line in lines if line.split("  ")[0] in PARTS] == ["teacher", "student", *PARTS]


def test_measuring_changes_no_result(make_config, straight: Path, tmp_path: Path, monkeypatch) -> None:
    assert json.loads((straight / "cost.json").read_text())["measured_steps"] == 3
    monkeypatch.setattr(run, "CostReport", lambda *args: CostReport(*args, warm_up_steps=10**9))
    distill(make_config(tmp_path))
    assert "step_s" not in json.loads((tmp_path / "cost.json").read_text())
    one, other = last_checkpoint(tmp_path), last_checkpoint(straight)
    for part in ("state_dict", "optimizer_states"):
        assert_equal_states(one[part], other[part], part)


def test_a_clock_waits_for_the_device_only_while_it_runs(monkeypatch) -> None:
    waits = []
    monkeypatch.setattr(torch.accelerator, "synchronize", waits.append)
    clock = StepClock()
    clock.lap("teacher")
    clock.skip()
    assert not waits and not clock.seconds
    clock.start(torch.device("cuda", 0))
    clock.lap("teacher")
    assert len(waits) == 2
    clock.stop()
    clock.lap("teacher")
    assert len(waits) == 2


def test_command_prints_the_cost_without_training(corpus, teacher_path, tmp_path: Path) -> None:
    app = typer.Typer()
    app.command()(distill_command)
    arguments = ["robustdistiller", *run_overrides(corpus, teacher_path, tmp_path / "run"), "--cost"]
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 0, result.output
    lines = [line.split() for line in result.stdout.splitlines()]
    assert [line[0] for line in lines[:3]] == ["encoder", "teacher", "student"] and lines[2][-1] == "52%"
    assert not (tmp_path / "run").exists()
