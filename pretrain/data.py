"""Batches for distillation: an endless, exactly resumable stream of cuts, and the dataset that turns them into audio.

What a batch holds depends on the seed, the epoch and the utterances' ids, never on the number of loader processes or on
where a run was interrupted.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import islice

import numpy as np
import torch
from lhotse.audio.utils import AudioLoadingError, DurationMismatchError
from lhotse.cut import Cut
from lhotse.dataset.sampling import DynamicBucketingSampler
from lhotse.dataset.sampling.dynamic_bucketing import estimate_duration_buckets
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from robustdistiller.acoustics import CorruptionBatch, Corruptor

from .manifest import SAMPLE_RATE_HZ
from .unreadable import UnreadableAudio, UnreadableAudioError

_BUFFER_CUTS = 20_000


@dataclass(frozen=True)
class Position:
    """A place in the stream of batches.

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
    """What a loader process needs to make one batch."""

    position: Position
    cuts: tuple[Cut, ...]


@dataclass(frozen=True)
class Batch:
    """Clean speech, and how it is to be corrupted.

    Attributes:
        position: of this batch in the stream.
        ids: of the utterances.
        waveforms: (B, samples) float32 at 16 kHz, zero past each utterance's end.
        lengths: (B,) int64, valid samples; always on the CPU.
        corruption: what `robustdistiller.acoustics.corrupt` needs; `None` leaves the speech clean.
        second: another, independently drawn corruption of the same utterances, if one was asked for.
        skipped: what is missing because it cannot be read: (key, reason) each.
    """

    position: Position
    ids: tuple[str, ...]
    waveforms: Tensor
    lengths: Tensor
    corruption: CorruptionBatch | None = None
    second: CorruptionBatch | None = None
    skipped: tuple[tuple[str, str], ...] = ()

    @property
    def seconds(self) -> float:
        """Audio in the batch, without padding."""
        return self.lengths.sum().item() / SAMPLE_RATE_HZ

    def to(self, device: torch.device | str, non_blocking: bool = False) -> Batch:
        """The batch with its audio on `device`."""
        return self._moved(lambda part: part.to(device, non_blocking=non_blocking))

    def pin_memory(self) -> Batch:
        """The batch with its audio in pinned memory."""
        return self._moved(lambda part: part.pin_memory())

    def _moved(self, move: Callable) -> Batch:
        views = {name: getattr(self, name) for name in ("corruption", "second")}
        moved = {name: view and move(view) for name, view in views.items()}
        return replace(self, waveforms=move(self.waveforms), **moved)


