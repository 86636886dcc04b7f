"""What is compared, on what data, and the runs that it takes."""

from __future__ import annotations

import csv
import json
from collections import Counter, defaultdict
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import pandas as pd

from research.recipe_study.distil import Run
from research.recipe_study.pool import Materials
from robustdistiller.common.files import write_text
from robustdistiller.common.settings import SettingsError
from robustdistiller.mini.pack import Row, read_rows, read_table
from robustdistiller.mini.tasks import Clip, middle, write_tasks
from robustdistiller.upstream import checkpoint_digest

RECIPES = {"both": "multitask", "words": "multitask_keywords", "voices": "multitask_speakers"}
#: Learning rates to choose from, on development sets: heads on frozen features stand more.
RATES = {"trainable": (3e-4, 1e-3), "frozen": (1e-3, 1e-2)}
CONDITIONS = ("noise:snr_db=10", "reverb", "noise+reverb:snr_db=10")

#: Voices of one game, recorded alike, so that the channel does not give them away.
VOICES, NOBODY = "queen_", "queen_unknown"
VOICE_SECONDS = 1.5
#: Every voice has an utterance in each of these and none in two: the last fifth of voices chooses, the fifth before
#: tests.
MOST_UTTERANCES = {"train": 40, "dev": 20, "test": 20}


@dataclass(frozen=True)
class Arm:
    """One of the things compared.

    Attributes:
        tasks: ``both``, ``words`` or ``voices``.
        encoder: ``trainable`` or ``frozen``.
    """

    tasks: str
    encoder: str

    def __str__(self) -> str:
        return f"{self.tasks}, {'encoder trained' if self.encoder == 'trainable' else 'encoder frozen'}"


ARMS = tuple(Arm(tasks, encoder) for encoder in RATES for tasks in RECIPES)


@dataclass(frozen=True)
class Tuning(Run):
    """An arm from one seed at one learning rate; its folder's name says all that decides it."""

    doing: ClassVar[str] = "fine-tuning"

    arm: Arm
    rate: float

    def dev_error(self) -> float:
        """The lowest mean error on the development sets, in percent."""
        return float(pd.read_csv(self.folder / "dev.csv")["mean_error"].min())

    def scores(self) -> dict[tuple[str, str], float]:
        """Test scores in percent, by task and condition: accuracy of words, equal error rate of voices."""
        tests = json.loads((self.folder / "results.json").read_text(encoding="utf-8"))["tests"]
        names = {"keywords": ("words", "accuracy"), "speakers": ("voices", "eer")}
        return {
            (names[task][0], one["condition"]): one[task][names[task][1]]
            for one in tests
            for task in names
            if task in one
        }


