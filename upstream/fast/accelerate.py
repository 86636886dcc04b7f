"""Faster CPU kernels in the place of parts of an encoder: in a frozen copy for inference, or in place for training."""

from __future__ import annotations

from typing import Any

import torch
from torch.nn.utils import parametrize

from robustdistiller.upstream.fast.matrix_extractor import MatrixExtractor
from robustdistiller.upstream.fast.segment_extractor import SegmentExtractor
from robustdistiller.upstream.fast.spectral_position import LEAST_TAPS, SpectralPosition
from robustdistiller.upstream.model.encoder import EncoderOutput, SpeechEncoder
from robustdistiller.upstream.model.extractor import ConvExtractor
from robustdistiller.upstream.model.values import fill, without_values


def accelerate(encoder: SpeechEncoder) -> SpeechEncoder:
    """A copy of ``encoder`` for inference in float32 on a CPU, faster and equal to it within rounding.

    The copy is frozen: what is done to ``encoder`` afterwards does not reach it, it cannot be trained, and it refuses
    other weights. Forward hooks of single layers of the conv extractor are not run.

    Args:
        encoder: on the CPU, in float32.

    Raises:
        ValueError: it is on another device, or of another type.

    Example:
        >>> from robustdistiller.upstream import EncoderConfig
        >>> encoder = SpeechEncoder(EncoderConfig.tiny()).eval()
        >>> fast, waveforms = accelerate(encoder), torch.randn(1, 16000)
        >>> torch.allclose(fast(waveforms).hidden_states[-1], encoder(waveforms).hidden_states[-1], atol=1e-5)
        True
    """
    weight = next(encoder.parameters())
    if weight.device.type != "cpu" or weight.dtype != torch.float32:
        raise ValueError(f"the encoder is {weight.dtype} on {weight.device}; expected float32 on the CPU")
    if isinstance(encoder, AcceleratedEncoder):
        return encoder
    return AcceleratedEncoder(encoder)


def accelerate_training(encoder: SpeechEncoder, extractor: bool = True) -> None:
    """Put faster parts for training on a CPU into ``encoder``, in place; parameters and their names stay.

    These are the conv extractor and the position convolution. An extractor with layer norms, or on log-mel spectra, is
    left as it is, and so is a stack of position convolutions. Forward hooks of single layers of the extractor, as
    pruning sets them, are not run any more.

    Args:
        encoder: on the CPU, in float32.
        extractor: whether the conv extractor is among them.

    Example:
        >>> from robustdistiller.upstream import EncoderConfig
        >>> encoder = SpeechEncoder(EncoderConfig.tiny())
        >>> names = list(encoder.state_dict())
        >>> accelerate_training(encoder)
        >>> list(encoder.state_dict()) == names
        True
    """
    config = encoder.config
    suits = config.conv_norm == "group" and config.front_end == "conv"
    if extractor and suits and isinstance(encoder.extractor, ConvExtractor):
        encoder.extractor = MatrixExtractor(encoder.extractor)
    _put_spectral_position(encoder, frozen=False)


def _put_spectral_position(encoder: SpeechEncoder, frozen: bool) -> None:
    position = encoder.transformer.position
    if position.convs is None and position.conv.kernel_size[0] >= LEAST_TAPS:
        encoder.transformer.position = SpectralPosition(position, frozen)


class AcceleratedEncoder(SpeechEncoder):
    """See :func:`accelerate`."""

    def __init__(self, encoder: SpeechEncoder):
        with without_values():
            super().__init__(encoder.config)
        if encoder.heads is None:
            self.heads = None
        fill(self, encoder.state_dict())
        if self.config.front_end == "conv":
            self.extractor = SegmentExtractor(self.extractor)
        for module in list(self.modules()):
            if parametrize.is_parametrized(module, "weight"):  # a weight norm, once and for all
                parametrize.remove_parametrizations(module, "weight")
        _put_spectral_position(self, frozen=True)
        super().train(False)
        self.requires_grad_(False)

    def train(self, mode: bool = True) -> AcceleratedEncoder:
        """Stays in eval mode.

        Raises:
            ValueError: ``mode`` is true.
        """
        if mode:
            raise ValueError("an accelerated encoder is frozen; train the encoder that it was made from")
        return super().train(False)

    def load_state_dict(self, *arguments: Any, **options: Any) -> None:
        """Refused: the kernels hold the weights in another arrangement.

        Raises:
            ValueError: always.
        """
        raise ValueError("an accelerated encoder is frozen; load the weights before accelerate(encoder)")

    @torch.no_grad()
    def forward(self, *arguments: Any, **options: Any) -> EncoderOutput:
        """As :meth:`SpeechEncoder.forward`, without gradients, in float32 also under autocast."""
        with torch.autocast("cpu", enabled=False):
            return super().forward(*arguments, **options)
