"""Batches for distillation: the dataset that turns cuts into clean and corrupted audio, and its loader.

What a batch holds depends on the seed, the epoch and the utterances' ids, never on the number of loader processes.
"""

from __future__ import annotations

import math
import signal
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from lhotse.cut import Cut
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from robustdistiller.acoustics import Corruptor
from robustdistiller.acoustics.condition import SOURCES
from robustdistiller.common.audio import SAMPLE_RATE_HZ
from robustdistiller.pretrain.data.cuts import FileCut, as_cut
from robustdistiller.pretrain.data.reading import read_into
from robustdistiller.pretrain.data.sampler import BatchRequest, BatchStream, Position
from robustdistiller.pretrain.data.unreadable import UnreadableAudio, UnreadableAudioError
from robustdistiller.pretrain.teacher.cache import CachedTargets, TargetCache
from robustdistiller.pretrain.training.stopping import SIGNALS

_WHOLE_BATCH_SAMPLES = 60 * SAMPLE_RATE_HZ


@dataclass(frozen=True)
class Heard:
    """The utterances of a batch under a corruption.

    Attributes:
        waveforms: (B, samples) float32, zero past each utterance's end.
        snr_db: (B,) float32, the ratio at which noise was added; infinite where none was.
    """

    waveforms: Tensor
    snr_db: Tensor

    def to(self, device: torch.device | str) -> Heard:
        """The same on `device`."""
        return Heard(self.waveforms.to(device), self.snr_db.to(device))

    @classmethod
    def of(cls, rows: Sequence[tuple[np.ndarray, Mapping]]) -> Heard:
        """Utterances after their corruption, each with what was drawn for it."""
        snrs_db = [drawn.get("snr_db", math.inf) for _, drawn in rows]
        return cls(_padded([samples for samples, _ in rows]), torch.tensor(snrs_db, dtype=torch.float32))


@dataclass(frozen=True)
class Batch:
    """Clean speech, and what it sounds like corrupted.

    Attributes:
        position: of this batch in the stream.
        ids: of the utterances.
        waveforms: (B, samples) float32 at 16 kHz, zero past each utterance's end.
        lengths: (B,) int64, valid samples; always on the CPU.
        corrupted: the speech under a corruption; `None` where it stays clean.
        second: under another, independently drawn corruption, if one was asked for.
        cached: what is known of the teacher's targets, if they are kept.
        skipped: what is missing because it cannot be read or heard: (key, reason) each.
        resume_at: where the optimizer step after this batch's begins, for all processes.
        counts: whether it has a part in the loss.
    """

    position: Position
    ids: tuple[str, ...]
    waveforms: Tensor
    lengths: Tensor
    corrupted: Heard | None = None
    second: Heard | None = None
    cached: CachedTargets | None = None
    skipped: tuple[tuple[str, str], ...] = ()
    resume_at: Position | None = None
    counts: bool = True

    @property
    def clean(self) -> Heard:
        """The speech without corruption."""
        return Heard(self.waveforms, self.waveforms.new_full((len(self.ids),), math.inf))

    @property
    def seconds(self) -> float:
        """Audio in the batch, without padding."""
        return self.lengths.sum().item() / SAMPLE_RATE_HZ if self.counts else 0.0

    def to(self, device: torch.device | str, non_blocking: bool = False) -> Batch:
        """The batch with its audio on `device`."""
        return self._moved(lambda part: part.to(device, non_blocking=non_blocking))

    def pin_memory(self) -> Batch:
        """The batch with its audio in pinned memory."""
        return self._moved(lambda part: part.pin_memory())

    def stand_in(self) -> Batch:
        """One second of silence in place of a batch of which nothing can be read: a process cannot sit out a step."""
        silence = torch.zeros(1, SAMPLE_RATE_HZ)
        view = Heard(silence, torch.full((1,), math.inf))
        return replace(
            self, ids=("silence",), waveforms=silence, lengths=torch.tensor([SAMPLE_RATE_HZ]), corrupted=view,
            second=view, cached=None, counts=False,
        )  # fmt: skip

    def _moved(self, move: Callable) -> Batch:
        views = {name: getattr(self, name) for name in ("corrupted", "second")}
        moved = {name: view and Heard(move(view.waveforms), move(view.snr_db)) for name, view in views.items()}
        cached = self.cached and self.cached.moved(move)
        return replace(self, waveforms=move(self.waveforms), cached=cached, **moved)


