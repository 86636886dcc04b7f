"""What every kind of run shares: Lightning's trainer as we use it, and how a run is stopped."""

from __future__ import annotations

import contextlib
import logging
import warnings
from collections.abc import Iterator, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from platform import python_version

import lightning.pytorch as pl

from robustdistiller.pretrain.config.schema import TrainerConfig
from robustdistiller.pretrain.training.checkpoint import AtomicCheckpointIO
from robustdistiller.upstream.fast.host_memory import keep_freed_memory

_PRECISIONS = {"fp32": "32-true", "fp16": "16-mixed", "bf16": "bf16-mixed"}


class RunInterrupted(KeyboardInterrupt):
    """The run was asked to stop and has saved a checkpoint; the same call continues it.

    Attributes:
        exit_code: for a command: 0 when its own time limit stopped it, 130 for a signal.

    >>> RunInterrupted("stopped by SIGINT at step 7 of 10").exit_code
    130
    """

    def __init__(self, message: str, exit_code: int = 130):
        super().__init__(message)
        self.exit_code = exit_code


def make_trainer(settings: TrainerConfig, out_dir: Path, callbacks: Sequence[pl.Callback]) -> pl.Trainer:
    """Lightning's trainer, with our checkpoints, log and progress bar in place of its own.

    On a CPU the process keeps the memory of its tensors from then on.

    Args:
        settings: `precision` must be resolved.
        out_dir: folder of the run.
        callbacks: in the order in which they are called.
    """
    trainer = pl.Trainer(
        accelerator=settings.accelerator,
        devices=settings.devices,
        num_nodes=settings.num_nodes,
        strategy=settings.strategy,
        precision=_PRECISIONS[settings.precision],
        max_steps=settings.max_steps,
        max_epochs=-1,
        accumulate_grad_batches=settings.accumulate,
        deterministic=settings.deterministic,
        callbacks=list(callbacks),
        plugins=[AtomicCheckpointIO()],
        default_root_dir=out_dir,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        use_distributed_sampler=False,
    )
    if trainer.strategy.root_device.type == "cpu":
        keep_freed_memory()
    return trainer


def versions() -> dict[str, str]:
    """Versions of what computes a run.

    >>> "torch" in versions()
    True
    """
    found = {"python": python_version()}
    for package in ("robustdistiller", "torch", "torchaudio", "lhotse", "lightning"):
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = "not installed"
    return found


@contextlib.contextmanager
def quiet_lightning() -> Iterator[None]:
    """Keep Lightning's start-up talk off the console; its errors pass."""
    noisy = [logging.getLogger(name) for name in ("lightning.pytorch", "lightning.fabric")]
    levels = [one.level for one in noisy]
    for one in noisy:
        one.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", module="lightning")
            yield
    finally:
        for one, level in zip(noisy, levels):
            one.setLevel(level)
