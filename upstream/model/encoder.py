"""The speech encoder: teacher and student are two configurations of it."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import NamedTuple, overload

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from robustdistiller.upstream.model.config import EncoderConfig
from robustdistiller.upstream.model.extractor import ConvExtractor, Extractor, in_full, moments_over_time
from robustdistiller.upstream.model.log_mel import Count
from robustdistiller.upstream.model.transformer import Transformer


class EncoderOutput(NamedTuple):
    """What :class:`SpeechEncoder` returns. Frames at or past ``frame_lengths`` are padding: finite, without meaning.

    Attributes:
        extractor_features: ``(batch, frames, channels)``, output of the front end.
        projected: ``(batch, frames, dim)``, after the projection, before the position encoding.
        hidden_states: ``[0]`` is the input of the first layer, ``[i]`` the output of layer ``i``, each
            ``(batch, frames, dim)``, or None where it was not asked for. In a pre-norm encoder the last layer's is
            layer-normed, as in HuBERT Large, unless ``config.last_state_normed`` is false.
        frame_lengths: ``(batch,)`` int64, valid frames of each utterance.
        predictions: one ``(batch, frames, prediction_dim)`` per entry of ``config.prediction_layers``.

    >>> encoder = SpeechEncoder(EncoderConfig.tiny())
    >>> output = encoder(torch.zeros(1, 16000))
    >>> output.extractor_features.shape, len(output.hidden_states), output.predictions
    (torch.Size([1, 49, 16]), 3, [])
    """

    extractor_features: Tensor
    projected: Tensor
    hidden_states: list[Tensor | None]
    frame_lengths: Tensor
    predictions: Sequence[Tensor] = ()

    def upstream_states(self, config: EncoderConfig) -> list[Tensor | None]:
        """The hidden states as the upstream of an encoder of this ``config`` gives them, see ``first_state``."""
        first = self.projected if config.starts_projected else self.hidden_states[0]
        return [first, *self.hidden_states[1:], *self.predictions]


class SpeechEncoder(nn.Module):
    """Waveform to hidden states, and to predictions of a teacher's hidden states where it has heads.

    In the default ``padding="masked"`` mode an utterance's features do not depend on what it is batched with.

    Args:
        config: the shape of the network.

    >>> encoder = SpeechEncoder(EncoderConfig.tiny(prediction_layers=(4, 8), prediction_dim=48)).eval()
    >>> output = encoder(torch.randn(2, 16000), lengths=torch.tensor([16000, 8000]))
    >>> output.hidden_states[2].shape, output.predictions[1].shape, output.frame_lengths
    (torch.Size([2, 49, 16]), torch.Size([2, 49, 48]), tensor([49, 24]))
    """

    def __init__(self, config: EncoderConfig):
        super().__init__()
        self.config = config
        channels = config.conv_layers[-1][0]
        self.extractor: Extractor = ConvExtractor(config)
        self.feature_norm = nn.LayerNorm(channels) if config.feature_norm else nn.Identity()
        self.projection = nn.Linear(channels, config.embed_dim) if config.has_projection else nn.Identity()
        self.feature_dropout = nn.Dropout(config.feature_dropout)
        self.transformer = Transformer(config)
        self.heads = PredictionHeads(config) if config.prediction_layers else None

    @property
    def downsample_rate(self) -> int:
        """Samples per frame (320 for wav2vec 2.0's extractor)."""
        return self.config.downsample_rate

    @property
    def num_layers(self) -> int:
        """Transformer layers."""
        return self.config.num_layers

    @property
    def width(self) -> int:
        """Width of a hidden state."""
        return self.config.embed_dim

    @property
    def first_centre_sample(self) -> float:
        """The sample in the middle of what the first frame is made from, 199.5 for wav2vec 2.0's extractor."""
        return (self.config.receptive_field - 1) / 2

    def num_frames(self, num_samples: Count) -> Count:
        """Frames made from ``num_samples`` samples, an integer or an integer tensor.

        >>> encoder = SpeechEncoder(EncoderConfig(num_layers=0))
        >>> encoder.num_frames(16000), encoder.num_frames(torch.tensor([400, 399]))
        (49, tensor([1, 0]))
        """
        return self.extractor.num_frames(num_samples + 2 * self.config.front_padding)

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
        layers: Collection[int] | None = None,
        predict: bool = True,
    ) -> EncoderOutput:
        """Encode a batch.

        Args:
            waveforms: ``(batch, samples)`` at 16 kHz, float32, or what the weights are; padding must be zeros in
                ``"reference"`` mode.
            lengths: ``(batch,)`` int64, valid samples; ``None`` means that all are. On the CPU it costs no
                synchronisation.
            layers: numbers of the hidden states to keep, others are None in the output and their memory is free;
                what lies behind the last of them is not run. ``None`` keeps all.
            predict: whether to run the heads, for which the last layer is needed.

        Raises:
            ValueError: an utterance is shorter than the receptive field, a layer does not exist, or shapes or types do
                not fit.
        """
        config, known = self.config, range(self.config.num_layers + 1)
        if layers is not None and not (layers and set(layers) <= set(known)):
            raise ValueError(f"layers are {sorted(layers)}; expected numbers from 0 to {known[-1]}, the last layer's")
        if not torch.compiler.is_compiling():  # nor exporting: a graph cannot look at values
            lengths = self._check_input(waveforms, lengths)
        if config.normalize_waveform:
            waveforms = normalize(waveforms, lengths, config.normalize_eps)
        with torch.set_grad_enabled(torch.is_grad_enabled() and config.feature_grad_mult > 0):
            features = self.extractor(*pad_ends(waveforms, lengths if config.padding == "masked" else None, config))
        if config.feature_grad_mult != 1.0 and features.requires_grad:
            features = _ScaleGradient.apply(features, config.feature_grad_mult)
        projected = self.feature_dropout(self.projection(self.feature_norm(features)))
        frames, valid = projected.shape[1], None
        if lengths is None:
            frame_lengths = torch.full((len(waveforms),), frames).to(waveforms.device, non_blocking=True)
        else:
            frame_lengths = self.frame_lengths(lengths, waveforms.shape[1]).to(waveforms.device, non_blocking=True)
            valid = torch.arange(frames, device=waveforms.device) < frame_lengths.unsqueeze(1)
        states = self.transformer(projected, valid, layers)
        predictions = self.predict(states[-1]) if predict and len(states) == len(known) else []
        return EncoderOutput(features, projected, states, frame_lengths, predictions)

    def predict(self, last_state: Tensor) -> list[Tensor]:
        """The heads' predictions from the last hidden state ``(batch, frames, dim)``; none without heads."""
        if self.heads is None:
            return []
        norm_first, normed = self.config.norm_first, self.config.last_state_normed
        return self.heads(self.transformer.norm(last_state) if norm_first and not normed else last_state)

    def _check_input(self, waveforms: Tensor, lengths: Tensor | None) -> Tensor | None:
        """The lengths, or None where every sample is valid."""
        if waveforms.dim() != 2 or 0 in waveforms.shape:
            raise ValueError(f"waveforms have shape {tuple(waveforms.shape)}; expected a non-empty (batch, samples)")
        if not waveforms.is_floating_point():
            raise ValueError(f"waveforms are {waveforms.dtype}; expected float32 in [-1, 1], for int16 divide by 32768")
        weights, found = self.extractor.layers[0].conv.weight.dtype, waveforms.dtype
        heard = self.extractor.spectrum is not None or found == weights  # a spectrum takes any type
        if not heard and (found == torch.float64 or not torch.is_autocast_enabled(waveforms.device.type)):
            raise ValueError(f"waveforms are {found}; expected the type of the weights: waveforms.to({weights})")
        batch, samples = waveforms.shape
        if lengths is not None and lengths.shape != (batch,):
            raise ValueError(f"lengths have shape {tuple(lengths.shape)}; expected ({batch},), one per waveform")
        num_samples = [samples] * batch if lengths is None else lengths.tolist()
        shortest, needed = min(num_samples), self.config.receptive_field
        if shortest < needed:
            raise ValueError(
                f"utterance {num_samples.index(shortest)} of the batch has {shortest} samples; one frame needs at "
                f"least {needed}: drop it or pad it with zeros"
            )
        if max(num_samples) > samples:
            raise ValueError(f"lengths reach {max(num_samples)}, but the waveforms have only {samples} samples")
        return lengths if shortest < samples else None

    def frame_lengths(self, lengths: Tensor, padded_samples: int) -> Tensor:
        """Valid frames ``(batch,)`` of utterances of ``lengths`` ``(batch,)`` samples in rows of ``padded_samples``."""
        if self.config.padding == "reference" and self.config.reference_mask == "block":
            # HuBERT cuts the row into as many equal blocks as there are frames; a frame counts if its block does.
            frames = self.num_frames(padded_samples)
            block = padded_samples // frames
            return ((lengths + block - 1) // block).clamp(max=frames)
        return self.num_frames(lengths)


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


@overload
def pad_ends(waveforms: Tensor, lengths: Tensor, config: EncoderConfig) -> tuple[Tensor, Tensor]: ...


@overload
def pad_ends(waveforms: Tensor, lengths: None, config: EncoderConfig) -> tuple[Tensor, None]: ...


def pad_ends(waveforms: Tensor, lengths: Tensor | None, config: EncoderConfig) -> tuple[Tensor, Tensor | None]:
    """Waveforms and lengths with the zeros at both ends of each utterance that the front end needs.

    >>> config = EncoderConfig(front_end="log_mel", conv_layers=((16, 3, 2),))
    >>> waveforms, lengths = pad_ends(torch.ones(2, 16000), torch.tensor([16000, 400]), config)
    >>> waveforms.sum(1).tolist(), lengths.tolist()
    ([16000.0, 400.0], [16320, 720])
    """
    if not config.front_padding:
        return waveforms, lengths
    if lengths is not None:
        inside = torch.arange(waveforms.shape[1], device=waveforms.device) < lengths.to(waveforms.device).unsqueeze(1)
        waveforms, lengths = waveforms.masked_fill(~inside, 0.0), lengths + 2 * config.front_padding
    return F.pad(waveforms, (config.front_padding, config.front_padding)), lengths


def normalize(waveforms: Tensor, lengths: Tensor | None, eps: float) -> Tensor:
    """Zero mean and unit variance over each row's valid samples, as layer norm; padding becomes zero.

    >>> normalize(torch.tensor([[1.0, 3.0, 7.0]]), torch.tensor([2]), eps=0.0)
    tensor([[-1.,  1.,  0.]])
    """
    if lengths is None:
        return F.layer_norm(waveforms, waveforms.shape[1:], eps=eps)
    mean, variance = moments_over_time(in_full(waveforms).unsqueeze(1), lengths)
    valid = torch.arange(waveforms.shape[1], device=waveforms.device) < lengths.to(waveforms.device).unsqueeze(1)
    centred = (in_full(waveforms) - mean[:, 0]).masked_fill(~valid, 0.0)
    return (centred * torch.rsqrt(variance[:, 0] + eps)).to(waveforms.dtype)
