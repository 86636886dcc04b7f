"""Which learning rate of the head was chosen, by what score on the development set, among what was tried.

SUPERB's rules let the head's learning rate be chosen per model and task, and scores move by many points with it. So the
scores on the development set that s3prl computes while it trains are kept, one learning rate is chosen by them, and the
choice travels with the head and with each of its records. No test audio takes part in it.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from robustdistiller.eval.run.head_note import HeadNote
from robustdistiller.eval.tasks.base import Task


@dataclass(frozen=True)
class Tried:
    """One learning rate that was tried.

    Attributes:
        learning_rate: of the head.
        dev_score: the task's `dev_metric` on the development set, of the checkpoint that would be evaluated, as
            reported (accuracies and error rates in per cent); None when there is none, then `reason` says why.
        step: training step of that checkpoint.
        reason: why there is no score.
        trained: its training ran to the end.
        resumed_at: steps at which the training went on after it had been stopped.
        head: digest of the head that would be evaluated, as in its records.
        checkpoint: its file name.
        attempts: trainings that were begun and ended.

    Example:
        >>> Tried(1e-3, dev_score=71.5, step=4000).dev_score
        71.5
    """

    learning_rate: float
    dev_score: float | None
    step: int | None = None
    reason: str = ""
    trained: bool = True
    resumed_at: tuple[int, ...] = ()
    head: str = ""
    checkpoint: str = ""
    attempts: int = 1


def dev_score(folder: str | Path, task: Task) -> tuple[float | None, int | None]:
    """Score and step of the checkpoint in a head's folder that was best on the development set.

    Where s3prl saved no best checkpoint (its first best score is 0 % right, which must be beaten), the last
    checkpoint stands in for it, and so does its score.

    Args:
        folder: the head's folder.
        task: the registry entry of its task.

    Returns:
        ``(score, step)``, both None when the development set was never scored or the score is not a number.

    Example:
        >>> import tempfile
        >>> from robustdistiller.eval import tasks
        >>> dev_score(tempfile.mkdtemp(), tasks.get("IC"))
        (None, None)
    """
    note = HeadNote.read(folder)
    scored = [one for one in note.dev_scores if one["split"].startswith(("dev", "valid"))] if note else []
    if not scored:
        return None, None
    chosen = next((one for one in reversed(scored) if one["saved"]), scored[-1])
    score = task.scores(chosen["scalars"], chosen["split"]).get(task.dev_metric.name)
    return (None, None) if score is None or not math.isfinite(score) else (score, chosen["step"])


def choose(tried: Iterable[Tried], higher_is_better: bool) -> Tried | None:
    """The best on the development set; of equal ones the smallest learning rate. None when there is no score.

    Example:
        >>> tried = [Tried(1e-1, 20.0), Tried(1e-3, 70.0), Tried(1e-4, 70.0), Tried(1e-5, None, reason="died")]
        >>> choose(tried, higher_is_better=True).learning_rate, choose(tried, higher_is_better=False).learning_rate
        (0.0001, 0.1)
        >>> choose([], True) is None
        True
    """
    scored = [one for one in tried if one.dev_score is not None]
    sign = -1.0 if higher_is_better else 1.0
    return min(scored, key=lambda one: (sign * one.dev_score, one.learning_rate), default=None)


def describe(task: Task, tried: Iterable[Tried], chosen: Tried) -> dict[str, Any]:
    """What the record stores, plain data.

    Example:
        >>> from robustdistiller.eval import tasks
        >>> tried = [Tried(1e-3, 70.0, 80), Tried(1e-1, 20.0, 100)]
        >>> found = describe(tasks.get("IC"), tried, tried[0])
        >>> found["metric"], found["dev_score"], [one["learning_rate"] for one in found["tried"]]
        ('accuracy', 70.0, [0.1, 0.001])
    """
    ordered = sorted(tried, key=lambda one: -one.learning_rate)
    return {
        "metric": task.dev_metric.name,
        "higher_is_better": task.dev_metric.higher_is_better,
        "learning_rate": chosen.learning_rate,
        "dev_score": chosen.dev_score,
        "step": chosen.step,
        "tried": [{**asdict(one), "resumed_at": list(one.resumed_at)} for one in ordered],
    }


def note_selection(folder: str | Path, selection: Mapping[str, Any]) -> None:
    """Put the choice into the chosen head's note, from where it gets into its records.

    Example:
        >>> import tempfile
        >>> folder = tempfile.mkdtemp()
        >>> note_selection(folder, {"learning_rate": 0.1})
        >>> HeadNote.read(folder).selection
        {'learning_rate': 0.1}
    """
    note = HeadNote.read(folder) or HeadNote()
    note.selection = dict(selection)
    note.write(folder)
