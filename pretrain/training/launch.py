"""Processes and devices of a run, compiled layers, and whether launchers and compilers here fit the settings."""

from __future__ import annotations

import contextlib
import logging
import os
import warnings
from collections.abc import Iterator, Sequence
from importlib.metadata import PackageNotFoundError, version
from platform import python_version

import torch
from lightning_fabric import Fabric
from lightning_fabric.plugins.environments import SLURMEnvironment, TorchElasticEnvironment
from lightning_fabric.utilities.exceptions import MisconfigurationException
from torch import nn

from robustdistiller.common.settings import SettingsError
from robustdistiller.pretrain.config.schema import TrainerConfig
from robustdistiller.upstream import SpeechEncoder
from robustdistiller.upstream.fast.host_memory import keep_freed_memory

_PRECISIONS = {"fp32": "32-true", "fp16": "16-mixed", "bf16": "bf16-mixed"}

# One compiled version per shape of layer, training or not, with or without padding: pruned models have many.
_RECOMPILE_LIMIT = 128


def launch(settings: TrainerConfig, callbacks: Sequence[object] = ()) -> Fabric:
    """The processes and devices of a run, started unless a launcher has done it.

    Of Lightning, Fabric is used: devices, processes, mixed precision. The loop is `loop.Training.steps`, so that it can
    be read, and no state, signal handler or checkpoint but ours is in play.

    Args:
        settings: `precision` must be resolved.
        callbacks: objects with some of the methods `on_train_start(distiller)`, `on_batch_start(distiller, batch,
            step)`, `on_after_backward(distiller, step)`, `on_before_optimizer_step(distiller, step)`,
            `on_step_end(distiller, report)` and `on_train_end(distiller)`.

    Raises:
        SettingsError: there are no such devices, or a launcher started another number of processes.
    """
    check_launcher(settings.devices, settings.num_nodes)
    with quiet_lightning():
        try:
            fabric = Fabric(
                accelerator=settings.accelerator,
                devices=settings.devices,
                num_nodes=settings.num_nodes,
                strategy=settings.strategy,
                precision=_PRECISIONS[settings.precision],
                callbacks=list(callbacks),
            )
        except (MisconfigurationException, RuntimeError, ValueError) as error:
            there = f"trainer.accelerator={settings.accelerator}, trainer.devices={settings.devices}"
            raise SettingsError(f"{there}: {' '.join(str(error).split())}") from error
        fabric.launch()
    if fabric.device.type == "cpu":
        keep_freed_memory()
    return fabric


@contextlib.contextmanager
def deterministic(enabled: bool) -> Iterator[None]:
    """Refuse GPU kernels that are not reproducible, if enabled, within the block."""
    before = torch.are_deterministic_algorithms_enabled()
    if enabled:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.use_deterministic_algorithms(enabled or before)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before)


def versions() -> dict[str, str]:
    """Versions of what computes a run."""
    found = {"python": python_version()}
    for package in ("robustdistiller", "torch", "lhotse", "lightning-fabric"):
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = "not installed"
    return found


@contextlib.contextmanager
def quiet_lightning() -> Iterator[None]:
    """Keep Lightning's start-up talk off the console; its errors pass."""
    noisy = logging.getLogger("lightning_fabric")
    level = noisy.level
    noisy.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", module="lightning_fabric")
            yield
    finally:
        noisy.setLevel(level)


def compile_layers(encoder: SpeechEncoder, backend: str = "inductor") -> None:
    """Compile transformer layers, prediction heads and convolutions in place, each by itself, for any length.

    What depends on the lengths of the utterances as numbers (group norm over the valid frames) is left alone, so that
    batches of new lengths compile nothing new. Compiled dropout draws other random numbers.
    """
    torch._dynamo.config.recompile_limit = max(torch._dynamo.config.recompile_limit, _RECOMPILE_LIMIT)
    parts: list[nn.Module] = list(encoder.transformer.layers)
    parts += [layer for layer in encoder.extractor.layers if not isinstance(layer.norm, nn.GroupNorm)]
    if encoder.heads is not None:
        parts.append(encoder.heads)
    for part in parts:
        part.compile(dynamic=True, backend=backend)


def check_compiler(device: str) -> None:
    """Compile something small for a type of device, to know before the first step.

    Raises:
        SettingsError: it fails; the message says what is missing.
    """
    try:
        torch.compile(lambda x: torch.nn.functional.gelu(x) * 2)(torch.ones(8, device=device))
    except Exception as error:
        reason = str(error).strip().splitlines()
        needed = "a C++ compiler (g++ or clang++)" if device == "cpu" else "Triton and a C compiler"
        raise SettingsError(
            f"trainer.compile: compiling for {device} does not work here and needs {needed}; set "
            f"trainer.compile=false. The compiler said: {reason[0] if reason else type(error).__name__}"
        ) from error
    finally:
        torch._dynamo.reset()


def check_launcher(devices: int, num_nodes: int) -> None:
    """Make sure that as many processes were started as will train together.

    Under torchrun or srun each process would otherwise train a student of its own, all in the same folder.

    Raises:
        SettingsError: the launcher started another number.
    """
    if TorchElasticEnvironment.detect():
        launcher, started = "torchrun", int(os.environ["WORLD_SIZE"])
    elif _under_slurm():
        launcher, started = "SLURM", int(os.environ.get("SLURM_NTASKS", 1))
    else:
        return
    if started != devices * num_nodes:
        raise SettingsError(
            f"{launcher} started {started} process{'es' * (started != 1)}, but trainer.devices={devices} on "
            f"trainer.num_nodes={num_nodes} need {devices * num_nodes}: one process per device; change the one or the "
            "other (torchrun --nproc_per_node, srun --ntasks-per-node, trainer.devices, trainer.num_nodes)"
        )


def _under_slurm() -> bool:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it recommends srun wherever that is installed
        return SLURMEnvironment.detect()
