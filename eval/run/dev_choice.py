"""Which learning rate of the head was chosen, by what score on the development set, among what was tried.

SUPERB's rules let the head's learning rate be chosen per model and task, and scores move by many points with it. So the
scores on the development set that s3prl computes while it trains are kept, one learning rate is chosen by them, and the
choice travels with the head and with each of its records. No test audio takes part in it.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from robustdistiller.common.files import write_text
from robustdistiller.eval.tasks.base import Task

SCORES_FILE = "dev-scores.jsonl"
SELECTION_FILE = "selection.json"


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


def append_scores(folder: str | Path, split: str, step: int, scalars: Mapping[str, float], saved: list[str]) -> None:
    """Add one evaluation during training to the folder's log of scores.

    Args:
        folder: the head's folder.
        split: what was evaluated, e.g. ``dev``.
        step: training step.
        scalars: what s3prl logged, tag to value.
        saved: checkpoints that s3prl saves because of it, e.g. ``["dev-best.ckpt"]``.

    Example:
        >>> import tempfile
        >>> from robustdistiller.eval import tasks
        >>> folder = tempfile.mkdtemp()
        >>> append_scores(folder, "dev", 100, {"fluent_commands/dev-acc": 0.5}, ["dev-best.ckpt"])
        >>> append_scores(folder, "dev", 200, {"fluent_commands/dev-acc": 0.25}, [])
        >>> dev_score(folder, tasks.get("IC"))
        (50.0, 100)
    """
    line = json.dumps({"split": split, "step": step, "scalars": dict(scalars), "saved": list(saved)})
    with (Path(folder) / SCORES_FILE).open("a", encoding="utf-8") as stream:
        stream.write(line + "\n")


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
    try:
        text = (Path(folder) / SCORES_FILE).read_text(encoding="utf-8")
    except FileNotFoundError:
        return None, None
    best = last = None
    for line in text.splitlines():
        try:
            entry = json.loads(line)
        except json.JSONDecodeError:  # broken off in the middle of a line; that step was evaluated again
            continue
        if not entry["split"].startswith(("dev", "valid")):
            continue
        last = entry
        if entry["saved"]:
            best = entry
    chosen = best or last
    if chosen is None:
        return None, None
    score = task.scores(chosen["scalars"], chosen["split"]).get(task.dev_metric.name)
    if score is None or score != score or score in (float("inf"), float("-inf")):
        return None, None
    return score, chosen["step"]


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


def write_selection(folder: str | Path, selection: Mapping[str, Any]) -> Path:
    """Put the choice beside the chosen head, where the launcher finds it.

    Example:
        >>> import tempfile
        >>> folder = tempfile.mkdtemp()
        >>> _ = write_selection(folder, {"learning_rate": 0.1})
        >>> read_selection(folder)
        {'learning_rate': 0.1}
    """
    return write_text(Path(folder) / SELECTION_FILE, json.dumps(dict(selection), indent=1, allow_nan=False) + "\n")


def read_selection(folder: str | Path) -> dict[str, Any] | None:
    """The choice beside a head, None without one.

    Example:
        >>> read_selection("nowhere") is None
        True
    """
    path = Path(folder) / SELECTION_FILE
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else None
