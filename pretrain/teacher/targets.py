"""What of the teacher is predicted, and from what of the student."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from robustdistiller.common.settings import SettingsError
from robustdistiller.pretrain.config.schema import TargetsConfig
from robustdistiller.pretrain.teacher.protocol import Teacher
from robustdistiller.upstream import EncoderConfig, EncoderOutput

Group = tuple[int | str, ...]
"""Layers whose mean is meant, or `projected` alone: the projected conv features."""


class Targets(nn.Module):
    """Pairs of a teacher representation and the student's estimate of it.

    The estimates come from the student's prediction heads (`match: heads`, DistilHuBERT, arXiv 2110.01900) or from its
    hidden states through linear maps (`match: layers`, DPHuBERT, arXiv 2305.17651). A group of layers stands for the
    mean of its hidden states (SKILL, arXiv 2402.16830); `projected` for the projected conv features, which DPHuBERT's
    code calls layer 0. The maps are used in training only.

    Args:
        config: `layers` must be explicit by now.
        student: shape of the student.
        teacher: the teacher, or anything with its `num_layers` and `width`.
        section: of the configuration, for messages.

    Raises:
        SettingsError: layers that teacher or student does not have.
    """

    def __init__(
        self, config: TargetsConfig, student: EncoderConfig, teacher: Teacher, section: str = "targets"
    ) -> None:
        super().__init__()
        self.groups = as_groups(config.layers, teacher.num_layers, f"{section}.layers", "teacher")
        self.normalize, self.width = config.normalize == "layer_norm", teacher.width
        self.maps = None
        if config.match == "heads":
            return
        named = config.layers if config.student_layers is None else config.student_layers
        self.student_groups = as_groups(named, student.num_layers, f"{section}.student_layers", "student")
        self.map_of = [0 if group in ((0,), ("projected",)) else 1 for group in self.groups]
        if not config.share_maps:
            self.map_of = list(range(len(self.groups)))
        # Maps that nothing uses would be parameters without a gradient.
        used = sorted(set(self.map_of))
        self.map_of = [used.index(one) for one in self.map_of]
        self.maps = nn.ModuleList(_identity_map(student.embed_dim, teacher.width) for _ in used)

    @property
    def layers(self) -> tuple[int, ...]:
        """The teacher layers that are needed; none for `projected` alone."""
        return tuple(sorted({layer for group in self.groups for layer in group if layer != "projected"}))

    @property
    def names(self) -> tuple[str, ...]:
        """One short name per target, for logs."""
        return tuple(group_name(group) for group in self.groups)

    def of_teacher(self, output: EncoderOutput) -> list[Tensor]:
        """Per target (B, T, D) from the teacher's output, of whose hidden states it reads `layers`."""
        return [self._mean(output, group, self.normalize) for group in self.groups]

    def of_student(self, output: EncoderOutput) -> list[Tensor]:
        """Per target (B, T, D), the student's estimate."""
        if self.maps is None:
            return list(output.predictions)
        states = self.student_states(output)
        return [self.maps[index](state) for index, state in zip(self.map_of, states, strict=True)]

    def student_states(self, output: EncoderOutput) -> list[Tensor]:
        """Per target (B, T, D) with the student's width, what the estimate is made from; of heads, the last state."""
        if self.maps is None:
            return [output.hidden_states[-1]] * len(self.groups)
        return [self._mean(output, group) for group in self.student_groups]

    @staticmethod
    def _mean(output: EncoderOutput, group: Group, normalize: bool = False) -> Tensor:
        states = [output.projected if layer == "projected" else output.hidden_states[layer] for layer in group]
        if normalize:
            states = [F.layer_norm(state.float(), state.shape[-1:]) for state in states]
        return states[0] if len(states) == 1 else torch.stack(states).mean(0)


def as_groups(layers: Sequence[int | str | Sequence[int]], depth: int, key: str, whose: str) -> tuple[Group, ...]:
    """`layers` with every entry a tuple, checked against a model of `depth` layers.

    Raises:
        SettingsError: none, an empty group, a layer that does not exist, or the same target twice.
    """
    groups = tuple((layer,) if isinstance(layer, int | str) else tuple(layer) for layer in layers)
    numbers = {layer for group in groups for layer in group if layer != "projected"}
    missing = sorted(number for number in numbers if not 0 <= number <= depth)
    if missing:
        example = ", ".join(str(round(depth * part / 3)) for part in (1, 2, 3))
        raise SettingsError(
            f"{key}: the {whose} has layers 0 to {depth}, found {missing}: choose among them, for example [{example}]"
        )
    if not groups or not all(groups):
        raise SettingsError(f"{key}: expected one or more layers or groups of layers, found {list(layers)}")
    if whose == "teacher" and len(set(groups)) < len(groups):
        raise SettingsError(f"{key}: expected different layers or groups, found {list(layers)}")
    return groups


def group_name(group: Group) -> str:
    """Short name of a group of layers: `4`, `4-6` or `1+3`."""
    contiguous = len(group) > 1 and group == tuple(range(group[0], group[-1] + 1))
    return f"{group[0]}-{group[-1]}" if contiguous else "+".join(map(str, group))


def _identity_map(width: int, target_width: int) -> nn.Linear:
    """A linear map that starts as the identity (between equal widths)."""
    linear = nn.Linear(width, target_width)
    if width == target_width:
        nn.init.eye_(linear.weight)
        nn.init.zeros_(linear.bias)
    return linear
