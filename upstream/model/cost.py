"""What a speech encoder costs: parameters, and multiply-accumulate operations (MACs) counted from its configuration.

Counted are the matrix products and convolutions, one MAC per multiplication and addition, as profilers count them;
norms, activations, softmax and sums are left out. Attention grows with the
square of the length, so a cost belongs to the length for which it is stated.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from robustdistiller.upstream.model.config import EncoderConfig
from robustdistiller.upstream.model.encoder import SpeechEncoder

logger = logging.getLogger(__name__)

SAMPLE_RATE_HZ = 16_000
DURATION_S = 10.0
#: What `counted_macs` leaves out.
NOT_COUNTED = "norms, activations, softmax, sums, FFTs, table look-ups, recurrent layers"


@dataclass(frozen=True)
class EncoderCost:
    """Size and work of one encoder.

    Attributes:
        parameters_stored: in the checkpoint, with prediction heads.
        parameters_used: when features are extracted, without prediction heads.
        duration_s: length of the utterance that is encoded.
        macs: of that whole utterance, by part: see `encoder_macs`.

    >>> encoder = SpeechEncoder(EncoderConfig(num_layers=2, feature_norm=False, prediction_layers=(4, 8, 12)))
    >>> cost = encoder_cost(encoder)
    >>> cost.parameters_stored, cost.parameters_used, round(cost.macs_per_s / 1e9, 2)
    (27034752, 23491200, 3.49)
    """

    parameters_stored: int
    parameters_used: int
    duration_s: float
    macs: Mapping[str, int]

    @property
    def macs_per_s(self) -> float:
        """MACs per second of audio."""
        return sum(self.macs.values()) / self.duration_s

    def to_dict(self) -> dict[str, Any]:
        """JSON-able form."""
        return {
            "parameters_stored": self.parameters_stored,
            "parameters_used": self.parameters_used,
            "duration_s": self.duration_s,
            "macs_per_s": round(self.macs_per_s),
            "macs": dict(self.macs),
        }


def encoder_cost(encoder: SpeechEncoder, duration_s: float = DURATION_S) -> EncoderCost:
    """Parameters and MACs of an encoder that extracts features; its prediction heads are stored but not run.

    Args:
        encoder: teacher, student or pruned model.
        duration_s: length of the utterance.

    >>> encoder_cost(SpeechEncoder(EncoderConfig(num_layers=0)), duration_s=1.0).macs["feed_forward"]
    0
    """
    return EncoderCost(
        parameters_stored=encoder.count_parameters(heads=True),
        parameters_used=encoder.count_parameters(heads=False),
        duration_s=duration_s,
        macs=encoder_macs(encoder.config, duration_s),
    )


def encoder_macs(
    config: EncoderConfig, duration_s: float = DURATION_S, max_layer: int | None = None, heads: bool = False
) -> dict[str, int]:
    """MACs of one unpadded utterance, by part.

    With T frames, width D, H heads of width d (H d < D in pruned layers) and feed-forward width F, a layer takes
    4 T D H d for its four attention projections, 2 T^2 H d for the products of queries with keys and of weights with
    values, and 2 T D F for the feed-forward part. A convolution takes T C_in C_out k / groups.

    Args:
        config: shape of the encoder.
        duration_s: length of the utterance, at 16 kHz.
        max_layer: count the transformer up to this layer only; `None` is all of it.
        heads: count the prediction heads, too.

    Returns:
        MACs of `extractor` (convolutions), `projection`, `position` (convolution), `attention` (projections, and
        WavLM's gates), `attention_products` (the quadratic part), `feed_forward` and `heads`.

    Raises:
        ValueError: the utterance is too short for one frame.

    >>> macs = encoder_macs(EncoderConfig(), duration_s=10.0)  # HuBERT Base
    >>> {part: round(count / 10e9, 2) for part, count in macs.items()}  # per second of audio, in 1e9
    {'extractor': 2.45, 'projection': 0.02, 'position': 0.24, 'attention': 1.41, 'attention_products': 0.46, \
'feed_forward': 2.83, 'heads': 0.0}
    """
    extractor, frames = _extractor_macs(config, round(duration_s * SAMPLE_RATE_HZ))
    width = config.embed_dim
    attention = products = 0
    layers = range(config.num_layers if max_layer is None else max_layer)
    for layer in layers:
        inner = config.heads[layer] * config.width_per_head
        reuses = layer in config.attention_reuse
        attention += (2 if reuses else 4) * frames * width * inner
        products += (1 if reuses else 2) * frames**2 * inner
        if config.relative_position and config.gated_relative_position and not reuses:
            attention += 8 * frames * inner
    kernel = config.position_kernel
    frames_out = frames + 1 - kernel % 2  # an even kernel computes one frame more, which is dropped
    position = (frames_out if config.position_depth == 1 else frames_out * config.position_depth) * width * width
    return {
        "extractor": extractor,
        "projection": frames * config.conv_layers[-1][0] * width if config.has_projection else 0,
        "position": position * kernel // config.position_groups,
        "attention": attention,
        "attention_products": products,
        "feed_forward": sum(2 * frames * width * config.ffn_dims[layer] for layer in layers),
        "heads": _head_macs(config, frames) if heads and len(layers) == config.num_layers else 0,
    }


def _extractor_macs(config: EncoderConfig, samples: int) -> tuple[int, int]:
    """MACs of the convolutional extractor, and the frames it makes."""
    if samples < config.receptive_field:
        raise ValueError(f"{samples} samples are too few for a frame; expected at least {config.receptive_field}")
    macs, channels_in, frames = 0, 1, samples
    for channels, kernel, stride in config.conv_layers:
        frames = (frames - kernel) // stride + 1
        macs += frames * channels_in * channels * kernel
        channels_in = channels
    return macs, frames


def _head_macs(config: EncoderConfig, frames: int) -> int:
    inner = config.prediction_inner_dim or config.embed_dim
    outer = config.prediction_dim or config.embed_dim
    return len(config.prediction_layers) * frames * inner * (config.embed_dim + outer)


def counted_macs(upstream: nn.Module, waveforms: Sequence[Tensor] | Tensor, **options: Any) -> int:
    """MACs of an upstream as it runs, half of the operations that PyTorch's `FlopCounterMode` counts.

    For upstreams of any kind. Counted are matrix products, convolutions and attention; `NOT_COUNTED` says what is not.
    It runs on shapes alone where it allows that, which is quick, otherwise on the numbers, but keeping no gradients.

    Args:
        upstream: takes a list of waveforms, as s3prl's upstreams do.
        waveforms: at 16 kHz, each `(samples,)`.
        options: further arguments of its forward.

    >>> config = EncoderConfig(embed_dim=16, num_layers=1, num_heads=2, ffn_dim=32, position_groups=4)
    >>> encoder = SpeechEncoder(config).eval()
    >>> counted = counted_macs(encoder, torch.randn(1, 16_000))
    >>> round(counted / sum(encoder_macs(config, duration_s=1.0).values()), 2)
    1.0
    """
    wanted = [weight.requires_grad for weight in upstream.parameters()]
    upstream.requires_grad_(False)
    try:
        shapes = FakeTensorMode(allow_non_fake_inputs=True)
        try:
            fake = [shapes.from_tensor(waveform) for waveform in waveforms]
            with shapes:
                return _count(upstream, torch.stack(fake) if isinstance(waveforms, Tensor) else fake, options)
        except Exception as error:  # noqa: BLE001 - somebody's code that looks at numbers: it gets some
            logger.debug("%s does not run on shapes alone: %s", type(upstream).__name__, error)
        return _count(upstream, waveforms, options)
    finally:
        for weight, needed in zip(upstream.parameters(), wanted):
            weight.requires_grad_(needed)


def _count(upstream: nn.Module, waveforms: Sequence[Tensor] | Tensor, options: Mapping[str, Any]) -> int:
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        upstream(waveforms, **options)
    return counter.get_total_flops() // 2


def cost_table(costs: Mapping[str, EncoderCost]) -> str:
    """A small text table: one line per encoder, relative to the first one.

    Args:
        costs: by name, the teacher first.

    >>> small = EncoderConfig(embed_dim=16, num_layers=1, num_heads=2, ffn_dim=32, position_groups=4)
    >>> print(cost_table({"teacher": encoder_cost(SpeechEncoder(small))}))
    encoder    stored M    used M     GMAC/s    of it
    teacher        4.22      4.22       2.46     100%
    MACs per second of audio, for an utterance of 10 s; used: without prediction heads
    """
    first = next(iter(costs.values()))
    wide = max(7, *map(len, costs))
    lines = [f"{'encoder':<{wide}} {'stored M':>11} {'used M':>9} {'GMAC/s':>10} {'of it':>8}"]
    for name, cost in costs.items():
        lines.append(
            f"{name:<{wide}} {cost.parameters_stored / 1e6:>11.2f} {cost.parameters_used / 1e6:>9.2f} "
            f"{cost.macs_per_s / 1e9:>10.2f} {cost.macs_per_s / first.macs_per_s:>8.0%}"
        )
    return "\n".join(
        [
            *lines,
            f"MACs per second of audio, for an utterance of {first.duration_s:g} s; used: without prediction heads",
        ]
    )
