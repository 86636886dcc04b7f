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
from typing import ClassVar, Literal

import torch
from torch import Tensor, nn

from robustdistiller.common.settings import SettingsError
from robustdistiller.pretrain.objectives.base import Objective, Shapes, Step
from robustdistiller.pretrain.objectives.ops import at_least_float32, full_precision, pool_frames
from robustdistiller.pretrain.objectives.statistics import SnrLaw, off_diagonal_squares, snr_divisor, standardize

Normalize = Literal["batch", "batch_and_time"]
SnrForm = Literal["covariance", "outer_products"]

_logger = logging.getLogger(__name__)


def cross_correlation(
    predictions: Sequence[Tensor],
    targets: Sequence[Tensor],
    valid: Tensor,
    frames: int | None = 150,
    normalize: Normalize = "batch",
    eps: float = 1e-5,
    diagonal_scale: float = 1 / 10,
    off_diagonal_scale: float = 5e-5 / 100,
    divisors: Tensor | None = None,
    divisor_form: SnrForm = "covariance",
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
        targets: per target (B, T, D).
        valid: (B, T) bool.
        frames: time is pooled to so many frames over each utterance's valid frames; `None` keeps time, and a frame's
            samples are the utterances that reach it.
        normalize: what is standardised over.
        eps: added to the standard deviation.
        diagonal_scale: factor on the first sum.
        off_diagonal_scale: factor on the second sum.
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
    for prediction, target in zip(predictions, targets):
        with full_precision(prediction):
            z, counted = _samples(prediction, valid, frames, normalize)
            t, _ = _samples(target, valid, frames, normalize)
            z, t = standardize(z, counted, eps), standardize(t, counted, eps)
            below = (counted.sum(1) - 1).clamp(min=1)
            diagonal = ((z * t).sum(1) / below.unsqueeze(1) - 1).square().sum(-1)
            off_diagonal = _off_diagonal(z, t, below, _spread(divisors, counted, valid.shape[0]), divisor_form)
            values.append(_mean_frame(diagonal_scale * diagonal + off_diagonal_scale * off_diagonal, counted))
    return torch.stack(values)


def self_correlation(
    predictions: Sequence[Tensor],
    valid: Tensor,
    frames: int | None = 150,
    normalize: Normalize = "batch",
    eps: float = 1e-5,
    off_diagonal_scale: float = 5e-6 / 50_000,
    divisors: Tensor | None = None,
    divisor_form: SnrForm = "covariance",
) -> Tensor:
    """Correlations among the student's own features: off_diagonal_scale sum_{i != j} S_ij^2, a mean over frames.

    Everything is as in `cross_correlation`, with the student on both sides; there is no sum over the diagonal.

    Args:
        predictions: per target (B, T, D).
        valid: (B, T) bool.
        frames: as there.
        normalize: as there.
        eps: as there.
        off_diagonal_scale: factor on the sum.
        divisors: as there.
        divisor_form: as there.

    Returns:
        (targets,) float32, >= 0.

    >>> x = torch.tensor([[1.0, 1.0], [-1.0, -1.0]]).reshape(2, 1, 2)  # S is all ones
    >>> self_correlation([x], torch.ones(2, 1, dtype=torch.bool), None, eps=0.0, off_diagonal_scale=1.0)
    tensor([2.0000])
    """
    values = []
    for prediction in predictions:
        with full_precision(prediction):
            z, counted = _samples(prediction, valid, frames, normalize)
            z = standardize(z, counted, eps)
            below = (counted.sum(1) - 1).clamp(min=1)
            off_diagonal = _off_diagonal(z, z, below, _spread(divisors, counted, valid.shape[0]), divisor_form)
            values.append(_mean_frame(off_diagonal_scale * off_diagonal, counted))
    return torch.stack(values)


def _samples(x: Tensor, valid: Tensor, frames: int | None, normalize: Normalize) -> tuple[Tensor, Tensor]:
    """(F, N, D) samples per frame, and which of them count: (F, N) bool."""
    if frames is None:
        x = at_least_float32(x)
    else:
        x = pool_frames(x, valid, frames)
        valid = valid.any(1, keepdim=True).expand(-1, frames)
    if normalize == "batch_and_time":
        return x.reshape(1, -1, x.shape[-1]), valid.reshape(1, -1)
    return x.transpose(0, 1), valid.transpose(0, 1)


def _spread(divisors: Tensor | None, counted: Tensor, utterances: int) -> Tensor | None:
    """(F or 1, N) divisor of each sample, from one per utterance."""
    if divisors is None:
        return None
    return divisors.repeat_interleave(counted.shape[1] // utterances).unsqueeze(0)


def _off_diagonal(z: Tensor, t: Tensor, below: Tensor, divisors: Tensor | None, form: SnrForm) -> Tensor:
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


# The two variants of the released code: eps, a, b, and the divisor c of the self-correlation.
_VARIANTS = {"old": (1e-5, 5e-5, 5e-6, 50_000.0), "new": (1e-4, 5e-4, 5e-4, 100.0)}


@dataclass
class _Correlation(Objective):
    """What both have in common; see `CrossCorrelation`."""

    variant: Literal["old", "new"] = "old"
    frames: int | None = 150
    normalize: Normalize = "batch"
    reduction: Literal["sum", "mean"] = "sum"
    of: Literal["predictions", "states"] = "predictions"
    eps: float | None = None
    off_diagonal: float | None = None
    off_diagonal_divisor: float | None = None
    snr_weighting: Literal["none", "covariance", "outer_products"] = "none"
    snr_law: SnrLaw = "linear"
    snr_range_db: tuple[float, float] = (10.0, 20.0)

    mean_over: ClassVar[str] = "batches"

    def check(self, shapes: Shapes) -> None:
        """Refuse frames, ranges of SNR and widths that do not fit."""
        if self.frames is not None and self.frames < 1:
            raise SettingsError(f"frames: found {self.frames}, expected at least 1, or null for no pooling")
        low, high = self.snr_range_db
        positive = self.snr_law == "exponential" or low > 98 / 9.9
        if self.snr_weighting != "none" and not (low <= high and positive):
            raise SettingsError(
                f"snr_range_db: found [{low:g}, {high:g}]; expected rising values, and with snr_law=linear from 9.9 dB "
                "up, below which its divisor is negative (snr_law=exponential has no such limit)"
            )
        if self.of == "states" and (shapes.match == "heads" or shapes.state_widths != shapes.target_widths):
            raise SettingsError(
                "of=states compares the student's hidden states with the teacher's, and needs targets.match=layers and "
                f"equal widths; found match={shapes.match}, widths {list(shapes.state_widths)} and "
                f"{list(shapes.target_widths)}: give of=predictions"
            )

    def features(self, step: Step) -> list[Tensor]:
        """The student's side, per target (B, T, D)."""
        return step.student_states if self.of == "states" else step.predictions

    def scales(self, width: int, diagonal_divisor: float) -> dict[str, float]:
        """Factors on the sums over the diagonal and over the other elements."""
        _, a, b, c = _VARIANTS[self.variant]
        cross = isinstance(self, CrossCorrelation)
        factor = (a if cross else b) if self.off_diagonal is None else self.off_diagonal
        divisor = (100.0 if cross else c) if self.off_diagonal_divisor is None else self.off_diagonal_divisor
        on, off = (width, width * max(width - 1, 1)) if self.reduction == "mean" else (1, 1)
        scales = {"off_diagonal_scale": factor / divisor / off}
        return scales | ({"diagonal_scale": 1 / diagonal_divisor / on} if cross else {})

    def options(self, snr_db: Tensor) -> dict:
        """Keyword arguments of the pure functions, common to both."""
        weighted = self.snr_weighting != "none"
        return {
            "frames": self.frames,
            "normalize": self.normalize,
            "eps": _VARIANTS[self.variant][0] if self.eps is None else self.eps,
            "divisors": snr_divisor(snr_db, self.snr_law, self.snr_range_db) if weighted else None,
            "divisor_form": self.snr_weighting if weighted else "covariance",
        }


@dataclass
class CrossCorrelation(_Correlation):
    """Student-teacher correlation over the batch, towards the identity: `cross_correlation`.

    Attributes:
        weight: in the loss; 0 leaves it out.
        variant: constants of the released code, for what is null below: `old` is that of the published numbers (eps
            1e-5, off_diagonal 5e-5), `new` a later one (eps 1e-4, off_diagonal 5e-4).
        frames: time is pooled to so many frames; null keeps time.
        normalize: `batch` standardises over the utterances at each frame, `batch_and_time` over all frames of all
            utterances together, which also works for batches much smaller than the number of features.
        reduction: `sum` over elements, as published, grows with the width D on the diagonal and with D (D - 1) beside
            it; `mean` divides by these, so that weights hold at any width.
        of: the `predictions`, behind the map or head, as published; or the student's hidden `states`, so that the map,
            which is not kept, cannot do the decorrelating.
        eps: added to the standard deviation; null is the variant's.
        off_diagonal: factor on the off-diagonal elements (a); null is the variant's.
        off_diagonal_divisor: of the sum over them; null is 100.
        diagonal_divisor: of the sum over the diagonal.
        snr_weighting: `none`; `outer_products` lets an utterance count less in the off-diagonal elements the higher its
            SNR, in the released form; `covariance` is our form of that (see `cross_correlation`). Published as a
            heuristic, in a form that is not confirmed.
        snr_law: see `snr_divisor`.
        snr_range_db: the SNR is clamped to this range first; clean speech counts as its upper end.
        snr_of: whose. `teacher` is the released choice; where the teacher hears clean speech it divides every
            utterance alike.

    >>> CrossCorrelation(variant="new", frames=50).scales(256, 10.0)
    {'off_diagonal_scale': 5e-06, 'diagonal_scale': 0.1}
    """

    diagonal_divisor: float = 10.0
    snr_of: Literal["teacher", "student"] = "teacher"

    def __call__(self, step: Step, head: nn.Module | None = None) -> Tensor:
        """(targets,)."""
        values = [
            cross_correlation(
                [feature], [target], step.valid, **self.scales(target.shape[-1], self.diagonal_divisor),
                **self.options(step.teacher_snr_db if self.snr_of == "teacher" else step.snr_db),
            )
            for feature, target in zip(self.features(step), step.targets)
        ]  # fmt: skip
        return torch.cat(values)


@dataclass
class SelfCorrelation(_Correlation):
    """Correlation among the student's own features over the batch, towards none: `self_correlation`.

    The constants of `old` make it small beside the other terms: 2.7e-6 for random features of width 768 and a batch of
    24, while the cross-correlation is 80. Choose `weight` with that in mind. The attributes are those of
    `CrossCorrelation`; what is null there is here: `old` eps 1e-5, off_diagonal 5e-6, divisor 50000; `new` eps 1e-4,
    off_diagonal 5e-4, divisor 100. The SNR is that of what the student heard.

    >>> SelfCorrelation(normalize="batch_and_time").frames
    150
    """

    def __call__(self, step: Step, head: nn.Module | None = None) -> Tensor:
        """(targets,)."""
        values = [
            self_correlation([feature], step.valid, **self.scales(feature.shape[-1], 1.0), **self.options(step.snr_db))
            for feature in self.features(step)
        ]
        return torch.cat(values)
