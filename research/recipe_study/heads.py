"""The heads of s3prl on frozen features: weighted sum of layers, linear, and mean pooling or CTC.

Equal to s3prl's `Featurizer` followed by `UtteranceLevel` with `MeanPooling` (keyword spotting, intents, speakers) and
by `FrameLevel` with CTC (phoneme recognition), see the tests. In all of them every step before the pooling is linear,
so the utterance heads run on per-layer means, which are taken once.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import editdistance
import numpy as np
import torch
from torch import Tensor, nn

from research.recipe_study.characters import BLANK, END, decode_tokens
from research.recipe_study.features import Frames

PROJECTOR_DIM = 256


class WeightedHead(nn.Module):
    """Softmax-weighted sum of layers, linear projector, linear output.

    Args:
        num_layers: of the features.
        dim: of each layer.
        num_outputs: classes of all slots together, or tokens.

    >>> WeightedHead(3, 8, 5)(torch.zeros(2, 3, 8)).shape
    torch.Size([2, 5])
    """

    def __init__(self, num_layers: int, dim: int, num_outputs: int):
        super().__init__()
        self.weights = nn.Parameter(torch.zeros(num_layers))
        self.projector = nn.Linear(dim, PROJECTOR_DIM)
        self.linear = nn.Linear(PROJECTOR_DIM, num_outputs)

    def forward(self, features: Tensor) -> Tensor:
        """(..., layers, dim) features to (..., outputs) logits."""
        # Layer weights and both linear maps as one: the same function and gradients for a fraction of the work.
        weight = self.linear.weight @ self.projector.weight
        bias = self.linear.weight @ self.projector.bias + self.linear.bias
        weighted = torch.einsum("l,od->old", self.weights.softmax(0), weight)
        return nn.functional.linear(features.flatten(-2), weighted.flatten(1), bias)


def slot_loss(logits: Tensor, labels: Tensor, sizes: Sequence[int]) -> Tensor:
    """Sum over slots of the mean cross-entropy, as s3prl's intent classification has it.

    Args:
        logits: (batch, sum of sizes).
        labels: (batch, slots).
        sizes: classes of each slot.
    """
    parts = logits.split(list(sizes), dim=-1)
    return sum(nn.functional.cross_entropy(part, labels[:, slot]) for slot, part in enumerate(parts))


def slot_predictions(logits: Tensor, sizes: Sequence[int]) -> Tensor:
    """(batch, slots) most likely class of each slot."""
    return torch.stack([part.argmax(-1) for part in logits.split(list(sizes), dim=-1)], dim=1)


def character_loss(logits: Tensor, frames: Tensor, labels: Tensor) -> Tensor:
    """CTC as s3prl's phoneme recognition has it: mean over items of the loss per token, impossible items as zero.

    Args:
        logits: (batch, frames, tokens).
        frames: (batch,) valid frames.
        labels: (batch, longest) tokens, padded with negative numbers.
    """
    lengths = (labels >= 0).sum(1)
    log_probabilities = logits.log_softmax(-1).transpose(0, 1)
    return nn.functional.ctc_loss(
        log_probabilities, labels.clamp(min=0), frames, lengths, blank=BLANK, zero_infinity=True
    )


def greedy_texts(logits: Tensor, frames: Tensor) -> list[str]:
    """Best path: the most likely token of each valid frame, repetitions merged, blanks and ends left out."""
    texts = []
    for tokens, count in zip(logits.argmax(-1), frames.tolist()):
        merged = tokens[:count].unique_consecutive().tolist()
        texts.append(decode_tokens([token for token in merged if token not in (BLANK, END)]))
    return texts


@dataclass(frozen=True)
class TrainedHead:
    """A head and how it was chosen.

    Attributes:
        head: the trained head.
        lr: its learning rate.
        dev: score on dev clean, in percent, of each learning rate tried.
    """

    head: WeightedHead
    lr: float
    dev: dict[float, float]

    @property
    def layer_weights(self) -> list[float]:
        """What each layer counts, from 0 to 1."""
        return self.head.weights.detach().softmax(0).tolist()


@dataclass(frozen=True)
class HeadOptions:
    """How a head is trained: Adam, the learning rate falling linearly to zero, gradients clipped to norm 1.

    Attributes:
        lrs: learning rates tried; the best on dev clean is taken.
        steps: of each.
        batch_size: items per step.
    """

    lrs: tuple[float, ...] = (3e-3, 1e-2, 3e-2)
    steps: int = 400
    batch_size: int = 128


OPTIONS = {"classes": HeadOptions(), "characters": HeadOptions(lrs=(1e-2, 2e-2), steps=220, batch_size=24)}


def train_classifier(
    train: tuple[Tensor, Tensor],
    dev: tuple[Tensor, Tensor],
    sizes: Sequence[int],
    seed: int,
    options: HeadOptions = OPTIONS["classes"],
) -> TrainedHead:
    """Trains a head on per-layer means with each learning rate and keeps the best on dev.

    Args:
        train: (items, layers, dim) means and (items, slots) labels.
        dev: the same of the development split.
        sizes: classes of each slot.
        seed: of initialisation and order.
        options: how.
    """

    def loss(head: WeightedHead, indices: Tensor) -> Tensor:
        return slot_loss(head(train[0][indices]), train[1][indices], sizes)

    def score(head: WeightedHead) -> tuple[float, float]:
        logits = head(dev[0])
        right = (slot_predictions(logits, sizes) == dev[1]).all(1)
        return 100 * right.float().mean().item(), slot_loss(logits, dev[1], sizes).item()

    return _best(train[0].shape[1:], sum(sizes), len(train[0]), loss, score, seed, options, sign=1)


def train_characters(
    train: tuple[Frames, Tensor],
    dev: tuple[Frames, Tensor],
    num_tokens: int,
    seed: int,
    options: HeadOptions = OPTIONS["characters"],
) -> TrainedHead:
    """Trains a CTC head on frames with each learning rate and keeps the best on dev; arguments as for classes."""
    ordered, order = train[0].by_length()  # neighbours have similar lengths, and lie together: no copies
    labels = train[1][order]
    ends = torch.cumsum(ordered.lengths, 0)

    def loss(head: WeightedHead, indices: Tensor) -> Tensor:
        first, last = indices[0], indices[-1]
        lengths = ordered.lengths[first : last + 1]
        flat = head(ordered.values[ends[first] - lengths[0] : ends[last]])
        logits = nn.utils.rnn.pad_sequence(flat.split(lengths.tolist()), batch_first=True)
        return character_loss(logits, lengths, labels[first : last + 1])

    def score(head: WeightedHead) -> tuple[float, float]:
        errors, counts = character_errors(head, *dev)
        return 100 * errors.sum() / counts.sum(), 0.0

    shape = train[0].values.shape[1:]
    return _best(shape, num_tokens, len(labels), loss, score, seed, options, sign=-1, neighbours=True)


def character_errors(head: WeightedHead, frames: Frames, labels: Tensor) -> tuple[np.ndarray, np.ndarray]:
    """Edit distance of each item's best path to its text, and the characters of that text: (items,) int each."""
    errors, counts = [], []
    with torch.inference_mode():
        logits = head(frames.values)
    for part, reference in zip(logits.split(frames.lengths.tolist()), labels.tolist()):
        found = greedy_texts(part[None], torch.tensor([len(part)]))[0]
        text = decode_tokens(reference)
        errors.append(editdistance.eval(found, text))
        counts.append(len(text))
    return np.array(errors), np.array(counts)


