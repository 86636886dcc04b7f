"""Angular softmax against NumPy, its limits and its gradients."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from robustdistiller.pretrain.multitask.config import SpeakersConfig
from robustdistiller.pretrain.multitask.heads import HeadsConfig, SpeakerHead, margin_logits

GENERATOR = np.random.default_rng(0)
EMBEDDINGS, CENTRES = GENERATOR.normal(size=(6, 5)), GENERATOR.normal(size=(4, 5))
LABELS = np.array([0, 3, 1, 1, 2, 0])


def angular_softmax(embeddings, centres, labels, scale: float, margin: float = 0.0, kind: str = "am") -> torch.Tensor:
    head = SpeakerHead(HeadsConfig("last_hidden", 1, 1, {"speakers": [""] * len(centres)}))
    del head.centres
    head.centres = centres
    return head.loss(embeddings, labels, SpeakersConfig(scale=scale, margin=margin, margin_type=kind))[0]


def loss_by_numpy(embeddings, centres, labels, scale: float, margin: float, kind: str) -> float:
    """Straight from the definition, by angles and one utterance at a time."""
    losses = []
    for embedding, label in zip(embeddings, labels):
        cosines = [embedding @ one / np.linalg.norm(embedding) / np.linalg.norm(one) for one in centres]
        angle = np.arccos(cosines[label])
        if kind == "am":
            cosines[label] -= margin
        elif angle + margin <= np.pi:
            cosines[label] = np.cos(angle + margin)
        else:
            cosines[label] -= margin * np.sin(margin)
        powers = np.exp(scale * np.array(cosines))
        losses.append(-np.log(powers[label] / powers.sum()))
    return float(np.mean(losses))


@pytest.mark.parametrize("kind", ["am", "aam"])
@pytest.mark.parametrize(("scale", "margin"), [(1.0, 0.0), (30.0, 0.0), (10.0, 0.35), (30.0, 0.2), (5.0, 0.9)])
def test_loss_equals_the_definition(kind: str, scale: float, margin: float) -> None:
    arguments = [torch.tensor(EMBEDDINGS), torch.tensor(CENTRES), torch.tensor(LABELS)]
    found = angular_softmax(*arguments, scale, margin, kind).item()
    assert found == pytest.approx(loss_by_numpy(EMBEDDINGS, CENTRES, LABELS, scale, margin, kind), rel=1e-9)


def test_the_two_margins_differ_and_raise_the_loss() -> None:
    arguments = [torch.tensor(EMBEDDINGS), torch.tensor(CENTRES), torch.tensor(LABELS), 10.0]
    plain, am, aam = (angular_softmax(*arguments, *more).item() for more in ((0.0,), (0.3, "am"), (0.3, "aam")))
    assert am > plain + 0.1 and aam > plain + 0.1 and abs(am - aam) > 0.01


def test_margin_0_is_softmax_over_scaled_cosines_bit_for_bit() -> None:
    cosines = torch.tensor([[1.0, -1.0, 0.3], [0.2, 1.0, -0.4]])
    for kind in ("am", "aam"):
        assert torch.equal(margin_logits(cosines, torch.tensor([0, 1]), 30.0, 0.0, kind), 30.0 * cosines)


def test_limits_of_the_scale() -> None:
    arguments = [torch.tensor(EMBEDDINGS), torch.tensor(CENTRES), torch.tensor(LABELS)]
    assert angular_softmax(*arguments, scale=1e-9).item() == pytest.approx(np.log(4), rel=1e-6)
    on_centre = [torch.tensor(CENTRES), torch.tensor(CENTRES), torch.arange(4)]
    assert angular_softmax(*on_centre, scale=1e4).item() == pytest.approx(0.0, abs=1e-12)
    assert angular_softmax(*on_centre, scale=1e4, margin=0.9).item() > 100  # a margin is never satisfied by scale alone


def test_lengths_of_embeddings_and_centres_do_not_matter() -> None:
    one = angular_softmax(torch.tensor(EMBEDDINGS), torch.tensor(CENTRES), torch.tensor(LABELS), 7.0, 0.2)
    other = angular_softmax(torch.tensor(9 * EMBEDDINGS), torch.tensor(0.1 * CENTRES), torch.tensor(LABELS), 7.0, 0.2)
    assert one.item() == pytest.approx(other.item(), rel=1e-9)


@pytest.mark.parametrize(("margin", "kind"), [(0.0, "am"), (0.3, "am"), (0.3, "aam")])
def test_gradients(margin: float, kind: str) -> None:
    embeddings = torch.tensor(EMBEDDINGS, requires_grad=True)
    centres = torch.tensor(CENTRES, requires_grad=True)
    labels = torch.tensor(LABELS)
    assert torch.autograd.gradcheck(
        lambda e, c: angular_softmax(e, c, labels, 5.0, margin, kind), (embeddings, centres)
    )


@pytest.mark.parametrize("kind", ["am", "aam"])
def test_the_right_logit_falls_with_the_angle_and_has_a_finite_gradient(kind: str) -> None:
    cosines = torch.cos(torch.linspace(0, torch.pi, 500, dtype=torch.float64)).unsqueeze(1).requires_grad_()
    logits = margin_logits(cosines, torch.zeros(500, dtype=torch.int64), 1.0, 0.5, kind)
    assert (logits.diff(dim=0) <= 0).all()
    logits.sum().backward()
    assert torch.isfinite(cosines.grad).all() and (cosines.grad >= 0).all()
