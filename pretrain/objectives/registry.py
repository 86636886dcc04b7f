"""The objectives by the names they have in a recipe."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field

from torch import nn

from robustdistiller.common.settings import SettingsError
from robustdistiller.pretrain.objectives.base import Objective
from robustdistiller.pretrain.objectives.correlation import (
    CrossCorrelation,
    CrossCorrelationConfig,
    SelfCorrelation,
    SelfCorrelationConfig,
)
from robustdistiller.pretrain.objectives.enhancement import Enhancement, EnhancementConfig
from robustdistiller.pretrain.objectives.invariance import Invariance, InvarianceConfig
from robustdistiller.pretrain.objectives.layerwise import (
    L1,
    L2,
    Cosine,
    CosineConfig,
    FeaturePenalty,
    FeaturePenaltyConfig,
    L1Config,
    L2Config,
)
from robustdistiller.upstream import EncoderConfig


@dataclass
class ObjectivesConfig:
    """The terms of the loss. A number stands for a term's weight; a term of weight 0 is not computed.

    Attributes:
        l1: mean absolute difference between predicted and teacher features.
        l2: mean squared difference.
        cosine: cosine distance, raw or through a log-sigmoid.
        feature_penalty: mean square of the conv features.
        cross_correlation: correlation of student and teacher features over a batch, towards the identity.
        self_correlation: correlation among the student's features, towards none.
        enhancement: estimating the clean spectrum from features of corrupted speech.
        invariance: difference between what two corruptions of one utterance give.
    """

    l1: L1Config = field(default_factory=L1Config)
    l2: L2Config = field(default_factory=L2Config)
    cosine: CosineConfig = field(default_factory=CosineConfig)
    feature_penalty: FeaturePenaltyConfig = field(default_factory=FeaturePenaltyConfig)
    cross_correlation: CrossCorrelationConfig = field(default_factory=CrossCorrelationConfig)
    self_correlation: SelfCorrelationConfig = field(default_factory=SelfCorrelationConfig)
    enhancement: EnhancementConfig = field(default_factory=EnhancementConfig)
    invariance: InvarianceConfig = field(default_factory=InvarianceConfig)


_CLASSES: dict[str, type[Objective]] = {
    "l1": L1,
    "l2": L2,
    "cosine": Cosine,
    "feature_penalty": FeaturePenalty,
    "cross_correlation": CrossCorrelation,
    "self_correlation": SelfCorrelation,
    "enhancement": Enhancement,
    "invariance": Invariance,
}


def make_objectives(config: ObjectivesConfig, student: EncoderConfig) -> nn.ModuleDict:
    """The terms that have a weight, by name.

    Args:
        config: weights and options.
        student: its shape, for objectives that have a head on its features.

    Raises:
        SettingsError: no term has a weight, a weight is negative, or an option does not fit.

    >>> list(make_objectives(ObjectivesConfig(l1=L1Config(1.0), cosine=CosineConfig(1.0, "raw")), EncoderConfig()))
    ['l1', 'cosine']
    """
    objectives = nn.ModuleDict()
    for name, cls in _CLASSES.items():
        options = dataclasses.asdict(getattr(config, name))
        weight = options.pop("weight")
        if weight < 0:
            raise SettingsError(f"objectives.{name}: the weight is {weight:g}, expected 0 or more")
        if weight > 0:
            try:
                objectives[name] = cls(student, **options) if cls.has_head else cls(**options)
            except ValueError as error:
                raise SettingsError(f"objectives.{name}: {error}") from error
    if not objectives:
        raise SettingsError(
            f"objectives: none has a weight; give one, for example objectives.l1=1 ({', '.join(_CLASSES)})"
        )
    return objectives
