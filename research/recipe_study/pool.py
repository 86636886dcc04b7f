"""The study's audio: speech, noise and rooms to train on, others to choose by, others to test with; tasks as tables."""

from __future__ import annotations

import csv
import hashlib
import json
import logging
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path

import numpy as np
import soundfile

from robustdistiller.common.audio import SAMPLE_RATE_HZ
from robustdistiller.common.files import write_text
from robustdistiller.common.locks import locked
from robustdistiller.mini import MiniCorpus, build
from robustdistiller.mini.pack import Row, rank_of, read_rows, read_table
from robustdistiller.mini.tasks import Clip, middle, write_tasks

logger = logging.getLogger(__name__)

LAYOUT_VERSION = 2  # raise when `prepare` writes anything else than before
SPLIT_OF_RANK = {0: "test", 1: "dev"}
MIN_TRAIN_SAMPLES = 4_000  # a quarter of a second
MIN_BABBLE_SAMPLES = 16_000
#: Voices that no student is trained on; babble is mixed from those of their utterances that no teacher heard either.
BABBLE_VOICES = ("tuxpaint_bg", "tuxpaint_el", "tuxpaint_be", "tuxpaint_ca", "tuxpaint_da")
#: Table of the pool to the name of its task.
TABLES = {"word30.tsv": "pool_words", "voice20.tsv": "pool_voices"}
PROBE_TASK = "pool_words"


@dataclass(frozen=True)
class Materials:
    """Where the prepared audio lies.

    Attributes:
        work: folder that holds everything made from the pool.
    """

    work: Path

    @property
    def corpus(self) -> MiniCorpus:
        """The shipped corpus."""
        return MiniCorpus(self.work / "corpus")

    @property
    def speech(self) -> list[Path]:
        """To distil on."""
        return [self.work / "data" / "speech.tsv", self.corpus.pool]

    def noise(self, split: str) -> list[Path]:
        """Noise of a split: of other recordings in dev, and of other packages in test, than in train."""
        shipped = {"train": [self.corpus.noise_train], "test": [self.corpus.noise_test]}
        return [self.work / "data" / f"noise-{split}.tsv", *shipped.get(split, [])]

    def rir(self, split: str) -> list[Path]:
        """Rooms of a split."""
        return [self.corpus.rir_test if split == "test" else self.work / "data" / "rir" / split]

    def babble(self, split: str) -> list[Path]:
        """Speech that babble is mixed from; in train, that of the distillation."""
        return [self.work / "data" / f"babble-{split}.tsv"] if split != "train" else self.speech

    @property
    def tasks(self) -> dict[str, Path]:
        """Tables of the pool's tasks and of the shipped ones."""
        return {**{path.stem: path for path in (self.work / "data" / "tasks").glob("*.csv")}, **self.corpus.tasks}

    @property
    def probe(self) -> Path:
        """Table of the linear probe: a task's training set, and its development set to test on."""
        return self.work / "data" / "probe.csv"


def prepare(pool: Path, work: Path) -> Materials:
    """Make what the study needs, or return at once where that was done from the same tables.

    Speech and noise become long WAV files: out of Ogg-Opus, each of the many short pieces that distillation reads would
    cost the decoding of everything before it.

    Args:
        pool: folder with `speech.tsv`, `noise.tsv` (columns file, offset_samples, num_samples, utterance_id or name,
            voice, kind, split), tables of tasks (with label) and the recordings they name in `speech/` and `noise/`, 16
            kHz mono.
        work: folder for everything made from it.

    Raises:
        FileNotFoundError: a table or a recording is missing.
        ValueError: a recording is not 16 kHz mono.
    """
    names = ("speech.tsv", "noise.tsv", *TABLES)
    for name in names:
        if not (pool / name).is_file():
            raise FileNotFoundError(f"{pool / name} does not exist; expected a pool with {', '.join(names)}")
    materials = Materials(work.resolve())
    digest = hashlib.sha256(b"".join((pool / name).read_bytes() for name in names)).hexdigest()
    stamp = {"layout_version": LAYOUT_VERSION, "tables": digest}
    data = materials.work / "data"
    with locked(materials.work / "prepare.lock"):
        build(materials.corpus.root)
        written = data / "made_from.json"
        if not written.is_file() or json.loads(written.read_text(encoding="utf-8")) != stamp:
            partial = data.with_name("data.partial")
            shutil.rmtree(partial, ignore_errors=True)
            partial.mkdir()
            _write(pool, partial, materials.corpus)
            write_text(partial / written.name, json.dumps(stamp))
            shutil.rmtree(data, ignore_errors=True)
            partial.replace(data)
    return materials


