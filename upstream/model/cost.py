"""What a speech encoder costs: parameters, and multiply-accumulate operations (MACs).

Counted are the matrix products and convolutions, one MAC per multiplication and addition, as profilers count them;
norms, activations, softmax and sums are left out. Attention grows with the
square of the length, so a cost belongs to the length for which it is stated.
"""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from robustdistiller.common.audio import SAMPLE_RATE_HZ
from robustdistiller.upstream.model.config import EncoderConfig
from robustdistiller.upstream.model.encoder import SpeechEncoder
from robustdistiller.upstream.model.values import without_values

logger = logging.getLogger(__name__)

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
        macs: of that whole utterance.

    >>> encoder = SpeechEncoder(EncoderConfig(num_layers=2, feature_norm=False, prediction_layers=(4, 8, 12)))
    >>> cost = encoder_cost(encoder)
    >>> cost.parameters_stored, cost.parameters_used, round(cost.macs_per_s / 1e9, 2)
    (27034752, 23491200, 3.49)
    """

    parameters_stored: int
    parameters_used: int
    duration_s: float
    macs: int

    @property
    def macs_per_s(self) -> float:
        """MACs per second of audio."""
        return self.macs / self.duration_s

    @property
    def predicted_speed(self) -> float:
        """How many times as fast as WavLM Base+ it should be on one CPU core: the ratio of the MACs.

        A first guess, which knows nothing of memory and of small matrices: what was measured is in `results/bench`.
        """
        return encoder_macs(EncoderConfig.wavlm_base_plus(), self.duration_s) / self.macs

    def to_dict(self) -> dict[str, Any]:
        """JSON-able form."""
        return {**vars(self), "macs_per_s": round(self.macs_per_s)}


def encoder_cost(encoder: nn.Module, duration_s: float = DURATION_S) -> EncoderCost:
    """Parameters and MACs of an encoder that extracts features; its prediction heads are stored but not run.

    Args:
        encoder: teacher, student or pruned model; of another kind than `SpeechEncoder` if it has `count_parameters`.
        duration_s: length of the utterance.

    >>> encoder_cost(SpeechEncoder(EncoderConfig.tiny()), duration_s=1.0).parameters_used
    9856
    """
    if isinstance(encoder, SpeechEncoder):
        macs = encoder_macs(encoder.config, duration_s)
    else:
        waveform = torch.zeros(1, round(duration_s * SAMPLE_RATE_HZ), device=next(encoder.parameters()).device)
        macs = counted_macs(encoder, waveform)
    return EncoderCost(
        parameters_stored=encoder.count_parameters(heads=True),  # type: ignore[operator]
        parameters_used=encoder.count_parameters(heads=False),  # type: ignore[operator]
        duration_s=duration_s,
        macs=macs,
    )


def used_parameters(model: nn.Module, states: Callable[[], Iterable[Tensor]]) -> int | None:
    """How many of a model's parameters some hidden states depend on, which their gradients tell.

    A conv extractor that is frozen by a factor of 0 on its gradient, as in upstreams of teachers, is used, too.

    Args:
        model: of any kind.
        states: computes hidden states.

    Returns:
        their number; None where the model keeps no gradients.

    >>> encoder = SpeechEncoder(EncoderConfig.tiny(feature_grad_mult=0.0)).eval()
    >>> used_parameters(encoder, lambda: encoder(torch.zeros(1, 400)).hidden_states) == encoder.count_parameters()
    True
    >>> used_parameters(encoder, lambda: encoder(torch.zeros(1, 400), layers=(0,)).hidden_states)
    5408
    """
    weights = list(model.parameters())
    wanted = [weight.requires_grad for weight in weights]
    try:
        model.requires_grad_(True)
        with torch.enable_grad(), _extractors_with_gradients(model):
            total = sum(state.float().square().sum() for state in states())
        if not isinstance(total, Tensor) or not total.requires_grad:
            return None
        gradients = torch.autograd.grad(total, weights, allow_unused=True)
    except RuntimeError:  # parts of it refuse gradients
        return None
    finally:
        for weight, needed in zip(weights, wanted):
            weight.requires_grad_(needed)
    return sum(weight.numel() for weight, gradient in zip(weights, gradients) if gradient is not None)


@contextmanager
def _extractors_with_gradients(model: nn.Module) -> Iterator[None]:
    """With a factor of 1 in the place of 0, in our encoders and in those of fairseq that s3prl has."""
    modules = list(model.modules())
    ours = [one for one in modules if isinstance(one, SpeechEncoder) and one.config.feature_grad_mult == 0]
    theirs: list[Any] = [one for one in modules if getattr(one, "feature_grad_mult", None) == 0]
    before = [one.config for one in ours]
    try:
        for one in ours:
            one.config = one.config.replace(feature_grad_mult=1.0)
        for other in theirs:
            other.feature_grad_mult = 1.0
        yield
    finally:
        for one, config in zip(ours, before):
            one.config = config
        for other in theirs:
            other.feature_grad_mult = 0.0


@functools.cache  # a run asks for its teacher, its student and WavLM Base+ several times
def encoder_macs(
    config: EncoderConfig, duration_s: float = DURATION_S, max_layer: int | None = None, heads: bool = False
) -> int:
    """MACs of one unpadded utterance, those that `counted_macs` finds in an encoder of this shape.

    Args:
        config: shape of the encoder.
        duration_s: length of the utterance, at 16 kHz.
        max_layer: run the transformer up to this layer only; `None` is all of it.
        heads: run the prediction heads, too.

    Raises:
        ValueError: the utterance is too short for one frame.

    >>> round(encoder_macs(EncoderConfig(), duration_s=10.0) / 10e9, 2)  # HuBERT Base, per second of audio, in 1e9
    7.41
    """
    with without_values():
        encoder, waveforms = SpeechEncoder(config).eval(), torch.empty(1, round(duration_s * SAMPLE_RATE_HZ))
    encoder._check_input(waveforms, None)
    layers = None if max_layer is None else (max_layer,)
    with torch.no_grad():
        return _count(encoder, waveforms, {"layers": layers, "predict": heads})


def counted_macs(upstream: nn.Module, waveforms: Sequence[Tensor] | Tensor, **options: Any) -> int:
    """MACs of an upstream as it runs, half of the operations that PyTorch's `FlopCounterMode` counts.

    For upstreams of any kind. Counted are matrix products, convolutions and attention; `NOT_COUNTED` says what is not.
    It runs on shapes alone where it allows that, which is quick, otherwise on the numbers, but keeping no gradients.

    Args:
        upstream: takes a list of waveforms, as s3prl's upstreams do.
        waveforms: at 16 kHz, each `(samples,)`.
        options: further arguments of its forward.

    >>> counted_macs(nn.Linear(7, 5), torch.randn(4, 7))
    140
    """
    wanted = [weight.requires_grad for weight in upstream.parameters()]
    upstream.requires_grad_(False)
    try:
        shapes = FakeTensorMode(allow_non_fake_inputs=True)
        try:
            fake: list[Tensor] = [shapes.from_tensor(waveform) for waveform in waveforms]
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
    encoder    stored M    used M     GMAC/s    of it    speed
    teacher        4.22      4.22       2.46     100%      3.0
    MACs per second of audio, for an utterance of 10 s; used: without prediction heads
    speed: times as fast as WavLM Base+ on one core, predicted as the ratio of the MACs
    """
    first = next(iter(costs.values()))
    wide = max(7, *map(len, costs))
    lines = [f"{'encoder':<{wide}} {'stored M':>11} {'used M':>9} {'GMAC/s':>10} {'of it':>8} {'speed':>8}"]
    for name, cost in costs.items():
        lines.append(
            f"{name:<{wide}} {cost.parameters_stored / 1e6:>11.2f} {cost.parameters_used / 1e6:>9.2f} "
            f"{cost.macs_per_s / 1e9:>10.2f} {cost.macs_per_s / first.macs_per_s:>8.0%} {cost.predicted_speed:>8.1f}"
        )
    return "\n".join(
        [
            *lines,
            f"MACs per second of audio, for an utterance of {first.duration_s:g} s; used: without prediction heads",
            "speed: times as fast as WavLM Base+ on one core, predicted as the ratio of the MACs",
        ]
    )
