"""Measuring the tasks, clean or under a test condition."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import ArrayLike
from torch import Tensor

from robustdistiller.acoustics import Corruptor
from robustdistiller.pretrain.data.dataset import SpeechBatches, make_loader, whole_batches
from robustdistiller.pretrain.multitask.data import TaskData
from robustdistiller.pretrain.multitask.tuning import MultitaskTuner
from robustdistiller.pretrain.training.evaluating import evaluating

Scores = dict[str, dict[str, Any]]
_SCORES = {"keywords": "accuracy", "speakers": "eer"}


def evaluate(tuner: MultitaskTuner, split: str, corruptor: Corruptor | None = None, num_workers: int = 0) -> Scores:
    """Scores of every task on a split (dev or test); whole utterances, without dropout, in float32.

    Returns:
        Per task, its score and the counts it rests on; accuracy and equal error rate in percent.
    """
    scores = {}
    with evaluating(tuner), torch.no_grad():
        for task, data in tuner.tasks.items():
            found: dict[str, Tensor] = {}
            requests = whole_batches(data.cuts[split])
            for batch in make_loader(requests, SpeechBatches(corruptor), num_workers):
                found |= zip(batch.ids, tuner.outputs(task, batch.to(tuner.device)).cpu())
            scores[task] = _keywords(data, found) if task == "keywords" else _speakers(data, split, found)
    return scores


def _keywords(data: TaskData, logits: dict[str, Tensor]) -> dict[str, Any]:
    num_correct = sum(data.labels[one.argmax()] == data.label_of[name] for name, one in logits.items())
    return {
        "accuracy": 100 * num_correct / len(logits),
        "num_correct": num_correct,
        "num_utterances": len(logits),
        "num_classes": len(data.labels),
    }


def _speakers(data: TaskData, split: str, embeddings: dict[str, Tensor]) -> dict[str, Any]:
    trials = data.trials[split]
    first, second = (
        torch.stack([embeddings[name] for name in names]).double()
        for names in zip(*((trial.first, trial.second) for trial in trials))
    )
    same = [trial.same for trial in trials]
    speakers = {data.label_of[name] for name in embeddings}
    return {
        "eer": 100 * equal_error_rate(F.cosine_similarity(first, second), same),
        "num_trials": len(trials),
        "num_same_speaker": sum(same),
        "num_utterances": len(embeddings),
        "num_speakers": len(speakers),
        "num_speakers_also_in_training": len(speakers & set(data.labels)),
    }


def equal_error_rate(scores: ArrayLike, same: ArrayLike) -> float:
    """The error rate at which as many impostors are accepted as same-speaker trials are refused, 0 to 1.

    It is the exact crossing of the ROC polygon with its anti-diagonal; trials of equal score are accepted together.

    Args:
        scores: (trials,) higher means more alike.
        same: (trials,) true for trials of one speaker; there are trials of both kinds.

    Raises:
        ValueError: a score is not finite.

    >>> equal_error_rate([0.9, 0.8, 0.7, 0.1], [True, False, True, False])
    0.5
    """
    scores, same = np.asarray(scores, dtype=np.float64), np.asarray(same, dtype=bool)
    if not np.isfinite(scores).all():
        raise ValueError(f"{np.count_nonzero(~np.isfinite(scores))} of {len(scores)} scores are NaN or infinite")
    from sklearn.metrics import roc_curve  # slow to import

    false_accepts, true_accepts, _ = roc_curve(same, scores, drop_intermediate=False)
    return float(np.interp(0.0, false_accepts + true_accepts - 1, false_accepts))  # the difference rises from -1 to 1


def named_scores(scores: Scores) -> dict[str, float]:
    """The score of each task by one name, and the mean of their errors: 100 - accuracy, and equal error rate."""
    named = {f"{task}_{name}": scores[task][name] for task, name in _SCORES.items() if task in scores}
    errors = [100 - value if name == "keywords_accuracy" else value for name, value in named.items()]
    return {**named, "mean_error": sum(errors) / len(errors)}


def describe_scores(scores: Scores) -> str:
    """The scores in one line."""
    return ", ".join(f"{task} {name} {scores[task][name]:.2f} %" for task, name in _SCORES.items() if task in scores)
