"""One stream of batches for any number of processes, exact from any place on."""

from __future__ import annotations

from itertools import islice
from pathlib import Path

import numpy as np
import pytest
import torch
from lhotse.testing.dummies import dummy_cut

from robustdistiller.acoustics import AudioSource, CorruptionPolicy, Corruptor, RIRSource
from robustdistiller.pretrain.data.dataset import SpeechBatches, make_loader
from robustdistiller.pretrain.data.sampler import BatchStream, Position
from robustdistiller.pretrain.data.speech import SpeechCuts, speech_cuts

RNG = np.random.default_rng(0)
CUTS = [dummy_cut(index, duration=round(length, 2)) for index, length in enumerate(RNG.uniform(0.5, 12, 301))]


def stream(cuts=CUTS, **options) -> BatchStream:
    return BatchStream(cuts, **{"max_samples": 160_000, "batch_size": 4, "seed": 1, **options})


def steps(count: int, processes: int, accumulate: int, **options) -> list[list[list[str]]]:
    """Per step the batches that all processes hear in it."""
    options["batches_per_step"] = processes * accumulate
    ranks = [
        list(islice(stream(rank=rank, world_size=processes, **options), count * accumulate))
        for rank in range(processes)
    ]
    for rank in ranks[1:]:
        assert [one.resume_at for one in rank] == [one.resume_at for one in ranks[0]]
    found = []
    for step in range(count):
        requests = [one for rank in ranks for one in rank[step * accumulate : (step + 1) * accumulate]]
        assert {(one.position.step, one.resume_at.step) for one in requests} == {(step, step + 1)}
        found.append(sorted([cut.id for cut in one.cuts] for one in requests))
    return found


