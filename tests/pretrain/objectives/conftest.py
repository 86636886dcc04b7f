"""Steps made of random tensors."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pytest
import torch

from robustdistiller.pretrain.data.dataset import Batch, Position
from robustdistiller.pretrain.objectives import Step, valid_frames
from robustdistiller.upstream import EncoderOutput


@pytest.fixture
def make_step() -> Callable[..., Step]:
    """A batch of a student with 320 samples per frame, 2 targets of width 6, 3 hidden states, and a second view."""

    def make(num_frames: Sequence[int] = (7, 3), seed: int = 0, **changes: object) -> Step:
        generator = torch.Generator().manual_seed(seed)

        def draw(*shape: int) -> torch.Tensor:
            return torch.randn(*shape, generator=generator)

        lengths = torch.tensor([320 * number + 80 for number in num_frames])
        batch_size, frames, samples = len(num_frames), max(num_frames), int(lengths.max())
        inside = valid_frames(lengths, samples)

        def output() -> EncoderOutput:
            return EncoderOutput(
                extractor_features=draw(batch_size, frames, 5),
                projected=draw(batch_size, frames, 4),
                hidden_states=[draw(batch_size, frames, 4) for _ in range(3)],
                frame_lengths=torch.tensor(num_frames),
                predictions=[draw(batch_size, frames, 6) for _ in range(2)],
            )

        first = output()
        values = {
            "batch": Batch(
                position=Position(),
                ids=tuple(map(str, range(batch_size))),
                waveforms=0.1 * draw(batch_size, samples) * inside,
                lengths=lengths,
            ),
            "heard": 0.1 * draw(batch_size, samples) * inside,
            "output": first,
            "predictions": first.predictions,
            "targets": [draw(batch_size, frames, 6) for _ in range(2)],
            "valid": valid_frames(torch.tensor(num_frames), frames),
            "snr_db": torch.linspace(10, 20, batch_size),
            "teacher_snr_db": torch.full((batch_size,), torch.inf),
            "second": output(),
        }
        return Step(**values | changes)

    return make
