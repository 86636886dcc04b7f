"""The study's heads against s3prl's own modules: same logits, same loss, same gradients."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.nn.utils.rnn import pad_sequence

from research.recipe_study import features, heads
from research.recipe_study.characters import CHARACTERS, decode_tokens, encode_text
from robustdistiller.upstream import EncoderConfig, SpeechEncoder, UpstreamExpert, register, save_checkpoint

SIZES = (4, 3, 2)
LENGTHS = (5200, 16000, 9000, 700)
LABELS = torch.tensor([[0, 2, 1], [3, 0, 0], [1, 1, 1], [2, 2, 0]])
TEXTS = ("AB", "A TEXT", "IT'S", "")


@pytest.fixture(scope="module")
def s3prl():
    """s3prl's featurizer, utterance and frame heads, and character encoder."""
    register()
    from s3prl.downstream import model
    from s3prl.downstream.ctc.text import CharacterTextEncoder
    from s3prl.upstream.interfaces import Featurizer

    return model, Featurizer, CharacterTextEncoder


@pytest.fixture(scope="module")
def upstream(tmp_path_factory) -> UpstreamExpert:
    """A student with prediction heads, so that layers of both kinds are weighted."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        config = EncoderConfig(
            embed_dim=24, num_layers=2, num_heads=2, ffn_dim=32, position_groups=4, prediction_layers=(2, 5)
        )
        path = tmp_path_factory.mktemp("student") / "student.ckpt"
        save_checkpoint(path, SpeechEncoder(config), {})
    return UpstreamExpert(path).eval()


@pytest.fixture(scope="module")
def waveforms() -> list[np.ndarray]:
    generator = np.random.default_rng(0)
    return [generator.normal(0, 0.1, length).astype(np.float32) for length in LENGTHS]


def make_head(num_outputs: int) -> heads.WeightedHead:
    with torch.random.fork_rng():
        torch.manual_seed(1)
        head = heads.WeightedHead(5, 24, num_outputs)
        torch.nn.init.normal_(head.weights)
    return head


def reference(s3prl, upstream, waveforms, head: heads.WeightedHead, kind: str):
    """s3prl's modules with the weights of `head`, up to the logits: featurizer, projector, pooling or frames."""
    model, featurizer_class, _ = s3prl
    featurizer = featurizer_class(upstream, upstream_device="cpu")
    projector = torch.nn.Linear(24, heads.PROJECTOR_DIM)
    if kind == "utterance":
        output = model.UtteranceLevel(heads.PROJECTOR_DIM, sum(SIZES), pooling="MeanPooling")
        linear = output.post_net.linear
    else:
        output = model.FrameLevel(heads.PROJECTOR_DIM, len(CHARACTERS) + 3)
        linear = output.linear
    featurizer.weights.data.copy_(head.weights.data)
    projector.load_state_dict(head.projector.state_dict())
    linear.load_state_dict(head.linear.state_dict())
    wavs = [torch.from_numpy(waveform) for waveform in waveforms]
    with torch.no_grad():
        states = upstream(wavs)
    found = featurizer(wavs, states)
    lengths = torch.IntTensor([len(feature) for feature in found])
    logits, _ = output(projector(pad_sequence(found, batch_first=True)), lengths)
    return logits, lengths, (featurizer.weights, projector.weight, projector.bias, linear.weight, linear.bias)


def gradients(loss: torch.Tensor, weights) -> list[torch.Tensor]:
    return list(torch.autograd.grad(loss, weights))


def test_utterance_head_equals_s3prl_s(s3prl, upstream, waveforms):
    head = make_head(sum(SIZES))
    logits = head(features.pooled(upstream, waveforms))
    expected, _, weights = reference(s3prl, upstream, waveforms, head, "utterance")
    torch.testing.assert_close(logits, expected, atol=1e-5, rtol=1e-4)

    loss = heads.slot_loss(logits, LABELS, SIZES)
    start, expected_loss = 0, 0  # as fluent_commands' expert sums over slots
    for slot, size in enumerate(SIZES):
        part = expected[:, start : start + size]
        expected_loss = expected_loss + torch.nn.CrossEntropyLoss()(part, LABELS[:, slot])
        start += size
    torch.testing.assert_close(loss, expected_loss, atol=1e-5, rtol=1e-4)
    for found, wanted in zip(gradients(loss, list(head.parameters())), gradients(expected_loss, weights)):
        torch.testing.assert_close(found, wanted, atol=1e-5, rtol=1e-3)


def test_the_comparison_notices_padding(s3prl, upstream, waveforms, monkeypatch):
    """Means over all frames of the padded batch are something else."""
    monkeypatch.setattr(features, "masked_means", lambda states, frames: states.mean(1))
    head = make_head(sum(SIZES))
    logits = head(features.pooled(upstream, waveforms))
    expected, *_ = reference(s3prl, upstream, waveforms, head, "utterance")
    assert (logits - expected).abs().max() > 1e-3


