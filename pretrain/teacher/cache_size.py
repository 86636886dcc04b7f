"""How much there is to keep of a teacher's targets."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class TargetSize:
    """The stretches of a list of speech.

    Attributes:
        utterances: how many there are.
        longer: utterances of which only stretches are heard.
        places: stretches of all utterances.
        frames: of all stretches.

    >>> TargetSize.of([3200, 9600], max_samples=6400, crops=2, num_frames=lambda n: n // 320)
    TargetSize(utterances=2, longer=1, places=3, frames=50)
    """

    utterances: int
    longer: int
    places: int
    frames: int

    @classmethod
    def of(cls, lengths: Iterable[int], max_samples: int, crops: int, num_frames: Callable[[int], int]) -> TargetSize:
        """Count the stretches of utterances of so many samples."""
        utterances = longer = frames = 0
        for samples in lengths:
            utterances += 1
            longer += samples > max_samples
            frames += num_frames(min(samples, max_samples)) * (crops if samples > max_samples else 1)
        return cls(utterances, longer, utterances + longer * (crops - 1), frames)


def frames_of(conv_layers: Sequence[tuple[int, int, int]], samples: int) -> int:
    """Frames that (channels, kernel, stride) layers make of so many samples.

    >>> frames_of(((512, 10, 5), (512, 8, 4)), 400)
    18
    """
    for _, kernel, stride in conv_layers:
        samples = max((samples - kernel) // stride + 1, 0)
    return samples
