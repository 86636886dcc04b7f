"""Hiding stretches of frames from the student: which ones, and how it is run without them.

Spans are drawn as in wav2vec 2.0 and HuBERT (arXiv 2006.11477, 2106.07447), but for each utterance by a generator of
its own: what is hidden depends on the seed, the utterance and its batch's number, not on what else is in the batch,
processes, or other random numbers.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor

from robustdistiller.acoustics.parameters import private_generator
from robustdistiller.pretrain.config.trainer import Count
from robustdistiller.upstream import EncoderOutput, SpeechEncoder


@dataclass
class MaskConfig:
    """Which frames are hidden from the student.

    Attributes:
        share: of the frames that would be hidden if spans did not overlap, above 0 and at most 1. As they do, it is
            about 1 - exp(-share) of a long utterance: 0.55 at 0.8.
        length_frames: of a span; half of the utterance at most.
    """

    share: Annotated[float, Field(gt=0, le=1)] = 0.8
    length_frames: Count = 10


def draw_mask(
    config: MaskConfig, ids: Sequence[str], frame_lengths: Tensor, seed: int, number: int, num_frames: int | None = None
) -> Tensor:
    """Which frames of a batch are hidden: (B, num_frames) bool on the CPU; false beyond an utterance's end.

    Of an utterance of n frames, share * n / length spans, rounded up or down at random, begin at different places. At
    least one frame is hidden; of two or more at least one is not.

    Args:
        config: share and length of spans.
        ids: of the utterances.
        frame_lengths: (B,) valid frames, on the CPU.
        seed: of the run.
        number: of the batch, `Position.batches`. An epoch is not enough: where corpora have weights, an utterance may
            come several times in one.
        num_frames: T; `None` is the most of `frame_lengths`.
    """
    lengths = frame_lengths.tolist()
    mask = torch.zeros(len(lengths), max(lengths, default=0) if num_frames is None else num_frames, dtype=torch.bool)
    for row, name, frames in zip(mask, ids, lengths, strict=True):
        if frames < 1:
            continue
        generator = private_generator(seed, number, name, "mask")
        span = min(config.length_frames, max(frames // 2, 1))
        places = frames - span + 1
        most = max((frames - 1) // span, 1)  # that leave a frame to predict from
        count = min(max(int(config.share * frames / span + generator.random()), 1), most)
        starts = torch.from_numpy(generator.choice(places, count, replace=False))
        row[(starts.unsqueeze(1) + torch.arange(span)).flatten()] = True
    return mask


def masked_forward(
    student: SpeechEncoder, waveforms: Tensor, lengths: Tensor | None, mask: Tensor, embedding: Tensor
) -> EncoderOutput:
    """The student's output with some of its frames hidden from positions and layers; `projected` has them all.

    Args:
        student: is left as it was.
        waveforms: (B, samples).
        lengths: (B,) valid samples.
        mask: (B, T) bool, true where a frame is hidden.
        embedding: (dim,), takes the place of hidden frames.
    """

    seen = []

    def hide(module: torch.nn.Module, inputs: tuple[Tensor], projected: Tensor) -> Tensor:
        seen.append(projected)
        return torch.where(mask.unsqueeze(-1), embedding.to(projected.dtype), projected)

    handle = student.feature_dropout.register_forward_hook(hide)
    try:
        return student(waveforms, lengths)._replace(projected=seen.pop())
    finally:
        handle.remove()
