"""The terms of the loss by the names they have in a recipe."""

from __future__ import annotations

from dataclasses import dataclass, field, fields

from robustdistiller.common.settings import SettingsError
from robustdistiller.pretrain.objectives.base import Objective
from robustdistiller.pretrain.objectives.correlation import CrossCorrelation, SelfCorrelation
from robustdistiller.pretrain.objectives.distances import L1, L2, Cosine, FeaturePenalty
from robustdistiller.pretrain.objectives.enhancement import Enhancement
from robustdistiller.pretrain.objectives.invariance import Anchor, Invariance
from robustdistiller.pretrain.objectives.relations import Relations
from robustdistiller.pretrain.objectives.units import Units


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
        anchor: difference of what corrupted speech gives from what the clean speech gives, taken as given.
        relations: products between frames, of the student against those of the teacher.
        units: masked prediction of the teacher's units.
    """

    l1: L1 = field(default_factory=L1)
    l2: L2 = field(default_factory=L2)
    cosine: Cosine = field(default_factory=Cosine)
    feature_penalty: FeaturePenalty = field(default_factory=FeaturePenalty)
    cross_correlation: CrossCorrelation = field(default_factory=CrossCorrelation)
    self_correlation: SelfCorrelation = field(default_factory=SelfCorrelation)
    enhancement: Enhancement = field(default_factory=Enhancement)
    invariance: Invariance = field(default_factory=Invariance)
    anchor: Anchor = field(default_factory=Anchor)
    relations: Relations = field(default_factory=Relations)
    units: Units = field(default_factory=Units)

    def active(self) -> dict[str, Objective]:
        """The terms that have a weight, by name.

        Raises:
            SettingsError: no term has a weight.
        """
        terms: dict[str, Objective] = {one.name: getattr(self, one.name) for one in fields(self)}
        active = {name: term for name, term in terms.items() if term.weight > 0}
        if not active:
            raise SettingsError(
                f"objectives: none has a weight; give one, for example objectives.l1=1 ({', '.join(terms)})"
            )
        return active