@pytest.mark.parametrize("product", [4, 6])
def test_processes_times_accumulated_batches_is_what_counts(product: int) -> None:
    expected = steps(60, 1, product)  # some three or five epochs, whose numbers of batches are no multiples
    for processes in (2, product // 2, product):
        assert steps(60, processes, product // processes) == expected
    assert steps(60, 1, product, seed=2) != expected


@pytest.mark.parametrize("size", [1, 4, 6])
def test_every_epoch_holds_everything_once(size: int) -> None:
    heard: dict[int, list[str]] = {}
    for request in islice(stream(batches_per_step=size), 320):
        heard.setdefault(request.position.epoch, []).extend(cut.id for cut in request.cuts)
        assert set(request.passes) == {request.position.epoch}
    assert len(heard) >= 4
    for epoch in list(heard)[:3]:
        assert sorted(heard[epoch]) == sorted(cut.id for cut in CUTS)
    assert heard[0] != heard[1]


def test_batches_of_a_step_are_of_similar_length() -> None:
    def longest_of(batches_per_step: int) -> np.ndarray:
        requests = islice(stream(batches_per_step=batches_per_step), 64)
        return np.array([max(cut.duration for cut in one.cuts) for one in requests])

    def spread(batches_per_step: int) -> float:
        return np.ptp(longest_of(batches_per_step).reshape(8, 8), axis=1).mean()

    assert spread(8) < 0.5 * spread(1)
    assert np.ptp(longest_of(8)) > 7  # and steps of any length follow each other


@pytest.mark.parametrize("size", [1, 4])
def test_any_step_can_be_the_first(size: int) -> None:
    straight = list(islice(stream(batches_per_step=size), 60 * size))
    for step in (1, 18, 19, 37, 58):
        start = straight[step * size - 1].resume_at
        assert start.batches == step * size and start.step == step
        resumed = list(islice(stream(batches_per_step=size, start=start), size * (60 - step)))
        assert resumed == straight[step * size :]


def test_another_number_of_batches_goes_on_with_the_epoch() -> None:
    """Steps stay of similar length, and what a window of 16 steps does not hold comes once."""
    before = list(islice(stream(batches_per_step=3), 60))
    start = before[-1].resume_at
    after = list(islice(stream(batches_per_step=4, start=start), 16 + 4 * 30))
    assert [one.position.batches for one in after] == list(range(60, 60 + len(after)))
    assert [one.position.step for one in after] == [20 + place // 4 for place in range(len(after))]
    later = after[-4].position
    again = list(islice(stream(batches_per_step=4, start=later), 8))
    assert again[:4] == after[-4:]


def test_what_cannot_be_shared_is_refused() -> None:
    with pytest.raises(ValueError, match="3 batches of a step cannot be shared by 2 processes"):
        stream(batches_per_step=3, world_size=2)
    with pytest.raises(ValueError, match="there is no speech"):
        stream([])


def test_fixed_crops_do_not_depend_on_the_seed() -> None:
    def starts(**options) -> dict[tuple[str, int], float]:
        requests = islice(stream(max_samples=40_000, **options), 240)
        return {(cut.id, one.position.epoch): cut.start for one in requests for cut in one.cuts if cut.start}

    one, other, drawn = starts(crops=2), starts(crops=2, seed=2), starts()
    both = one.keys() & other.keys()
    assert len(both) > 300 and all(one[key] == other[key] for key in both)
    assert all(one[name, 2] == one[name, 0] != one[name, 1] for name, epoch in both if epoch == 0)
    assert all(drawn[name, 2] != drawn[name, 0] for name, epoch in drawn if epoch == 0)


@pytest.mark.parametrize("accumulate", [1, 2])
def test_a_loader_killed_in_its_second_epoch_goes_on_with_other_workers(corpus, tmp_path: Path, accumulate) -> None:
    cuts, _ = speech_cuts([corpus.speech], tmp_path)
    noise, rir = AudioSource.from_path(corpus.noise), RIRSource.from_path(corpus.rir)
    corruptor = Corruptor(CorruptionPolicy(), noise, rir, seed=1)

    def load(count: int, workers: int, start: Position | None = None) -> list:
        order = stream(cuts, max_samples=24_000, batches_per_step=accumulate, start=start)
        return list(islice(make_loader(order, SpeechBatches(corruptor), workers), count))

    straight = load(24, 0)
    killed = load(10, 2)  # the workers have read ahead of what was used
    assert killed[-1].position.epoch == 1 and straight[-1].position.epoch == 3
    resumed = load(14, 2, killed[-1].resume_at)
    assert [one.ids for one in killed + resumed] == [one.ids for one in straight]
    for one, other in zip(killed + resumed, straight):
        assert (one.position, one.resume_at) == (other.position, other.resume_at)
        assert torch.equal(one.corrupted.waveforms, other.corrupted.waveforms)


def shares(weights, sizes, epochs: int = 6) -> tuple[list[list[str]], SpeechCuts]:
    parts, first = [], 0
    for size in sizes:
        parts.append(CUTS[first : first + size])
        first += size
    cuts = SpeechCuts(parts, weights)
    return [[cut.id for _, cut in cuts.epoch(3, epoch)] for epoch in range(epochs)], cuts


def test_roots_have_their_shares_and_no_cut_comes_twice_before_all_have_come() -> None:
    epochs, cuts = shares([1, 3], (200, 40))
    small = {cut.id for cut in CUTS[200:240]}
    heard = [name for epoch in epochs for name in epoch]
    assert [len(epoch) for epoch in epochs] == [240] * 6 and len(cuts) == 240
    assert [sum(name in small for name in epoch) for epoch in epochs] == [180] * 6
    for part in (small, {cut.id for cut in CUTS[:200]}):
        order = [name for name in heard if name in part]
        passes = [order[first : first + len(part)] for first in range(0, len(order), len(part))]
        assert all(set(one) == part for one in passes[:-1]) and len({*map(tuple, passes)}) == len(passes)
    half = [name in small for name in epochs[0][:120]]
    assert 75 < sum(half) < 105  # evenly mixed


def test_a_cut_that_comes_again_in_an_epoch_is_another_crop_and_corruption() -> None:
    cuts = SpeechCuts([[dummy_cut(0, duration=9.0)], CUTS[1:30]], weights=[1, 1])
    found = [
        (passes, cut.start)
        for one in islice(stream(cuts, max_samples=16_000, batches_per_step=2), 14)
        for passes, cut in zip(one.passes, one.cuts)
        if cut.id == dummy_cut(0).id
    ]
    assert len(found) > 20 and len({passes for passes, _ in found}) == len({start for _, start in found}) == len(found)


def test_weighted_speech_goes_on_exactly() -> None:
    cuts = SpeechCuts([CUTS[:40], CUTS[40:100]], weights=[2, 1])
    straight = list(islice(stream(cuts, batches_per_step=4), 160))
    assert straight[-1].position.epoch >= 5
    for step in (1, 9, 23, 39):
        start = straight[4 * step - 1].resume_at
        assert list(islice(stream(cuts, batches_per_step=4, start=start), 160 - 4 * step)) == straight[4 * step :]


def test_weights_are_part_of_the_digest() -> None:
    digests = {shares(weights, (5, 9), 1)[1].digest() for weights in (None, [1, 1], [2, 2], [1, 2])}
    assert len(digests) == 3