@dataclass(frozen=True)
class Study:
    """All runs share this.

    Attributes:
        materials: the study's audio.
        student: checkpoint to begin with.
        steps: of each run; one is an update for each of its tasks.
        settings: further ones of every run.
    """

    materials: Materials
    student: Path
    steps: int
    settings: tuple[str, ...] = ()

    @property
    def folder(self) -> Path:
        """Of tables and runs, for this student."""
        return self.materials.work / "multitask"

    def run(self, arm: Arm, seed: int, rate: float) -> Tuning:
        """The run of an arm."""
        # As a whole: of a folder with parts of its own, a run would otherwise take what is for training.
        noise, rir = (
            json.dumps([f"{one},split=all" for one in paths])
            for paths in (self.materials.noise("test"), self.materials.rir("test"))
        )
        given = [
            f"student.checkpoint={self.student}",
            f"multitask.encoder={arm.encoder}",
            f"multitask.conditions={json.dumps(CONDITIONS)}",
            f"multitask.dev_every_steps={max(1, self.steps // 4)}",
            f"data.noise={noise}",
            f"data.rir={rir}",
            "data.max_samples=24000",
            "data.num_workers=0",
            f"trainer.max_steps={self.steps}",
            "trainer.accelerator=cpu",
            "trainer.precision=fp32",
            "trainer.progress=false",
            f"optim.lr={rate}",
            f"seed={seed}",
        ]
        if arm.tasks != "voices":
            given += [f"multitask.keywords.data={self.folder / 'words.tsv'}", "multitask.keywords.words=[]"]
        if arm.tasks != "words":
            given += [f"multitask.speakers.data={self.folder / 'voices.tsv'}", "multitask.speakers.batch_size=16"]
        made = checkpoint_digest(self.student)[:8]
        name = f"{arm.tasks}-{arm.encoder}-{self.steps}-{rate:g}-seed{seed}-{made}"
        title, overrides = f"{arm}, rate {rate:g}", (*given, *self.settings)
        return Tuning(title, seed, RECIPES[arm.tasks], overrides, self.folder / name, arm, rate)

    def write_tables(self, pool: Path) -> dict[str, dict[str, int]]:
        """Write both tasks' tables, and the clips of the voices.

        Returns:
            For each task and split, the number of utterances; for voices also that of ``voices in SPLIT``.

        Raises:
            SettingsError: the pool has too few voices.
        """
        rows = [row for row in read_table(pool / "speech.tsv") if row["voice"].startswith(VOICES)]
        split_of = split_voices(row["voice"] for row in rows if int(row["num_samples"]) >= VOICE_SECONDS * 16000 / 2)
        chosen, taken = [], Counter()
        for row in rows:
            split = split_of.get(row["voice"])
            if split and taken[row["voice"]] < MOST_UTTERANCES[split]:
                taken[row["voice"]] += 1
                chosen.append(row | {"split": split})
        self.folder.mkdir(parents=True, exist_ok=True)
        write_tasks(self.folder, "clips", map(_clip, read_rows(pool / "speech", chosen)))
        counts = {
            "words": _as_tsv(self.materials.tasks["pool_words"], self.folder / "words.tsv"),
            "voices": _as_tsv(self.folder / "voices.csv", self.folder / "voices.tsv"),
        }
        counts["voices"] |= {f"voices in {split}": n for split, n in Counter(split_of.values()).items()}
        return counts


def split_voices(voices) -> dict[str, str]:
    """Which voices train, choose and test: those with at least eight utterances, in the order of their names.

    >>> split_voices("a" * 8 + "b" * 9 + "c" * 7 + "d" * 8 + "e" * 8 + "f" * 8)
    {'a': 'train', 'b': 'train', 'd': 'train', 'e': 'dev', 'f': 'test'}
    """
    counts = Counter(voices)
    names = sorted(name for name, count in counts.items() if count >= 8 and name != NOBODY)
    if len(names) < 5:
        raise SettingsError(f"the pool has {len(names)} voices {VOICES}* with eight utterances; expected five or more")
    return {name: ("train", "train", "train", "dev", "test")[place % 5] for place, name in enumerate(names)}


def _clip(found: tuple[Row, object]) -> Clip:
    row, samples = found
    name = f"{row['voice']}/{row['utterance_id']}-{row['offset_samples']}"
    return Clip(name, row["voice"], row["split"], {"voices": row["voice"]}, middle(samples, VOICE_SECONDS))


def _as_tsv(source: Path, target: Path) -> dict[str, int]:
    """A task's table as `distill multitask` reads it; paths stay relative, as corruption is drawn by them."""
    with source.open(encoding="utf-8", newline="") as stream:
        rows = list(csv.DictReader(stream))
    above = Path("..", *source.parent.relative_to(target.parent.parent).parts)
    lines = [f"{(above / row['path']).as_posix()}\t{row['label']}\t{row['split']}" for row in rows]
    write_text(target, "\n".join(["path\tlabel\tsplit", *lines]) + "\n")
    return dict(Counter(row["split"] for row in rows))


def choose_rates(runs: list[Tuning]) -> dict[Arm, float]:
    """The learning rate of each arm with the lowest error on the development sets."""
    by_arm: dict[Arm, list[Tuning]] = defaultdict(list)
    for run in runs:
        by_arm[run.arm].append(run)
    return {arm: min(found, key=Tuning.dev_error).rate for arm, found in by_arm.items()}