class BatchStream(Sampler):
    """Endless stream of duration-bucketed batches, that can start anywhere.

    Each epoch shuffles the cuts and lets lhotse's `DynamicBucketingSampler` group those of similar length. Resuming
    replays the sampler of the current epoch, which reads no audio.

    Args:
        cuts: at 16 kHz.
        max_samples: longest stretch of a cut; longer ones are cropped at a place drawn from seed, epoch and id.
        batch_size: most cuts per batch, or `None`.
        batch_seconds: most padded seconds per batch, or `None`.
        num_buckets: kinds of length.
        seed: of everything drawn.
        start: first batch.
        rank: this process.
        world_size: processes; each gets batches of its own from the same buckets.
    """

    def __init__(
        self,
        cuts: Sequence[Cut],
        max_samples: int,
        batch_size: int | None = 24,
        batch_seconds: float | None = None,
        num_buckets: int = 10,
        seed: int = 0,
        start: Position | None = None,
        rank: int = 0,
        world_size: int = 1,
    ):
        self.cuts, self.max_samples, self.seed = cuts, max_samples, seed
        self.start = start or Position()
        self.options = {
            "max_cuts": batch_size,
            "max_duration": batch_seconds,
            "duration_bins": _duration_bins(cuts, max_samples, num_buckets, batch_size, batch_seconds),
            "buffer_size": max(_BUFFER_CUTS, 8 * (batch_size or 0) * num_buckets),
            # Also with one process: without it, lhotse ends an epoch when it happens to choose an empty bucket, and
            # loses what the others still hold.
            "sync_buckets": True,
            "rank": rank,
            "world_size": world_size,
        }

    def __iter__(self) -> Iterator[BatchRequest]:
        position = self.start
        while True:
            made = False
            for cuts in islice(self._epoch(position.epoch), position.batch_in_epoch, None):
                yield BatchRequest(position, tuple(cuts))
                position, made = position.next(), True
            if not made and position.batch_in_epoch == 0:
                raise ValueError(
                    f"{len(self.cuts)} utterances are too few for {self.options['world_size']} processes; use fewer"
                )
            position = Position(position.epoch + 1, 0, position.batches)

    def _epoch(self, epoch: int) -> DynamicBucketingSampler:
        seed = _seed(self.seed, epoch)
        order = random.Random(seed).sample(range(len(self.cuts)), len(self.cuts))
        cropped = _Lazy(lambda: (self._crop(self.cuts[index], epoch) for index in order))
        return DynamicBucketingSampler(cropped, shuffle=True, seed=seed, **self.options)

    def _crop(self, cut: Cut, epoch: int) -> Cut:
        spare = cut.num_samples - self.max_samples
        if spare <= 0:
            return cut
        start = random.Random(_seed(self.seed, epoch, cut.id)).randint(0, spare)
        return cut.truncate(offset=start / SAMPLE_RATE_HZ, duration=self.max_samples / SAMPLE_RATE_HZ, preserve_id=True)


class _Lazy:
    """An iterable made anew on each iteration."""

    def __init__(self, make):
        self.make = make

    def __iter__(self):
        return iter(self.make())


class SpeechBatches(Dataset):
    """Reads the audio of a `BatchRequest` and prepares its corruption; runs in loader processes.

    An utterance that cannot be read, or whose noise or room cannot, is left out of its batch and named in
    `Batch.skipped`; a batch of which nothing is left has no rows.

    Args:
        corruptor: draws by (seed, epoch, utterance id, view); `None` leaves the speech clean.
        accumulate: batches per training step, for the corruption's curriculum.
        second_view: draw a second corruption too.
    """

    def __init__(self, corruptor: Corruptor | None = None, accumulate: int = 1, second_view: bool = False):
        self.corruptor, self.accumulate = corruptor, accumulate
        self.views = 0 if corruptor is None else 1 + second_view

    def __getitem__(self, request: BatchRequest) -> Batch:
        rows, skipped = [], []
        for cut in request.cuts:
            try:
                rows.append((cut.id, read_cut(cut)))
            except ValueError as error:
                skipped.append((cut.id, str(error)))
        views = self._views(request.position, rows)
        if views is None:
            rows, broken = self._without_broken_corruption(request.position, rows)
            views = self._views(request.position, rows)
            skipped += broken
        lengths = [len(samples) for _, samples in rows]
        waveforms = torch.zeros(len(rows), max(lengths, default=0))
        for row, (_, samples) in zip(waveforms, rows):
            row[: len(samples)] = torch.from_numpy(samples)
        ids = tuple(name for name, _ in rows)
        return Batch(request.position, ids, waveforms, torch.tensor(lengths, dtype=torch.int64), *views, tuple(skipped))

    def _views(self, position: Position, rows: Sequence[tuple[str, np.ndarray]]) -> list | None:
        """Both corruptions, `None` in place of one that is not wanted; `None` altogether if a file cannot be read."""
        try:
            return self._read_views(position, rows)
        except (OSError, ValueError):
            return None

    def _read_views(self, position: Position, rows: Sequence[tuple[str, np.ndarray]]) -> list[CorruptionBatch | None]:
        views: list[CorruptionBatch | None] = [None, None]
        step = position.batches // self.accumulate
        lengths = [len(samples) for _, samples in rows]
        for view in range(self.views if rows else 0):
            extra = {"view": view} if view else {}
            drawn = [self.corruptor.draw(name, len(row), position.epoch, step, **extra) for name, row in rows]
            views[view] = self.corruptor.prepare(drawn, lengths)
        return views

    def _without_broken_corruption(self, position: Position, rows: Sequence[tuple[str, np.ndarray]]) -> tuple:
        good, broken = [], []
        for row in rows:
            try:
                self._read_views(position, [row])
                good.append(row)
            except (OSError, ValueError) as error:
                # The file is what is counted, not the many utterances that will meet it.
                broken.append((f"corruption: {error}", f"{error} (drawn for utterance {row[0]})"))
        return good, broken


