"""Heads on a device other than the CPU, and what s3prl's experts make of devices."""

from __future__ import annotations

import importlib
from pathlib import Path

import torch

from robustdistiller.eval.check.one_task import examine
from robustdistiller.eval.run.train import train_head
from robustdistiller.upstream.s3prl import bridge
from tests.pretended_device import DEVICE, call_with_device, pretended


def examined_there(code: str, folder: str) -> list[str]:
    """By s3prl's own runner and by ours, with and without a cache: whether all three agree."""
    bridge.install(Path(folder) / "s3prl")  # torchaudio cannot be imported within
    with pretended():
        found = examine(code, {"-u": "robustdistiller_mini"}, 2, DEVICE, folder)
    return [found["status"], found["why"], found.get("cache", "")]


def test_a_head_on_another_device_is_s3prls(tmp_path: Path):
    assert call_with_device(f"{__name__}:examined_there", "IC", str(tmp_path)) == ["ok", "", "means float32"]


def test_separation_follows_the_head_though_it_was_imported_for_another_device(head_spec, tmp_path, monkeypatch):
    for name in ("expert", "loss"):
        module = importlib.import_module(f"s3prl.downstream.separation_stft.{name}")
        monkeypatch.setattr(
            module, "device", torch.device("meta")
        )  # as cuda:0 would be for a head on the CPU or cuda:1
    steps = {f"config.runner.{name}": 1 for name in ("total_steps", "eval_step", "save_step", "log_step")}
    assert train_head(head_spec("SS", tmp_path, steps, device="cpu")).step == 1
