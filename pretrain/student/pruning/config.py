"""Settings of structured pruning: what is pruned, how far, and how its gates are trained."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, Literal

from pydantic import Field

from robustdistiller.common.settings import SettingsError
from robustdistiller.pretrain.config.trainer import Decay, NotNegative, Positive, WholeNumber

Unit = Literal["conv", "heads", "ffn", "attention_layer", "ffn_layer"]
DropRate = Annotated[float, Field(gt=0, lt=1)]


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
        SettingsError: `units` is empty, or has one twice. Ranges are checked where settings are read.
    """

    units: list[Unit] = field(default_factory=lambda: ["conv", "heads", "ffn"])
    sparsity: Decay = 0.75
    ramp_steps: WholeNumber = 5000
    temperature: Positive = 2 / 3
    stretch: Positive = 0.1
    initial_drop_rate: DropRate = 0.01
    initial_ffn_drop_rate: DropRate = 0.5
    initial_std: NotNegative = 0.01
    gate_lr: NotNegative = 0.02
    multiplier_lr: NotNegative = 0.02
    exact: bool = False

    def __post_init__(self) -> None:
        if not self.units or len(set(self.units)) < len(self.units):
            raise SettingsError(
                f"units is {self.units}; expected one or more of conv, heads, ffn, attention_layer and ffn_layer, each "
                "once"
            )
