"""The order of batches: an endless, exactly resumable stream of cuts, grouped by length.

It depends on the seed, the epoch and the ids of the utterances, never on where a run was interrupted. It is one stream
for all processes, of which each takes its share: as many batches make a step, whichever processes they are in.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import islice

import numpy as np
from lhotse import CutSet
from lhotse.cut import Cut
from lhotse.dataset.sampling import DynamicBucketingSampler
from lhotse.dataset.sampling.dynamic_bucketing import estimate_duration_buckets
from torch.utils.data import Sampler

from robustdistiller.common.seeds import seed_of
from robustdistiller.pretrain.data.cuts import SAMPLE_RATE_HZ
from robustdistiller.pretrain.data.file_cuts import FileCut
from robustdistiller.pretrain.data.shards import StreamedCuts

_BUFFER_CUTS = 20_000
_DURATIONS = 1_000_000
_WINDOW_STEPS = 16  # within so many steps, batches are exchanged


@dataclass(frozen=True)
class Position:
    """A place in the stream of batches, the same in all processes.

    Attributes:
        epoch: pass over the data, from 0.
        batch_in_epoch: batches of this epoch that came before.
        batches: all batches that came before.
    """

    epoch: int = 0
    batch_in_epoch: int = 0
    batches: int = 0

    def next(self) -> Position:
        """The place after the batch at this place.

        >>> Position(1, 2, 9).next()
        Position(epoch=1, batch_in_epoch=3, batches=10)
        """
        return replace(self, batch_in_epoch=self.batch_in_epoch + 1, batches=self.batches + 1)


@dataclass(frozen=True)
class BatchRequest:
    """What a loader process needs to make one batch.

    Attributes:
        position: of the batch.
        cuts: what is in it.
        next_step: the place after the optimizer step that the batch belongs to.
    """

    position: Position
    cuts: tuple[Cut, ...]
    next_step: Position


class BatchStream(Sampler):
    """Endless stream of duration-bucketed batches, that can start anywhere.

    Each epoch shuffles the cuts and lets lhotse's `DynamicBucketingSampler` group those of similar length. Resuming
    replays the sampler of the current epoch, which reads no audio. Cuts in shards are streamed from their indexes. The
    batches of a step are of similar length, so that its processes wait little for one another.

    Args:
        cuts: at 16 kHz.
        max_samples: longest stretch of a cut; longer ones are cropped at a place drawn from seed, epoch and id.
        batch_size: most cuts per batch, or `None`.
        batch_seconds: most padded seconds per batch, or `None`.
        num_buckets: kinds of length.
        seed: of everything drawn.
        start: first batch.
        crops: different stretches of a long cut, one per epoch in turn; `None` is a new one in each epoch.
        batches_per_step: of all processes together, those of accumulated gradients included.
        rank: this process.
        world_size: processes; each gets every so-many-th batch.
    """

    def __init__(
        self,
        cuts: Sequence[Cut | FileCut] | StreamedCuts,
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
        self.crops = crops
        self.cuts = cuts if isinstance(cuts, StreamedCuts) else StreamedCuts(cuts)
        self.max_samples, self.seed = max_samples, seed
        self.batches_per_step, self.rank, self.world_size = batches_per_step, rank, world_size
        self.start = start or Position()
        self.options = {
            "max_cuts": batch_size,
            "max_duration": batch_seconds,
            "duration_bins": _duration_bins(self.cuts, max_samples, num_buckets, batch_size, batch_seconds),
            "buffer_size": max(_BUFFER_CUTS, 8 * (batch_size or 0) * num_buckets),
            # Also with one process: without it, lhotse ends an epoch when it happens to choose an empty bucket, and
            # loses what the others still hold.
            "sync_buckets": True,
            "rank": 0,
            "world_size": 1,
        }

    def __iter__(self) -> Iterator[BatchRequest]:
        batches = self._batches()
        while True:
            step = list(islice(batches, self.batches_per_step))
            next_step = step[-1][0].next()
            for position, cuts in step[self.rank :: self.world_size]:
                yield BatchRequest(position, tuple(cuts), next_step)

    def _batches(self) -> Iterator[tuple[Position, CutSet]]:
        """The stream of all processes, from the start on."""
        position = self.start
        while True:
            before = position.batches - position.batch_in_epoch - self.start.batches
            epoch = self._in_steps(iter(self._epoch(position.epoch)), position.epoch, before)
            for cuts in islice(epoch, position.batch_in_epoch, None):
                yield position, cuts
                position = position.next()
            position = Position(position.epoch + 1, 0, position.batches)

    def _epoch(self, epoch: int) -> DynamicBucketingSampler:
        seed = seed_of(self.seed, epoch)
        cropped = _Lazy(lambda: (self._crop(cut, epoch) for cut in self.cuts.shuffled(seed)))
        return DynamicBucketingSampler(cropped, shuffle=True, seed=seed, **self.options)

    def _in_steps(self, batches: Iterator[CutSet], epoch: int, before: int) -> Iterator[CutSet]:
        """The batches of an epoch in an order in which those of a step are of similar length.

        Args:
            batches: of the epoch, as they were sampled.
            epoch: its number.
            before: batches that came before it, counted from the beginning of a step.
        """
        size = self.batches_per_step
        if size == 1:
            yield from batches
            return
        yield from islice(batches, -before % size)  # the rest of a step that began in the epoch before
        generator = random.Random(seed_of(self.seed, epoch, "steps"))
        while window := list(islice(batches, _WINDOW_STEPS * size)):
            window.sort(key=lambda cuts: max(cut.num_samples for cut in cuts))
            steps = [window[start : start + size] for start in range(0, len(window), size)]
            unfinished = steps.pop() if len(steps[-1]) < size else []  # the next epoch's first batches complete it
            generator.shuffle(steps)
            for step in (*steps, unfinished):
                yield from step

    def _crop(self, cut: Cut, epoch: int) -> Cut:
        spare = cut.num_samples - self.max_samples
        if spare <= 0:
            return cut
        crop = epoch if self.crops is None else epoch % self.crops
        start = random.Random(seed_of(self.seed, crop, cut.id)).randint(0, spare)
        return cut.truncate(offset=start / SAMPLE_RATE_HZ, duration=self.max_samples / SAMPLE_RATE_HZ, preserve_id=True)


class _Lazy:
    """An iterable made anew on each iteration."""

    def __init__(self, make):
        self.make = make

    def __iter__(self):
        return iter(self.make())


def _duration_bins(
    cuts: StreamedCuts, max_samples: int, num_buckets: int, batch_size: int | None, batch_seconds: float | None
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
    return [float(border) for border in estimate_duration_buckets(map(_Duration, some), buckets)]


@dataclass
class _Duration:
    duration: float
