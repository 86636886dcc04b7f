"""What the tasks train on and are measured on: cuts with labels, endless paired batches."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch

from robustdistiller.acoustics import Corruptor
from robustdistiller.common.settings import SettingsError
from robustdistiller.pretrain.config.schema import DistillConfig
from robustdistiller.pretrain.data.cuts import FileCut
from robustdistiller.pretrain.data.dataset import Batch, BatchStream, Position, SpeechBatches, make_loader
from robustdistiller.pretrain.data.headers import lists_folder
from robustdistiller.pretrain.data.speech import piece_cuts
from robustdistiller.pretrain.data.unreadable import UnreadableAudio
from robustdistiller.pretrain.multitask.keywords import keyword_utterances
from robustdistiller.pretrain.multitask.speakers import Trial, speaker_utterances
from robustdistiller.pretrain.multitask.utterances import SPLITS, Utterance, check_classes

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class TaskData:
    """The recordings of one task.

    Attributes:
        labels: classes, in the order of the head's outputs: those of the training split.
        cuts: per split, at 16 kHz.
        label_of: label of each cut, by id.
        trials: of dev and test, by id; speakers only.
    """

    labels: list[str]
    cuts: dict[str, list[FileCut]]
    label_of: dict[str, str]
    trials: dict[str, list[Trial]] = field(default_factory=dict)

    def classes(self, ids: Sequence[str]) -> torch.Tensor:
        """Class indices (B,) int64 of training utterances."""
        return torch.tensor([self.labels.index(self.label_of[name]) for name in ids])

    def digest(self) -> str:
        """SHA-256 of utterances, lengths, labels, splits and trials: the same data in another place has the same."""
        digest = hashlib.sha256()
        for split, cuts in self.cuts.items():
            for cut in cuts:
                digest.update(repr((split, cut.id, cut.num_samples, self.label_of[cut.id])).encode())
        digest.update(repr(self.trials).encode())
        return digest.hexdigest()

    def summary(self) -> str:
        """How much there is, in one line."""
        hours = {split: sum(cut.duration for cut in cuts) / 3600 for split, cuts in self.cuts.items()}
        parts = [f"{split} {len(self.cuts[split]):,} ({hours[split]:.2f} h)" for split in SPLITS]
        trials = [f"{len(found):,} {split} trials" for split, found in self.trials.items()]
        return ", ".join([f"{len(self.labels):,} classes", *parts, *trials])


def load_tasks(config: DistillConfig, out_dir: Path) -> dict[str, TaskData]:
    """The data of the tasks of a run, checked.

    Raises:
        SettingsError: data are missing, or cannot be learnt from or measured on.
    """
    options, tasks = config.multitask, {}
    if options.keywords is not None:
        tasks["keywords"] = _task_data(
            "keywords", keyword_utterances(options.keywords, config.seed), {}, config, out_dir
        )
    if options.speakers is not None:
        tasks["speakers"] = _task_data("speakers", *speaker_utterances(options.speakers, config.seed), config, out_dir)
    return tasks


def _task_data(
    task: str,
    utterances: Sequence[Utterance],
    trials: Mapping[str, Sequence[Trial]],
    config: DistillConfig,
    out_dir: Path,
) -> TaskData:
    key, data = f"multitask.{task}.data", config.data
    path = Path(getattr(config.multitask, task).data).expanduser()
    name = path.resolve().name
    pieces, lists = [one.piece for one in utterances], lists_folder(data.manifest_dir, out_dir) / task
    found, unreadable = piece_cuts(pieces, name, path, lists, key)
    by_id = {cut.id: cut for cut in found}
    kept, short = [], []
    for one in utterances:
        cut = by_id.get(f"{name}/{one.piece.name}")
        if cut is None and one.split != "train":
            raise SettingsError(f"{key}: {one.piece.path} is for {one.split} and cannot be read: {unreadable[0]}")
        if cut is not None and one.split == "train" and cut.num_samples < data.min_samples:
            short.append(cut.id)
        elif cut is not None:
            kept.append((one, cut))
    for what, left_out in ((f"shorter than {data.min_samples} samples", short), ("unreadable", unreadable)):
        if left_out:
            logger.info("%-8s %d recordings left out, %s; first: %s", task, len(left_out), what, left_out[0])
    check_classes([one for one, _ in kept], key, closed=task == "keywords")
    loaded = TaskData(
        labels=sorted({one.label for one, _ in kept if one.split == "train"}),
        cuts={split: [cut for one, cut in kept if one.split == split] for split in SPLITS},
        label_of={cut.id: one.label for one, cut in kept},
        trials={
            split: [Trial(one.same, f"{name}/{one.first}", f"{name}/{one.second}") for one in chosen]
            for split, chosen in trials.items()
        },
    )
    logger.info("%-8s %s: %s", task, path, loaded.summary())
    return loaded


def paired_batches(
    config: DistillConfig,
    tasks: Mapping[str, TaskData],
    positions: Mapping[str, Position],
    corruptor: Corruptor | None,
    pin_memory: bool,
    unreadable: UnreadableAudio,
) -> Iterator[dict[str, Batch]]:
    """One batch of each task at a time, without end, from a place in each task's data on."""
    loaders = []
    for task, data in tasks.items():
        stream = BatchStream(
            data.cuts["train"],
            config.data.max_samples,
            getattr(config.multitask, task).batch_size,
            num_buckets=config.trainer.num_buckets,
            seed=config.seed,
            start=positions[task],
        )
        loaders.append(make_loader(stream, SpeechBatches(corruptor), config.data.num_workers, pin_memory, unreadable))
    for batches in zip(*loaders):
        yield dict(zip(tasks, batches))
