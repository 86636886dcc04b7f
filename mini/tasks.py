"""Clips of speech as tasks: tables of path, label, speaker and split, each a task by its own path (see `csv_task`)."""

from __future__ import annotations

import csv
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import soundfile

from robustdistiller.common.audio import SAMPLE_RATE_HZ

from .bopomofo import parse_syllable
from .pack import SYLLABLE_VOICE, Row, Utterance, rank_of

#: Only so much of a recording is heard where voices are told apart: with more, everything is right.
VOICE_SECONDS = 1.0
VOICE_TRAIN_RANK = 4  # the largest, of 3 to 9


@dataclass(frozen=True)
class Clip:
    """A piece of speech with what is to be recognised in it.

    Attributes:
        name: of its file, without ending; may hold folders.
        speaker: who speaks.
        split: train, dev or test.
        labels: task to label.
        samples: (samples,) int16 at 16 kHz.
    """

    name: str
    speaker: str
    split: str
    labels: Mapping[str, str]
    samples: np.ndarray


def write_tasks(folder: Path, audio: str, clips: Iterable[Clip]) -> dict[str, dict[str, int]]:
    """Write clips once, as ``folder/AUDIO/NAME.flac``, and ``folder/TASK.csv`` for each task that they have a label of.

    Args:
        folder: of the tables.
        audio: folder in it.
        clips: two of one name get different files.

    Returns:
        Task to split to the number of clips.
    """
    tables: dict[str, list[dict[str, str]]] = defaultdict(list)
    names = Counter()
    for clip in clips:
        names[clip.name] += 1
        again = f"-{names[clip.name]}" if names[clip.name] > 1 else ""
        path = Path(audio, f"{clip.name}{again}.flac")
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        soundfile.write(folder / path, clip.samples, SAMPLE_RATE_HZ, compression_level=0.2)
        for task, label in clip.labels.items():
            tables[task].append({"path": path.as_posix(), "label": label, "speaker": clip.speaker, "split": clip.split})
    for task, rows in tables.items():
        with (folder / f"{task}.csv").open("w", encoding="utf-8", newline="") as stream:
            writer = csv.DictWriter(stream, list(rows[0]), lineterminator="\n")
            writer.writeheader()
            writer.writerows(rows)
    return {task: dict(Counter(row["split"] for row in rows)) for task, rows in tables.items()}


def middle(samples: np.ndarray, seconds: float = VOICE_SECONDS) -> np.ndarray:
    """The middle of a recording, or all of a shorter one.

    >>> len(middle(np.zeros(20_000))), len(middle(np.zeros(9_000)))
    (16000, 9000)
    """
    length = round(seconds * SAMPLE_RATE_HZ)
    start = max(0, (len(samples) - length) // 2)
    return samples[start : start + length]


def syllable_clips(files: Mapping[Utterance, Path]) -> Iterator[Clip]:
    """Mandarin syllables: initial, final and tone, a task each.

    Those in the neutral tone are left out: too few for a class.

    Args:
        files: of the shipped recordings.
    """
    for utterance, path in files.items():
        if utterance.voice == SYLLABLE_VOICE and (syllable := parse_syllable(utterance.text)).tone != "neutral":
            labels = {"initials": syllable.initial, "finals": syllable.final, "tones": syllable.tone}
            yield Clip(path.stem, utterance.voice, utterance.split, labels, soundfile.read(path, dtype="int16")[0])


def voice_clips(files: Mapping[Utterance, Path]) -> Iterator[Clip]:
    """Who is speaking, in the middle second of an utterance.

    One speaker speaks English and Spanish; otherwise voice, language and channel go together: this is an easy task, to
    which some of the training utterances are enough.

    Args:
        files: of the shipped recordings.
    """
    for utterance, path in files.items():
        spared = utterance.split == "train" and rank_of(utterance.utterance_id) > VOICE_TRAIN_RANK
        if not spared and not utterance.voice.startswith("psphinx"):  # five utterances each
            samples = middle(soundfile.read(path, dtype="int16")[0])
            name = f"{utterance.voice}/{path.stem}"
            yield Clip(name, utterance.voice, utterance.split, {"voices": utterance.voice}, samples)


def word_clips(files: Mapping[Utterance, Path], rows: Iterable[Row]) -> Iterator[Clip]:
    """Words in the prompts.

    Args:
        files: of the shipped recordings.
        rows: of `words.tsv`; offsets count from the start of the utterance.
    """
    words: dict[str, list[Row]] = defaultdict(list)
    for row in rows:
        words[row["utterance_id"]].append(row)
    for utterance, path in files.items():
        if utterance.utterance_id in words:
            samples, _ = soundfile.read(path, dtype="int16")
            for row in words[utterance.utterance_id]:
                start, length = int(row["offset_samples"]), int(row["num_samples"])
                name, label = f"{utterance.voice}/{path.stem}-{start}", {"words": row["label"]}
                yield Clip(name, utterance.voice, utterance.split, label, samples[start : start + length])
