"""The training loop of every stage: it saves its state at once, and goes on from there with equal bits."""

from __future__ import annotations

import copy
import logging
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from research.mini_teacher.recipe import Stage
from robustdistiller.common.files import write_atomically

logger = logging.getLogger(__name__)

LOG_EVERY_STEPS = 50
MASK_SPAN_FRAMES = 10
Row = dict[str, Any]


def run_stage(
    name: str,
    stage: Stage,
    model: nn.Module,
    loss_of_batch: Callable[[np.random.Generator], tuple[Tensor, Row]],
    random_state: tuple[int, ...],
    state_path: Path,
    save_every: int,
    on_save: Callable[[nn.Module, int, list[Row]], None],
) -> tuple[nn.Module, list[Row]]:
    """Trains a model for one stage, or for what is left of it according to the state on the disk.

    Args:
        name: of the stage, for the log.
        stage: its length and learning rate.
        model: what is trained; `loss_of_batch` calls it.
        loss_of_batch: draws a batch with the generator that it is given and returns the loss with the log's values.
        random_state: seeds the generator of each step together with the number of that step, so that a step does not
            depend on the ones before it.
        state_path: the file of the state, written whole or not at all.
        save_every: steps between saved states; the last step is always saved.
        on_save: called with the average, the number of steps done and the log's rows before each state is written.

    Returns:
        The running average of the model, in evaluation mode, and the rows of the log.
    """
    average = copy.deepcopy(model)
    optimizer = torch.optim.AdamW(model.parameters(), lr=stage.peak_lr, betas=(0.9, 0.98), weight_decay=0.01)
    rows: list[Row] = []
    done, seconds_before = 0, 0.0
    if state_path.is_file():
        state = torch.load(state_path, weights_only=True)
        for part, saved in ((model, "model"), (average, "average"), (optimizer, "optimizer")):
            part.load_state_dict(state[saved])
        done, seconds_before, rows = state["step"], state["seconds"], state["rows"]
        logger.info("%s: going on from step %d of %d", name, done, stage.steps)
    started = time.monotonic() - seconds_before
    for step in range(done, stage.steps):
        optimizer.param_groups[0]["lr"] = scheduled_lr(step, stage.steps, stage.peak_lr)
        loss, values = loss_of_batch(np.random.default_rng((*random_state, step)))
        optimizer.zero_grad()
        loss.backward()
        norm = nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        _update(average, model, min(stage.ema_decay, (1 + step) / (10 + step)))
        last = step == stage.steps - 1
        seconds = time.monotonic() - started
        if step % LOG_EVERY_STEPS == 0 or last:
            found = {"loss": loss, **values, "gradient_norm": norm}
            rows.append({"stage": name, "step": step, "seconds": round(seconds)})
            rows[-1] |= {key: float(f"{value.item():.5g}") for key, value in found.items()}
            logger.info(" ".join(f"{key}={value}" for key, value in rows[-1].items()))
        if (step + 1) % save_every == 0 or last:
            on_save(average, step + 1, rows)
            state = {"model": model.state_dict(), "average": average.state_dict(), "optimizer": optimizer.state_dict()}
            state |= {"step": step + 1, "seconds": seconds, "rows": rows}
            write_atomically(state_path, lambda file, state=state: torch.save(state, file))
    return average.eval(), rows


@torch.no_grad()
def _update(average: nn.Module, model: nn.Module, decay: float) -> None:
    for slow, fast in zip(average.parameters(), model.parameters()):
        slow.lerp_(fast, 1 - decay)


def scheduled_lr(step: int, num_steps: int, peak: float, warmup_share: float = 0.06) -> float:
    """The learning rate of a step: linear warm-up to `peak`, then linear decay to a twentieth of it.

    Example:
        >>> scheduled_lr(0, 100, 1.0) < scheduled_lr(6, 100, 1.0) > scheduled_lr(99, 100, 1.0)
        True
    """
    warmup = max(1, int(warmup_share * num_steps))
    if step < warmup:
        return peak * (step + 1) / warmup
    return peak * max(0.05, (num_steps - step) / (num_steps - warmup))


def mask_spans(generator: np.random.Generator, batch: int, frames: int, start_probability: float) -> Tensor:
    """Draws a mask (batch, frames) of bool: spans of ten frames start at each frame with the given probability.

    Spans may overlap. Every row has at least one masked and one unmasked frame.

    Example:
        >>> mask = mask_spans(np.random.default_rng(0), 4, 149, 0.06)
        >>> mask.shape, bool(mask.any(1).all()), bool((~mask).any(1).all())
        (torch.Size([4, 149]), True, True)
    """
    starts = generator.random((batch, frames)) < start_probability
    starts[np.arange(batch), generator.integers(0, frames, batch)] = True
    mask = starts.copy()
    for shift in range(1, min(MASK_SPAN_FRAMES, max(1, frames // 3))):
        mask[:, shift:] |= starts[:, :-shift]
    full = mask.all(axis=1)
    mask[full, : max(1, frames // 3)] = False
    return torch.from_numpy(mask)
