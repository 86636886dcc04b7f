"""Whisper's encoder behind s3prl's upstream interface."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from torch import Tensor

from robustdistiller.common.names import refuse_unknown
from robustdistiller.upstream.pretrained.resolve import resolve
from robustdistiller.upstream.pretrained.whisper.checkpoint import read_whisper
from robustdistiller.upstream.pretrained.whisper.encoder import WhisperEncoder
from robustdistiller.upstream.s3prl.expert import Expert, read_options


class WhisperExpert(Expert):
    """Whisper's encoder as an upstream: the input of its first layer, then the output of each layer.

    Args:
        ckpt: a model's name, see :func:`~robustdistiller.upstream.pretrained.resolve.resolve`, of a Whisper model.
        model_config: YAML file with options.
        options: the same as keyword arguments, which win over the file. There is one, ``pad_to_30_s``: see
            :class:`~robustdistiller.upstream.pretrained.whisper.config.WhisperConfig`.

    Raises:
        ValueError: it is another model, cannot be read, or an option is unknown.
        FileNotFoundError: it is not there and could not be fetched.

    >>> WhisperExpert("nowhere.bin")
    Traceback (most recent call last):
    FileNotFoundError: checkpoint nowhere.bin: expected a file or folder, found nothing there (seen from ...)
    """

    def __init__(self, ckpt: str | Path, model_config: str | Path | None = None, **options: Any):
        super().__init__()
        settings = {**read_options(model_config), **options}
        refuse_unknown(settings, ["pad_to_30_s"], "option of Whisper as an upstream")
        self.checkpoint_path = resolve(ckpt)
        checkpoint = read_whisper(self.checkpoint_path)
        if checkpoint is None:
            raise ValueError(f"{ckpt} is no Whisper model; expected one, or the upstream robustdistiller_local")
        self.encoder = checkpoint.build(**settings)
        self.names, self.num_layers = self.encoder.state_names(), self.encoder.num_layers
        self.numbers = tuple(range(len(self.names)))
        self.downsample_rate, self.receptive_field = self.encoder.downsample_rate, checkpoint.config.receptive_field

    @property
    def inference_encoder(self) -> WhisperEncoder:
        """The encoder."""
        return self.encoder

    def encode(self, waveforms: Tensor, lengths: Tensor, no_pred: bool) -> tuple[list[Tensor], Tensor]:
        """See :meth:`Expert.encode`."""
        return self.encoder(waveforms, lengths).hidden_states, self.encoder.num_frames(lengths)