class SpeechBatches(Dataset):
    """Reads the audio of a `BatchRequest` and corrupts it; runs in loader processes.

    An utterance that cannot be read, or whose noise or room cannot, is left out of its batch and named in
    `Batch.skipped`; a batch of which nothing is left has no rows. Noise that is silent, constant or next to nothing in
    length is named there, too, and another recording is heard in its place.

    Args:
        corruptor: draws by (seed, pass, utterance id, view); `None` leaves the speech clean.
        second_view: corrupt it a second time, too.
        cache: of the teacher's targets, whose part for the batch is read along.
    """

    def __init__(
        self,
        corruptor: Corruptor | None = None,
        second_view: bool = False,
        cache: TargetCache | None = None,
    ):
        self.corruptor, self.cache = corruptor, cache
        self.views = 0 if corruptor is None else 1 + second_view

    def __getitem__(self, request: BatchRequest) -> Batch:
        rows, skipped = [], []
        passes = request.passes or [request.position.epoch] * len(request.cuts)
        for cut, passed in zip(request.cuts, passes):
            speech = np.empty(cut.num_samples, np.float32)
            try:
                read_into(cut, speech)
            except ValueError as error:
                skipped.append((cut.id, str(error)))
                continue
            try:
                rows.append((cut.id, speech, self._corrupted(cut.id, speech, passed, request.position.step)))
            except (OSError, ValueError) as error:
                # The file is what is counted, not the many utterances that will meet it.
                key = f"corruption: {getattr(error, 'file', error)}"
                skipped.append((key, f"{error} (drawn for utterance {cut.id})"))
        audio = [speech for _, speech, _ in rows]
        views = [Heard.of([heard[view] for _, _, heard in rows]) for view in range(self.views)]
        return Batch(
            request.position,
            tuple(name for name, _, _ in rows),
            _padded(audio),
            torch.tensor([len(speech) for speech in audio], dtype=torch.int64),
            *[*views, None, None][:2],
            cached=None if self.cache is None else self.cache.read(audio),
            skipped=(*skipped, *self._passed_over()),
            resume_at=request.resume_at,
        )

    def _corrupted(self, name: str, speech: np.ndarray, passed: int, step: int) -> list[tuple[np.ndarray, Mapping]]:
        """An utterance in each view, and what was drawn for it."""
        drawn = [self.corruptor.draw(name, len(speech), passed, step, view=view) for view in range(self.views)]
        return [(self.corruptor.apply(speech, one), one) for one in drawn]

    def _passed_over(self) -> Iterator[tuple[str, str]]:
        """Recordings in which this process has found nothing to hear."""
        for source in (self.corruptor.source(kind) for kind in SOURCES) if self.corruptor else ():
            for name, reason in source.skipped.items() if source else ():
                file = source.piece(name).path
                yield f"corruption: {file} {name}", f"{file} ({name}) is not used for corruption: {reason}"


def whole_batches(cuts: Iterable[Cut | FileCut]) -> list[BatchRequest]:
    """Every cut once, whole, those of similar length together; at most a minute of audio with its padding per batch."""
    batches: list[list[Cut]] = []
    for cut in sorted(cuts, key=lambda cut: (cut.num_samples, cut.id)):
        if not batches or (len(batches[-1]) + 1) * cut.num_samples > _WHOLE_BATCH_SAMPLES:
            batches.append([])
        batches[-1].append(as_cut(cut))
    return [BatchRequest(Position(), tuple(batch)) for batch in batches]


def _padded(rows: Sequence[np.ndarray]) -> Tensor:
    """(rows, samples) float32, zero past the end of each."""
    padded = torch.zeros(len(rows), max(map(len, rows), default=0))
    for row, samples in zip(padded, rows):
        row[: len(samples)] = torch.from_numpy(samples)
    return padded


def make_loader(
    stream: BatchStream,
    dataset: SpeechBatches,
    num_workers: int,
    pin_memory: bool = False,
    unreadable: UnreadableAudio | None = None,
) -> DataLoader:
    """A loader over `stream`, whose order and content do not depend on `num_workers`.

    A batch of which nothing can be read comes without rows: all processes count the same batches. `unreadable` keeps
    count of what cannot be read; by default nothing may be missing.

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
        worker_init_fn=_ignore_signals,
    )
    loader.unreadable = UnreadableAudio(budget=0) if unreadable is None else unreadable
    return loader


def _ignore_signals(worker: int) -> None:
    """Schedulers send their signals to all processes of a job; the step that the training still makes needs its data.

    Loader processes end with it.
    """
    for number in SIGNALS:
        signal.signal(number, signal.SIG_IGN)


class _Loader(DataLoader):
    """Counts what cannot be read."""

    def __iter__(self) -> Iterator[Batch]:
        empty_since = None
        for batch in super().__iter__():
            self.unreadable.add(batch.skipped)
            yield batch
            if batch.ids:
                empty_since = None
                continue
            empty_since = batch.position.epoch if empty_since is None else empty_since
            if batch.position.epoch > empty_since + 1:  # the stream never ends by itself
                raise UnreadableAudioError(f"nothing of the speech can be read: {self.unreadable.describe()}")
