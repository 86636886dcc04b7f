"""The shape of a speech encoder, as one JSON-able dataclass.

Teachers (wav2vec 2.0, HuBERT, WavLM) and students (DistilHuBERT, RobustDistiller, pruned models) differ only in the
values found here.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import prod
from typing import Any

from robustdistiller.common.names import refuse_unknown
from robustdistiller.upstream.model.config_check import check_config, require

#: (channels, kernel in samples, stride in samples) of the seven layers of wav2vec 2.0: 25 ms windows every 20 ms.
WAV2VEC2_CONV_LAYERS = ((512, 10, 5), *((512, 3, 2),) * 4, *((512, 2, 2),) * 2)

#: Of the spectra of a log-mel front end: 25 ms every 10 ms at 16 kHz.
MEL_WINDOW_SAMPLES, MEL_HOP_SAMPLES = 400, 160


@dataclass(frozen=True)
class EncoderConfig:
    """Everything that defines a :class:`~robustdistiller.upstream.SpeechEncoder`. The defaults are HuBERT Base.

    Args:
        front_end: what the first convolution sees: ``"conv"``, the waveform (wav2vec 2.0, SEW, ARMHuBERT), or
            ``"log_mel"``, a log-mel spectrum every 10 ms (https://arxiv.org/abs/2210.15631).
        num_mel_bands: bands of that spectrum.
        conv_layers: ``(channels, kernel, stride)`` of each convolution of the front end. The first counts in samples,
            or in spectra of 10 ms.
        conv_norm: ``"group"`` normalises each channel over time after the first layer (Base models); ``"layer"``
            normalises the channels of each frame after every layer (Large models); ``"half_group"``, of log-mel front
            ends, is ``"group"`` for half of the channels, and the filters of the other half sum to zero.
        conv_bias: whether the extractor's convolutions have biases.
        feature_scale: one factor per channel on the extractor's output, what DPHuBERT keeps of its last gates.
        feature_norm: layer norm between the extractor and the projection. Distiller students have none.
        projection: linear map to ``embed_dim``; ``None`` has it only where the last conv layer has another width.
        normalize_waveform: scale each utterance to zero mean and unit variance first (Large models).
        normalize_eps: added to the variance by which ``normalize_waveform`` divides: 1e-5 in fairseq, 1e-7 in
            transformers. Quiet audio feels it.
        embed_dim: width of the transformer.
        num_layers: number of transformer layers.
        num_heads: attention heads, one number for all layers or one per layer (0: the layer has no attention).
        head_dim: width of one head; ``None`` is ``embed_dim // num_heads``. Needed when head counts differ.
        ffn_dim: feed-forward width, one number or one per layer (0: the layer has no feed-forward part).
        activation: ``"gelu"``, ``"gelu_tanh"`` or ``"relu"``, in the feed-forward parts.
        norm_first: pre-norm layers, with one more layer norm after the last layer.
        last_state_normed: whether the hidden state of a pre-norm encoder's last layer is given after that norm (HuBERT
            Large); otherwise only the heads hear it normed, as in s3prl's Distiller.
        position_kernel: width in frames of the convolution that encodes position.
        position_groups: its groups.
        position_batch_norm: a batch norm before that convolution, in the place of its weight norm (mHuBERT-147's 25 Hz
            models, https://arxiv.org/abs/2406.06371).
        position_depth: 1 is one weight-normalised convolution (wav2vec 2.0); more is as many plain ones, each with a
            layer norm without weights (data2vec, https://arxiv.org/abs/2202.03555).
        squeeze: frames that share one frame inside the transformer: with 2, students of 50 Hz compute at 25 Hz.
            Hidden states have all frames, whatever is here.
        squeeze_by: how frames become one: ``"pool"`` takes their mean, and the position convolution has strides (SEW,
            https://arxiv.org/abs/2109.06870); ``"conv"`` is a convolution behind position and norm (FitHuBERT,
            https://arxiv.org/abs/2207.00555).
        expand_by: how the last layer's frames become many again: ``"linear"`` maps each to all of its frames, with
            GELU (SEW); ``"repeat"`` gives it to all of them, as those of the layers before are given.
        attention_reuse: layers, counted from 0, that take the attention weights of the layer before them and so have
            no queries and keys (ARMHuBERT, https://arxiv.org/abs/2305.11685).
        relative_position: add WavLM's bucketed relative position bias (https://arxiv.org/abs/2110.13900, eq. 2-6).
        gated_relative_position: scale that bias per head and query frame.
        num_buckets: rows of the bias table.
        max_distance: distance in frames from which all distances share a bucket.
        position_bias_heads: for pruned models, the columns of the bias table each layer uses; ``None`` is all of them.
        prediction_layers: teacher layers that the prediction heads regress; empty is an encoder without heads.
        prediction_dim: width of the teacher; ``None`` is ``embed_dim``.
        prediction_inner_dim: width inside each head; ``None`` is ``embed_dim``.
        dropout: after attention, after the feed-forward part and before the first layer.
        attention_dropout: on attention weights.
        activation_dropout: inside the feed-forward part.
        feature_dropout: after the projection.
        layerdrop: probability of skipping a layer in training. The skipped layer repeats its input as hidden state.
        feature_grad_mult: factor on the gradient that enters the extractor; 0 freezes it.
        padding: ``"masked"`` makes an utterance's features independent of the batch; ``"reference"`` repeats what
            s3prl and fairseq compute (group norm statistics over the padded row).
        reference_mask: how ``"reference"`` counts frames: ``"conv"`` (wav2vec 2.0, Distiller) or ``"block"`` (HuBERT,
            WavLM).
        first_state: hidden state 0 of the upstream: ``"projected"`` (Distiller, DPHuBERT) or ``"layer_input"``
            (HuBERT, WavLM); ``"auto"`` is the former for encoders with heads.

    Raises:
        ValueError: a value is outside its range, or the values contradict each other.

    >>> config = EncoderConfig(num_layers=2, prediction_layers=(4, 8, 12))
    >>> config.downsample_rate, config.heads
    (320, (12, 12))
    >>> EncoderConfig.from_dict({"num_layer": 2})
    Traceback (most recent call last):
    ValueError: unknown encoder option 'num_layer'; did you mean 'num_layers'?
    """

    front_end: str = "conv"
    num_mel_bands: int = 80
    conv_layers: tuple[tuple[int, int, int], ...] = WAV2VEC2_CONV_LAYERS
    conv_norm: str = "group"
    conv_bias: bool = False
    feature_scale: bool = False
    feature_norm: bool = True
    projection: bool | None = None
    normalize_waveform: bool = False
    normalize_eps: float = 1e-5
    embed_dim: int = 768
    num_layers: int = 12
    num_heads: int | tuple[int, ...] = 12
    head_dim: int | None = None
    ffn_dim: int | tuple[int, ...] = 3072
    activation: str = "gelu"
    norm_first: bool = False
    last_state_normed: bool = True
    position_kernel: int = 128
    position_groups: int = 16
    position_batch_norm: bool = False
    position_depth: int = 1
    squeeze: int = 1
    squeeze_by: str = "pool"
    expand_by: str = "linear"
    attention_reuse: tuple[int, ...] = ()
    relative_position: bool = False
    gated_relative_position: bool = False
    num_buckets: int = 320
    max_distance: int = 800
    position_bias_heads: tuple[tuple[int, ...], ...] | None = None
    prediction_layers: tuple[int, ...] = ()
    prediction_dim: int | None = None
    prediction_inner_dim: int | None = None
    dropout: float = 0.1
    attention_dropout: float = 0.1
    activation_dropout: float = 0.0
    feature_dropout: float = 0.0
    layerdrop: float = 0.0
    feature_grad_mult: float = 1.0
    padding: str = "masked"
    reference_mask: str = "conv"
    first_state: str = "auto"

    def __post_init__(self):
        for field in dataclasses.fields(self):
            object.__setattr__(self, field.name, _freeze(getattr(self, field.name)))
        check_config(self)

    @property
    def heads(self) -> tuple[int, ...]:
        """Attention heads of each layer."""
        return _per_layer(self.num_heads, self.num_layers, "num_heads")

    @property
    def ffn_dims(self) -> tuple[int, ...]:
        """Feed-forward width of each layer."""
        return _per_layer(self.ffn_dim, self.num_layers, "ffn_dim")

    @property
    def width_per_head(self) -> int:
        """Width of one attention head."""
        return self.head_dim or self.embed_dim // max(self.heads, default=1)

    @property
    def has_projection(self) -> bool:
        """Whether a linear map stands between the extractor and the transformer."""
        return self.conv_layers[-1][0] != self.embed_dim if self.projection is None else self.projection

    @property
    def total_heads(self) -> int:
        """Heads of a layer before any was pruned: the columns of WavLM's table and its gates."""
        return self.embed_dim // self.width_per_head

    @property
    def starts_projected(self) -> bool:
        """Whether hidden state 0 of the upstream is the projection's output (see ``first_state``)."""
        return self.first_state == "projected" or (self.first_state == "auto" and bool(self.prediction_layers))

    @property
    def bias_columns(self) -> tuple[tuple[int, ...], ...]:
        """For each layer, the columns of the relative position table that its heads use."""
        return self.position_bias_heads or tuple(tuple(range(heads)) for heads in self.heads)

    @property
    def downsample_rate(self) -> int:
        """Samples per frame."""
        # a list: compilers know no generators
        return self._input_hop * prod([stride for _, _, stride in self.conv_layers])

    @property
    def receptive_field(self) -> int:
        """Samples needed for one frame.

        >>> EncoderConfig().receptive_field
        400
        """
        return self.block_samples(1) - 2 * self.front_padding

    @property
    def front_padding(self) -> int:
        """Zeros that are put on both sides of an utterance: what the convolutions reach beyond one spectrum.

        With odd kernels each frame then lies around the spectrum, and there are the frames, that wav2vec 2.0 has.

        >>> log_mel = EncoderConfig(front_end="log_mel", conv_layers=((384, 3, 1), (384, 3, 2)))
        >>> log_mel.front_padding, log_mel.receptive_field, log_mel.downsample_rate
        (320, 400, 320)
        """
        return 0 if self.front_end == "conv" else (self.block_samples(1) - MEL_WINDOW_SAMPLES) // 2

    def block_samples(self, frames: int) -> int:
        """Samples, padding included, that so many frames are made from.

        >>> EncoderConfig().block_samples(2)
        720
        """
        steps = field_of(self.conv_layers, frames)
        return steps if self.front_end == "conv" else (steps - 1) * MEL_HOP_SAMPLES + MEL_WINDOW_SAMPLES

    @property
    def _input_hop(self) -> int:
        return 1 if self.front_end == "conv" else MEL_HOP_SAMPLES

    def to_dict(self) -> dict[str, Any]:
        """The configuration as plain JSON values.

        >>> EncoderConfig.from_dict(EncoderConfig(ffn_dim=64).to_dict()).ffn_dim
        64
        """
        return {field.name: _thaw(getattr(self, field.name)) for field in dataclasses.fields(self)}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> EncoderConfig:
        """Inverse of :meth:`to_dict`; absent options take their defaults.

        Raises:
            ValueError: for an unknown option, naming the nearest known one.
        """
        refuse_unknown(values, [field.name for field in dataclasses.fields(cls)], "encoder option")
        return cls(**values)

    def replace(self, **changes: Any) -> EncoderConfig:
        """A copy with some options changed; unknown names are refused.

        >>> EncoderConfig().replace(num_layers=2).num_layers
        2
        """
        return EncoderConfig.from_dict({**self.to_dict(), **changes})

    @classmethod
    def hubert_base(cls, **changes: Any) -> EncoderConfig:
        """HuBERT Base, wav2vec 2.0 Base but for its ``reference_mask``: 94.4 M parameters.

        >>> EncoderConfig.hubert_base(num_layers=2).num_layers
        2
        """
        return cls(**{"reference_mask": "block", **changes})

    @classmethod
    def wavlm_base_plus(cls, **changes: Any) -> EncoderConfig:
        """WavLM Base and Base+: HuBERT Base with gated relative positions, 94.4 M parameters."""
        return cls.hubert_base(**{"relative_position": True, "gated_relative_position": True, **changes})

    @classmethod
    def hubert_large(cls, **changes: Any) -> EncoderConfig:
        """HuBERT Large: 24 pre-norm layers of width 1024 on normalised waveforms, 315.4 M parameters."""
        large = {"conv_norm": "layer", "normalize_waveform": True, "embed_dim": 1024, "num_layers": 24}
        return cls.hubert_base(**{**large, "num_heads": 16, "ffn_dim": 4096, "norm_first": True, **changes})

    @classmethod
    def wavlm_large(cls, **changes: Any) -> EncoderConfig:
        """WavLM Large: HuBERT Large with gated relative positions, 315.5 M parameters."""
        return cls.hubert_large(**{"relative_position": True, "gated_relative_position": True, **changes})

    @classmethod
    def xlsr_300m(cls, **changes: Any) -> EncoderConfig:
        """XLS-R 300M, MMS 300M and wav2vec 2.0 Large LV-60: HuBERT Large with conv biases, 315.4 M parameters."""
        return cls.hubert_large(**{"conv_bias": True, "reference_mask": "conv", **changes})

    @classmethod
    def tiny(cls, **changes: Any) -> EncoderConfig:
        """Two layers of width 16, 20 ms frames: for examples and tests.

        >>> EncoderConfig.tiny().downsample_rate
        320
        """
        layers = tuple((16, kernel, stride) for _, kernel, stride in WAV2VEC2_CONV_LAYERS)
        small = {"conv_layers": layers, "embed_dim": 16, "num_layers": 2, "num_heads": 2, "ffn_dim": 32}
        return cls(**{**small, "position_kernel": 16, "position_groups": 4, **changes})


def field_of(conv_layers: Sequence[tuple[int, int, int]], frames: int = 1) -> int:
    """Steps of their input that ``frames`` successive outputs of convolutions are made from.

    >>> field_of(((512, 3, 2), (512, 2, 2)))
    5
    """
    for _, kernel, stride in reversed(conv_layers):
        frames = (frames - 1) * stride + kernel
    return frames


def _per_layer(value: int | tuple[int, ...], num_layers: int, name: str) -> tuple[int, ...]:
    values = value if isinstance(value, tuple) else (value,) * num_layers
    require(len(values) == num_layers, f"{name} lists {len(values)} layers; expected num_layers = {num_layers}")
    require(all(v >= 0 for v in values), f"{name} is {values}; expected 0 or more")
    return values


def _freeze(value: Any) -> Any:
    return tuple(map(_freeze, value)) if isinstance(value, (list, tuple)) else value


def _thaw(value: Any) -> Any:
    return list(map(_thaw, value)) if isinstance(value, tuple) else value
