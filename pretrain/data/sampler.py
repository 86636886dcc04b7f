"""The order of batches: one endless stream of cuts grouped by length, which any number of processes share.

It depends on the seed, the epoch and the utterances' ids, never on where a run was interrupted, and on processes only
by the number of batches in an optimizer step.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from types import SimpleNamespace

import numpy as np
from lhotse.cut import Cut
from lhotse.dataset.sampling import DynamicBucketingSampler
from lhotse.dataset.sampling.dynamic_bucketing import estimate_duration_buckets
from torch.utils.data import Sampler

from robustdistiller.common.audio import SAMPLE_RATE_HZ
from robustdistiller.common.seeds import seed_of
from robustdistiller.pretrain.data.cuts import FileCut, as_cut, stretch_of
from robustdistiller.pretrain.data.speech import SpeechCuts

_BUFFER_CUTS = 20_000
_DURATIONS = 1_000_000
_WINDOW_STEPS = 16  # among whose batches those of a step are chosen by length


@dataclass(frozen=True)
class Position:
    """A place in the stream of batches, the same for all processes.

    Attributes:
        epoch: pass over the data, from 0.
        batch_in_epoch: batches of this epoch that came before, in all processes.
        batches: all batches that came before, in all processes.
        step: optimizer steps that came before.
    """

    epoch: int = 0
    batch_in_epoch: int = 0
    batches: int = 0
    step: int = 0

    def next(self) -> Position:
        """The place after the batch at this place, in the same optimizer step."""
        return replace(self, batch_in_epoch=self.batch_in_epoch + 1, batches=self.batches + 1)


@dataclass(frozen=True)
class BatchRequest:
    """What a loader process needs to make one batch.

    Attributes:
        position: of the batch.
        cuts: at 16 kHz.
        passes: how often the speech that each cut belongs to was heard before; empty where that is the epoch.
        resume_at: where the next optimizer step begins, for all processes.
    """

    position: Position
    cuts: tuple[Cut, ...]
    passes: tuple[int, ...] = ()
    resume_at: Position | None = None


class BatchStream(Sampler):
    """Endless stream of duration-bucketed batches, that can start anywhere.

    In each epoch lhotse's `DynamicBucketingSampler` groups cuts of similar length to batches. Where an optimizer step
    takes several, they are chosen among those of 16 steps so that the longest cuts of a step's batches are of similar
    length and no process waits long for another; the batches that remain at the end of an epoch begin a step which the
    next epoch completes. Process r of W takes the batches r, r + W, ... of a step: with the same `batches_per_step`, 4
    processes with 1 batch hear in every step what 1 process with 4, or 2 with 2, hears. With another number, what
    is left of an epoch comes in another order, so that some of at most 16 steps' batches may come twice, or not at all.

    Resuming replays the sampler of the current epoch, which reads no audio. Cuts in shards are streamed from indexes.

    Args:
        cuts: at 16 kHz.
        max_samples: longest stretch of a cut; longer ones are cropped at a place drawn from seed, pass and id.
        batch_size: most cuts per batch, or `None`.
        batch_seconds: most padded seconds per batch, or `None`.
        num_buckets: kinds of length.
        seed: of everything drawn.
        start: first batch of an optimizer step.
        crops: different stretches of a long cut, one per pass in turn, the same for every seed; `None` draws a new one
            in each pass.
        batches_per_step: of all processes together.
        rank: this process.
        world_size: processes.

    Raises:
        ValueError: there is no speech, or the processes cannot share a step evenly.
    """

    def __init__(
        self,
        cuts: Sequence[Cut | FileCut] | SpeechCuts,
        max_samples: int,
        batch_size: int | None = 24,
        batch_seconds: float | None = None,
        num_buckets: int = 10,
        seed: int = 0,
        start: Position | None = None,
        crops: int | None = None,
        batches_per_step: int = 1,
        rank: int = 0,
        world_size: int = 1,
    ):
        self.cuts = cuts if isinstance(cuts, SpeechCuts) else SpeechCuts([cuts])
        if not len(self.cuts):
            raise ValueError("there is no speech to make batches of")
        if batches_per_step % world_size or not 0 <= rank < world_size:
            raise ValueError(f"{batches_per_step} batches of a step cannot be shared by {world_size} processes")
        self.max_samples, self.seed, self.crops, self.start = max_samples, seed, crops, start or Position()
        self.batches_per_step, self.rank, self.world_size = batches_per_step, rank, world_size
        self.options = {
            "max_cuts": batch_size,
            "max_duration": batch_seconds,
            "duration_bins": _duration_bins(self.cuts, max_samples, num_buckets, batch_size, batch_seconds),
            "buffer_size": max(_BUFFER_CUTS, 8 * (batch_size or 0) * num_buckets),
            # Without it, lhotse ends an epoch when it happens to choose an empty bucket, and loses what the others
            # still hold.
            "sync_buckets": True,
            "rank": 0,
            "world_size": 1,
        }

    def __iter__(self) -> Iterator[BatchRequest]:
        position, step = self.start, []
        while True:
            epoch = self._epoch(position.epoch, position.batches - position.batch_in_epoch)
            for drawn in islice(epoch, position.batch_in_epoch, None):
                step.append((position, drawn))
                position = position.next()
                if len(step) == self.batches_per_step:
                    position = replace(position, step=position.step + 1)
                    yield from (self._request(*one, position) for one in step[self.rank :: self.world_size])
                    step = []
            position = replace(position, epoch=position.epoch + 1, batch_in_epoch=0)

    def _epoch(self, epoch: int, batches_before: int) -> Iterator[list[_Drawn]]:
        """The batches of an epoch, those of an optimizer step of similar length."""
        seed, size = seed_of(self.seed, epoch), self.batches_per_step
        drawn = (_Drawn(*one, self.max_samples) for one in self.cuts.epoch(self.seed, epoch))
        batches = map(list, DynamicBucketingSampler(drawn, shuffle=True, seed=seed, **self.options))
        if size == 1:
            yield from batches
            return
        generator = random.Random(seed_of(seed, "steps"))
        yield from islice(batches, (self.start.batches - batches_before) % size)  # complete the step of another epoch
        while window := list(islice(batches, size * _WINDOW_STEPS)):
            whole = len(window) // size * size
            in_order = sorted(window[:whole], key=lambda batch: max(one.duration for one in batch))
            steps = [in_order[first : first + size] for first in range(0, whole, size)]
            generator.shuffle(steps)
            yield from (batch for step in [*steps, window[whole:]] for batch in step)

    def _request(self, position: Position, drawn: list[_Drawn], resume_at: Position) -> BatchRequest:
        cuts = tuple(self._crop(one.cut, one.passes) for one in drawn)
        return BatchRequest(position, cuts, tuple(one.passes for one in drawn), resume_at)

    def _crop(self, cut: Cut | FileCut, passes: int) -> Cut:
        spare = cut.num_samples - self.max_samples
        if spare <= 0:
            return as_cut(cut)
        seed = (
            seed_of(self.seed, passes, cut.id) if self.crops is None else seed_of("crop", passes % self.crops, cut.id)
        )
        return stretch_of(cut, random.Random(seed).randint(0, spare), self.max_samples)


class _Drawn:
    """What lhotse's sampler sees of a cut, for which it needs no more."""

    def __init__(self, passes: int, cut: Cut | FileCut, max_samples: int):
        self.passes, self.cut, self.id = passes, cut, cut.id
        self.duration = min(cut.num_samples, max_samples) / SAMPLE_RATE_HZ


def _duration_bins(
    cuts: SpeechCuts, max_samples: int, num_buckets: int, batch_size: int | None, batch_seconds: float | None
) -> list[float]:
    """Borders, in seconds, of buckets that hold equal amounts of audio; fewer buckets for small sets.

    Each bucket should fill several batches, or else most of an epoch consists of incomplete ones.
    """
    durations = np.sort(np.minimum(cuts.lengths(), max_samples)) / SAMPLE_RATE_HZ
    per_batch = min(
        len(durations) if batch_size is None else batch_size,
        len(durations) if batch_seconds is None else max(batch_seconds / np.mean(durations), 1),
    )
    buckets = min(num_buckets, int(len(durations) / (4 * per_batch)))
    if buckets < 2:
        return [float(durations[-1]) + 1.0]  # lhotse wants at least one border; this one has everything below it
    # Every so-many-th of a very large corpus says the same.
    some = durations[:: -(-len(durations) // _DURATIONS)]
    lengths = (SimpleNamespace(duration=duration) for duration in some)
    return [float(border) for border in estimate_duration_buckets(lengths, buckets)]
