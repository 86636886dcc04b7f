"""Corrupts the batches of an s3prl evaluation loader, utterance by utterance, by utterance id.

The loader's collate function is wrapped, so corruption happens in the loader's own workers and before anything is sent
to a device. Each utterance is corrupted on its own, from parameters that depend on its id, its length and the seed
only: neither batch size nor worker count nor order nor the upstream changes a sample. Datasets, targets and training
loaders are not touched.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any
from unittest import mock

import librosa
import numpy as np
import soundfile
from torch.utils.data import DataLoader

from robustdistiller.acoustics import Corruptor
from robustdistiller.acoustics.corruptor import checked
from robustdistiller.common.audio import SAMPLE_RATE_HZ
from robustdistiller.common.files import slug
from robustdistiller.eval.conditions.asv_sides import MARK, TrialSides
from robustdistiller.eval.conditions.manifest import (
    Manifest,
    audio_digest,
    digest_of,
    files_of,
    recordings_of,
    versions,
)
from robustdistiller.eval.conditions.recordings import recordings_corrupted
from robustdistiller.eval.tasks import Task


class UtteranceCorruptor:
    """Corrupts one utterance after the other, and keeps what was drawn until it is taken.

    Of the first `keep_clean` utterances (of each loader worker) it also keeps the clean audio.
    """

    def __init__(self, corruptor: Corruptor, keep_clean: int = 0) -> None:
        self.corruptor, self.keep_clean = corruptor, keep_clean
        self._drawn: dict[str, dict] = {}
        self._clean: dict[str, np.ndarray] = {}

    def __call__(self, waveform: np.ndarray, utterance_id: str) -> np.ndarray:
        """The corrupted utterance, (samples,) float32."""
        if self.keep_clean > 0:
            self.keep_clean -= 1
            self._clean[utterance_id] = np.array(waveform, np.float32)
        samples = checked(waveform, utterance_id)
        parameters = self.corruptor.draw(utterance_id, len(samples))
        corrupted = self.corruptor.apply(samples, parameters)
        self._drawn[utterance_id] = {"num_samples": len(samples), "audio": audio_digest(corrupted), **parameters}
        return corrupted

    def take(self) -> tuple[dict[str, dict], dict[str, np.ndarray]]:
        """What was drawn, and clean audio, by utterance id, since the last time."""
        taken = self._drawn, self._clean
        self._drawn, self._clean = {}, {}
        return taken


class CorruptingCollate:
    """Wraps a collate function: the batch it returns holds corrupted waveforms.

    Called with a list of samples it returns ``(waveforms, others, drawn, clean)``, where ``waveforms, *others`` is what
    the wrapped function returned, and the rest is of `UtteranceCorruptor.take`. Without `corrupt` the audio stays as it
    is.
    """

    def __init__(self, collate: Callable, corrupt: UtteranceCorruptor | None, task: Task, dataset: Any) -> None:
        self.collate, self.corrupt, self.task, self.dataset = collate, corrupt, task, dataset

    def __call__(self, samples: list) -> tuple[list, list, dict[str, dict], dict[str, np.ndarray]]:
        if self.corrupt is None:
            waveforms, *others = self.collate(samples)
            return list(waveforms), others, {}, {}
        if self.task.corruption == "mixture":
            samples = [self._corrupted_mixture(sample) for sample in samples]
        waveforms, *others = self.collate(samples)
        if self.task.corruption in ("waveforms", "none"):
            # Where the batches carry no ids, an utterance is called by its audio.
            ids = self.task.utterance_ids(others, len(waveforms)) or [audio_digest(wave, 64) for wave in waveforms]
            spared = [False] * len(ids)
            if isinstance(self.dataset, TrialSides):
                spared = [not name.endswith(MARK) for name in others[self.task.id_position]]
            waveforms = [w if spare else self.corrupt(w, name) for w, name, spare in zip(waveforms, ids, spared)]
        return list(waveforms), others, *self.corrupt.take()

    def _corrupted_mixture(self, sample: tuple) -> tuple:
        """A sample ``(id, mixture, mixture STFT, targets...)`` whose mixture and STFT are corrupted, targets untouched.

        The wrapped collate function then derives magnitude, phase and padded mixture from these, as it does from
        clean ones, so scores are relative to the corrupted mixture's input.
        """
        utterance_id, mixture, _, *targets = sample
        corrupted = np.asarray(self.corrupt(mixture, utterance_id))
        settings = {k: getattr(self.dataset, k) for k in ("n_fft", "hop_length", "win_length", "window", "center")}
        return utterance_id, corrupted, librosa.stft(corrupted, **settings).T, *targets


@contextmanager
def corrupted_batches(loader: DataLoader, corrupt: UtteranceCorruptor | None, task: Task) -> Iterator[None]:
    """Within the block, the batches of s3prl's loader are those of a `CorruptingCollate`."""
    collate = CorruptingCollate(loader.collate_fn, corrupt, task, loader.dataset)
    whole = corrupt is not None and task.corruption == "recordings"
    recordings = recordings_corrupted(loader.dataset, corrupt) if whole else nullcontext()
    with mock.patch.object(loader, "collate_fn", collate), recordings:
        yield


