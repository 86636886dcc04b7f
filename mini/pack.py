"""Speech packs: long Ogg-Opus recordings with a table saying where each utterance lies, and the split of a pack.

A pack is a folder with `speech.tsv` (columns `file`, `offset_samples`, `num_samples`, `utterance_id`, `voice`,
`language`, `licence`, `text`; others are ignored) and the named recordings in `speech/`, 16 kHz mono.
"""

from __future__ import annotations

import csv
import hashlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import groupby, zip_longest
from pathlib import Path
from typing import TypeVar

import numpy as np
import soundfile

from robustdistiller.common.audio import SAMPLE_RATE_HZ

T = TypeVar("T")
Row = dict[str, str]
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
    rank = rank_of(utterance_id)
    if rank == DEV_RANK:
        return "dev"
    if voice == SYLLABLE_VOICE:
        test_ranks = SYLLABLE_TEST_RANKS
    elif voice in PROMPT_VOICES:
        test_ranks = PROMPT_TEST_RANKS
    else:
        test_ranks = OTHER_TEST_RANKS
    return "test" if rank in test_ranks else "train"


def rank_of(utterance_id: str) -> int:
    """The tenth of the data that an utterance belongs to, 0 to 9: the first byte of its id's MD5 modulo 10.

    Example:
        >>> rank_of("en_activated")
        3
    """
    return hashlib.md5(utterance_id.encode("utf-8"), usedforsecurity=False).digest()[0] % 10


def read_table(path: Path) -> list[Row]:
    """The rows of a tab-separated table without quoting, by column."""
    with path.open(encoding="utf-8", newline="") as stream:
        return list(csv.DictReader(stream, delimiter="\t", quoting=csv.QUOTE_NONE))


def read_pack(folder: Path | str) -> list[Utterance]:
    """Utterances of a pack in the order of its table.

    Raises:
        FileNotFoundError: the folder has no `speech.tsv`, or a recording it names is missing.
    """
    folder = Path(folder)
    table = folder / "speech.tsv"
    if not table.is_file():
        raise FileNotFoundError(f"no speech pack in {folder}: expected the table {table}; give a folder that holds one")
    rows = read_table(table)
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


def read_audio(utterances: Iterable[Utterance]) -> Iterator[tuple[Utterance, np.ndarray]]:
    """Yields each utterance with its samples (int16), see `read_pieces`."""
    return read_pieces(utterances, lambda utterance: (utterance.path, utterance.offset_samples, utterance.num_samples))


def read_rows(folder: Path, rows: Iterable[Row]) -> Iterator[tuple[Row, np.ndarray]]:
    """Yields each row of a table of pieces of `folder`'s recordings with its samples (int16), see `read_pieces`."""
    return read_pieces(rows, lambda row: (folder / row["file"], int(row["offset_samples"]), int(row["num_samples"])))


def read_pieces(pieces: Iterable[T], place_of: Callable[[T], tuple[Path, int, int]]) -> Iterator[tuple[T, np.ndarray]]:
    """Yields pieces of long recordings with their samples (int16), decoding every recording once from its start.

    Opus decodes sample-accurately only from offset 0, hence no seeking. Pieces come grouped by recording, in the order
    in which they lie in it.

    Args:
        pieces: anything.
        place_of: the recording, the first sample and the number of samples of a piece.

    Raises:
        FileNotFoundError: a recording is missing.
        ValueError: a recording is not 16 kHz mono.
    """
    placed = sorted(((place_of(piece), piece) for piece in pieces), key=lambda pair: (str(pair[0][0]), pair[0][1]))
    for path, group in groupby(placed, key=lambda pair: pair[0][0]):
        if not path.is_file():
            raise FileNotFoundError(f"recording {path} does not exist, although a table names it")
        audio, rate_hz = soundfile.read(path, dtype="int16")
        if rate_hz != SAMPLE_RATE_HZ or audio.ndim != 1:
            raise ValueError(f"{path}: expected {SAMPLE_RATE_HZ} Hz mono, found {rate_hz} Hz and shape {audio.shape}")
        for (_, start, num_samples), piece in group:
            yield piece, audio[start : start + num_samples]


def sample_sentences(folder: Path | str, count: int) -> dict[str, np.ndarray]:
    """Some test utterances of a pack, of different voices as far as there are, between 2 and 5 s long.

    Args:
        folder: of the pack.
        count: how many; fewer are given where there are not as many.

    Returns:
        (samples,) float32 by id.
    """
    voices: dict[str, list[Utterance]] = {}
    for one in sorted(read_pack(folder), key=lambda one: hashlib.md5(one.utterance_id.encode()).digest()):
        if one.split == "test" and 2 <= one.num_samples / SAMPLE_RATE_HZ <= 5:
            voices.setdefault(one.voice, []).append(one)
    in_turn = [one for group in zip_longest(*(voices[name] for name in sorted(voices))) for one in group if one]
    audio = {one.utterance_id: samples for one, samples in read_audio(in_turn[:count])}
    return {one.utterance_id: audio[one.utterance_id].astype(np.float32) / 32768 for one in in_turn[:count]}