def test_pooled_features_do_not_depend_on_the_batch(upstream, waveforms):
    together = features.pooled(upstream, waveforms)
    alone = torch.cat([features.pooled(upstream, [waveform]) for waveform in waveforms])
    torch.testing.assert_close(together, alone, atol=1e-5, rtol=1e-4)


def test_character_head_equals_s3prl_s(s3prl, upstream, waveforms):
    encoder = s3prl[2](list(CHARACTERS))
    encoded = [encode_text(text) for text in TEXTS]
    assert encoded == [encoder.encode(text) for text in TEXTS]
    labels = pad_sequence([torch.tensor(tokens) for tokens in encoded], batch_first=True, padding_value=-1)

    head = make_head(len(CHARACTERS) + 3)
    frames = features.framewise(upstream, waveforms)
    parts = head(frames.values).split(frames.lengths.tolist())
    loss = heads.character_loss(pad_sequence(parts, batch_first=True), frames.lengths, labels)

    expected, lengths, weights = reference(s3prl, upstream, waveforms, head, "frames")
    assert lengths.tolist() == frames.lengths.tolist()
    for part, row, length in zip(parts, expected, lengths):
        torch.testing.assert_close(part, row[:length], atol=1e-5, rtol=1e-4)
    objective = torch.nn.CTCLoss(blank=encoder.pad_idx, zero_infinity=True)  # as ctc's expert
    expected_loss = objective(
        expected.log_softmax(-1).transpose(0, 1),
        labels.clamp(min=encoder.pad_idx),
        lengths,
        torch.IntTensor([len(tokens) for tokens in encoded]),
    )
    torch.testing.assert_close(loss, expected_loss, atol=1e-5, rtol=1e-4)
    for found, wanted in zip(gradients(loss, list(head.parameters())), gradients(expected_loss, weights)):
        torch.testing.assert_close(found, wanted, atol=1e-4, rtol=1e-3)


def test_best_path_is_decoded_as_s3prl_does(s3prl):
    encoder = s3prl[2](list(CHARACTERS))
    logits = torch.randn(3, 30, len(CHARACTERS) + 3, generator=torch.Generator().manual_seed(2))
    logits[:, 1::2] = logits[:, ::2]  # repetitions
    found = heads.greedy_texts(logits, torch.tensor([30, 30, 30]))
    expected = []
    for tokens in logits.argmax(-1):
        kept = [t for t in tokens.unique_consecutive().tolist() if t not in (encoder.pad_idx, encoder.eos_idx)]
        expected.append(encoder.decode(kept))
    # The unknown token, which no text holds, is written as a word there and left out here.
    assert found == [text.replace("<unk>", "") for text in expected]
    assert decode_tokens(encode_text("IT'S")) == "IT'S"


def test_training_finds_the_layer_that_tells_the_classes_apart():
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(120)[:, None] % 3
    values = torch.randn(120, 4, 8, generator=generator)
    values[:, 2, :3] += 3 * torch.nn.functional.one_hot(labels[:, 0], 3)
    split = (values[:80], labels[:80]), (values[80:], labels[80:])
    trained = heads.train_classifier(*split, (3,), 0, heads.HeadOptions((1e-5, 3e-2), 150, 40))
    assert trained.lr == 3e-2 and set(trained.dev) == {1e-5, 3e-2}
    assert trained.dev[3e-2] > 85
    assert int(np.argmax(trained.layer_weights)) == 2


def test_training_learns_to_spell():
    generator = torch.Generator().manual_seed(0)
    texts = ["".join(CHARACTERS[2 + int(i)] for i in torch.randint(0, 4, (3,), generator=generator)) for _ in range(40)]
    tokens = [encode_text(text) for text in texts]
    labels = torch.tensor(tokens)
    values = []
    for row in tokens:  # each token is three frames long, with two of silence behind it
        frames = torch.zeros(5 * len(row), 2, 36)
        for place, token in enumerate(row):
            frames[5 * place : 5 * place + 3, 1, token] = 4.0
        values.append(frames + 0.1 * torch.randn(frames.shape, generator=generator))
    whole = features.Frames(torch.cat(values), torch.tensor([len(v) for v in values]))
    trained = heads.train_characters((whole, labels), (whole, labels), 31, 0, heads.HeadOptions((3e-2,), 120, 10))
    assert trained.dev[3e-2] < 10
    errors, counts = heads.character_errors(trained.head, whole, labels)
    assert counts.tolist() == [3] * 40 and errors.sum() < 12


def test_items_longer_than_the_batch_limit_get_a_batch_of_their_own():
    assert list(features.batches([100, 50], batch_seconds=0.001)) == [[0], [1]]