def _best(shape, num_outputs, num_items, loss, score, seed, options: HeadOptions, sign: int, neighbours=False):
    found: list[tuple[tuple[float, float], float, WeightedHead]] = []
    for lr in options.lrs:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            head = WeightedHead(*shape, num_outputs)
            _train(head, num_items, loss, lr, options, neighbours)
        with torch.inference_mode():
            dev, dev_loss = score(head)
        found.append(((sign * dev, -dev_loss), lr, head))
    best = max(found, key=lambda entry: entry[0])
    return TrainedHead(best[2], best[1], {lr: sign * key[0] for key, lr, _ in found})


def _train(head: WeightedHead, num_items: int, loss, lr: float, options: HeadOptions, neighbours: bool) -> None:
    optimizer = torch.optim.Adam(head.parameters(), lr=lr)
    schedule = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.0, total_iters=options.steps)
    order: list[Tensor] = []
    for _ in range(options.steps):
        if not order:
            order = _epoch(num_items, options.batch_size, neighbours)
        value = loss(head, order.pop())
        optimizer.zero_grad()
        value.backward()
        nn.utils.clip_grad_norm_(head.parameters(), 1.0)
        optimizer.step()
        schedule.step()


def _epoch(num_items: int, batch_size: int, neighbours: bool) -> list[Tensor]:
    """Batches of one pass in random order, of random items or of neighbours."""
    if neighbours:
        batches = torch.arange(num_items).split(batch_size)
        return [batches[index] for index in torch.randperm(len(batches)).tolist()]
    return list(torch.randperm(num_items).split(batch_size))
