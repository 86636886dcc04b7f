"""The correlation terms: student with teacher towards identity, student with itself towards none.

After arXiv 2312.12153 ("correlation metric"), in the form in which its first author released the loss later
(github.com/FabianRitter/speech-ssl-merging, s3prl/pretrain/multi_distiller/loss_functions.py, commit aa1885f). The
formulas are in `statistics`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from torch import Tensor, nn

from robustdistiller.common.settings import SettingsError
from robustdistiller.pretrain.config.trainer import Count
from robustdistiller.pretrain.objectives.base import Objective, Shapes, Step
from robustdistiller.pretrain.objectives.statistics import SnrLaw, cross_correlation, snr_divisor


@dataclass
class _Correlation(Objective):
    """What both have in common; see `CrossCorrelation`."""

    variant: Literal["old", "new"] = "old"
    of: Literal["predictions", "states"] = "predictions"
    frames: Count | None = 150
    normalize: Literal["batch", "batch_and_time"] = "batch"
    reduction: Literal["sum", "mean"] = "sum"
    eps: float | None = None
    off_diagonal: float | None = None
    off_diagonal_divisor: float | None = None
    snr_weighting: Literal["none", "covariance", "outer_products"] = "none"
    snr_law: SnrLaw = "linear"
    snr_range_db: tuple[float, float] = (10.0, 20.0)

    mean_over: ClassVar[str] = "batches"
    constants: ClassVar[dict[str, tuple[float, float, float]]]  # by variant: eps, off_diagonal, off_diagonal_divisor

    @property
    def needs(self) -> frozenset[str]:
        return frozenset() if self.snr_weighting == "none" else frozenset({"corruption"})

    @property
    def reads_predictions(self) -> bool:
        return self.of == "predictions"

    def check(self, shapes: Shapes) -> None:
        if self.snr_weighting == "none":
            return
        low, high = self.snr_range_db
        if not (low <= high and (self.snr_law == "exponential" or low > 98 / 9.9)):
            raise SettingsError(
                f"snr_range_db: found [{low:g}, {high:g}]; expected rising values, and with snr_law=linear from 9.9 dB "
                "up, below which its divisor is negative (snr_law=exponential has no such limit)"
            )

    def options(self, snr_db: Tensor) -> dict[str, Any]:
        """Keyword arguments of the pure functions, common to both."""
        given = (self.eps, self.off_diagonal, self.off_diagonal_divisor)
        eps, factor, divisor = (
            default if value is None else value for value, default in zip(given, self.constants[self.variant])
        )
        options = {"frames": self.frames, "normalize": self.normalize, "reduction": self.reduction, "eps": eps}
        if self.snr_weighting != "none":
            options["divisors"] = snr_divisor(snr_db, self.snr_law, self.snr_range_db)
            options["divisor_form"] = self.snr_weighting
        return options | {"off_diagonal_scale": factor / divisor}

    def features(self, step: Step) -> list[Tensor]:
        """The student's side, per target (B, T, D)."""
        return step.predictions if self.of == "predictions" else step.student_states


@dataclass
class CrossCorrelation(_Correlation):
    """Student-teacher correlation over the batch, towards the identity: `cross_correlation`.

    Attributes:
        weight: in the loss; 0 leaves it out.
        variant: constants of the released code, for what is null below: `old` is that of the published numbers (eps
            1e-5, off_diagonal 5e-5), `new` a later one (eps 1e-4, off_diagonal 5e-4).
        of: the `predictions`, behind map or head, as published; or the student's hidden `states`: a map that is thrown
            away after training can then not do what the student should.
        frames: time is pooled to so many frames; null keeps time.
        normalize: `batch` standardises over the utterances at each frame, `batch_and_time` over all frames of all
            utterances together, for batches smaller than the number of features.
        reduction: `sum`, as published, grows with the width and with its square; `mean` over the elements does not, so
            that weights hold at any width.
        eps: added to the standard deviation; null is the variant's.
        off_diagonal: factor on the off-diagonal elements (a); null is the variant's.
        off_diagonal_divisor: of them; null is 100.
        diagonal_divisor: of the diagonal ones.
        snr_weighting: `none`; `outer_products`, as released, lets an utterance count less in the off-diagonal elements
            the higher its SNR; `covariance` is our form of that (see `cross_correlation`).
        snr_law: see `snr_divisor`.
        snr_range_db: the SNR is clamped to this range first; clean speech counts as its upper end.
        snr_of: whose. `teacher` is the released choice; where the teacher hears clean speech it divides every
            utterance alike.
    """

    diagonal_divisor: float = 10.0
    snr_of: Literal["teacher", "student"] = "teacher"

    constants: ClassVar = {"old": (1e-5, 5e-5, 100.0), "new": (1e-4, 5e-4, 100.0)}

    def check(self, shapes: Shapes) -> None:
        super().check(shapes)
        if self.of == "states" and (shapes.match != "layers" or shapes.state_widths != shapes.target_widths):
            raise SettingsError(
                "of=states compares hidden states with targets feature by feature and needs targets.match=layers and "
                f"equal widths; found targets.match={shapes.match}, student {list(shapes.state_widths)} and teacher "
                f"{list(shapes.target_widths)}: give of=predictions"
            )

    def __call__(self, step: Step, head: nn.Module | None = None) -> Tensor:
        options = self.options(step.teacher_snr_db if self.snr_of == "teacher" else step.snr_db)
        scale = 1 / self.diagonal_divisor
        return cross_correlation(self.features(step), step.targets, step.valid, diagonal_scale=scale, **options)


@dataclass
class SelfCorrelation(_Correlation):
    """Correlation among the student's own features over the batch, towards none: `cross_correlation` with themselves.

    The attributes are those of `CrossCorrelation`; what is null is, for `old`, eps 1e-5, off_diagonal 5e-6 (b) and
    off_diagonal_divisor 50000 (c), for `new` 1e-4, 5e-4 and 100. The SNR is that of what the student heard. With `old`
    the term is next to nothing: 2.7e-6 for random features of width 768 and a batch of 24, the other one 80.
    """

    constants: ClassVar = {"old": (1e-5, 5e-6, 50_000.0), "new": (1e-4, 5e-4, 100.0)}

    def __call__(self, step: Step, head: nn.Module | None = None) -> Tensor:
        features = self.features(step)
        return cross_correlation(features, features, step.valid, diagonal_scale=0.0, **self.options(step.snr_db))