def _write(pool: Path, folder: Path, corpus: MiniCorpus) -> None:
    speech, noise = read_table(pool / "speech.tsv"), read_table(pool / "noise.tsv")
    for name, rows in speech_parts(speech).items():
        _decode(pool / "speech", rows, folder / f"{name}.tsv")
    for split in ("train", "dev", "test"):
        rows = [row for row in noise if row["kind"] == "noise" and held_out(row["split"], row["name"]) == split]
        _decode(pool / "noise", rows, folder / f"noise-{split}.tsv")
    for path in sorted(corpus.rir_train.glob("*.flac")):
        target = folder / "rir" / held_out("train", path.name) / path.name
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, target)
    for table, task in TABLES.items():
        counts = write_tasks(folder / "tasks", task, _clips(pool, table, task))
        logger.info("%s: %s", task, counts[task])
    with (folder / "tasks" / f"{PROBE_TASK}.csv").open(encoding="utf-8", newline="") as stream:
        rows = [row for row in csv.DictReader(stream) if row["split"] != "test"]
    with (folder / "probe.csv").open("w", encoding="utf-8", newline="") as stream:
        writer = csv.writer(stream, lineterminator="\n")
        writer.writerow(["path", "label", "split"])
        split_of = {"train": "train", "dev": "test"}
        writer.writerows([f"tasks/{row['path']}", row["label"], split_of[row["split"]]] for row in rows)


def held_out(split: str, name: str) -> str:
    """The split of a noise or room: a tenth of what is there to train on is kept to choose by."""
    return "dev" if split == "train" and rank_of(name) == 1 else split


def speech_parts(rows: list[Row]) -> dict[str, list[Row]]:
    """The pool's speech divided: to distil on, and for babble to choose by and to test with."""
    parts: dict[str, list[Row]] = {"speech": [], "babble-dev": [], "babble-test": []}
    for row in rows:
        split, samples = SPLIT_OF_RANK.get(rank_of(row["utterance_id"]), "train"), int(row["num_samples"])
        if row["voice"] in BABBLE_VOICES and split != "train" and samples >= MIN_BABBLE_SAMPLES:
            parts[f"babble-{split}"].append(row)
        elif row["voice"] not in BABBLE_VOICES and split == "train" and samples >= MIN_TRAIN_SAMPLES:
            parts["speech"].append(row)
    return parts


def _clips(pool: Path, table: str, task: str) -> Iterator[Clip]:
    for row, samples in read_rows(pool / "speech", read_table(pool / table)):
        samples = middle(samples) if row["label"] == row["voice"] else samples
        name = f"{row['utterance_id']}-{row['offset_samples']}"
        yield Clip(name, row["voice"], row["split"], {task: row["label"]}, samples)


def _decode(folder: Path, rows: list[Row], manifest: Path) -> None:
    """Write the rows' samples as one WAV file per recording, and the table that names their places."""
    target = manifest.with_suffix("")
    target.mkdir()
    lines = ["file\toffset_samples\tnum_samples\tname"]
    for file, group in groupby(read_rows(folder, rows), key=lambda pair: pair[0]["file"]):
        wav, offset = f"{target.name}/{Path(file).stem}.wav", 0
        with soundfile.SoundFile(manifest.parent / wav, "w", SAMPLE_RATE_HZ, 1, "PCM_16") as stream:
            for row, samples in group:
                if not np.any(samples):
                    continue
                stream.write(samples)
                name = f"{Path(file).stem}/{row.get('name') or row['utterance_id']}@{row['offset_samples']}"
                lines.append(f"{wav}\t{offset}\t{len(samples)}\t{name}")
                offset += len(samples)
    write_text(manifest, "\n".join(lines) + "\n")
    logger.info("%s: %d pieces", manifest.name, len(lines) - 1)
