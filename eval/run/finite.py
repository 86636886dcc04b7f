"""Features that are no numbers stop a head: s3prl trains on them, and scores what comes out."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from robustdistiller.common.audio import SAMPLE_RATE_HZ
from robustdistiller.eval.run.errors import RunError


def refuse_non_finite(featurizer: nn.Module, upstream: str) -> None:
    """From now on, stop where features that a head is about to get hold NaN or infinity.

    Args:
        featurizer: s3prl's, called with the waveforms of a batch and what the upstream computed of them; it gives one
            tensor ``(frames, dim)`` for each utterance.
        upstream: how the error calls it.
    """

    def look(_: nn.Module, inputs: tuple[Sequence[Tensor], Any], features: Sequence[Tensor]) -> None:
        finite = torch.stack([one.isfinite().all() for one in features])
        if not finite.all():  # the only wait for a GPU
            place = int((~finite).nonzero()[0])
            raise RunError(_said(upstream, inputs[0][place], features[place], place, len(features)))

    featurizer.register_forward_hook(look)


def _said(upstream: str, wav: Tensor, features: Tensor, place: int, count: int) -> str:
    broken, zeros = int((~features.isfinite()).flatten(1).any(1).sum()), int((wav == 0).sum())
    return (
        f"upstream {upstream} gives features that are not finite, in {broken} of {len(features)} frames of utterance "
        f"{place + 1} of {count} in its batch ({len(wav) / SAMPLE_RATE_HZ:.2f} s, {zeros} of {len(wav)} samples zero, "
        f"peak {float(wav.abs().max()):.3g}); expected numbers, no head can be trained or scored on others. "
        "`robustdistiller check` says whether it is so for any audio, or for silence"
    )
