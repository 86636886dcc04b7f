"""Comparing what an exported file computes with what the encoder computes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from robustdistiller.upstream.model.encoder import SpeechEncoder

#: Samples of the utterances of each batch: alone, padded, and down to a single frame.
BATCHES = ((16000,), (24077, 16000, 9311), (7000, 400))
TOLERANCE = 1e-4

#: From waveforms ``(batch, samples)`` and lengths to hidden states and frame lengths.
Runner = Callable[[Tensor, Tensor], tuple[Sequence[Tensor], Tensor]]


@dataclass(frozen=True)
class Deviation:
    """How far a file is from the encoder, over the valid frames of random padded batches.

    Attributes:
        max_relative_error: largest difference of a value, relative to the largest value of its hidden state.
        rms_relative_error: root mean square of the differences, relative to that of the values.

    >>> Deviation(1e-6, 2e-7).max_relative_error
    1e-06
    """

    max_relative_error: float
    rms_relative_error: float


class ExportError(ValueError):
    """An encoder cannot be exported, or the file does not compute what the encoder computes."""


class Errors:
    """Sums over what was compared; ``names`` are those of the hidden states."""

    def __init__(self, names: Sequence[object]):
        self.names, self.worst, self.error_power, self.power = names, 0.0, 0.0, 0.0

    def add(self, expected: Sequence[Tensor], found: Sequence[Tensor]) -> None:
        """Compare the hidden states ``(frames, dim)`` of an utterance."""
        for name, ours, theirs in zip(self.names, expected, found, strict=True):
            if ours.shape != theirs.shape or not torch.isfinite(theirs).all():
                raise ExportError(
                    f"hidden state {name} has shape {tuple(theirs.shape)} or values that are not finite; expected "
                    f"{tuple(ours.shape)}"
                )
            if not len(ours):  # a piece of a stream that is shorter than a frame
                continue
            error = ours - theirs
            self.worst = max(self.worst, (error.abs().max() / ours.abs().max()).item())
            self.error_power += error.square().sum().item()
            self.power += ours.square().sum().item()

    def deviation(self) -> Deviation:
        """Over everything that was added."""
        return Deviation(self.worst, (self.error_power / self.power) ** 0.5)


@torch.no_grad()
def compare(encoder: SpeechEncoder, layers: Sequence[int], run: Runner, seed: int = 0) -> Deviation:
    """Run both on random padded batches, and the file on digital silence, where all that it gives has to be finite.

    Args:
        encoder: in eval mode and ``"masked"`` padding.
        layers: numbers of the hidden states that ``run`` returns.
        run: the file.
        seed: of the noise.

    Raises:
        ExportError: shapes or frame lengths differ, or a value is not finite.

    >>> from robustdistiller.upstream import EncoderConfig
    >>> encoder = SpeechEncoder(EncoderConfig(num_layers=1, embed_dim=16, num_heads=2, ffn_dim=32, position_groups=4))
    >>> def run(waveforms, lengths):
    ...     output = encoder(waveforms, lengths)
    ...     return output.hidden_states, output.frame_lengths
    >>> compare(encoder.eval(), [0, 1], run)
    Deviation(max_relative_error=0.0, rms_relative_error=0.0)
    """
    generator, errors = torch.Generator().manual_seed(seed), Errors(layers)
    for batch in BATCHES:
        lengths = [max(length, encoder.config.receptive_field) for length in batch]
        waveforms = torch.randn(len(lengths), max(lengths), generator=generator) * 0.1
        output = encoder(waveforms, torch.tensor(lengths))
        expected = output.upstream_states(encoder.config)
        found, frames = run(waveforms, torch.tensor(lengths))
        if frames.tolist() != output.frame_lengths.tolist():
            raise ExportError(f"frame lengths are {frames.tolist()}; expected {output.frame_lengths.tolist()}")
        for row, count in enumerate(frames.tolist()):
            errors.add([expected[layer][row, :count] for layer in layers], [state[row, :count] for state in found])
    require_finite(layers, run(torch.zeros(1, BATCHES[0][0]), torch.tensor(BATCHES[0]))[0])
    return errors.deviation()


def require_finite(names: Sequence[object], states: Sequence[Tensor]) -> None:
    """Raise :class:`ExportError` for a hidden state of digital silence that is no number."""
    for name, state in zip(names, states, strict=True):
        if not torch.isfinite(state).all():
            raise ExportError(f"hidden state {name} has values that are not finite where the audio is digital silence")
