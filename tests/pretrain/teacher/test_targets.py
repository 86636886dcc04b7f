"""Targets: groups of teacher layers, and what of the student stands against them."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F

from robustdistiller.pretrain import SettingsError
from robustdistiller.pretrain.config.schema import TargetsConfig
from robustdistiller.pretrain.teacher.targets import Targets
from robustdistiller.upstream import EncoderConfig, EncoderOutput

STUDENT = EncoderConfig(embed_dim=16, num_layers=3, num_heads=4, position_groups=4)
TEACHER = SimpleNamespace(num_layers=6, width=16)


@pytest.fixture
def states() -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(2, 5, 16, generator=generator) for _ in range(7)]


def _output(states: list[torch.Tensor], predictions: list[torch.Tensor] = ()) -> EncoderOutput:
    return EncoderOutput(states[0], states[0], list(states), torch.tensor([5, 3]), list(predictions))


def test_a_group_is_the_mean_of_its_layers(states) -> None:
    targets = Targets(TargetsConfig(layers=(4, (1, 2, 6))), STUDENT, TEACHER)
    four, group = targets.of_teacher(_output(states))
    assert torch.equal(four, states[4])
    torch.testing.assert_close(group, (states[1] + states[2] + states[6]) / 3)
    assert targets.names == ("4", "1+2+6") and targets.layers == (1, 2, 4, 6)


def test_layer_norm_comes_before_the_mean(states) -> None:
    targets = Targets(TargetsConfig(layers=((1, 2),), normalize="layer_norm"), STUDENT, TEACHER)
    scaled = [state * 7 + 3 for state in states]
    expected = (F.layer_norm(states[1], (16,)) + F.layer_norm(states[2], (16,))) / 2
    torch.testing.assert_close(targets.of_teacher(_output(scaled))[0], expected, atol=1e-5, rtol=1e-5)


def test_heads_are_taken_as_they_are(states) -> None:
    targets = Targets(TargetsConfig(layers=(2, 4)), STUDENT, TEACHER)
    assert targets.of_student(_output(states, states[:2])) == states[:2]
    assert not list(targets.parameters())


@pytest.mark.parametrize(("share", "maps"), [(True, 2), (False, 3)])
def test_maps_start_as_the_identity_and_are_shared_behind_layer_0(states, share: bool, maps: int) -> None:
    config = TargetsConfig(layers=(0, 4, 6), match="layers", student_layers=(0, 2, (1, 3)), share_maps=share)
    targets = Targets(config, STUDENT, TEACHER)
    assert len(targets.maps) == maps
    first, second, group = targets.of_student(_output(states[:4]))
    torch.testing.assert_close(first, states[0])
    torch.testing.assert_close(second, states[2])
    torch.testing.assert_close(group, (states[1] + states[3]) / 2)
    with torch.no_grad():
        targets.maps[1].weight.mul_(2)
    _, second, group = targets.of_student(_output(states[:4]))
    torch.testing.assert_close(second, 2 * states[2])
    torch.testing.assert_close(group, (states[1] + states[3]) / (1 if share else 2))


def test_projected_is_what_dphubert_numbers_0_and_has_a_map_of_its_own(states) -> None:
    config = TargetsConfig(layers=("projected", 1, 3), match="layers")
    targets = Targets(config, STUDENT, TEACHER)
    output = EncoderOutput(states[5], states[6], states[:4], torch.tensor([5, 3]), [])
    assert torch.equal(targets.of_teacher(output)[0], states[6])
    assert targets.names == ("projected", "1", "3") and targets.layers == (1, 3) and targets.map_of == [0, 1, 1]
    torch.testing.assert_close(targets.of_student(output), [states[6], states[1], states[3]])


def test_other_widths_are_mapped(states) -> None:
    thin = EncoderConfig(embed_dim=8, num_layers=3, num_heads=2, position_groups=4)
    targets = Targets(TargetsConfig(layers=(6,), match="layers", student_layers=(3,)), thin, TEACHER)
    assert targets.of_student(_output([state[..., :8] for state in states]))[0].shape == (2, 5, 16)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"layers": (4, 8, 12)}, r"targets.layers: the teacher has layers 0 to 6, found \[8, 12\].*\[2, 4, 6\]"),
        ({"layers": ((2, 9),)}, r"targets.layers: the teacher has layers 0 to 6, found \[9\]"),
        ({"layers": ()}, "expected one or more layers"),
        ({"layers": (2, 2)}, "expected different layers"),
        ({"layers": ((),)}, "expected one or more layers"),
        ({"layers": (2, 6), "match": "layers"}, r"targets.student_layers: the student has layers 0 to 3, found \[6\]"),
        ({"layers": ("projected", "projected"), "match": "layers", "student_layers": (1, 2)}, "different layers"),
    ],
)
def test_maps_that_do_not_fit_are_refused(options: dict, message: str) -> None:
    with pytest.raises(SettingsError, match=message):
        Targets(TargetsConfig(**options), STUDENT, TEACHER)
