"""Measuring the tasks, clean or under a test condition, and choosing the best step on the dev splits."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from robustdistiller.acoustics import Corruptor
from robustdistiller.common.files import write_atomically
from robustdistiller.pretrain.multitask.data import TaskData, whole_batches
from robustdistiller.pretrain.multitask.module import MultitaskTuner, Tuning
from robustdistiller.pretrain.multitask.scores import cosine_scores, equal_error_rate
from robustdistiller.pretrain.training.log import History, append_line, forget_after

logger = logging.getLogger(__name__)

STAGE = "tune"  # a run of this kind has one


def evaluate(
    module: MultitaskTuner, split: str, corruptor: Corruptor | None = None, num_workers: int = 0
) -> dict[str, dict[str, Any]]:
    """Scores of every task on a split; whole utterances, without dropout, in float32.

    Args:
        module: encoder and heads, with the tasks' data.
        split: dev or test.
        corruptor: of the audio; `None` leaves it clean.
        num_workers: processes that read.

    Returns:
        Per task, its score and the counts it rests on; accuracy and equal error rate in percent.
    """
    was_training = module.training
    module.eval()
    scores = {task: _SCORERS[task](module, data, split, corruptor, num_workers) for task, data in module.tasks.items()}
    module.train(was_training)
    return scores


def mean_error(scores: dict[str, dict[str, Any]]) -> float:
    """Mean over the tasks of their error in percent: 100 - accuracy for keywords, equal error rate for speakers.

    >>> mean_error({"keywords": {"accuracy": 90.0}, "speakers": {"eer": 4.0}})
    7.0
    """
    errors = {"keywords": lambda one: 100 - one["accuracy"], "speakers": lambda one: one["eer"]}
    return sum(errors[task](one) for task, one in scores.items()) / len(scores)


def describe_scores(scores: dict[str, dict[str, Any]]) -> str:
    """The scores in one line.

    >>> describe_scores({"keywords": {"accuracy": 90.0}, "speakers": {"eer": 4.0}})
    'keywords accuracy 90.00 %, speakers eer 4.00 %'
    """
    return ", ".join(f"{task} {name} {scores[task][name]:.2f} %" for task, name in _SCORES.items() if task in scores)


@torch.no_grad()
def _outputs(
    module: MultitaskTuner, task: str, cuts: list, corruptor: Corruptor | None, num_workers: int
) -> Iterator[tuple[str, Tensor]]:
    """Id and head output of every cut, on the CPU."""
    for batch in whole_batches(cuts, corruptor, num_workers):
        output = module.heads[task](module.encode(batch.to(module.device))).cpu()
        yield from zip(batch.ids, output)


def _keywords(
    module: MultitaskTuner, data: TaskData, split: str, corruptor: Corruptor | None, num_workers: int
) -> dict[str, Any]:
    found = _outputs(module, "keywords", data.cuts[split], corruptor, num_workers)
    right = [data.labels[logits.argmax()] == data.label_of[name] for name, logits in found]
    return {
        "accuracy": 100 * sum(right) / len(right),
        "num_correct": sum(right),
        "num_utterances": len(right),
        "num_classes": len(data.labels),
    }


def _speakers(
    module: MultitaskTuner, data: TaskData, split: str, corruptor: Corruptor | None, num_workers: int
) -> dict[str, Any]:
    trials, cuts = data.trials[split], data.cuts[split]
    embeddings = {name: one.numpy() for name, one in _outputs(module, "speakers", cuts, corruptor, num_workers)}
    scores = cosine_scores([embeddings[one.first] for one in trials], [embeddings[one.second] for one in trials])
    same = [one.same for one in trials]
    speakers = {data.label_of[cut.id] for cut in cuts}
    return {
        "eer": 100 * equal_error_rate(scores, same),
        "num_trials": len(trials),
        "num_same_speaker": sum(same),
        "num_utterances": len(cuts),
        "num_speakers": len(speakers),
        "num_speakers_also_in_training": len(speakers & set(data.labels)),
    }


_SCORERS = {"keywords": _keywords, "speakers": _speakers}
_SCORES = {"keywords": "accuracy", "speakers": "eer"}


class DevEvaluation:
    """Evaluates on the dev splits every so many steps and at the end; keeps the weights of the best step.

    Scores go to `dev.csv` and TensorBoard.

    Args:
        out_dir: folder of the run.
        tuning: what is evaluated, and learns which step is the best.
        history: the run's log.
    """

    def __init__(self, out_dir: Path, tuning: Tuning, history: History):
        self.folder, self.table, self.history = out_dir / "checkpoints", out_dir / "dev.csv", history
        self.tuning = tuning
        self._saved_best = tuning.best.get("step")  # as of the latest checkpoint
        forget_after(self.table, STAGE, tuning.progress.step)

    def note_saved(self) -> None:
        """A checkpoint now refers to the best weights; older ones are not needed."""
        self._saved_best = self.tuning.best.get("step")

    def measure(self, step: int) -> None:
        """Evaluate where due."""
        config, tuning = self.tuning.tuner.config, self.tuning
        if step % config.multitask.dev_every_steps and step != config.trainer.max_steps:
            return
        start_s = time.monotonic()
        scores = evaluate(tuning.tuner, "dev", num_workers=config.data.num_workers)
        measured = {f"{task}_{score}": scores[task][score] for task, score in _SCORES.items() if task in scores}
        measured["mean_error"] = mean_error(scores)
        if measured["mean_error"] < tuning.best.get("mean_error", float("inf")):
            tuning.best = {"step": step, "mean_error": measured["mean_error"]}
            weights = {name: value.detach().cpu() for name, value in tuning.tuner.state_dict().items()}
            write_atomically(best_path(self.folder, step), lambda file: torch.save(weights, file))
            for old in self.folder.glob("best-*.ckpt"):
                if old not in (best_path(self.folder, step), best_path(self.folder, self._saved_best or 0)):
                    old.unlink()
        append_line(self.table, {"stage": STAGE, "step": step, **measured})
        self.history.add_scalars({f"dev_{name}": value for name, value in measured.items()}, step)
        self.history.pause(time.monotonic() - start_s)
        logger.info("dev at step %d: %s", step, describe_scores(scores))


def best_path(folder: Path, step: float) -> Path:
    """File of the weights of the best step.

    >>> best_path(Path("checkpoints"), 500).name
    'best-00000500.ckpt'
    """
    return folder / f"best-{int(step):08d}.ckpt"
