"""What a teacher has to offer, be it a `SpeechEncoder` or another model, and how its frames lie beside a student's."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any, Protocol, runtime_checkable

import torch.nn.functional as F
from torch import Tensor

from robustdistiller.common.settings import SettingsError


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


def frame_shift(student: Any, teacher: Any) -> int:
    """By how many frames a teacher's numbering is ahead: its frame `k` lies nearest to the student's `k - shift`.

    Both have `downsample_rate` and `first_centre_sample`, in samples, see `Teacher`.

    Raises:
        SettingsError: frames come at other intervals, the nearest ones are half a frame or more apart, or the student's
            first ones come before the teacher's.
    """
    found = ", ".join(
        f"the {who} has a frame every {model.downsample_rate} samples, the first around {model.first_centre_sample:g}"
        for who, model in (("student", student), ("teacher", teacher))
    )
    if student.downsample_rate != teacher.downsample_rate:
        raise SettingsError(
            f"student and teacher cannot be compared frame by frame: {found}; expected the same stride: choose another "
            "student.checkpoint or conv layers of the teacher's stride"
        )
    shift = round((student.first_centre_sample - teacher.first_centre_sample) / student.downsample_rate)
    apart = abs(student.first_centre_sample - teacher.first_centre_sample - shift * student.downsample_rate)
    if apart >= student.downsample_rate / 2:
        raise SettingsError(
            f"student and teacher cannot be compared frame by frame: {found}; the nearest frames are {apart:g} samples "
            f"apart, expected less than half a frame ({student.downsample_rate / 2:g})"
        )
    if shift < 0:
        raise SettingsError(
            f"student and teacher cannot be compared frame by frame: {found}; the student's first frames would have no "
            "target, expected a student whose first frame is not before the teacher's: choose one of a wider receptive "
            "field"
        )
    return shift


def shifted(states: Tensor, shift: int, num_frames: int) -> Tensor:
    """A teacher's frames (B, T, D) beside the student's, (B, num_frames, D): frame `j + shift` in row `j`, or zero."""
    return F.pad(states, (0, 0, -shift, num_frames + shift - states.shape[1]))
