"""The gates of an encoder: what they are, what they cost, and how they are trained."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import noop_context_fn

from robustdistiller.pretrain.student.pruning.config import PruningConfig, PruningError
from robustdistiller.pretrain.student.pruning.dense import make_dense
from robustdistiller.pretrain.student.pruning.exact import to_target
from robustdistiller.pretrain.student.pruning.hard_concrete import HardConcrete
from robustdistiller.pretrain.student.pruning.hooks import Values, attach
from robustdistiller.pretrain.student.pruning.lagrangian import lagrangian, ramped_sparsity
from robustdistiller.pretrain.student.pruning.sizes import Sizes, Units, prunable_parameters
from robustdistiller.upstream import SpeechEncoder


class Gates(nn.Module):
    """Hard-concrete gates on an encoder's units, and the term that drives its size to the target.

    The gates act from construction on, through hooks, until :meth:`detach`. While the encoder is in train mode they
    are drawn anew, with PyTorch's global generator, in every forward pass; in eval mode they are without chance, and
    the encoder then computes what :meth:`make_dense` computes. The state dict holds the gates' parameters and the
    multipliers, nothing of the encoder; the encoder's is as without gates.

    Not gated: the last conv layer of an encoder without projection, whose channels are the transformer's.

    Args:
        encoder: the dense encoder; no part of this module.
        config: settings.

    Raises:
        PruningError: the encoder has none of the units, they cannot be pruned in it, or the sparsity is out of reach.

    >>> from robustdistiller.upstream import EncoderConfig
    >>> encoder = SpeechEncoder(EncoderConfig(embed_dim=32, num_layers=2, num_heads=4, ffn_dim=64, position_groups=4))
    >>> gates = Gates(encoder, PruningConfig(sparsity=0.6, ramp_steps=100))
    >>> round(gates.sparsity().item(), 2), gates.target_sparsity(50), gates.make_dense().config.num_layers
    (0.0, 0.3, 2)
    >>> Gates(encoder, PruningConfig(units=["heads"], sparsity=0.75))
    Traceback (most recent call last):
    robustdistiller.pretrain.student.pruning.config.PruningError: sparsity 0.75 is out of reach: without any \
