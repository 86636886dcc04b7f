"""Batches for distillation: the dataset that turns cuts into audio and corruption, and its loader.

What a batch holds depends on the seed, the epoch and the utterances' ids, never on the number of loader processes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from robustdistiller.acoustics import CorruptionBatch, Corruptor
from robustdistiller.acoustics.memory import empty_batch

from .cuts import SAMPLE_RATE_HZ
from .reading import read_into
from .stream import BatchRequest, BatchStream, Position
from .target_cache import CachedTargets, TargetCache
from .unreadable import UnreadableAudio, UnreadableAudioError


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
        cached: what is known of the teacher's targets, if they are kept.
        skipped: what is missing because it cannot be read: (key, reason) each.
    """

    position: Position
    ids: tuple[str, ...]
    waveforms: Tensor
    lengths: Tensor
    corruption: CorruptionBatch | None = None
    second: CorruptionBatch | None = None
    cached: CachedTargets | None = None
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
        cached = self.cached and self.cached.moved(move)
        return replace(self, waveforms=move(self.waveforms), cached=cached, **moved)


class SpeechBatches(Dataset):
    """Reads the audio of a `BatchRequest` and prepares its corruption; runs in loader processes.

    An utterance that cannot be read, or whose noise or room cannot, is left out of its batch and named in
    `Batch.skipped`; a batch of which nothing is left has no rows.

    Args:
        corruptor: draws by (seed, epoch, utterance id, view); `None` leaves the speech clean.
        accumulate: batches per training step, for the corruption's curriculum.
        second_view: draw a second corruption too.
        cache: of the teacher's targets, whose part for the batch is read along.
    """

    def __init__(
        self,
        corruptor: Corruptor | None = None,
        accumulate: int = 1,
        second_view: bool = False,
        cache: TargetCache | None = None,
    ):
        self.corruptor, self.accumulate, self.cache = corruptor, accumulate, cache
        self.views = 0 if corruptor is None else 1 + second_view

    def __getitem__(self, request: BatchRequest) -> Batch:
        asked = [(cut, cut.num_samples) for cut in request.cuts]
        waveforms = empty_batch(len(asked), max((length for _, length in asked), default=0))
        rows: list[tuple[str, int]] = []
        skipped = []
        for cut, length in asked:
            row = waveforms[len(rows)].numpy()
            try:
                read_into(cut, row[:length])
            except ValueError as error:
                skipped.append((cut.id, str(error)))
                continue
            row[length:] = 0.0
            rows.append((cut.id, length))
        waveforms = waveforms[: len(rows)]
        views = self._views(request.position, rows)
        if views is None:
            kept, broken = self._without_broken_corruption(request.position, rows)
            waveforms, rows = waveforms[kept], [rows[index] for index in kept]
            views = self._views(request.position, rows)
            skipped += broken
        ids, lengths = tuple(name for name, _ in rows), [length for _, length in rows]
        if skipped:  # perhaps the longest
            waveforms = waveforms[:, : max(lengths, default=0)].contiguous()
        audio = [(name, row[:length]) for row, (name, length) in zip(waveforms.numpy(), rows)]
        cached = None if self.cache is None else self.cache.read([samples for _, samples in audio])
        lengths = torch.tensor(lengths, dtype=torch.int64)
        return Batch(request.position, ids, waveforms, lengths, *views, cached, tuple(skipped))

    def _views(self, position: Position, rows: Sequence[tuple[str, int]]) -> list | None:
        """Both corruptions, `None` in place of one that is not wanted; `None` altogether if a file cannot be read."""
        try:
            return self._read_views(position, rows)
        except (OSError, ValueError):
            return None

    def _read_views(self, position: Position, rows: Sequence[tuple[str, int]]) -> list[CorruptionBatch | None]:
        views: list[CorruptionBatch | None] = [None, None]
        step = position.batches // self.accumulate
        lengths = [length for _, length in rows]
        for view in range(self.views if rows else 0):
            drawn = [self.corruptor.draw(*row, position.epoch, step, view=view) for row in rows]
            views[view] = self.corruptor.prepare(drawn, lengths)
        return views

    def _without_broken_corruption(
        self, position: Position, rows: Sequence[tuple[str, int]]
    ) -> tuple[list[int], list[tuple[str, str]]]:
        """Positions of the rows whose corruption can be read, and what cannot."""
        good, broken = [], []
        for index, row in enumerate(rows):
            try:
                self._read_views(position, [row])
                good.append(index)
            except (OSError, ValueError) as error:
                # The file is what is counted, not the many utterances that will meet it.
                broken.append((f"corruption: {error}", f"{error} (drawn for utterance {row[0]})"))
        return good, broken


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
    loader.unreadable = UnreadableAudio(budget=0) if unreadable is None else unreadable
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