class LoaderView:
    """A loader of s3prl's whose batches are those of `batches`, called with it; all else is as it was."""

    def __init__(self, loader: Any, batches: Callable[[Any], Iterable]) -> None:
        self.loader, self.batches = loader, batches

    def __len__(self) -> int:
        return len(self.loader)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.loader, name)

    def __iter__(self) -> Iterator[Any]:
        return iter(self.batches(self.loader))


class ConditionLoader:
    """An evaluation loader under one condition: iterates like the loader it wraps, and keeps books.

    Args:
        loader: s3prl's loader, which is put back as it was after each iteration.
        corruptor: the condition's corruptor; None for clean audio.
        task: the task's registry entry.
        dump_dir: folder for examples: of each utterance ``ID.wav`` as the upstream gets it and, if it was corrupted,
            ``ID.clean.wav`` (both 32-bit float) and ``ID.json``, what was drawn.
        dump_count: number of utterances to write.
        through: what the corrupted batches go through before they are handed out, one for one and in their order.

    Attributes:
        drawn: utterance id to its number of samples, the drawn parameters, and the digest of the corrupted audio.
        recordings: names of the items handed out, for tasks whose expert does not keep them itself (diarization,
            enhancement and separation).
    """

    def __init__(
        self,
        loader: DataLoader,
        corruptor: Corruptor | None,
        task: Task,
        dump_dir: Path | None = None,
        dump_count: int = 0,
        through: Callable[[DataLoader], Iterable] | None = None,
    ) -> None:
        self.loader, self.corruptor, self.task = loader, corruptor, task
        self.through = through or (lambda stock: stock)
        self.dump_dir, self.dump_count = dump_dir, dump_count
        self._handed_out = 0
        self.drawn: dict[str, dict] = {}
        self.recordings: list[str] = []

    def __len__(self) -> int:
        return len(self.loader)

    def __iter__(self) -> Iterator[list]:
        keep_clean = self.dump_count if self.dump_dir else 0
        corrupt = UtteranceCorruptor(self.corruptor, keep_clean) if self.corruptor else None
        with corrupted_batches(self.loader, corrupt, self.task):
            for waveforms, others, drawn, clean in self.through(self.loader):
                self.drawn.update(drawn)
                ids = self._ids(waveforms, others, drawn)
                self._dump(waveforms, ids, clean)
                yield [waveforms, *others]
                # Reached only when the caller asks for more: a batch it broke off at is not counted.
                self._handed_out += len(ids)
                if self.task.corruption in ("recordings", "mixture"):
                    self.recordings += ids

    @property
    def items_expected(self) -> int:
        """Items of the split, or of the part of it that a quick look takes."""
        dataset = self.loader.dataset
        return self.task.count_items(dataset, getattr(self.loader, "kept", range(len(dataset))))

    @property
    def items_scored(self) -> int:
        """Items handed out in batches that the caller came back from; of trials all or none."""
        if not self.task.trial_sides:
            return self._handed_out
        return self.items_expected if self._handed_out == len(self.loader.dataset) else 0

    def manifest_digest(self) -> str:
        """SHA-256 over the drawn parameters in the order of utterance ids; ``none`` for clean audio."""
        return "none" if self.corruptor is None else digest_of(self.drawn)

    def audio_digest(self) -> str:
        """SHA-256 over the digests of the corrupted audio in the order of utterance ids; empty for clean audio."""
        if self.corruptor is None:
            return ""
        lines = (f"{name} {one['audio']}\n" for name, one in sorted(self.drawn.items()))
        return hashlib.sha256("".join(lines).encode()).hexdigest()

    def manifest(self, **header: Any) -> Manifest:
        """What was drawn as a manifest; `header` is its split, condition, seed and sources."""
        files = files_of(self.corruptor, recordings_of(self.drawn.values())) if self.corruptor else {}
        return Manifest(task=self.task.code, files=files, utterances=dict(self.drawn), versions=versions(), **header)

    def _ids(self, waveforms: list, others: list, drawn: dict[str, dict]) -> list[str]:
        """Of a batch's items; where s3prl's batches hold none the digests they were drawn by, or numbers."""
        place = self.task.id_position
        if self.task.corruption != "none" and place is not None and others[place] is not None:
            return self.task.utterance_ids(others, len(waveforms))
        if len(drawn) == len(waveforms):
            return list(drawn)
        return [str(self._handed_out + index) for index in range(len(waveforms))]

    def _dump(self, waveforms: list, ids: list[str], clean: dict[str, np.ndarray]) -> None:
        if self.dump_dir is None or self.dump_count <= 0:
            return
        self.dump_dir.mkdir(parents=True, exist_ok=True)
        if len(ids) < len(waveforms):  # parts of one recording
            waveforms = [np.concatenate(waveforms)]
        for name, waveform in zip(ids, waveforms):
            if self.dump_count <= 0:
                return
            if self.corruptor is not None and name not in clean:  # spared, or more than the worker keeps
                continue
            self._write(f"{slug(name)}.wav", np.asarray(waveform))
            if name in clean:
                self._write(f"{slug(name)}.clean.wav", clean[name])
                facts = {"utterance_id": name, **self.drawn[name]}
                (self.dump_dir / f"{slug(name)}.json").write_text(json.dumps(facts, indent=1) + "\n", encoding="utf-8")
            self.dump_count -= 1

    def _write(self, name: str, waveform: np.ndarray) -> None:
        soundfile.write(self.dump_dir / name, waveform, SAMPLE_RATE_HZ, subtype="FLOAT")
