"""Relations between frames: what resembles what in time, the same for student and teacher of any widths.

After STaR (arXiv 2312.09040, "Speech temporal relation"): the losses work on N x N matrices of products between the N
frames of an utterance, so that they need no map between the widths and no parameters. Published is the sum over all
layers of two terms:

    G_l = X_l' X_l  (layer-wise)        H_l = X_(l-1)' X_l  (intra-layer: input against output of a layer)

with X_l (D x N) the frames of layer l, each as squared distance between the student's matrix and the teacher's. The
teacher hears clean and the student corrupted speech, so that the relations are asked to survive the corruption.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from robustdistiller.common.settings import SettingsError
from robustdistiller.pretrain.config.trainer import NotNegative
from robustdistiller.pretrain.objectives.base import Objective, Shapes, Step
from robustdistiller.pretrain.objectives.ops import at_least_float32, full_precision

Form = Literal["mse", "mse_of_sums", "kl"]

_NOWHERE = -1e30  # a logit whose softmax is 0, and whose difference from itself is not NaN


def relation_distance(
    student: tuple[Tensor, Tensor], teacher: tuple[Tensor, Tensor], valid: Tensor, form: Form = "mse"
) -> Tensor:
    """Mean over utterances of the distance between two matrices of products of frames, student's and teacher's.

    With R_ij = sum_d x_id y_jd over the valid frames i, j of an utterance, N of them, and the widths D_s and D_t:

        mse           (1 / N^2) sum_ij (R^s_ij / D_s - R^t_ij / D_t)^2
        mse_of_sums   (1 / N^2) sum_ij (R^s_ij - R^t_ij)^2, as published
        kl            (1 / N) sum_i KL(softmax_j(R^t_ij / sqrt(D_t)) || softmax_j(R^s_ij / sqrt(D_s)))

    `mse` does not depend on the width; at equal widths, `mse_of_sums` is D^2 times as large. At unequal ones it asks
    the narrower side for larger features. One utterance is looked at at a time, and its matrices are computed again for
    the gradient, so that the memory is that of a few N x N matrices whatever the batch.

    Student and teacher are x and y each, (B, T, D_s) and (B, T, D_t): the same twice makes G, two layers make H. The
    result is a scalar in float32, 0 if the relations agree, as between features and any rotation of them. Utterances
    without valid frames count as 0.

    >>> x = torch.randn(2, 5, 3)
    >>> rotated = x.flip(-1)
    >>> relation_distance((rotated, rotated), (x, x), torch.ones(2, 5, dtype=torch.bool)).item() < 1e-12
    True
    """
    x, y, u, v = map(at_least_float32, (*student, *teacher))
    values = [
        checkpoint(
            _distance_of_one, x[b], y[b], u[b], v[b], valid[b], form, use_reentrant=False, preserve_rng_state=False
        )
        for b in range(len(valid))
    ]
    return torch.stack(values).mean()


def _distance_of_one(x: Tensor, y: Tensor, u: Tensor, v: Tensor, valid: Tensor, form: Form) -> Tensor:
    """Distance of one utterance; x and y (T, D_s), u and v (T, D_t), valid (T,)."""
    frames = valid.sum().clamp(min=1)
    with full_precision(x):
        x, y, u, v = (z.masked_fill(~valid.unsqueeze(-1), 0.0) for z in (x, y, u, v))
        student, teacher = x @ y.T, u @ v.T
    if form == "kl":
        student, teacher = (
            (one / width**0.5).masked_fill(~valid, _NOWHERE).log_softmax(-1)
            for one, width in ((student, x.shape[-1]), (teacher, u.shape[-1]))
        )
        divergences = (teacher.exp() * (teacher - student)).sum(-1)
        return divergences.masked_fill(~valid, 0.0).sum() / frames
    if form == "mse":
        student, teacher = student / x.shape[-1], teacher / u.shape[-1]
    return (student - teacher).square().sum() / frames.square()  # products with padding are 0 on both sides


@dataclass
class Relations(Objective):
    """Relations between frames of the student against those of the teacher (STaR), `relation_distance`.

    The pairs of layers are those of `targets`: for STaR as published, targets.match=layers and all layers from 0. The
    student's side is its hidden states, not the maps' outputs. The trainer's mean over the targets makes the value the
    published sum over layers, divided by their number.

    Attributes:
        weight: in the loss; 0 leaves it out.
        layer_wise: factor on the distance of each layer's own products, G.
        intra_layer: factor on that of the products of each target with the one before it, H; they are products of the
            input and the output of a layer where `targets.layers` are successive.
        form: `mse` of mean products, which does not depend on the widths; `mse_of_sums`, as published; or `kl`.
    """

    layer_wise: NotNegative = 1.0
    intra_layer: NotNegative = 1.0
    form: Form = "mse"

    mean_over: ClassVar[str] = "utterances"

    def check(self, shapes: Shapes) -> None:
        targets = len(shapes.target_widths)
        if self.layer_wise + self.intra_layer == 0:
            raise SettingsError(
                "layer_wise and intra_layer are 0, expected one above 0; to leave the term out give weight 0"
            )
        if shapes.match == "heads" and targets > 1:
            raise SettingsError(
                f"the student's last state cannot have the relations of {targets} teacher layers at once: give "
                "targets.match=layers, or a single target"
            )
        if self.intra_layer and (targets < 2 or shapes.num_teachers > 1):
            raise SettingsError(
                "intra_layer compares each target with the one before it and needs two or more targets of one teacher, "
                f"found {targets} of {shapes.num_teachers}: give intra_layer=0"
            )

    def __call__(self, step: Step, head: nn.Module | None = None) -> Tensor:
        values = []
        for index, (state, target) in enumerate(zip(step.student_states, step.targets, strict=True)):
            value = state.new_zeros((), dtype=torch.float32)
            if self.layer_wise:
                value = self.layer_wise * relation_distance((state, state), (target, target), step.valid, self.form)
            if self.intra_layer and index:
                before = step.student_states[index - 1], step.targets[index - 1]
                pairs = (before[0], state), (before[1], target)
                value = value + self.intra_layer * relation_distance(*pairs, step.valid, self.form)
            values.append(value)
        return torch.stack(values)
