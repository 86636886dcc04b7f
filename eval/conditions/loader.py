"""Corrupts the batches of an s3prl evaluation loader, utterance by utterance, by utterance id.

The loader's collate function is wrapped, so corruption happens in the loader's own workers and before anything is sent
to a device. Each utterance is corrupted on its own, from parameters that depend on its id and the seed only: neither
batch size nor worker count nor order changes a sample. Datasets, targets and training loaders are not touched.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import librosa
import numpy as np
import soundfile
from torch.utils.data import DataLoader

from robustdistiller.acoustics import Corruptor
from robustdistiller.acoustics.corruptor import checked
from robustdistiller.common.files import slug
from robustdistiller.eval.conditions.asv_sides import TrialSides, is_test_side
from robustdistiller.eval.conditions.manifest import Manifest, audio_digest, digest_of, files_of, versions
from robustdistiller.eval.tasks import Task

SAMPLE_RATE_HZ = 16_000


class CorruptingCollate:
    """Wraps a collate function: the batch it returns holds corrupted waveforms.

    Called with a list of samples it returns ``(waveforms, others, drawn, clean)``, where ``waveforms, *others`` is what
    the wrapped function returned, ``drawn`` maps utterance ids to their number of samples and the parameters that were
    drawn, and ``clean`` maps some of them to their audio as it was.

    Args:
        collate: the loader's own function.
        corruptor: what to do to each utterance; None leaves the audio as it is.
        task: where the batch keeps its ids, and whether it holds a mixture's spectrogram.
        dataset: for mixtures, the dataset whose STFT settings apply.
        keep_clean: how many utterances' clean audio is handed out (per loader worker).

    Example:
        >>> from robustdistiller.eval import tasks
        >>> corruptor = Corruptor("noise:snr_db=5,noise=white")
        >>> collate = CorruptingCollate(lambda samples: zip(*samples), corruptor, tasks.get("IC"))
        >>> waveforms, others, drawn, clean = collate([(np.ones(8, np.float32), 0, "utt-1")])
        >>> others, drawn["utt-1"]["snr_db"]
        ([(0,), ('utt-1',)], 5.0)
    """

    def __init__(
        self, collate: Callable, corruptor: Corruptor | None, task: Task, dataset: Any = None, keep_clean: int = 0
    ) -> None:
        self.collate, self.corruptor, self.task, self.dataset = collate, corruptor, task, dataset
        self.keep_clean = keep_clean

    def __call__(self, samples: list) -> tuple[list, list, dict[str, dict], dict[str, np.ndarray]]:
        drawn: dict[str, dict] = {}
        clean: dict[str, np.ndarray] = {}
        if self.corruptor is None:
            waveforms, *others = self.collate(samples)
        elif self.task.corruption == "mixture":
            waveforms, *others = self.collate([self._corrupt_mixture(sample, drawn, clean) for sample in samples])
        else:
            waveforms, *others = self.collate(samples)
            ids = self.task.utterance_ids(others, len(waveforms))
            spared = [False] * len(ids)
            if isinstance(self.dataset, TrialSides):
                spared = [not is_test_side(name) for name in others[self.task.id_position]]
            waveforms = [
                wave if spare else self._corrupt(wave, name, drawn, clean)
                for wave, name, spare in zip(waveforms, ids, spared)
            ]
        return list(waveforms), others, drawn, clean

    def _corrupt(
        self, waveform: np.ndarray, utterance_id: str, drawn: dict[str, dict], clean: dict[str, np.ndarray]
    ) -> np.ndarray:
        if self.keep_clean > 0:
            self.keep_clean -= 1
            clean[utterance_id] = np.array(waveform, np.float32)
        samples = checked(waveform, utterance_id)
        parameters = self.corruptor.draw(utterance_id, len(samples))
        corrupted = self.corruptor.apply(samples, parameters)
        drawn[utterance_id] = {"num_samples": len(samples), "audio": audio_digest(corrupted), **parameters}
        return corrupted

    def _corrupt_mixture(self, sample: tuple, drawn: dict[str, dict], clean: dict[str, np.ndarray]) -> tuple:
        """A sample ``(id, mixture, mixture STFT, targets...)`` whose mixture and STFT are corrupted, targets untouched.

        The wrapped collate function then derives magnitude, phase and padded mixture from these, as it does from
        clean ones, so scores are relative to the corrupted mixture's input.
        """
        utterance_id, mixture, _, *targets = sample
        corrupted = np.asarray(self._corrupt(mixture, utterance_id, drawn, clean))
        settings = {k: getattr(self.dataset, k) for k in ("n_fft", "hop_length", "win_length", "window", "center")}
        return utterance_id, corrupted, librosa.stft(corrupted, **settings).T, *targets


class ConditionLoader:
    """An evaluation loader seen under one condition: iterates like the loader it wraps, and keeps books.

    Args:
        loader: s3prl's loader. Its collate function is replaced while this object is iterated, and put back.
        corruptor: the condition's corruptor; None for clean audio.
        task: the task's registry entry.
        dump_dir: folder for examples: of each utterance ``ID.wav`` as the upstream hears it and, if it was corrupted,
            ``ID.clean.wav`` (both 32-bit float) and ``ID.json``, what was drawn.
        dump_count: number of utterances to write.
        through: what the corrupted batches go through before they are handed out, one for one and in their order.

    Attributes:
        items_scored: items handed out in batches that the caller came back from.
        drawn: utterance id to its number of samples, the drawn parameters, and the digest of the corrupted audio.
        recordings: names of the items handed out, for tasks whose expert does not keep them itself (diarization, where
            a batch is one recording; enhancement and separation).

    Example:
        >>> from robustdistiller.eval import tasks
        >>> samples = [(np.ones(8, np.float32), 0, f"utt-{i}") for i in range(3)]
        >>> loader = DataLoader(samples, batch_size=2, collate_fn=lambda samples: zip(*samples))
        >>> view = ConditionLoader(loader, Corruptor("noise:snr_db=5,noise=white"), tasks.get("IC"))
        >>> [len(waveforms) for waveforms, *_ in view], view.items_scored, len(view.drawn)
        ([2, 1], 3, 3)
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
        self.items_scored = 0
        self.drawn: dict[str, dict] = {}
        self.recordings: list[str] = []
        self._files: set[str] = set()

    def __len__(self) -> int:
        return len(self.loader)

    def __iter__(self) -> Iterator[list]:
        stock = self.loader.collate_fn
        self.loader.collate_fn = CorruptingCollate(
            stock, self.corruptor, self.task, self.loader.dataset, self.dump_count if self.dump_dir else 0
        )
        try:
            for waveforms, others, drawn, clean in self.through(self.loader):
                self.drawn.update(drawn)
                self._dump(waveforms, others, clean)
                yield [waveforms, *others]
                # Reached only when the caller asks for more: a batch it broke off at is not counted.
                # A diarization recording arrives as one batch of chunks with one name.
                named_once = self.task.code == "SD" and isinstance(others[self.task.id_position], str)
                if isinstance(self.loader.dataset, TrialSides):  # a file may stand on both sides
                    self._files.update(self.task.utterance_ids(others, len(waveforms)))
                    self.items_scored = len(self._files)
                else:
                    self.items_scored += 1 if named_once else len(waveforms)
                if named_once:
                    self.recordings.append(others[self.task.id_position])
                elif self.task.corruption == "mixture":
                    self.recordings += self.task.utterance_ids(others, len(waveforms))
        finally:
            self.loader.collate_fn = stock

    @property
    def items_expected(self) -> int:
        """Items of the whole split."""
        dataset = self.loader.dataset
        if self.task.downstream == "asr":  # one element of this dataset is a batch of files
            return sum(len(batch) for batch in dataset.X)
        if isinstance(dataset, TrialSides):
            return len(dataset.stock)
        return len(dataset)

    def manifest_digest(self) -> str:
        """SHA-256 over the drawn parameters in the order of utterance ids; ``none`` for clean audio."""
        if self.corruptor is None:
            return "none"
        return digest_of(self.drawn)

    def manifest(self, **header: Any) -> Manifest:
        """What was drawn as a manifest.

        Args:
            header: split, condition, seed and sources of `Manifest`.
        """
        files = files_of(self.corruptor, self.drawn) if self.corruptor else {}
        return Manifest(task=self.task.code, files=files, utterances=dict(self.drawn), versions=versions(), **header)

    def _dump(self, waveforms: list, others: list, clean: dict[str, np.ndarray]) -> None:
        if self.dump_dir is None or self.dump_count <= 0:
            return
        self.dump_dir.mkdir(parents=True, exist_ok=True)
        for name, waveform in zip(self.task.utterance_ids(others, len(waveforms)), waveforms):
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
