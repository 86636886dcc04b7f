"""Who does a sweep's jobs, as its configuration asks, and the lock on its folder."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path

from robustdistiller.common.locks import Busy, sole_user
from robustdistiller.eval.sweep.config import SweepConfig, SweepError
from robustdistiller.eval.sweep.engine import Engine, InProcess
from robustdistiller.eval.sweep.pool import Pool


def make_engine(
    config: SweepConfig, say: Callable[[str], None] = lambda line: None, planned_s: float | None = None
) -> Engine:
    """Who does the work, as a configuration asks; `say` and `planned_s` are for a cluster, see `Slurm`."""
    settings = config.executor
    if settings.kind == "local":
        return InProcess(say)
    if settings.kind == "slurm":
        from robustdistiller.eval.sweep.slurm import Slurm

        return Slurm(settings, config.root / "jobs" / "slurm", say, planned_s)
    places = settings.workers, settings.per_device, settings.memory_gb, settings.threads
    return Pool(_devices(config), *places, prepare="robustdistiller.eval.sweep.work:import_all")


def _devices(config: SweepConfig) -> list[str]:
    given = config.executor.devices or [config.device]
    if given not in (["auto"], ["cuda"]):
        return given
    import torch

    found = [f"cuda:{number}" for number in range(torch.cuda.device_count())]
    if not found and given == ["cuda"]:
        raise SweepError("device is cuda, but PyTorch finds no GPU here; leave it out, or give device: cpu")
    return found or ["cpu"]


@contextlib.contextmanager
def folder_lock(root: Path, say: Callable[[str], None] = lambda line: None) -> Iterator[None]:
    """Hold a sweep's folder within the block; where its file system has no locks, `say` is told so.

    Raises:
        SweepError: another process holds it, or nothing can be written to it.
    """
    with contextlib.ExitStack() as stack:
        try:
            stack.enter_context(sole_user(root, say))
        except Busy as error:
            raise SweepError(f"{root} is in use by another run; wait for it or stop it") from error
        except OSError as error:
            raise SweepError(f"nothing can be written to {root}: {error.strerror or error}") from error
        yield
