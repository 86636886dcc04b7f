"""The terms of recipe `ours` keep their sizes, relative to each other, at another width of teacher and student."""

from __future__ import annotations

import dataclasses

import torch

from robustdistiller.pretrain import load_config
from robustdistiller.pretrain.data.dataset import Batch, Position
from robustdistiller.pretrain.objectives import Objective, Shapes, Step, valid_frames
from robustdistiller.upstream import EncoderConfig, EncoderOutput

WITHIN = 1.05  # of each other, at widths 256 and 768
LENGTHS = torch.tensor([60, 45, 50])


def _features(factors: torch.Tensor, width: int, seed: int) -> torch.Tensor:
    """Features of unit variance of which nine tenths are common factors: correlations do not depend on the width."""
    generator = torch.Generator().manual_seed(seed)
    loadings = torch.randn(factors.shape[-1], width, generator=generator)
    own = torch.randn(*factors.shape[:-1], width, generator=generator)
    return 0.9**0.5 * factors @ (loadings / loadings.norm(dim=0)) + 0.1**0.5 * own


def _step(width: int) -> tuple[Step, Shapes]:
    """Three utterances, two targets; the student's features are the teacher's with some noise, in all widths alike."""
    generator = torch.Generator().manual_seed(0)
    factors = torch.randn(2, 3, 60, 32, generator=generator)
    targets = [_features(one, width, seed) for seed, one in enumerate(factors)]
    changes = [_features(one, width, seed) for seed, one in enumerate(torch.randn(2, 3, 60, 32, generator=generator))]
    states = [0.9 * target + 0.4 * change for target, change in zip(targets, changes)]
    samples = 320 * LENGTHS + 80
    waveforms, noise = 0.1 * torch.randn(2, 3, int(samples.max()), generator=generator) * valid_frames(samples, 19280)
    output = EncoderOutput(states[0], states[0], states, LENGTHS, [])
    valid, snr_db = valid_frames(LENGTHS, 60), torch.zeros(3)
    batch = Batch(Position(), ("a", "b", "c"), waveforms, samples)
    student = EncoderConfig(embed_dim=width, num_layers=1, num_heads=4, ffn_dim=width, position_groups=4)
    step = Step(batch, waveforms + noise, output, states, states, targets, valid, snr_db, snr_db)
    return step, Shapes(student, (width,) * 2, (width,) * 2, "layers")


def _sizes(objectives: dict[str, Objective], width: int) -> dict[str, float]:
    """The weighted terms."""
    step, shapes = _step(width)
    sizes = {}
    for name, objective in objectives.items():
        torch.manual_seed(0)
        objective.check(shapes)
        head = objective.make_head(shapes)
        with torch.no_grad():
            sizes[name] = objective.weight * float(objective(step, head and head.eval()).mean())
    return sizes


def test_balance_of_our_recipe_does_not_depend_on_the_width() -> None:
    objectives = load_config("ours").objectives.active()
    narrow, wide = (_sizes(objectives, width) for width in (256, 768))
    assert {"l1", "cosine", "cross_correlation", "self_correlation"} == narrow.keys()
    for name in narrow:
        assert 1 / WITHIN < wide[name] / narrow[name] < WITHIN, name
        assert narrow[name] > 0.02 * sum(narrow.values()), f"{name} is nothing beside the others"


def test_published_sums_grow_with_the_width() -> None:
    """What the means mend: the same weights would train something else for a wider teacher."""
    objectives = load_config("ours").objectives.active()
    for name in ("cross_correlation", "self_correlation"):
        sums = {name: dataclasses.replace(objectives[name], reduction="sum")}
        assert _sizes(sums, 768)[name] > 4 * _sizes(sums, 256)[name]


def test_means_have_the_size_of_the_sums_at_the_width_of_the_study() -> None:
    """The settings of the study, sums at width 256, give the terms that the recipe's means give."""
    objectives = load_config("ours").objectives.active()
    cross, own = objectives["cross_correlation"], objectives["self_correlation"]
    changes = {"reduction": "sum", "off_diagonal": None, "off_diagonal_divisor": None}
    before = {
        "cross_correlation": dataclasses.replace(
            cross, **changes | {"weight": 0.05, "off_diagonal": 0.05, "diagonal_divisor": 10.0}
        ),
        "self_correlation": dataclasses.replace(own, **changes | {"weight": 10.0, "variant": "new"}),
    }
    found = _sizes({name: objectives[name] for name in before}, 256)
    for name, expected in _sizes(before, 256).items():
        assert abs(found[name] / expected - 1) < 1e-4, name
