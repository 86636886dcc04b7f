"""Settings of structured pruning: what is pruned, how far, and how its gates are trained."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from robustdistiller.common.settings import SettingsError

Unit = Literal["conv", "heads", "ffn", "attention_layer", "ffn_layer"]


class PruningError(SettingsError):
    """Pruning as asked for is not possible with this encoder."""


@dataclass
class PruningConfig:
    """Joint distillation and structured pruning as in DPHuBERT (https://arxiv.org/abs/2305.17651).

    The values are those of the recipe for the published models; what the paper leaves open (initial drop rates and
    their spread) is taken from its code, https://github.com/pyf98/DPHuBERT.

    Attributes:
        units: what may be removed: `conv` channels of the extractor, attention `heads`, feed-forward dimensions
            (`ffn`), and, which the published models do without, the attention (`attention_layer`) or the feed-forward
            part (`ffn_layer`) of a whole layer.
        sparsity: share of the encoder's parameters to be removed, from 0 to below 1.
        ramp_steps: optimizer steps in which the demanded sparsity rises linearly from 0.
        temperature: of the concrete distribution; smaller is nearer to a coin toss.
        stretch: by how much the distribution is stretched beyond 0 and 1 before it is cut there, in both directions.
        initial_drop_rate: of a channel, head or layer, as the logistic function of minus its initial parameter: the
            parameters start around `log((1 - rate) / rate)`.
        initial_ffn_drop_rate: the same for feed-forward dimensions.
        initial_std: standard deviation of the initial parameters.
        gate_lr: learning rate of the gates.
        multiplier_lr: learning rate of the two multipliers, which ascend.
        exact: when the gates are resolved, close or open the most doubtful units until the number of parameters is as
            near to the target as it gets. DPHuBERT does not.

    Raises:
        PruningError: a value is outside its range.

    >>> PruningConfig(sparsity=0.5).units
    ['conv', 'heads', 'ffn']
    >>> PruningConfig(sparsity=75)
    Traceback (most recent call last):
    robustdistiller.pretrain.student.pruning.config.PruningError: sparsity is 75; expected 0 to below 1
    """

    units: list[Unit] = field(default_factory=lambda: ["conv", "heads", "ffn"])
    sparsity: float = 0.75
    ramp_steps: int = 5000
    temperature: float = 2 / 3
    stretch: float = 0.1
    initial_drop_rate: float = 0.01
    initial_ffn_drop_rate: float = 0.5
    initial_std: float = 0.01
    gate_lr: float = 0.02
    multiplier_lr: float = 0.02
    exact: bool = False

    def __post_init__(self):
        _require(len(self.units) > 0, "units is empty; expected one or more of conv, heads, ffn")
        _require(len(set(self.units)) == len(self.units), f"units is {self.units}; expected each only once")
        _require(0 <= self.sparsity < 1, f"sparsity is {self.sparsity}; expected 0 to below 1")
        for name in ("ramp_steps", "initial_std", "gate_lr", "multiplier_lr"):
            _require(getattr(self, name) >= 0, f"{name} is {getattr(self, name)}; expected 0 or more")
        for name in ("temperature", "stretch"):
            _require(getattr(self, name) > 0, f"{name} is {getattr(self, name)}; expected more than 0")
        for name in ("initial_drop_rate", "initial_ffn_drop_rate"):
            _require(0 < getattr(self, name) < 1, f"{name} is {getattr(self, name)}; expected between 0 and 1")


def _require(condition: bool, message: str) -> None:
    if not condition:
        raise PruningError(message)