heads the encoder would be smaller by 0.002; prune more kinds of units or demand less
    """

    def __init__(self, encoder: SpeechEncoder, config: PruningConfig):
        super().__init__()
        self.config = config
        self._encoder = (encoder,)
        _check_encoder(encoder, config)
        self.vectors = nn.ModuleDict()
        for kind in config.units:
            sizes = _gated(encoder, kind)
            if not sizes:
                raise PruningError(f"the encoder has no {kind} to prune; leave it out of units")
            self.vectors[kind] = nn.ModuleDict({str(i): self._vector(kind, size) for i, size in sizes.items()})
        self.multipliers = nn.Parameter(torch.zeros(2))
        self.vectors.to(next(encoder.parameters()).device)
        self.multipliers.data = self.multipliers.data.to(next(encoder.parameters()).device)

        shape = encoder.config
        self._before = encoder.count_parameters(heads=False)
        self._fixed = self._before - prunable_parameters(shape, Units.of(shape))
        last = str(len(shape.conv_layers) - 1)
        scaled = shape.feature_scale or ("conv" in self.vectors and last in self.vectors["conv"])
        self._dense_shape = shape.replace(feature_scale=scaled)
        self._check_reach()
        self._values: Values = self.resolve()
        # Functions, not bound methods: a deep copy of the encoder stays with these gates.
        self._handles = [encoder.extractor.register_forward_pre_hook(lambda module, _: self._draw(module.training))]
        self._handles += attach(encoder, lambda: self._values)
        encoder.transformer.recompute_context = lambda: (contextlib.nullcontext(), self._again(self._values))

    @property
    def encoder(self) -> SpeechEncoder:
        """The gated encoder."""
        return self._encoder[0]

    def detach(self) -> None:
        """Take the gates off the encoder, which then is as dense as it was."""
        for handle in self._handles:
            handle.remove()
        self._handles = []
        self.encoder.transformer.recompute_context = noop_context_fn

    def expected_parameters(self) -> Tensor:
        """Expected number of parameters of the pruned encoder without prediction heads, a differentiable scalar.

        The exact number where every gate is open or closed with certainty, biases and WavLM's gates of layers without
        attention included. (DPHuBERT leaves those, and all of WavLM's position biases, out of its count.)
        """

        def number(vector: HardConcrete) -> Tensor:
            return self._precise(vector.expected())

        def any_open(vector: HardConcrete) -> Tensor:
            return self._precise(vector.any_open())

        return self._cost(self._units(number, any_open))

    def sparsity(self) -> Tensor:
        """Expected share of the encoder's parameters that is removed, a differentiable scalar."""
        return (1 - self.expected_parameters() / self._before).float()

    def reached(self, tolerance: float = 0.01) -> bool:
        """Whether the final target is met, but for `tolerance`. Gates follow the demanded sparsity with some delay."""
        return self.sparsity().item() >= self.config.sparsity - tolerance

    def target_sparsity(self, step: int) -> float:
        """The sparsity demanded in optimizer step `step`, from 0."""
        return ramped_sparsity(step, self.config.sparsity, self.config.ramp_steps)

    def penalty(self, step: int) -> Tensor:
        """The term of the loss in optimizer step `step`; see :func:`lagrangian`."""
        return lagrangian(self.sparsity(), self.target_sparsity(step), self.multipliers)

    def optimizer_groups(self) -> list[dict[str, Any]]:
        """Parameter groups for the AdamW that trains the encoder: the gates, and the multipliers, which ascend."""
        return [
            {"params": list(self.vectors.parameters()), "lr": self.config.gate_lr, "weight_decay": 0.0},
            {"params": [self.multipliers], "lr": self.config.multiplier_lr, "weight_decay": 0.0, "maximize": True},
        ]

    @torch.no_grad()
    def resolve(self, exact: bool = False) -> Values:
        """Gates without chance by kind and layer, each `(units,)` and 0 where the unit goes.

        Args:
            exact: meet the final target as nearly as whole units can; see :class:`PruningConfig`.
        """
        values = {kind: {int(i): v.resolve() for i, v in layers.items()} for kind, layers in self.vectors.items()}
        if not exact:
            return values
        vectors = {(kind, int(i)): v for kind, layers in self.vectors.items() for i, v in layers.items()}
        is_open = {(kind, i): gates > 0 for kind, layers in values.items() for i, gates in layers.items()}
        logits = {key: vector.logits() for key, vector in vectors.items()}
        keep_one = {key for key, vector in vectors.items() if vector.at_least_one}
        target = self._before * (1 - self.config.sparsity)
        is_open = to_target(is_open, logits, keep_one, self._count, target)
        return {
            kind: {i: is_open[kind, i] * vectors[kind, i].value() for i in layers} for kind, layers in values.items()
        }

    def make_dense(self) -> SpeechEncoder:
        """A new encoder without the closed units, their gates folded into its weights; see :func:`make_dense`."""
        return make_dense(self.encoder, self.resolve(self.config.exact))

    def size(self) -> Sizes:
        """Parameters of the encoder, and of what :meth:`make_dense` returns now, without prediction heads."""
        return self._size(self.resolve(self.config.exact))

    def summary(self) -> dict[str, Any]:
        """JSON-able: `kept` and `total` units by kind and layer, and parameters `before` and `after`."""
        values, report = self.resolve(self.config.exact), {}
        for kind, layers in values.items():
            kept = [int((gates > 0).sum()) for gates in layers.values()]
            total = [len(gates) for gates in layers.values()]
            report[kind] = {"layers": list(layers), "kept": kept, "total": total}
        size = self._size(values)
        parameters = {"before": size.before, "after": size.after, "sparsity": size.sparsity}
        return {**report, "parameters": parameters, "expected_sparsity": self.sparsity().item()}

    def _vector(self, kind: str, size: int) -> HardConcrete:
        config = self.config
        rate = config.initial_ffn_drop_rate if kind == "ffn" else config.initial_drop_rate
        return HardConcrete(size, rate, config.initial_std, config.temperature, config.stretch, kind == "conv")

    def _draw(self, training: bool) -> None:
        """Gates for one forward pass. The extractor may run without gradients, the other gates still need theirs."""
        if not training:
            self._values = self.resolve()
            return
        with torch.enable_grad():
            self._values = {
                kind: {int(index): vector.sample() for index, vector in layers.items()}
                for kind, layers in self.vectors.items()
            }

    @contextlib.contextmanager
    def _again(self, values: Values) -> Iterator[None]:
        """While layers are computed again in the backward pass: with the gates of their own forward pass."""
        latest, self._values = self._values, values
        try:
            yield
        finally:
            self._values = latest

    def _precise(self, value: Tensor) -> Tensor:
        """Counts of parameters go beyond the whole numbers of float32."""
        return value if value.device.type == "mps" else value.double()

    def _units(self, number: Callable[[Any], Any], any_open: Callable[[Any], Any]) -> Units:
        """Units of the pruned encoder, from what is known about each vector of gates."""

        def known(kind: str, index: int, about: Callable[[Any], Any], otherwise: int) -> Any:
            layers = dict(self.vectors.items()).get(kind, {})
            return about(layers[str(index)]) if str(index) in layers else otherwise

        full = Units.of(self.encoder.config)
        conv = [known("conv", i, number, n) for i, n in enumerate(full.conv)]
        parts = []
        for kind, whole, numbers, exist in (
            ("heads", "attention_layer", full.heads, full.attends),
            ("ffn", "ffn_layer", full.ffn, full.feeds),
        ):
            layers = [known(whole, i, number, 1) for i in range(len(numbers))]
            parts.append([layer * known(kind, i, number, numbers[i]) for i, layer in enumerate(layers)])
            parts.append([layer * known(kind, i, any_open, exist[i]) for i, layer in enumerate(layers)])
        return Units(conv, *parts)

    def _cost(self, units: Units) -> Any:
        return self._fixed + prunable_parameters(self._dense_shape, units)

    def _count(self, numbers: dict[tuple[str, int], int]) -> int:
        """Parameters when so many units are open, by kind and layer."""
        by_vector = {self.vectors[kind][str(index)]: number for (kind, index), number in numbers.items()}
        return self._cost(self._units(lambda v: by_vector[v], lambda v: int(by_vector[v] > 0)))

    def _size(self, values: Values) -> Sizes:
        numbers = {(kind, i): int((z > 0).sum()) for kind, layers in values.items() for i, z in layers.items()}
        return Sizes(self._before, self._count(numbers))

    def _check_reach(self) -> None:
        smallest = self._cost(self._units(lambda v: int(v.at_least_one), lambda v: int(v.at_least_one)))
        reach = 1 - smallest / self._before
        if self.config.sparsity > reach:
            raise PruningError(
                f"sparsity {self.config.sparsity} is out of reach: without any {', '.join(self.config.units)} the "
                f"encoder would be smaller by {reach:.3f}; prune more kinds of units or demand less"
            )


def _gated(encoder: SpeechEncoder, kind: str) -> dict[int, int]:
    """Layers with units of a kind, and how many."""
    shape = encoder.config
    if kind == "conv":
        channels = [layer[0] for layer in shape.conv_layers]
        return dict(enumerate(channels if shape.has_projection else channels[:-1]))
    numbers = shape.heads if kind in ("heads", "attention_layer") else shape.ffn_dims
    return {i: 1 if kind.endswith("_layer") else number for i, number in enumerate(numbers) if number}


def _check_encoder(encoder: SpeechEncoder, config: PruningConfig) -> None:
    shape = encoder.config
    if shape.attention_reuse and not {"heads", "attention_layer"}.isdisjoint(config.units):
        raise PruningError(
            f"layers {', '.join(map(str, shape.attention_reuse))} of the encoder reuse attention weights, so that its "
            "attention cannot be pruned layer by layer; leave heads and attention_layer out of units"
        )
    if "conv" in config.units and shape.feature_grad_mult == 0:
        raise PruningError(
            "the conv extractor is frozen (feature_grad_mult 0), so that its gates learn nothing from the speech; give "
            "it a gradient or leave conv out of units"
        )
