"""An exported ONNX file behind s3prl's upstream interface."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from robustdistiller.upstream.export.runtime import OnnxEncoder
from robustdistiller.upstream.model.config import EncoderConfig
from robustdistiller.upstream.model.cost import encoder_macs
from robustdistiller.upstream.pretrained.resolve import resolve
from robustdistiller.upstream.s3prl.expert import Expert


class OnnxExpert(Expert):
    """The upstream in an ONNX file, run by onnxruntime on the CPU, for frozen use: it has no weights to train.

    Args:
        ckpt: a path or URL of a file that ``robustdistiller export`` wrote.

    Attributes:
        num_parameters: weights that the file computes with.
        config: of the encoder that it was made from.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it cannot be read, see :class:`OnnxEncoder`.

    >>> OnnxExpert("nowhere.onnx")
    Traceback (most recent call last):
    FileNotFoundError: checkpoint nowhere.onnx: expected a file or folder, found nothing there (seen from ...)
    """

    def __init__(self, ckpt: str | Path):
        super().__init__()
        # As many threads as PyTorch has: what limits the one limits the other.
        self.checkpoint_path = resolve(ckpt)
        self.onnx = OnnxEncoder(self.checkpoint_path, threads=torch.get_num_threads())
        notes = self.onnx.metadata
        self.names, self.numbers = self.onnx.names, tuple(notes["layer_numbers"])
        self.num_layers, self.num_parameters = notes["num_layers"], notes["parameters"]
        self.config = EncoderConfig.from_dict(notes["config"])
        self.downsample_rate, self.receptive_field = notes["downsample_rate"], notes["receptive_field"]

    def macs(self, duration_s: float) -> int:
        """Multiply-accumulate operations of one utterance, see :func:`encoder_macs`."""
        last = max(self.numbers)
        heads, layers = last > self.num_layers, min(last, self.num_layers)
        return encoder_macs(self.config, duration_s, layers, heads)

    def encode(self, waveforms: Tensor, lengths: Tensor, no_pred: bool) -> tuple[list[Tensor], Tensor]:
        """See :meth:`Expert.encode`."""
        states, frames = self.onnx(waveforms.detach().cpu().numpy(), lengths.cpu().numpy())
        kept = [state for state, name in zip(states, self.names) if not (no_pred and name.startswith("prediction_"))]
        return [torch.from_numpy(state).to(waveforms.device) for state in kept], torch.from_numpy(frames)
