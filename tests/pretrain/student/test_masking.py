"""Which frames are hidden from the student, and what it makes of the others."""

from __future__ import annotations

import pytest
import torch

from robustdistiller.pretrain import load_config
from robustdistiller.pretrain.data.dataset import Batch, Position
from robustdistiller.pretrain.student.build import build_student
from robustdistiller.pretrain.student.masking import MaskConfig, draw_mask, masked_forward
from robustdistiller.pretrain.teacher.units import TeacherUnits
from robustdistiller.pretrain.training.step import Distiller, Hidden
from robustdistiller.upstream import EncoderConfig, SpeechEncoder


def _spans(row: torch.Tensor) -> list[int]:
    """Lengths of the runs of hidden frames."""
    text = "".join("x" if hidden else " " for hidden in row.tolist())
    return [len(run) for run in text.split()]


def test_masks_consist_of_spans_and_hide_the_share_that_is_told() -> None:
    lengths = torch.full((200,), 500)
    mask = draw_mask(MaskConfig(), [str(index) for index in range(200)], lengths, seed=0, number=0)
    assert mask.float().mean().item() == pytest.approx(1 - 2.718**-0.8, abs=0.02)
    assert min(length for row in mask for length in _spans(row)) == 10
    apart = draw_mask(MaskConfig(0.02, 10), ["a"], torch.tensor([500]), seed=0, number=0)
    assert _spans(apart[0]) == [10]


def test_a_mask_depends_on_seed_number_and_utterance_only() -> None:
    lengths = {"a": 60, "b": 40, "c": 50}

    def drawn(names: str, seed: int = 0, number: int = 0) -> dict[str, list[bool]]:
        numbers = torch.tensor([lengths[name] for name in names])
        torch.manual_seed(len(names))
        mask = draw_mask(MaskConfig(0.5, 5), list(names), numbers, seed, number)
        assert not any(row[lengths[name] :].any() for name, row in zip(names, mask))
        return {name: row[: lengths[name]].tolist() for name, row in zip(names, mask)}

    together = drawn("abc")
    assert drawn("cab") == together
    assert {**drawn("b"), **drawn("ca")} == together
    assert drawn("a", seed=1)["a"] != together["a"] != drawn("a", number=1)["a"]


@pytest.mark.parametrize("share", [0.01, 0.8, 1.0])
def test_short_utterances_have_at_least_one_hidden_frame(share: float) -> None:
    lengths = torch.arange(0, 30)
    mask = draw_mask(MaskConfig(share), [str(index) for index in range(30)], lengths, seed=0, number=0, num_frames=33)
    assert mask.shape == (30, 33)
    for frames, row in enumerate(mask):
        assert not row[frames:].any()
        assert row.any() == (frames > 0)
        if frames > 1:
            assert not row[:frames].all(), "nothing is left to predict from"


@pytest.fixture
def student() -> SpeechEncoder:
    torch.manual_seed(0)
    return SpeechEncoder(EncoderConfig.tiny(prediction_layers=(4,), prediction_dim=12, dropout=0.0)).eval()


def test_hidden_frames_have_the_embedding_in_their_place(student) -> None:
    """The same as running the transformer on changed frames; without a mask, as the student by itself."""
    torch.manual_seed(1)
    waveforms, lengths = torch.randn(2, 16000), torch.tensor([16000, 9000])
    plain, embedding = student(waveforms, lengths), torch.nn.Parameter(torch.rand(16))
    mask = draw_mask(MaskConfig(0.5, 5), ["a", "b"], plain.frame_lengths, seed=0, number=0)
    found = masked_forward(student, waveforms, lengths, mask, embedding)
    frames = torch.where(mask.unsqueeze(-1), embedding, plain.projected)
    valid = torch.arange(49) < plain.frame_lengths.unsqueeze(1)
    states = student.transformer(frames, valid, None)
    assert torch.equal(found.projected, plain.projected), "a target there can be met at hidden frames"
    torch.testing.assert_close(found.hidden_states[-1][valid], states[-1][valid], rtol=0, atol=1e-6)
    torch.testing.assert_close(found.predictions[0][valid], student.predict(states[-1])[0][valid], rtol=0, atol=1e-6)
    assert (found.hidden_states[-1] - plain.hidden_states[-1])[valid].abs().max() > 0.01
    bare = masked_forward(student, waveforms, lengths, torch.zeros_like(mask), embedding)
    for one, other in zip(bare.hidden_states, plain.hidden_states):
        assert torch.equal(one, other)
    again = student(waveforms, lengths)
    assert torch.equal(again.projected, plain.projected), "the hook has stayed"


def test_gradient_reaches_the_embedding_and_not_the_hidden_samples(student) -> None:
    waveforms = torch.randn(1, 16000, requires_grad=True)
    mask = torch.ones(1, 49, dtype=torch.bool)
    embedding = torch.nn.Parameter(torch.rand(16))
    masked_forward(student, waveforms, None, mask, embedding).hidden_states[-1].square().sum().backward()
    assert embedding.grad.abs().max() > 0
    assert waveforms.grad is None or waveforms.grad.abs().max() == 0


def _distiller() -> Distiller:
    teacher = SpeechEncoder(EncoderConfig.tiny(num_layers=4, conv_layers=((16, 10, 5), (16, 8, 8), (16, 8, 8))))
    small = ("student.embed_dim=8", "student.num_heads=2", "student.ffn_dim=16", "student.num_layers=2")
    config = load_config("dice", [*small, "teacher.checkpoint=none", "targets.layers=[2]"])
    student = build_student(config, teacher)
    return Distiller(config, {"": teacher}, student, TeacherUnits(torch.randn(5, 16), 2, {}))


def _batch(number: int) -> Batch:
    waveforms = torch.randn(2, 16000, generator=torch.Generator().manual_seed(0))
    position = Position(epoch=0, batch_in_epoch=number, batches=number)
    return Batch(position, ("a", "b"), waveforms, torch.tensor([16000, 16000]))


def test_an_utterance_that_comes_twice_in_an_epoch_has_two_masks() -> None:
    """As it does where corpora have weights."""
    distiller = _distiller()
    one, again, other = (distiller.lesson(_batch(number)).mask for number in (3, 3, 4))
    assert torch.equal(one, again) and not torch.equal(one, other)


def test_what_stands_in_for_a_batch_trains_the_same_weights_by_nothing() -> None:
    """Processes of one run wait for the gradient of each other's weights."""
    reached = []
    for batch in (_batch(0), _batch(0).stand_in()):
        distiller = _distiller()
        lesson = distiller.lesson(batch)
        lesson.shares = {name: float(count > 0) for name, count in lesson.counts.items()}
        lesson.targets, lesson.units = distiller.teach(batch)
        distiller(Hidden((lesson, 0)))[0].backward()
        reached.append({name: p.grad for name, p in distiller.named_parameters() if p.grad is not None})
    assert reached[0].keys() == reached[1].keys() and "mask_embedding" in reached[1]
    assert not any(gradient.any() for gradient in reached[1].values())
