"""The gates of an encoder: what they are, what they cost, and how they are trained."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import noop_context_fn

from robustdistiller.common.settings import SettingsError
from robustdistiller.pretrain.student.pruning.config import PruningConfig
from robustdistiller.pretrain.student.pruning.dense import make_dense, to_target
from robustdistiller.pretrain.student.pruning.hard_concrete import HardConcrete
from robustdistiller.pretrain.student.pruning.hooks import Key, Values, attach
from robustdistiller.pretrain.student.pruning.sizes import (
    Units,
    ffn_parameters,
    head_parameters,
    prunable_parameters,
)
from robustdistiller.upstream import EncoderConfig, SpeechEncoder


class Gates(nn.Module):
    """Hard-concrete gates on an encoder's units, and the term that drives its size to the target.

    The gates act from construction on, through hooks, until :meth:`detach`. While the encoder is in train mode they
    are drawn anew, with PyTorch's global generator and nothing else, in every forward pass; in eval mode they are
    without chance, and the encoder then computes what :meth:`make_dense` computes. The state dict holds the gates'
    parameters and the multipliers, nothing of the encoder; the encoder's is as without gates.

    Not gated: the last conv layer of an encoder without projection, whose channels are the transformer's.

    Args:
        encoder: the dense encoder; no part of this module.
        config: settings.

    Raises:
        SettingsError: the encoder has none of the units, they cannot be pruned in it, or the sparsity is out of reach.
    """

    def __init__(self, encoder: SpeechEncoder, config: PruningConfig):
        super().__init__()
        shape = encoder.config
        _check(shape, config)
        self.config, self._encoder = config, (encoder,)
        self.vectors = nn.ModuleDict()
        for kind in config.units:
            rate = config.initial_ffn_drop_rate if kind == "ffn" else config.initial_drop_rate
            options = (rate, config.initial_std, config.temperature, config.stretch, kind == "conv")
            self.vectors[kind] = nn.ModuleDict(
                {str(index): HardConcrete(size, *options) for index, size in _gated(shape, kind).items()}
            )
        self.multipliers = nn.Parameter(torch.zeros(2))
        self.to(next(encoder.parameters()).device)
        self._by_key: dict[Key, HardConcrete] = {
            (kind, int(index)): vector for kind, layers in self.vectors.items() for index, vector in layers.items()
        }
        self._before = encoder.count_parameters(heads=False)
        self._fixed = self._before - prunable_parameters(shape, Units.of(shape))
        scaled = shape.feature_scale or ("conv", len(shape.conv_layers) - 1) in self._by_key
        self._dense_shape = shape.replace(feature_scale=scaled)
        self._check_reach()
        self._values: Values = self.resolve()
        self._resolved_of: list[tuple[torch.device, int]] | None = None
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

        def precise(value: Tensor) -> Tensor:  # counts of parameters go beyond the whole numbers of float32
            return value if value.device.type == "mps" else value.double()

        vectors = self._by_key
        return self._cost(lambda key: precise(vectors[key].expected()), lambda key: precise(vectors[key].any_open()))

    def sparsity(self) -> Tensor:
        """Expected share of the encoder's parameters that is removed, a differentiable scalar."""
        return (1 - self.expected_parameters() / self._before).float()

    def reached(self, tolerance: float = 0.005) -> bool:
        """Whether the expected sparsity is the final target, or above it, but for `tolerance`.

        It comes later than the ramp: before, a student is larger than asked for, and nearer to its teacher for that.
        """
        return self.sparsity().item() >= self.config.sparsity - tolerance

    def target_sparsity(self, step: int) -> float:
        """The sparsity demanded in optimizer step `step`, from 0: it rises linearly from 0, as in DPHuBERT."""
        share = 1.0 if step >= self.config.ramp_steps else step / self.config.ramp_steps
        return self.config.sparsity * share

    def penalty(self, step: int) -> Tensor:
        """The term of the loss in optimizer step `step`: an augmented Lagrangian `m0 * (s - t) + m1 * (s - t)^2`.

        Wang et al., arXiv 1910.04732, section 3.3; CoFi and DPHuBERT use it too. s is :meth:`sparsity` and t
        :meth:`target_sparsity`. Gates descend it and the multipliers m ascend it. From `m = 0`, as long as s is below
        t, m0 falls and m1 rises, both of which reward closing gates; above t, m0 rises again.
        """
        gap = self.sparsity() - self.target_sparsity(step)
        return self.multipliers[0] * gap + self.multipliers[1] * gap.square()

    def optimizer_groups(self) -> list[dict[str, Any]]:
        """Parameter groups for the AdamW that trains the encoder: the gates, and the multipliers, which ascend."""
        return [
            {"params": list(self.vectors.parameters()), "lr": self.config.gate_lr, "weight_decay": 0.0},
            {"params": [self.multipliers], "lr": self.config.multiplier_lr, "weight_decay": 0.0, "maximize": True},
        ]

    @torch.no_grad()
    def resolve(self) -> Values:
        """Gates without chance by kind and layer, each `(units,)` and 0 where the unit goes.

        With `config.exact` they meet the final target as nearly as whole units can; see :class:`PruningConfig`.
        """
        values = {key: vector.resolve() for key, vector in self._by_key.items()}
        if not self.config.exact:
            return values
        is_open = to_target(
            {key: gates > 0 for key, gates in values.items()},
            {key: vector.logits() for key, vector in self._by_key.items()},
            {key for key, vector in self._by_key.items() if vector.at_least_one},
            self._count,
            self._before * (1 - self.config.sparsity),
        )
        return {key: is_open[key] * vector.value() for key, vector in self._by_key.items()}

    def make_dense(self) -> SpeechEncoder:
        """A new encoder without the closed units, their gates folded into its weights; see :func:`make_dense`."""
        return make_dense(self.encoder, self.resolve())

    def parameters_after(self) -> int:
        """Parameters of what :meth:`make_dense` returns now, without prediction heads."""
        values = self.resolve()
        return self._count({key: int((gates > 0).sum()) for key, gates in values.items()})

    def _draw(self, training: bool) -> None:
        """Gates for one forward pass. The extractor may run without gradients, the other gates still need theirs."""
        if training:
            with torch.enable_grad():
                self._values, self._resolved_of = {key: vector.sample() for key, vector in self._by_key.items()}, None
            return
        # Which units are to go takes longer to decide than a batch of a validation, and does not change within it.
        versions = [(vector.log_alpha.device, vector.log_alpha._version) for vector in self._by_key.values()]
        if versions != self._resolved_of:
            self._values, self._resolved_of = self.resolve(), versions

    @contextlib.contextmanager
    def _again(self, values: Values) -> Iterator[None]:
        """While layers are computed again in the backward pass: with the gates of their own forward pass."""
        latest, self._values = self._values, values
        try:
            yield
        finally:
            self._values = latest

    def _cost(self, number: Callable[[Key], Any], any_open: Callable[[Key], Any]) -> Any:
        """Parameters of the pruned encoder, given the number of open units of each vector, and whether any is."""

        def known(kind: str, index: int, about: Callable[[Key], Any], otherwise: int) -> Any:
            return about((kind, index)) if (kind, index) in self._by_key else otherwise

        full = Units.of(self.encoder.config)
        parts = [[known("conv", index, number, units) for index, units in enumerate(full.conv)]]
        for kind, numbers, exist in (("heads", full.heads, full.attends), ("ffn", full.ffn, full.feeds)):
            whole = "attention_layer" if kind == "heads" else "ffn_layer"
            layers = [known(whole, index, number, 1) for index in range(len(numbers))]
            for about, otherwise in ((number, numbers), (any_open, exist)):
                parts.append([layer * known(kind, i, about, otherwise[i]) for i, layer in enumerate(layers)])
        return self._fixed + prunable_parameters(self._dense_shape, Units(*parts))

    def _count(self, numbers: dict[Key, int]) -> int:
        return self._cost(numbers.__getitem__, lambda key: int(numbers[key] > 0))

    def _check_reach(self) -> None:
        smallest = self._count({key: int(vector.at_least_one) for key, vector in self._by_key.items()})
        reach = 1 - smallest / self._before
        if self.config.sparsity > reach:
            raise SettingsError(
                f"pruning.sparsity: found {self.config.sparsity}, expected at most {reach:.3f}, which is what the "
                f"encoder loses without any {', '.join(self.config.units)}; prune more kinds of units or demand less"
            )


