"""Training in fp16 with its scaled loss, on a CPU: norms, resuming, and gradients that are never finite."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from lightning_fabric import Fabric
from lightning_fabric.plugins import MixedPrecision

from robustdistiller.pretrain import NonFiniteLossError, distill
from robustdistiller.pretrain.training import launch, preparation
from robustdistiller.pretrain.training.log import read_history

from ..conftest import assert_equal_states, last_checkpoint

FP16 = ("trainer.precision=fp16", "trainer.accelerator=auto")


@pytest.fixture(autouse=True)
def scaled_on_a_cpu(monkeypatch) -> None:
    """What a GPU does, by the same parts of PyTorch."""

    def fabric(callbacks: list, **options: object) -> Fabric:
        plugin = MixedPrecision("16-mixed", "cpu", torch.amp.GradScaler("cpu"))
        return Fabric(accelerator="cpu", plugins=[plugin], callbacks=callbacks)

    monkeypatch.setattr(launch, "Fabric", fabric)
    cuda = SimpleNamespace(is_available=lambda: True)
    monkeypatch.setattr(preparation, "torch", SimpleNamespace(cuda=cuda))


class Spoil:
    """Makes a gradient infinite before it is unscaled, in some steps."""

    def __init__(self, *steps: int):
        self.steps, self.step, self.weights = steps, 0, []

    def on_train_start(self, distiller) -> None:
        weight = distiller.student.projection.weight
        weight.register_hook(lambda gradient: gradient * (torch.inf if self.step in self.steps else 1.0))

    def on_batch_start(self, distiller, batch, step) -> None:
        self.step = step

    def on_step_end(self, distiller, report) -> None:
        self.weights.append(distiller.student.projection.weight.detach().clone())


def test_norms_are_those_of_the_loss_itself_and_runs_go_on_exactly(make_config, straight: Path, tmp_path: Path) -> None:
    six, three = Spoil(2), Spoil(2)
    distill(make_config(tmp_path / "six", *FP16, "trainer.log_every_steps=1", "optim.clip_norm=0.1"), callbacks=[six])
    distill(make_config(tmp_path / "three", *FP16, "trainer.max_steps=3", "optim.clip_norm=0.1"), callbacks=[three])
    distill(make_config(tmp_path / "three", *FP16, "optim.clip_norm=0.1"), callbacks=[Spoil()])
    one, other = (last_checkpoint(tmp_path / name) for name in ("three", "six"))
    for part in ("model", "optimizer", "scaler", "progress"):
        assert_equal_states(one[part], other[part], part)
    assert one["scaler"]["scale"] == 2**15  # halved once, by the step that was left out
    assert torch.equal(six.weights[1], six.weights[0]) and not torch.equal(six.weights[2], six.weights[1])
    norms = [read_history(path / "history.csv")[0]["grad_norm"] for path in (tmp_path / "six", straight)]
    assert norms[0] == pytest.approx(norms[1], abs=0.1)


def test_a_gradient_that_is_never_finite_ends_the_run(make_config, tmp_path: Path) -> None:
    steps = ["trainer.max_steps=60", "optim.schedule_steps=60", "trainer.save_every_steps=20", "trainer.batch_size=1"]
    with pytest.raises(NonFiniteLossError, match=r"not been finite in fp16 for many steps before step 60"):
        distill(make_config(tmp_path, *FP16, *steps), callbacks=[Spoil(*range(21, 61))])
    assert last_checkpoint(tmp_path)["progress"]["step"] == 40
