"""The speech encoder: teacher and student are two configurations of it."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from robustdistiller.upstream.model.config import EncoderConfig
from robustdistiller.upstream.model.extractor import ConvExtractor
from robustdistiller.upstream.model.transformer import Transformer


@dataclass
class EncoderOutput:
    """What :class:`SpeechEncoder` returns. Frames at or past ``frame_lengths`` are padding: finite, without meaning.

    Attributes:
        extractor_features: ``(batch, frames, channels)``, output of the convolutional extractor.
        projected: ``(batch, frames, dim)``, after the projection, before the position encoding.
        hidden_states: ``[0]`` is the input of the first layer, ``[i]`` the output of layer ``i``, each
            ``(batch, frames, dim)``. In a pre-norm encoder the last layer's is layer-normed, as in HuBERT Large.
        predictions: one ``(batch, frames, prediction_dim)`` per entry of ``config.prediction_layers``.
        frame_lengths: ``(batch,)`` int64, valid frames of each utterance.

    >>> encoder = SpeechEncoder(EncoderConfig(embed_dim=16, num_layers=1, num_heads=2, ffn_dim=32, position_groups=4))
    >>> output = encoder(torch.zeros(1, 16000))
    >>> output.extractor_features.shape, len(output.hidden_states), output.predictions
    (torch.Size([1, 49, 512]), 2, [])
    """

    extractor_features: Tensor
    projected: Tensor
    hidden_states: list[Tensor]
    frame_lengths: Tensor
    predictions: list[Tensor] = field(default_factory=list)

    def upstream_states(self, config: EncoderConfig) -> list[Tensor]:
        """The hidden states as the upstream of an encoder of this ``config`` gives them, see ``first_state``."""
        first = self.projected if config.starts_projected else self.hidden_states[0]
        return [first, *self.hidden_states[1:], *self.predictions]


class SpeechEncoder(nn.Module):
    """Waveform to hidden states, and to predictions of a teacher's hidden states where it has heads.

    In the default ``padding="masked"`` mode an utterance's features do not depend on what it is batched with.

    Args:
        config: the shape of the network.

    >>> config = EncoderConfig(conv_layers=((16, 10, 5), (16, 8, 4)), embed_dim=32, num_layers=2, num_heads=4,
    ...                        ffn_dim=64, position_groups=4, prediction_layers=(4, 8), prediction_dim=48)
    >>> encoder = SpeechEncoder(config).eval()
    >>> output = encoder(torch.randn(2, 800), lengths=torch.tensor([800, 500]))
    >>> output.hidden_states[2].shape, output.predictions[1].shape, output.frame_lengths
    (torch.Size([2, 38, 32]), torch.Size([2, 38, 48]), tensor([38, 23]))
    """

    def __init__(self, config: EncoderConfig):
        super().__init__()
        self.config = config
        channels = config.conv_layers[-1][0]
        self.extractor = ConvExtractor(config)
        self.feature_norm = nn.LayerNorm(channels) if config.feature_norm else nn.Identity()
        self.projection = nn.Linear(channels, config.embed_dim) if config.has_projection else nn.Identity()
        self.feature_dropout = nn.Dropout(config.feature_dropout)
        self.transformer = Transformer(config)
        self.heads = PredictionHeads(config) if config.prediction_layers else None

    @property
    def downsample_rate(self) -> int:
        """Samples per frame (320 for wav2vec 2.0's extractor)."""
        return self.config.downsample_rate

    def num_frames(self, num_samples):
        """Frames made from ``num_samples`` samples, an integer or an integer tensor.

        >>> encoder = SpeechEncoder(EncoderConfig(num_layers=0))
        >>> encoder.num_frames(16000), encoder.num_frames(torch.tensor([400, 399]))
        (49, tensor([1, 0]))
        """
        return self.extractor.num_frames(num_samples)

    def state_names(self, predict: bool = True) -> tuple[str, ...]:
        """Names of the upstream's hidden states: what the first layer starts from, layers, predictions.

        >>> SpeechEncoder(EncoderConfig(num_layers=2, prediction_layers=(4, 8))).state_names()
        ('projected', 'layer_1', 'layer_2', 'prediction_4', 'prediction_8')
        """
        config = self.config
        heads = config.prediction_layers if predict and self.heads is not None else ()
        layers = range(1, config.num_layers + 1)
        first = "projected" if config.starts_projected else "layer_input"
        return (first, *(f"layer_{number}" for number in layers), *(f"prediction_{number}" for number in heads))

    def count_parameters(self, heads: bool = True) -> int:
        """Parameters, with or without the prediction heads.

        >>> student = SpeechEncoder(EncoderConfig(num_layers=2, feature_norm=False, prediction_layers=(4, 8, 12)))
        >>> student.count_parameters(heads=False), student.count_parameters(heads=True)
        (23491200, 27034752)
        """
        total = sum(parameter.numel() for parameter in self.parameters())
        in_heads = 0 if self.heads is None else sum(parameter.numel() for parameter in self.heads.parameters())
        return total if heads else total - in_heads

    def forward(
        self,
        waveforms: Tensor,
        lengths: Tensor | None = None,
        max_layer: int | None = None,
        predict: bool = True,
    ) -> EncoderOutput:
        """Encode a batch.

        Args:
            waveforms: ``(batch, samples)`` float32 at 16 kHz; padding must be zeros in ``"reference"`` mode.
            lengths: ``(batch,)`` int64, valid samples; ``None`` means that all are. On the CPU it costs no
                synchronisation.
            max_layer: stop after this layer; the heads then run only if it is the last.
            predict: whether to run the heads.

        Raises:
            ValueError: an utterance is shorter than the receptive field, or the shapes do not fit.
        """
        features, projected, frame_lengths = self.extract(waveforms, lengths)
        hidden_states = self.contextualize(projected, frame_lengths, max_layer)
        whole = len(hidden_states) == self.config.num_layers + 1
        predictions = self.heads(hidden_states[-1]) if predict and whole and self.heads is not None else []
        frame_lengths = frame_lengths.to(waveforms.device, non_blocking=True)
        return EncoderOutput(features, projected, hidden_states, frame_lengths, predictions)

    def extract(self, waveforms: Tensor, lengths: Tensor | None = None) -> tuple[Tensor, Tensor, Tensor]:
        """The part before the transformer, for those who mask frames in between.

        Returns:
            ``extractor_features``, ``projected`` and ``frame_lengths`` of :class:`EncoderOutput`; the last may be on
            the CPU.
        """
        num_samples = self._check_input(waveforms, lengths)
        padded = min(num_samples) < waveforms.shape[1]
        if self.config.normalize_waveform:
            waveforms = _normalize(waveforms, num_samples if padded else None, self.config.normalize_eps)
        masked = padded and self.config.padding == "masked"
        with torch.set_grad_enabled(torch.is_grad_enabled() and self.config.feature_grad_mult > 0):
            features = self.extractor(waveforms, num_samples if masked else None)
        if self.config.feature_grad_mult != 1.0 and features.requires_grad:
            features = _ScaleGradient.apply(features, self.config.feature_grad_mult)
        projected = self.feature_dropout(self.projection(self.feature_norm(features)))
        return features, projected, self._frame_lengths(num_samples, waveforms.shape[1])

    def contextualize(
        self, projected: Tensor, frame_lengths: Tensor | None = None, max_layer: int | None = None
    ) -> list[Tensor]:
        """The transformer: from ``projected`` ``(batch, frames, dim)`` to ``hidden_states``."""
        if max_layer is not None and not 0 <= max_layer <= self.config.num_layers:
            raise ValueError(f"max_layer is {max_layer}; expected 0 to {self.config.num_layers}, the number of layers")
        frames, valid = projected.shape[1], None
        if frame_lengths is not None and min(frame_lengths.tolist()) < frames:
            positions = torch.arange(frames, device=projected.device)
            valid = positions < frame_lengths.to(projected.device, non_blocking=True).unsqueeze(1)
        return self.transformer(projected, valid, max_layer)

    def _check_input(self, waveforms: Tensor, lengths: Tensor | None) -> list[int]:
        if waveforms.dim() != 2 or 0 in waveforms.shape:
            raise ValueError(f"waveforms have shape {tuple(waveforms.shape)}; expected a non-empty (batch, samples)")
        batch, samples = waveforms.shape
        if lengths is not None and lengths.shape != (batch,):
            raise ValueError(f"lengths have shape {tuple(lengths.shape)}; expected ({batch},), one per waveform")
        num_samples = [samples] * batch if lengths is None else [int(length) for length in lengths.tolist()]
        shortest, needed = min(num_samples), self.config.receptive_field
        if shortest < needed:
            raise ValueError(
                f"utterance {num_samples.index(shortest)} of the batch has {shortest} samples; one frame needs at "
                f"least {needed}: drop it or pad it with zeros"
            )
        if max(num_samples) > samples:
            raise ValueError(f"lengths reach {max(num_samples)}, but the waveforms have only {samples} samples")
        return num_samples

    def _frame_lengths(self, num_samples: list[int], padded_samples: int) -> Tensor:
        if self.config.padding == "reference" and self.config.reference_mask == "block":
            # HuBERT cuts the row into as many equal blocks as there are frames; a frame counts if its block does.
            frames = self.num_frames(padded_samples)
            block = padded_samples // frames
            return torch.tensor([min(-(-samples // block), frames) for samples in num_samples])
        return torch.tensor([self.num_frames(samples) for samples in num_samples])


class PredictionHeads(nn.Module):
    """DistilHuBERT's heads (https://arxiv.org/abs/2110.01900): a wide layer, GELU, one linear map per layer.

    >>> heads = PredictionHeads(EncoderConfig(embed_dim=32, position_groups=4, num_heads=4, prediction_layers=(4, 8)))
    >>> [prediction.shape for prediction in heads(torch.zeros(1, 5, 32))]
    [torch.Size([1, 5, 32]), torch.Size([1, 5, 32])]
    """

    def __init__(self, config: EncoderConfig):
        super().__init__()
        self.num_heads = len(config.prediction_layers)
        inner = config.prediction_inner_dim or config.embed_dim
        outer = config.prediction_dim or config.embed_dim
        self.expand = nn.Linear(config.embed_dim, inner * self.num_heads)
        bound = inner**-0.5
        self.weight = nn.Parameter(torch.empty(self.num_heads, inner, outer).uniform_(-bound, bound))
        self.bias = nn.Parameter(torch.empty(self.num_heads, outer).uniform_(-bound, bound))

    def forward(self, x: Tensor) -> list[Tensor]:
        """Predictions ``(batch, frames, prediction_dim)`` per head, from the last hidden state."""
        inner = F.gelu(self.expand(x)).chunk(self.num_heads, dim=-1)
        return [part @ weight + bias for part, weight, bias in zip(inner, self.weight, self.bias)]


class _ScaleGradient(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, factor):
        ctx.factor = factor
        return x.view_as(x)

    @staticmethod
    def backward(ctx, gradient):
        return gradient * ctx.factor, None


def _normalize(waveforms: Tensor, num_samples: list[int] | None, eps: float) -> Tensor:
    """Zero mean and unit variance over each row's valid samples; padding becomes zero."""
    samples = waveforms.shape[1]
    if num_samples is None:
        return F.layer_norm(waveforms, (samples,), eps=eps)
    rows = [F.layer_norm(row[:length], (length,), eps=eps) for row, length in zip(waveforms.unbind(0), num_samples)]
    return torch.stack([F.pad(row, (0, samples - row.shape[0])) for row in rows])