def pruned_evenly(encoder: SpeechEncoder, config: PruningConfig) -> EncoderConfig:
    """The shape that pruning of heads and feed-forward parts leaves if all layers lose the same share of them.

    What a pruned student costs is known beforehand by this, as nearly as it can be: which layers lose more is learnt.

    Raises:
        SettingsError: other units are pruned, too, of which equal shares would be no guess, or it cannot be pruned so.

    >>> encoder = SpeechEncoder(EncoderConfig(embed_dim=32, num_layers=2, num_heads=4, ffn_dim=64, position_groups=4))
    >>> pruned = pruned_evenly(encoder, PruningConfig(["heads", "ffn"], sparsity=0.002))
    >>> pruned.heads, pruned.ffn_dims
    ((2, 2), (31, 31))
    """
    shape = encoder.config
    with torch.random.fork_rng(devices=[]):
        Gates(encoder, config).detach()  # what cannot be pruned is refused
    if not {"heads", "ffn"}.issuperset(config.units):
        raise SettingsError(f"pruning.units: found {config.units}, expected heads and ffn alone")
    heads, ffn = list(shape.heads), list(shape.ffn_dims)
    of_heads = sum(number * head_parameters(shape, layer) for layer, number in enumerate(heads))
    of_ffn = sum(ffn) * ffn_parameters(shape)
    goes = config.sparsity * encoder.count_parameters(heads=False)
    changes: dict[str, Any] = {}
    if "heads" in config.units:
        share = 1 - goes / (of_heads + of_ffn * ("ffn" in config.units))
        left = [min(number, max(1, round(number * share))) for number in heads]
        goes -= of_heads - sum(number * head_parameters(shape, layer) for layer, number in enumerate(left))
        columns = tuple(some[:number] for some, number in zip(shape.bias_columns, left))
        changes |= {"num_heads": tuple(left), "head_dim": shape.width_per_head}
        changes |= {"position_bias_heads": columns} if shape.relative_position else {}
    if "ffn" in config.units:
        changes["ffn_dim"] = tuple(min(number, max(1, round(number * (1 - goes / of_ffn)))) for number in ffn)
    return shape.replace(**changes)


