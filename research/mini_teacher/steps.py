"""What both stages share: learning-rate schedule, span masks and the CSV log."""

from __future__ import annotations

import csv
import logging
from pathlib import Path

import numpy as np
import torch

logger = logging.getLogger(__name__)

MASK_SPAN_FRAMES = 10
LOG_FIELDS = (
    "stage",
    "step",
    "seconds",
    "loss",
    "masked_loss",
    "masked_accuracy",
    "unmasked_accuracy",
    "feature_loss",
    "mel_loss",
    "regression_l1",
    "regression_cosine",
    "gradient_norm",
)


def scheduled_lr(step: int, num_steps: int, peak: float, warmup_share: float = 0.06) -> float:
    """Linear warm-up to `peak`, then linear decay to a twentieth of it.

    >>> scheduled_lr(0, 100, 1.0) < scheduled_lr(6, 100, 1.0) > scheduled_lr(99, 100, 1.0)
    True
    """
    warmup = max(1, int(warmup_share * num_steps))
    if step < warmup:
        return peak * (step + 1) / warmup
    return peak * max(0.05, (num_steps - step) / (num_steps - warmup))


def mask_spans(generator: np.random.Generator, batch: int, frames: int, start_probability: float) -> torch.Tensor:
    """Boolean mask (batch, frames): spans of 10 frames that start at each frame with the given probability.

    Spans may overlap. Every row has at least one masked and one unmasked frame.

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


class LogFile:
    """Appends rows to a CSV file; columns that a stage does not have stay empty."""

    def __init__(self, path: Path):
        self.path = path
        if not path.is_file():
            path.write_text(",".join(LOG_FIELDS) + "\n", encoding="utf-8")

    def write(self, **values) -> None:
        """Writes one row (floats rounded to 5 digits) and logs it."""
        row = {name: f"{value:.5g}" if isinstance(value, float) else value for name, value in values.items()}
        with self.path.open("a", encoding="utf-8", newline="") as stream:
            csv.DictWriter(stream, LOG_FIELDS).writerow(row)
        logger.info(" ".join(f"{name}={value}" for name, value in row.items()))