def read_cut(cut: Cut) -> np.ndarray:
    """The audio of a cut, channels averaged: (samples,) float32.

    Raises:
        ValueError: it cannot be read, or holds NaN or infinite samples; the file and the utterance are named.
    """
    recording = getattr(cut, "recording", None)
    file = recording.sources[0].source if recording is not None and recording.sources else cut.id
    try:
        samples = np.atleast_2d(cut.load_audio()).mean(axis=0, dtype=np.float32)
    except (AudioLoadingError, DurationMismatchError, OSError, RuntimeError, ValueError) as error:
        raise ValueError(f"cannot read {file} (utterance {cut.id}): {error}; repair or remove it") from error
    if not np.isfinite(samples).all():
        raise ValueError(f"{file} (utterance {cut.id}) has NaN or infinite samples; repair or remove it")
    return samples


def make_loader(
    stream: BatchStream,
    dataset: SpeechBatches,
    num_workers: int,
    pin_memory: bool = False,
    unreadable: UnreadableAudio | None = None,
) -> DataLoader:
    """A loader over `stream`, whose order and content do not depend on `num_workers`.

    Args:
        stream: what comes when.
        dataset: reads it.
        num_workers: processes that read.
        pin_memory: for fast copies to a GPU.
        unreadable: keeps count of what cannot be read; by default nothing may be missing.

    Raises:
        UnreadableAudioError: while iterating, when more cannot be read than allowed.
    """
    loader = _Loader(
        dataset,
        sampler=stream,
        batch_size=None,
        num_workers=num_workers,
        prefetch_factor=4 if num_workers else None,
        pin_memory=pin_memory,
        generator=torch.Generator().manual_seed(0),  # otherwise the loader would draw from the global generator
    )
    loader.unreadable = unreadable or UnreadableAudio(budget=0)
    return loader


class _Loader(DataLoader):
    """Counts what cannot be read, and passes over batches of which nothing is left."""

    def __iter__(self) -> Iterator[Batch]:
        empty_since = None
        for batch in super().__iter__():
            self.unreadable.add(batch.skipped)
            if batch.ids:
                empty_since = None
                yield batch
                continue
            empty_since = batch.position.epoch if empty_since is None else empty_since
            if batch.position.epoch > empty_since + 1:  # the stream never ends by itself
                raise UnreadableAudioError(f"nothing of the speech can be read: {self.unreadable.describe()}")


def _duration_bins(
    cuts: Sequence[Cut], max_samples: int, num_buckets: int, batch_size: int | None, batch_seconds: float | None
) -> list[float]:
    """Borders, in seconds, of buckets that hold equal amounts of audio; fewer buckets for small sets.

    Each bucket should fill several batches, or else most of an epoch consists of incomplete ones.
    """
    durations = sorted(min(cut.num_samples, max_samples) / SAMPLE_RATE_HZ for cut in cuts)
    per_batch = min(
        len(durations) if batch_size is None else batch_size,
        len(durations) if batch_seconds is None else max(batch_seconds / np.mean(durations), 1),
    )
    buckets = min(num_buckets, int(len(durations) / (4 * per_batch)))
    if buckets < 2:
        return [durations[-1] + 1.0]  # lhotse wants at least one border; this one has everything below it
    return [float(border) for border in estimate_duration_buckets(map(_Duration, durations), buckets)]


@dataclass
class _Duration:
    duration: float


def _seed(*parts: object) -> int:
    return int.from_bytes(hashlib.sha256(repr(parts).encode()).digest()[:8], "little")
