"""Correlations between features over a batch: student with teacher towards identity, student with itself towards none.

After arXiv 2312.12153 ("correlation metric"), in the form in which its first author released the loss later
(github.com/FabianRitter/speech-ssl-merging, s3prl/pretrain/multi_distiller/loss_functions.py, commit aa1885f).

Notation: D features; frame f of F after pooling; N samples (utterances) at a frame, N_f of them valid. x^ is x
standardised over the N_f samples, feature by feature: (x - mean) / (std + eps), std with divisor N_f - 1. Then

    C = z^' t^ / (N_f - 1)      S = z^' z^ / (N_f - 1)      both D x D, for each target and frame.

Statistics are those of one device's batch: nothing is gathered over devices.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn

from robustdistiller.common.settings import SettingsError
from robustdistiller.pretrain.objectives.base import Objective, Shapes, Step
from robustdistiller.pretrain.objectives.distances import check_frames
from robustdistiller.pretrain.objectives.ops import at_least_float32, full_precision, pool_frames
from robustdistiller.pretrain.objectives.statistics import SnrLaw, off_diagonal_squares, snr_divisor, standardize

_logger = logging.getLogger(__name__)


def cross_correlation(
    predictions: Sequence[Tensor],
    targets: Sequence[Tensor],
    valid: Tensor,
    frames: int | None = 150,
    normalize: Literal["batch", "batch_and_time"] = "batch",
    eps: float = 1e-5,
    diagonal_scale: float = 1 / 10,
    off_diagonal_scale: float = 5e-5 / 100,
    reduction: Literal["sum", "mean"] = "sum",
    divisors: Tensor | None = None,
    divisor_form: Literal["covariance", "outer_products"] = "covariance",
) -> Tensor:
    """Distance of the student-teacher correlations from the identity, per target, as a mean over frames of

        diagonal_scale sum_i (C_ii - 1)^2 + off_diagonal_scale sum_{i != j} C_ij^2

    With B utterances C has rank B - 1 at most. For B < D it cannot be the identity: once its diagonal is 1, the second
    sum is at least D^2 / (B - 1) - D. `normalize="batch_and_time"` takes all frames of all utterances as samples of a
    single C instead.

    Per-utterance divisors d_b enter the second sum only. `covariance`: C_ij = sum_b z^_bi t^_bj / (sqrt(d_b) (N - 1)),
    so that equal divisors d divide the sum by d. `outer_products`, as released: sum_{i != j} is that of
    sum_b (z^_bi t^_bj)^2 / (d_b (N - 1)), squared before the sum over utterances; this penalises the energy of single
    utterances rather than a correlation over them.

    Args:
        predictions: per target (B, T, D).
        targets: per target (B, T, D); with `predictions` here and `diagonal_scale=0` it is `self_correlation`.
        valid: (B, T) bool.
        frames: time is pooled to so many frames over each utterance's valid frames; `None` keeps time, and a frame's
            samples are the utterances that reach it.
        normalize: what is standardised over.
        eps: added to the standard deviation.
        diagonal_scale: factor on the first sum.
        off_diagonal_scale: factor on the second sum.
        reduction: with `mean`, the first sum is divided by its D elements and the second by its D (D - 1), so that the
            value does not grow with the width.
        divisors: (B,) positive, of `snr_divisor`; `None` is 1 for all.
        divisor_form: how they enter.

    Returns:
        (targets,) float32, >= 0. Frames with fewer than two valid samples are left out; 0 if all are, as with
        `normalize="batch"` and a batch of one.

    >>> x = torch.tensor([1.0, -1.0, 1.0, -1.0]).reshape(4, 1, 1)
    >>> values = cross_correlation([x, x], [x, -x], torch.ones(4, 1, dtype=torch.bool), frames=None)  # C = 1, C = -1
    >>> values.round(decimals=3)
    tensor([0.0000, 0.4000])
    """
    values = []
    for prediction, target in zip(predictions, targets, strict=True):
        with full_precision(prediction):
            z, counted = _samples(prediction, valid, frames, normalize)
            z = standardize(z, counted, eps)
            t = z if target is prediction else standardize(_samples(target, valid, frames, normalize)[0], counted, eps)
            below = (counted.sum(1) - 1).clamp(min=1)
            diagonal = ((z * t).sum(1) / below.unsqueeze(1) - 1).square().sum(-1)
            off_diagonal = _off_diagonal(z, t, below, _per_sample(divisors, counted, valid.shape[0]), divisor_form)
            if reduction == "mean":
                width = z.shape[-1]
                diagonal, off_diagonal = diagonal / width, off_diagonal / max(width * (width - 1), 1)
            values.append(_mean_frame(diagonal_scale * diagonal + off_diagonal_scale * off_diagonal, counted))
    return torch.stack(values)


def self_correlation(
    predictions: Sequence[Tensor],
    valid: Tensor,
    frames: int | None = 150,
    normalize: Literal["batch", "batch_and_time"] = "batch",
    eps: float = 1e-5,
    off_diagonal_scale: float = 5e-6 / 50_000,
    **options: Any,
) -> Tensor:
    """Correlations among the student's own features: off_diagonal_scale sum_{i != j} S_ij^2, a mean over frames.

    Arguments and result are those of `cross_correlation`, with the student on both sides and nothing of the diagonal.

    >>> x = torch.tensor([[1.0, 1.0], [-1.0, -1.0]]).reshape(2, 1, 2)  # S is all ones
    >>> self_correlation([x], torch.ones(2, 1, dtype=torch.bool), None, eps=0.0, off_diagonal_scale=1.0)
    tensor([2.0000])
    """
    return cross_correlation(
        predictions, predictions, valid, frames, normalize, eps, 0.0, off_diagonal_scale, **options
    )


def _samples(x: Tensor, valid: Tensor, frames: int | None, normalize: str) -> tuple[Tensor, Tensor]:
    """(F, N, D) samples per frame, and which of them count: (F, N) bool."""
    if frames is None:
        x = at_least_float32(x)
    else:
        x = pool_frames(x, valid, frames)
        valid = valid.any(1, keepdim=True).expand(-1, frames)
    if normalize == "batch_and_time":
        return x.reshape(1, -1, x.shape[-1]), valid.reshape(1, -1)
    return x.transpose(0, 1), valid.transpose(0, 1)


def _per_sample(divisors: Tensor | None, counted: Tensor, utterances: int) -> Tensor | None:
    """(1, N) divisor of each sample, from one per utterance."""
    return None if divisors is None else divisors.repeat_interleave(counted.shape[1] // utterances).unsqueeze(0)


def _off_diagonal(z: Tensor, t: Tensor, below: Tensor, divisors: Tensor | None, form: str) -> Tensor:
    """(F,) sums over i != j of squared elements."""
    if divisors is not None and form == "outer_products":
        squares = z.square().sum(-1) * t.square().sum(-1) - (z * t).square().sum(-1)
        return (squares / divisors).sum(1) / below
    if divisors is not None:
        z = z * divisors.rsqrt().unsqueeze(-1)
    return off_diagonal_squares(z, t) / below.square()


def _mean_frame(values: Tensor, counted: Tensor) -> Tensor:
    """Mean over the frames that have at least two samples."""
    usable = counted.sum(1) > 1
    if counted.shape[1] < 2:
        _logger.warning("a batch without two utterances has no correlations: their term is 0 for it")
    return (values * usable).sum() / usable.sum().clamp(min=1)


@dataclass
class _Correlation(Objective):
    """What both have in common; see `CrossCorrelation`."""

    variant: Literal["old", "new"] = "old"
    of: Literal["predictions", "states"] = "predictions"
    frames: int | None = 150
    normalize: Literal["batch", "batch_and_time"] = "batch"
    reduction: Literal["sum", "mean"] = "sum"
    eps: float | None = None
    off_diagonal: float | None = None
    off_diagonal_divisor: float | None = None
    snr_weighting: Literal["none", "covariance", "outer_products"] = "none"
    snr_law: SnrLaw = "linear"
    snr_range_db: tuple[float, float] = (10.0, 20.0)

    mean_over: ClassVar[str] = "batches"
    # Of the two variants of the released code: eps, off_diagonal, off_diagonal_divisor.
    constants: ClassVar[dict[str, tuple[float, float, float]]]

    @property
    def reads_predictions(self) -> bool:
        """Unless hidden states are correlated."""
        return self.of == "predictions"

    def check(self, shapes: Shapes) -> None:
        """Refuse frames and ranges of SNR that are none, and weights by SNR where there is no noise."""
        check_frames(self.frames)
        if self.snr_weighting == "none":
            return
        low, high = self.snr_range_db
        if not (low <= high and (self.snr_law == "exponential" or low > 98 / 9.9)):
            raise SettingsError(
                f"snr_range_db: found [{low:g}, {high:g}]; expected rising values, and with snr_law=linear from 9.9 dB "
                "up, below which its divisor is negative (snr_law=exponential has no such limit)"
            )
        if not shapes.corrupted:
            raise SettingsError(
                "snr_weighting needs noise, and the student hears no corruption; give one, or none here"
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
            utterances together, which also works for batches much smaller than the number of features.
        reduction: `sum`, as published, grows with the width and with its square; `mean` over the elements does not, so
            that weights hold at any width.
        eps: added to the standard deviation; null is the variant's.
        off_diagonal: factor on the off-diagonal elements (a); null is the variant's.
        off_diagonal_divisor: of them; null is 100.
        diagonal_divisor: of the diagonal ones.
        snr_weighting: `none`; `outer_products`, as released, lets an utterance count less in the off-diagonal elements
            the higher its SNR; `covariance` is our form of that (see `cross_correlation`). Published as a heuristic, in
            a form that is not confirmed.
        snr_law: see `snr_divisor`.
        snr_range_db: the SNR is clamped to this range first; clean speech counts as its upper end.
        snr_of: whose. `teacher` is the released choice; where the teacher hears clean speech it divides every
            utterance alike.

    >>> CrossCorrelation(variant="new", frames=50).options(torch.zeros(1))["eps"]
    0.0001
    """

    diagonal_divisor: float = 10.0
    snr_of: Literal["teacher", "student"] = "teacher"

    constants: ClassVar = {"old": (1e-5, 5e-5, 100.0), "new": (1e-4, 5e-4, 100.0)}

    def check(self, shapes: Shapes) -> None:
        """Refuse hidden states that cannot be correlated with the targets, too."""
        super().check(shapes)
        if self.of == "states" and (shapes.match != "layers" or shapes.state_widths != shapes.target_widths):
            raise SettingsError(
                "of=states compares hidden states with targets feature by feature and needs targets.match=layers and "
                f"equal widths; found targets.match={shapes.match}, student {list(shapes.state_widths)} and teacher "
                f"{list(shapes.target_widths)}: give of=predictions"
            )

    def __call__(self, step: Step, head: nn.Module | None = None) -> Tensor:
        """(targets,)."""
        options = self.options(step.teacher_snr_db if self.snr_of == "teacher" else step.snr_db)
        scale = 1 / self.diagonal_divisor
        return cross_correlation(self.features(step), step.targets, step.valid, diagonal_scale=scale, **options)


@dataclass
class SelfCorrelation(_Correlation):
    """Correlation among the student's own features over the batch, towards none: `self_correlation`.

    The attributes are those of `CrossCorrelation`; what is null is, for `old`, eps 1e-5, off_diagonal 5e-6 (b) and
    off_diagonal_divisor 50000 (c), for `new` 1e-4, 5e-4 and 100. The SNR is that of what the student heard. `old` makes
    the term small beside others: 2.7e-6 for random features of width 768 and a batch of 24, where the
    cross-correlation is 80. Choose `weight` with that in mind.

    >>> SelfCorrelation(normalize="batch_and_time").frames
    150
    """

    constants: ClassVar = {"old": (1e-5, 5e-6, 50_000.0), "new": (1e-4, 5e-4, 100.0)}

    def __call__(self, step: Step, head: nn.Module | None = None) -> Tensor:
        """(targets,)."""
        return self_correlation(self.features(step), step.valid, **self.options(step.snr_db))
