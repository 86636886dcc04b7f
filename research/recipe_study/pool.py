"""The study's audio, decoded once: distillation speech and noise as long WAV files with tables of pieces.

A run of distillation reads a few hundred pieces per minute at random; out of Ogg-Opus each would cost the decoding of
everything before it.
"""

from __future__ import annotations

import hashlib
import json
import logging
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path

import numpy as np
import soundfile

from robustdistiller.common.files import write_text
from robustdistiller.common.locks import locked
from robustdistiller.mini import pack
from robustdistiller.mini.corpus import MiniCorpus, build

logger = logging.getLogger(__name__)

HELD_OUT_RANKS = (0, 1)  # test, dev
MIN_TRAIN_SAMPLES = 4_000  # a quarter of a second
MIN_BABBLE_SAMPLES = 16_000
BABBLE_VOICES = ("tuxpaint_bg", "tuxpaint_el", "tuxpaint_be", "tuxpaint_ca", "tuxpaint_da")
"""Voices that no student is trained on; babble is mixed from those of their utterances that no teacher heard either."""


@dataclass(frozen=True)
class StudyData:
    """Where the prepared audio lies.

    Attributes:
        work: folder that holds everything made from the pool.
        pool: the pool itself, see `prepare`.

    >>> StudyData(Path("work"), Path("pool")).speech.as_posix()
    'work/data/speech.tsv'
    """

    work: Path
    pool: Path

    @property
    def root(self) -> Path:
        """Folder of the decoded audio."""
        return self.work / "data"

    @property
    def speech(self) -> Path:
        """Manifest of the pool's speech to distil on."""
        return self.root / "speech.tsv"

    @property
    def babble(self) -> Path:
        """Manifest of the speech that test babble is mixed from."""
        return self.root / "babble.tsv"

    @property
    def noise_train(self) -> Path:
        """Manifest of the pool's training noise."""
        return self.root / "noise-train.tsv"

    @property
    def noise_test(self) -> Path:
        """Manifest of the pool's test noise, from other sources than the training noise."""
        return self.root / "noise-test.tsv"

    @property
    def corpus(self) -> MiniCorpus:
        """The shipped corpus, built in the work folder."""
        return MiniCorpus(self.work / "corpus")


def read_table(path: Path) -> list[pack.Row]:
    """Rows of a tab-separated table without quoting.

    Raises:
        FileNotFoundError: there is no such table.
    """
    if not path.is_file():
        raise FileNotFoundError(f"{path} does not exist; expected a pool with speech.tsv, noise.tsv, word30.tsv and "
                                "voice20.tsv (give its folder with --pool)")  # fmt: skip
    return pack.read_table(path)


def prepare(pool: Path | str, work: Path | str) -> StudyData:
    """Decodes what the study needs from a pool into `work`, or returns at once when that was done.

    Args:
        pool: folder with `speech.tsv` and `noise.tsv` (columns file, offset_samples, num_samples, utterance_id or
            name, voice, kind, split) and the recordings they name in `speech/` and `noise/`, 16 kHz mono.
        work: folder for everything made from it.

    Raises:
        FileNotFoundError: a table or a recording is missing.
        ValueError: a recording is not 16 kHz mono.
    """
    data = StudyData(Path(work).resolve(), Path(pool).resolve())
    data.root.mkdir(parents=True, exist_ok=True)
    speech, noise = read_table(data.pool / "speech.tsv"), read_table(data.pool / "noise.tsv")
    trained = [row for row in speech if pack.rank_of(row["utterance_id"]) not in HELD_OUT_RANKS]
    parts: dict[Path, tuple[str, list[pack.Row]]] = {
        data.speech: (
            "speech",
            [
                row
                for row in trained
                if row["voice"] not in BABBLE_VOICES and int(row["num_samples"]) >= MIN_TRAIN_SAMPLES
            ],
        ),
        data.babble: (
            "speech",
            [
                row
                for row in speech
                if row["voice"] in BABBLE_VOICES
                and pack.rank_of(row["utterance_id"]) in HELD_OUT_RANKS
                and int(row["num_samples"]) >= MIN_BABBLE_SAMPLES
            ],
        ),
        data.noise_train: ("noise", [row for row in noise if row["split"] == "train" and row["kind"] == "noise"]),
        data.noise_test: ("noise", [row for row in noise if row["split"] == "test" and row["kind"] == "noise"]),
    }
    with locked(data.root / "prepare.lock"):
        for manifest, (folder, rows) in parts.items():
            if rows:
                _once(manifest, rows, lambda manifest=manifest, folder=folder, rows=rows: _decode(
                    data.pool / folder, rows, manifest
                ))  # fmt: skip
        build(data.corpus.root)
    return data


def _decode(folder: Path, rows: list[pack.Row], manifest: Path) -> None:
    """Writes the rows' samples as one WAV file per recording and the table that names their places."""
    target = manifest.with_suffix("")
    partial = target.with_name(f".{target.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir()
    listed, names = [], set()
    for file, group in groupby(pack.read_rows(folder, rows), key=lambda pair: pair[0]["file"]):
        wav = f"{Path(file).stem}.wav"
        offset = 0
        with soundfile.SoundFile(partial / wav, "w", pack.SAMPLE_RATE_HZ, 1, "PCM_16") as stream:
            for row, samples in group:
                if not np.any(samples):
                    continue
                name = f"{Path(file).stem}/{row.get('name') or row['utterance_id']}"
                if name in names:
                    name = f"{name}@{row['offset_samples']}"
                names.add(name)
                stream.write(samples)
                listed.append((wav, offset, len(samples), name, row.get("voice", ""), row.get("source", "")))
                offset += len(samples)
    shutil.rmtree(target, ignore_errors=True)
    partial.replace(target)
    header = "file\toffset_samples\tnum_samples\tname\tvoice\tsource"
    lines = [header, *("\t".join(map(str, line)) for line in listed)]
    write_text(manifest, "\n".join(lines) + "\n")
    logger.info("%s: %d pieces, %.2f h", manifest, len(listed), sum(line[2] for line in listed) / 3600 / 16_000)


def _once(product: Path, inputs: object, make: Callable[[], None]) -> None:
    """Calls `make` unless the product was made from the same inputs; the note of the inputs is written last."""
    note = product.with_suffix(".json")
    digest = hashlib.sha256(json.dumps(inputs, sort_keys=True).encode()).hexdigest()
    if product.exists() and note.is_file() and json.loads(note.read_text(encoding="utf-8")).get("inputs") == digest:
        return
    note.unlink(missing_ok=True)
    make()
    write_text(note, json.dumps({"inputs": digest}))