def _gated(shape: EncoderConfig, kind: str) -> dict[int, int]:
    """Layers with units of a kind, and how many."""
    if kind == "conv":
        channels = [layer[0] for layer in shape.conv_layers]
        return dict(enumerate(channels if shape.has_projection else channels[:-1]))
    numbers = shape.heads if kind in ("heads", "attention_layer") else shape.ffn_dims
    return {index: 1 if kind.endswith("_layer") else number for index, number in enumerate(numbers) if number}


def _check(shape: EncoderConfig, config: PruningConfig) -> None:
    lacking = [kind for kind in config.units if not _gated(shape, kind)]
    if lacking:
        raise SettingsError(f"pruning.units: the encoder has no {lacking[0]} to prune; leave it out")
    if shape.attention_reuse and not {"heads", "attention_layer"}.isdisjoint(config.units):
        layers = ", ".join(str(index + 1) for index in shape.attention_reuse)
        raise SettingsError(
            f"pruning.units: layers {layers} of the encoder reuse attention weights, so that its attention cannot be "
            "pruned layer by layer; leave heads and attention_layer out"
        )
    if "conv" in config.units and shape.conv_norm == "half_group":
        raise SettingsError(
            "pruning.units: the halves of a log-mel front end are normalised in different ways, so that its channels "
            "cannot be pruned one by one; it is small as it is: leave conv out"
        )
    if "conv" in config.units and shape.feature_grad_mult == 0:
        raise SettingsError(
            "pruning.units: the conv extractor is frozen (student.feature_grad_mult=0), so that its gates learn "
            "nothing from the speech; give it a gradient or leave conv out"
        )
