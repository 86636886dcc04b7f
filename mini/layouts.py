"""The mini corpus in the directory layouts that s3prl's downstream datasets read."""

from __future__ import annotations

import csv
import os
import shutil
from collections import Counter
from pathlib import Path

import soundfile

from robustdistiller.common.audio import SAMPLE_RATE_HZ

from .bopomofo import parse_syllable
from .pack import SYLLABLE_VOICE, Utterance
from .prompt_text import normalise

PROMPT_SPLITS = {"train": "train-clean-100", "dev": "dev-clean", "test": "test-clean"}
PROMPT_SPEAKERS = {"en_US_f_Allison": "1001", "psphinx_cards": "1002", "psphinx_librivox": "1003"}


def link(source: Path, target: Path) -> None:
    """Hard-links a file, or copies it where the file system cannot link; makes the folder."""
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        os.link(source, target)
    except OSError:
        shutil.copy(source, target)


def write_table(path: Path, rows: list[dict], delimiter: str = ",", index: bool = False) -> None:
    """Writes rows with a header; `index` puts an unnamed counting column first, as pandas does."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if index:
        rows = [{"": position, **row} for position, row in enumerate(rows)]
    with path.open("w", encoding="utf-8", newline="") as stream:
        writer = csv.DictWriter(stream, list(rows[0]), delimiter=delimiter, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


def write_syllables(root: Path, written: dict[Utterance, Path]) -> dict[str, int]:
    """Fluent Speech Commands layout: action is the initial, object the final, location the tone.

    The syllables in the neutral tone are left out: too few for a class. Every label of dev and test occurs in
    train, because the expert takes its label sets from the training table.
    """
    tables = {"train": [], "dev": [], "test": []}
    for utterance, source in written.items():
        if utterance.voice != SYLLABLE_VOICE:
            continue
        syllable = parse_syllable(utterance.text)
        if syllable.tone == "neutral":
            continue
        path = Path("wavs", "speakers", utterance.voice, f"{source.stem}.wav")
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        soundfile.write(root / path, soundfile.read(source, dtype="int16")[0], SAMPLE_RATE_HZ)
        tables[utterance.split].append(
            {
                "path": path.as_posix(),
                "speakerId": utterance.voice,
                "transcription": utterance.text,
                "action": syllable.initial,
                "object": syllable.final,
                "location": syllable.tone,
            }
        )
    for split, rows in tables.items():
        name = "valid" if split == "dev" else split
        write_table(root / "data" / f"{name}_data.csv", rows, index=True)
    return {split: len(rows) for split, rows in tables.items()}


def write_prompts(root: Path, bucket: Path, written: dict[Utterance, Path]) -> dict[str, int]:
    """LibriSpeech layout (`SPLIT/SPEAKER/CHAPTER`) and the length tables of s3prl's recognition task.

    English prompts with a plain transcript; the transcript is what the prompt list says, not checked by ear.
    """
    tables = {split: [] for split in PROMPT_SPLITS}
    transcripts: dict[Path, list[str]] = {}
    numbers = Counter()
    for utterance, source in written.items():
        text = normalise(utterance.text) if utterance.language == "en" else None
        if text is None:
            continue
        speaker, chapter = PROMPT_SPEAKERS[utterance.voice], "1"
        name = f"{speaker}-{chapter}-{numbers[speaker]:04d}"
        numbers[speaker] += 1
        folder = Path(PROMPT_SPLITS[utterance.split], speaker, chapter)
        link(source, root / folder / f"{name}.flac")
        transcripts.setdefault(folder / f"{speaker}-{chapter}.trans.txt", []).append(f"{name} {text}\n")
        row = {"file_path": f"{folder.as_posix()}/{name}.flac", "length": utterance.num_samples, "label": text}
        tables[utterance.split].append(row)
    for path, lines in transcripts.items():
        (root / path).write_text("".join(lines), encoding="utf-8")
    for split, rows in tables.items():
        rows.sort(key=lambda row: -row["length"])
        write_table(bucket / f"{PROMPT_SPLITS[split]}.csv", rows, index=True)
    return {split: len(rows) for split, rows in tables.items()}
