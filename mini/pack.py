"""Speech packs: long Ogg-Opus recordings with a table saying where each utterance lies, and the split of a pack.

A pack is a folder with `speech.tsv` (columns `file`, `offset_samples`, `num_samples`, `utterance_id`, `voice`,
`language`, `licence`, `text`; others are ignored) and the named recordings in `speech/`, 16 kHz mono.
"""

from __future__ import annotations

import csv
import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path

import numpy as np
import soundfile

SAMPLE_RATE_HZ = 16000
SYLLABLE_VOICE = "gcin_5"
DEV_RANK = 1
# Test ranks (tenths of the utterances): the syllables need about 350 test items for a binomial error below 3 points,
# the shipped prompts give a fifth; any other pack gives a tenth.
SYLLABLE_TEST_RANKS = (0, 2, 3)
PROMPT_TEST_RANKS = (0, 2)
OTHER_TEST_RANKS = (0,)
PROMPT_VOICES = ("en_US_f_Allison", "fr_CA_f_June", "ru_RU_f_IvrvoiceRU", "psphinx_cards", "psphinx_librivox")


@dataclass(frozen=True)
class Utterance:
    """One utterance of a pack: where it lies and what is said."""

    path: Path
    offset_samples: int
    num_samples: int
    utterance_id: str
    voice: str
    language: str
    licence: str
    text: str

    @property
    def split(self) -> str:
        """`"train"`, `"dev"` or `"test"`, see `split_of`."""
        return split_of(self.utterance_id, self.voice)


def split_of(utterance_id: str, voice: str) -> str:
    """Split of an utterance, from a hash of its id alone (shares depend on the voice's task).

    The rank is the first byte of the id's MD5 modulo 10: 1 is dev; test is 0, 2 and 3 for the Mandarin syllables,
    0 and 2 for the other shipped voices, 0 for voices that are only used to train the teacher.

    >>> split_of("en_activated", "en_US_f_Allison")
    'train'
    """
    rank = hashlib.md5(utterance_id.encode("utf-8"), usedforsecurity=False).digest()[0] % 10
    if rank == DEV_RANK:
        return "dev"
    if voice == SYLLABLE_VOICE:
        test_ranks = SYLLABLE_TEST_RANKS
    elif voice in PROMPT_VOICES:
        test_ranks = PROMPT_TEST_RANKS
    else:
        test_ranks = OTHER_TEST_RANKS
    return "test" if rank in test_ranks else "train"


def read_pack(folder: Path | str) -> list[Utterance]:
    """Utterances of a pack in the order of its table.

    Raises:
        FileNotFoundError: the folder has no `speech.tsv`, or a recording it names is missing.
    """
    folder = Path(folder)
    table = folder / "speech.tsv"
    if not table.is_file():
        raise FileNotFoundError(f"no speech pack in {folder}: expected the table {table}; give a folder that holds one")
    with table.open(encoding="utf-8", newline="") as stream:
        rows = list(csv.DictReader(stream, delimiter="\t", quoting=csv.QUOTE_NONE))
    for name in sorted({row["file"] for row in rows}):
        if not (folder / "speech" / name).is_file():
            raise FileNotFoundError(f"{table} names the recording {folder / 'speech' / name}, which does not exist")
    return [
        Utterance(
            path=folder / "speech" / row["file"],
            offset_samples=int(row["offset_samples"]),
            num_samples=int(row["num_samples"]),
            utterance_id=row["utterance_id"],
            voice=row["voice"],
            language=row["language"],
            licence=row["licence"],
            text=row["text"],
        )
        for row in rows
    ]


def is_speech(utterance: Utterance, samples: np.ndarray) -> bool:
    """False for the few rows of the shipped table that are beeps or (nearly) silent, peak below 1 % of full scale."""
    beep = utterance.utterance_id.endswith(("confbridge-join", "confbridge-leave"))
    return not beep and int(np.abs(samples.astype(np.int32)).max(initial=0)) >= 328


def read_audio(utterances: list[Utterance]) -> Iterator[tuple[Utterance, np.ndarray]]:
    """Yields each utterance with its samples (int16), decoding every recording once from its start.

    Opus decodes sample-accurately only from offset 0, hence no seeking. Utterances come grouped by recording.
    """
    ordered = sorted(utterances, key=lambda utterance: (str(utterance.path), utterance.offset_samples))
    for path, group in groupby(ordered, key=lambda utterance: utterance.path):
        audio, rate = soundfile.read(path, dtype="int16")
        if rate != SAMPLE_RATE_HZ or audio.ndim != 1:
            raise ValueError(f"{path}: expected {SAMPLE_RATE_HZ} Hz mono, found {rate} Hz and shape {audio.shape}")
        for utterance in group:
            yield utterance, audio[utterance.offset_samples : utterance.offset_samples + utterance.num_samples]
