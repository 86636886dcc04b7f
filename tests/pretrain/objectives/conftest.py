"""Steps made of random tensors."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pytest
import torch

from robustdistiller.pretrain.data.dataset import Batch, Position
from robustdistiller.pretrain.objectives import Shapes, Step, valid_frames
from robustdistiller.upstream import EncoderConfig, EncoderOutput

STUDENT = EncoderConfig(  # of the shape that `make_step` draws
    conv_layers=((5, 10, 5), *((5, 3, 2),) * 4, *((5, 2, 2),) * 2),
    embed_dim=4,
    num_layers=2,
    num_heads=2,
    ffn_dim=8,
    position_groups=2,
)


@pytest.fixture
def make_shapes() -> Callable[..., Shapes]:
    """What is known of the steps that `make_step` draws."""

    def make(**changes: object) -> Shapes:
        return Shapes(**{"student": STUDENT, "state_widths": (4, 4), "target_widths": (6, 6)} | changes)

    return make


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
            "student_input": 0.1 * draw(batch_size, samples) * inside,
            "student": first,
            "student_states": first.hidden_states[1:],
            "predictions": first.predictions,
            "targets": [draw(batch_size, frames, 6) for _ in range(2)],
            "valid": valid_frames(torch.tensor(num_frames), frames),
            "snr_db": torch.linspace(10, 20, batch_size),
            "teacher_snr_db": torch.full((batch_size,), torch.inf),
            "second": output(),
            "clean": output(),
        }
        return Step(**values | changes)

    return make
