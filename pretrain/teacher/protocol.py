"""What a teacher has to offer, be it a `SpeechEncoder` or another model."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any, Protocol, runtime_checkable

from torch import Tensor


class TeacherOutput(Protocol):
    """What a teacher answers.

    Attributes:
        hidden_states: `[0]` is the input of the first layer, `[i]` the output of layer `i`, each (B, T, D); `None`
            where it was not asked for.
        frame_lengths: (B,) int64, valid frames.
    """

    hidden_states: Any
    frame_lengths: Tensor


@runtime_checkable
class Teacher(Protocol):
    """A frozen model with hidden states per layer at a fixed frame rate.

    Attributes:
        num_layers: layers.
        width: of a hidden state.
        downsample_rate: samples from one frame to the next.
        first_centre_sample: sample in the middle of the first frame.
    """

    num_layers: int
    width: int
    downsample_rate: int
    first_centre_sample: float

    def num_frames(self, num_samples: Any) -> Any:
        """Frames made of so many samples, an integer or an integer tensor."""

    def __call__(
        self, waveforms: Tensor, lengths: Tensor | None = None, layers: Collection[int] | None = None
    ) -> TeacherOutput:
        """What it answers to (B, samples) at 16 kHz, with the hidden states of at least these layers."""
