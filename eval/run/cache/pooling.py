"""Heads that see nothing of an utterance but the mean of its frames.

s3prl's heads for whole utterances (keyword spotting, intents, emotions, speaker identification) are a linear map, the
mean over frames and another linear map. A linear map of a mean is the mean of the linear maps, and the weighted sum of
the hidden states is linear too: the means of the hidden states are all such a head needs, whatever its weights.
"""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence

_FRAMES = (7, 3, 1)


def reads_means_only(expert: Any, dim: int) -> bool:
    """Whether an expert's ``projector`` and ``model`` give the same for an utterance as for the mean of its frames.

    It is tried out, in double precision and on a copy, as in evaluation and as in training: a configuration may replace
    mean pooling by something else, or put dropout before it.

    Args:
        expert: of a downstream whose forward hands the frames of an utterance to these two and to nothing else.
        dim: of the features.
    """
    parts = [getattr(expert, name, None) for name in ("projector", "model")]
    if not all(isinstance(part, nn.Module) for part in parts):
        return False
    generator = torch.Generator().manual_seed(0)
    frames = [torch.randn(count, dim, generator=generator, dtype=torch.float64) for count in _FRAMES]
    means = [one.mean(0, keepdim=True) for one in frames]
    try:
        return all(
            torch.allclose(_logits(parts, frames, training), _logits(parts, means, training), rtol=1e-9, atol=1e-12)
            for training in (False, True)
        )
    except (TypeError, ValueError, RuntimeError, IndexError):  # another kind of head
        return False


def _logits(parts: list[nn.Module], frames: list[Tensor], training: bool) -> Tensor:
    """Of a copy of the head. Dropout of what is pooled already is the same at every call; that of frames is not."""
    projector, model = (copy.deepcopy(part).cpu().double().train(training) for part in parts)
    lengths = torch.tensor([len(one) for one in frames], dtype=torch.int32)
    with torch.no_grad(), torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        logits, _ = model(projector(pad_sequence(frames, batch_first=True)), lengths)
    return logits
