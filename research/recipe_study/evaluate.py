"""Scores one frozen upstream on every task under every condition; heads are trained on clean audio only."""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from research.recipe_study import heads
from research.recipe_study.conditions import CONDITIONS, SEED, test_audio
from research.recipe_study.features import Frames, framewise, pooled
from research.recipe_study.outcomes import Cell, Outcome, digest, load_outcome, save_outcome
from research.recipe_study.pool import StudyData
from research.recipe_study.tasks import TASKS, Items, Task, build_tasks

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Evaluation:
    """How upstreams are scored.

    Attributes:
        data: prepared audio.
        tasks: names of the tasks.
        conditions: names of the conditions.
        options: head training, by kind of task.
        autocast: compute features in bfloat16 where PyTorch does so.
    """

    data: StudyData
    tasks: tuple[str, ...] = tuple(TASKS)
    conditions: tuple[str, ...] = tuple(CONDITIONS)
    options: dict[str, heads.HeadOptions] | None = None
    autocast: bool = False

    def head_options(self, task: Task) -> heads.HeadOptions:
        """Of a task's heads."""
        return (self.options or heads.OPTIONS)[task.kind]

    def settings_digest(self, task: str) -> str:
        """SHA-256 of how a task's heads are trained."""
        return digest(self.head_options(TASKS[task]))

    def prepare(self) -> None:
        """Builds the tasks and mixes the test audio."""
        for task, items in build_tasks(self.data, self.tasks).items():
            for condition in self.conditions:
                test_audio(self.data, task, items["test"], CONDITIONS[condition])

    def run(self, upstream: nn.Module, identity: str, name: str, seeds: Sequence[int]) -> dict[int, Outcome]:
        """Scores an upstream, keeping each finished task in the work folder; called again, goes on there.

        Args:
            upstream: of s3prl's interface.
            identity: digest of its weights; what was kept for another one is measured anew.
            name: of the upstream.
            seeds: one head is trained per seed.

        Returns:
            by seed: outcomes with the notes that are known here (`digests`, `tasks`, `evaluation_seconds`).
        """
        upstream.eval()
        built = build_tasks(self.data, self.tasks)
        merged = {seed: Outcome({"name": name, "seed": seed, "digests": {}, "tasks": {}}) for seed in seeds}
        for task in self.tasks:
            audio = {c: test_audio(self.data, task, built[task]["test"], CONDITIONS[c]) for c in self.conditions}
            heard = self._digests(task, built[task], audio)
            for seed, part in self._task(upstream, identity, name, seeds, TASKS[task], built[task], audio, heard):
                merged[seed].cells.update(part.cells)
                merged[seed].notes["digests"].update(heard, **{f"{task} heads": self.settings_digest(task)})
                merged[seed].notes["tasks"][task] = part.notes["task"]
        for outcome in merged.values():
            outcome.notes["evaluation_seconds"] = round(sum(t["seconds"] for t in outcome.notes["tasks"].values()), 1)
        return merged

    def _task(self, upstream, identity, name, seeds, task: Task, items: dict[str, Items], audio, heard):
        """Yields seed and outcome of one task; features are computed once for all seeds."""
        options = self.head_options(task)
        key = digest(identity, sorted(heard.items()), options, self.autocast, SEED)
        paths = {s: self.data.work / "partial" / f"{name}-seed{s}-{task.name}.npz" for s in seeds}
        missing = []
        for seed, path in paths.items():
            known = load_outcome(path) if path.is_file() else None
            if known is not None and known.notes["key"] == key:
                yield seed, known
            else:
                missing.append(seed)
        if not missing:
            return
        start = time.process_time()
        trained = self.train_heads(upstream, missing, task, items, options)
        cells: dict[int, dict[tuple[str, str], Cell]] = {seed: {} for seed in missing}
        labels = torch.from_numpy(items["test"].labels).long()
        for condition, samples in audio.items():
            features = self.features(upstream, task, items["test"].waveforms(samples))
            for seed in missing:
                cells[seed][task.name, condition] = score(trained[seed].head, features, labels, items["test"].sizes)
        seconds = (time.process_time() - start) / len(missing)
        for seed in missing:
            head = trained[seed]
            notes = {
                "metric": task.metric,
                "lr": head.lr,
                "dev": {str(lr): round(float(value), 3) for lr, value in head.dev.items()},
                "layer_weights": [round(weight, 4) for weight in head.layer_weights],
                "train_items": len(items["train"]),
                "test_items": len(items["test"]),
                "seconds": round(seconds, 1),
            }
            part = Outcome({"name": name, "seed": seed, "key": key, "task": notes}, cells[seed])
            save_outcome(paths[seed], part)
            yield seed, part

    def features(self, upstream: nn.Module, task: Task, waveforms: Sequence[np.ndarray]) -> Tensor | Frames:
        """What the heads of a task see of waveforms."""
        take = pooled if task.kind == "classes" else framewise
        return take(upstream, waveforms, self.autocast)

    def train_heads(
        self, upstream: nn.Module, seeds: Sequence[int], task: Task, items: dict[str, Items], options: heads.HeadOptions
    ) -> dict[int, heads.TrainedHead]:
        """A head per seed, trained on clean speech."""
        splits = {
            split: (
                self.features(upstream, task, items[split].waveforms()),
                torch.from_numpy(items[split].labels).long(),
            )
            for split in ("train", "dev")
        }
        sizes = items["train"].sizes
        if task.kind == "classes":
            return {s: heads.train_classifier(splits["train"], splits["dev"], sizes, s, options) for s in seeds}
        return {s: heads.train_characters(splits["train"], splits["dev"], sizes[0], s, options) for s in seeds}

    def _digests(self, task: str, items: dict[str, Items], audio: dict[str, np.ndarray]) -> dict[str, str]:
        facts = {f"{task} {split}": digest(found.ids, found.labels.tobytes()) for split, found in items.items()}
        heard = {f"{task} under {name}": digest(samples.tobytes()) for name, samples in audio.items()}
        return facts | heard


def score(head: heads.WeightedHead, features: Tensor | Frames, labels: Tensor, sizes: Sequence[int]) -> Cell:
    """What a head gets wrong: an item of classes is wrong if any of its labels is; of characters, edit distances."""
    if isinstance(features, Frames):
        return Cell(*heads.character_errors(head, features, labels))
    with torch.inference_mode():
        right = (heads.slot_predictions(head(features), sizes) == labels).all(1)
    return Cell((~right).numpy().astype(np.uint16), np.ones(len(right), dtype=np.uint16))
