"""What an utterance's features depend on beside the utterance: nothing, how far it was padded, or its whole batch.

s3prl's upstreams pad a batch with zeros to its longest waveform. Where normalisation, convolutions or the number of
frames reach into the zeros, as in HuBERT, wav2vec 2.0 and WavLM, an utterance has other features beside a longer one.
They are kept for the length that it was padded to, and are exact again wherever that length comes again.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor

from robustdistiller.common.generators import untouched_generators

UTTERANCE, PADDING, BATCH = "utterance", "padding", "batch"
_PROBE_SAMPLES = (16000, 9600, 20321)
_OTHER_SAMPLES = (12345, 9600, 20321)
SAME = 1e-4
"""Largest `difference`: float32 rounding is below, padding above."""


class NotReproducible(ValueError):
    """An upstream does not give the same features for the same batch: a cache would change scores."""


def probe_waveforms(samples: Sequence[int] = _PROBE_SAMPLES, seed: int = 0) -> list[Tensor]:
    """Quiet white noise, the same at every call."""
    generator = torch.Generator().manual_seed(seed)
    return [0.1 * torch.randn(count, generator=generator) for count in samples]


def difference(one: Tensor, other: Tensor) -> float:
    """How much features ``(layers, frames, dim)`` differ: root mean square in the worst frame, relative to a layer's.

    Single values say less: where some are hundreds of times larger than the rest, as in Whisper, rounding of these is
    larger than what padding does elsewhere.
    """
    if one.shape != other.shape:
        return math.inf
    scale = other.square().mean((1, 2)).sqrt().clamp_min(1e-8)
    worst = float(((one - other).square().mean(2).sqrt().amax(1) / scale).max())
    return worst if math.isfinite(worst) else math.inf


def find_dependence(compute: Callable[[Sequence[Tensor]], list[Tensor]], device: str) -> str:
    """Try out what features depend on.

    Args:
        compute: features ``(layers, frames, dim)`` of each waveform of a batch.
        device: of the waveforms.

    Returns:
        ``utterance``, ``padding`` or ``batch``.

    Raises:
        NotReproducible: the same batch gives other features when it comes again.
    """
    wavs = [wav.to(device) for wav in probe_waveforms()]
    with untouched_generators(device):
        together = compute(wavs)
        _ = random.random(), np.random.rand(), torch.rand(1), torch.rand(1, device=device)  # chance would now differ
        again = compute(wavs)
    worst = max(map(difference, together, again))
    if worst > SAME:
        raise NotReproducible(
            f"its features differ by {worst:.1%} when the same audio comes again (is it in evaluation mode?)"
        )
    if max(difference(compute([wav])[0], one) for wav, one in zip(wavs, together)) <= SAME:
        return UTTERANCE
    others = [wav.to(device) for wav in probe_waveforms(_OTHER_SAMPLES, seed=1)]
    beside = [compute([others[0], wavs[1], others[2]])[1], compute([wavs[1], others[2]])[0]]
    return PADDING if max(difference(one, together[1]) for one in beside) <= SAME else BATCH
