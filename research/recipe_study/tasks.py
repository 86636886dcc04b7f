"""The study's four tasks, from real recordings: words, voices, Mandarin syllables, characters of English prompts.

Each split is one file of samples with a table of labels. Where a task has more training or test items than the
study's time allows, those with the smallest hash of their id are taken.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path

import numpy as np

from research.recipe_study.characters import CHARACTERS, encode_text
from research.recipe_study.files import load_arrays, save_arrays
from research.recipe_study.pool import StudyData, read_table
from robustdistiller.common.locks import locked
from robustdistiller.mini.bopomofo import parse_syllable
from robustdistiller.mini.corpus import data_dir
from robustdistiller.mini.pack import (
    SAMPLE_RATE_HZ,
    SYLLABLE_VOICE,
    Utterance,
    is_speech,
    read_audio,
    read_pack,
    read_rows,
)
from robustdistiller.mini.prompt_text import normalise

SPLITS = ("train", "dev", "test")


@dataclass(frozen=True)
class Task:
    """What is to be told from speech.

    Attributes:
        name: in file names and tables.
        title: for people.
        kind: `classes` (mean-pooled features, one or more labels per item, all of which must be right) or
            `characters` (CTC).
        most: most items per split; None takes all there are.
        crop_s: only the middle so many seconds of an item are heard; None: all of it.
        longest_s: longer items are left out; None: none are.

    >>> TASKS["voices"].metric, TASKS["prompts"].metric
    ('accuracy', 'CER')
    """

    name: str
    title: str
    kind: str
    most: dict[str, int | None] = field(default_factory=dict)
    crop_s: float | None = None
    longest_s: float | None = None

    @property
    def metric(self) -> str:
        """Accuracy (higher is better) or character error rate (lower is better), both in percent."""
        return "accuracy" if self.kind == "classes" else "CER"

    @property
    def sign(self) -> int:
        """+1 where a higher score is better, -1 where a lower one is."""
        return 1 if self.kind == "classes" else -1


TASKS = {
    task.name: task
    for task in (
        Task("words", "30 English words", "classes", {"train": 1600, "dev": 300, "test": 400}),
        Task("voices", "20 voices of one channel", "classes", {"train": 800}, crop_s=1.0),
        Task("syllables", "Mandarin initial, final and tone", "classes"),
        Task("prompts", "characters of English prompts", "characters", longest_s=6.0),
    )
}


@dataclass(frozen=True)
class Items:
    """One split of a task.

    Attributes:
        ids: of the items, in the order of everything else.
        audio: (samples,) all items one after another, int16 or float16.
        lengths: (items,) samples of each.
        labels: (items, slots) class numbers, or (items, longest) characters padded with -1.
        sizes: classes of each slot, or the number of tokens.
    """

    ids: tuple[str, ...]
    audio: np.ndarray
    lengths: np.ndarray
    labels: np.ndarray
    sizes: tuple[int, ...]

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def seconds(self) -> float:
        """Length of everything."""
        return float(self.lengths.sum()) / SAMPLE_RATE_HZ

    def waveforms(self, audio: np.ndarray | None = None) -> list[np.ndarray]:
        """Samples of each item as float32; of another version of the audio if given."""
        audio = self.audio if audio is None else audio
        scale = np.float32(1 / 32768) if audio.dtype == np.int16 else np.float32(1)
        bounds = np.concatenate([[0], np.cumsum(self.lengths)])
        return [audio[start:stop].astype(np.float32) * scale for start, stop in pairwise(bounds)]


@dataclass(frozen=True)
class _Source:
    """One recording that may become an item."""

    name: str
    split: str
    num_samples: int
    labels: tuple[str, ...]
    origin: object


def build_tasks(data: StudyData, names: Sequence[str] = tuple(TASKS)) -> dict[str, dict[str, Items]]:
    """The splits of tasks, written on the first call.

    Raises:
        FileNotFoundError: the pool lacks a table or recording.
        ValueError: a label of dev or test does not occur in training.
    """
    return {name: {split: _items(data, TASKS[name], split) for split in SPLITS} for name in names}


def task_file(data: StudyData, task: str, split: str) -> Path:
    """Where a split is kept."""
    return data.work / "tasks" / task / f"{split}.npz"


def select(sources: Sequence[_Source], most: int | None) -> list[_Source]:
    """At most so many sources, those with the smallest hash of their names, in the order of the names."""
    ranked = sorted(sources, key=lambda source: hashlib.sha256(source.name.encode()).digest())
    return sorted(ranked[:most], key=lambda source: source.name)


def _items(data: StudyData, task: Task, split: str) -> Items:
    path = task_file(data, task.name, split)
    settings = repr(task)
    with locked(path.parent / "build.lock"):
        if not path.is_file() or load_arrays(path)[0]["settings"] != settings:
            _write(data, task, settings)
    notes, arrays = load_arrays(path)
    return Items(tuple(notes["ids"]), arrays["audio"], arrays["lengths"], arrays["labels"], tuple(notes["sizes"]))


def _write(data: StudyData, task: Task, settings: str) -> None:
    sources, read = _COLLECT[task.name](data)
    longest = None if task.longest_s is None else task.longest_s * SAMPLE_RATE_HZ
    kept = {
        split: select(
            [s for s in sources if s.split == split and (longest is None or s.num_samples <= longest)],
            task.most.get(split),
        )
        for split in SPLITS
    }
    vocabularies = [sorted({source.labels[slot] for source in kept["train"]}) for slot in range(len(sources[0].labels))]
    for split, chosen in kept.items():
        waveforms = read(chosen)
        if task.crop_s is not None:
            waveforms = [_middle(waveform, round(task.crop_s * SAMPLE_RATE_HZ)) for waveform in waveforms]
        if task.kind == "classes":
            labels = np.array([_classes(source, vocabularies, task) for source in chosen], dtype=np.int16)
            sizes = [len(vocabulary) for vocabulary in vocabularies]
        else:
            encoded = [encode_text(source.labels[0]) for source in chosen]
            labels = np.full((len(chosen), max(map(len, encoded))), -1, dtype=np.int16)
            for row, tokens in zip(labels, encoded):
                row[: len(tokens)] = tokens
            sizes = [len(CHARACTERS) + 3]
        notes = {"ids": [source.name for source in chosen], "sizes": sizes, "settings": settings}
        arrays = {
            "audio": np.concatenate(waveforms),
            "lengths": np.array([len(waveform) for waveform in waveforms]),
            "labels": labels,
        }
        save_arrays(task_file(data, task.name, split), notes, arrays)


def _classes(source: _Source, vocabularies: list[list[str]], task: Task) -> list[int]:
    for label, vocabulary in zip(source.labels, vocabularies):
        if label not in vocabulary:
            raise ValueError(f"task {task.name}: the label {label!r} of {source.name} does not occur in training")
    return [vocabulary.index(label) for label, vocabulary in zip(source.labels, vocabularies)]


def _middle(waveform: np.ndarray, num_samples: int) -> np.ndarray:
    start = max(0, (len(waveform) - num_samples) // 2)
    return waveform[start : start + num_samples]


def _from_table(data: StudyData, table: str):
    rows = read_table(data.pool / table)
    sources = [
        _Source(
            f"{row['utterance_id']}@{row['offset_samples']}",
            row["split"],
            int(row["num_samples"]),
            (row["label"],),
            row,
        )
        for row in rows
    ]

    def read(chosen: list[_Source]) -> list[np.ndarray]:
        wanted = {id(source.origin): index for index, source in enumerate(chosen)}
        waveforms: list[np.ndarray] = [np.empty(0)] * len(chosen)
        for row, samples in read_rows(data.pool / "speech", [source.origin for source in chosen]):
            waveforms[wanted[id(row)]] = samples
        return waveforms

    return sources, read


def _from_pack(labels: Callable[[Utterance], tuple[str, ...] | None]):
    utterances = [(utterance, labels(utterance)) for utterance in read_pack(data_dir())]
    sources = [_Source(u.utterance_id, u.split, u.num_samples, found, u) for u, found in utterances if found]
    audio = {u: samples for u, samples in read_audio([s.origin for s in sources]) if is_speech(u, samples)}
    sources = [source for source in sources if source.origin in audio]
    return sources, lambda chosen: [audio[source.origin] for source in chosen]


def _syllable(utterance: Utterance) -> tuple[str, ...] | None:
    if utterance.voice != SYLLABLE_VOICE:
        return None
    syllable = parse_syllable(utterance.text)
    return None if syllable.tone == "neutral" else tuple(syllable)


def _prompt(utterance: Utterance) -> tuple[str, ...] | None:
    text = normalise(utterance.text) if utterance.language == "en" else None
    return (text,) if text else None


_COLLECT = {
    "words": lambda data: _from_table(data, "word30.tsv"),
    "voices": lambda data: _from_table(data, "voice20.tsv"),
    "syllables": lambda data: _from_pack(_syllable),
    "prompts": lambda data: _from_pack(_prompt),
}
