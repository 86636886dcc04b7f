"""Optimizer, schedule of the learning rate, and clipping."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import AdamW
from torch.optim.lr_scheduler import LambdaLR

from robustdistiller.pretrain.config.schema import OptimConfig


def make_optimizer(module: nn.Module, settings: OptimConfig, fused: bool = False) -> AdamW:
    """AdamW over everything of a module that is trained; gates and multipliers have groups of their own.

    Args:
        module: with a part `gates` (or `None`), which names its own groups.
        settings: rates and decay. Biases and norms are not decayed unless `decay_norms` says so.
        fused: one kernel for all weights, on CUDA.

    >>> linear = nn.Linear(2, 2)
    >>> [group["weight_decay"] for group in make_optimizer(linear, OptimConfig(weight_decay=0.01)).param_groups]
    [0.01, 0.0]
    """
    decayed, others = [], []
    for name, weight in _weights(module):
        (decayed if _is_decayed(name, weight, settings.decay_norms) else others).append(weight)
    groups = [{"params": decayed}, {"params": others, "weight_decay": 0.0}]
    gates = getattr(module, "gates", None)
    if gates is not None:
        groups += gates.optimizer_groups()
    return AdamW(groups, settings.lr, tuple(settings.betas), settings.eps, settings.weight_decay, fused=fused)


def make_schedule(optimizer: AdamW, settings: OptimConfig, steps_done: int = 0) -> LambdaLR:
    """The schedule, at the place where `steps_done` optimizer steps have been made.

    Args:
        optimizer: all of its groups follow, gates and multipliers too, each from its own rate.
        settings: `schedule_steps` must be set.
        steps_done: of this stage.
    """

    def factor(done: int) -> float:
        return learning_rate_factor(
            done + 1, settings.schedule_steps, settings.warmup_fraction, settings.schedule == "linear"
        )

    schedule = LambdaLR(optimizer, factor)
    schedule.last_epoch = steps_done
    for group, rate in zip(optimizer.param_groups, schedule.base_lrs):
        group["lr"] = rate * factor(steps_done)
    return schedule


def learning_rate_factor(step: int, total_steps: int, warmup_fraction: float, decay: bool = True) -> float:
    """Factor on the peak rate in optimizer step `step`, as in s3prl's `warmup_linear` schedule.

    Rises linearly from 0 to 1 over `warmup_fraction` of `total_steps`, then falls linearly to 0 at `total_steps`.

    Args:
        step: from 1.
        total_steps: length of the schedule.
        warmup_fraction: 0 to 1.
        decay: false stays at 1 after the warm-up.

    >>> [round(learning_rate_factor(step, 10, 0.2), 3) for step in (1, 2, 6, 10)]
    [0.5, 1.0, 0.5, 0.0]
    """
    progress = step / total_steps
    if progress < warmup_fraction:
        return progress / warmup_fraction
    return max((1 - progress) / (1 - warmup_fraction), 0.0) if decay and warmup_fraction < 1 else 1.0


def restore(optimizer: AdamW, state: Mapping[str, Any]) -> None:
    """Go on from an optimizer's `state_dict`, with the learning rates of now: the schedule may have become longer."""
    rates = [group["lr"] for group in optimizer.param_groups]
    optimizer.load_state_dict(state)
    for group, rate in zip(optimizer.param_groups, rates):
        group["lr"] = rate


def clip(module: nn.Module, settings: OptimConfig) -> Tensor:
    """Clip the norm of all gradients together, and return it as it was.

    Gates and multipliers count and are clipped with `settings.clip_gates`, as in DPHuBERT's released code; otherwise
    they are left as they are.
    """
    weights = [weight for _, weight in _weights(module)]
    if settings.clip_gates:
        weights = [weight for weight in module.parameters() if weight.requires_grad]
    return torch.nn.utils.clip_grad_norm_(weights, settings.clip_norm)


def _weights(module: nn.Module) -> Iterator[tuple[str, Tensor]]:
    """What is trained, other than gates and multipliers."""
    named = module.named_parameters()
    return ((name, weight) for name, weight in named if weight.requires_grad and not name.startswith("gates."))


def _is_decayed(name: str, weight: Tensor, decay_norms: bool) -> bool:
    return (weight.ndim > 1 or decay_norms) and not name.endswith("bias")
