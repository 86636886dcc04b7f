"""Which learning rates were tried for the heads of a group, and what came of each: ``choice.json``.

The file says enough for heads to be deleted: one that lost is never needed again, and the one that won can be trained
again with its rate alone. SUPERB lets the head's learning rate be chosen for each model and task, by the development
set; no test audio takes part in a choice.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from robustdistiller.common.files import write_text
from robustdistiller.eval.sweep.engine import Outcome
from robustdistiller.eval.tasks import Task

CHOICE_FILE = "choice.json"
#: A rate that failed beside others that did not is tried this often, then chosen without.
ATTEMPTS = 2


@dataclass(frozen=True)
class Tried:
    """One learning rate and what came of it.

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


@dataclass(frozen=True)
class Choice:
    """A choice among learning rates.

    Attributes:
        task: whose development set decides.
        rates: that are chosen among, the largest first.
        needs_score: a head that is the only one needs a score on the development set, too.
        tried: what is known, by learning rate; of others than `rates`, too.
    """

    task: Task
    rates: tuple[float, ...]
    needs_score: bool
    tried: Mapping[float, Tried] = field(default_factory=dict)

    @property
    def chosen(self) -> Tried | None:
        """The best on the development set; of equal ones the smallest learning rate. None when there is none."""
        usable = [one for one in self._counted if one.trained]
        if not self.needs_score and len(usable) == 1:
            return usable[0]
        scored = [one for one in usable if one.dev_score is not None]
        sign = -1 if self.task.dev_metric.higher_is_better else 1
        return min(scored, key=lambda one: (sign * one.dev_score, one.learning_rate), default=None)

    @property
    def pending(self) -> list[float]:
        """The rates that have to be trained before there is a choice: new ones, and failed ones once more."""
        most = math.inf if self.chosen is None else ATTEMPTS
        failed = {rate for rate, one in self.tried.items() if not one.trained and one.attempts < most}
        return [rate for rate in self.rates if rate not in self.tried or rate in failed]

    def describe(self) -> dict[str, Any] | None:
        """The choice as records keep it; None where nothing is chosen."""
        chosen = self.chosen
        return chosen and {
            "metric": self.task.dev_metric.name,
            "higher_is_better": self.task.dev_metric.higher_is_better,
            "learning_rate": chosen.learning_rate,
            "dev_score": chosen.dev_score,
            "step": chosen.step,
            "tried": [dict(vars(one)) for one in self._counted],
        }

    def reasons(self) -> str:
        """Why nothing is chosen."""
        return "; ".join(f"learning rate {one.learning_rate:g}: {one.reason}" for one in self._counted)

    def with_tried(self, one: Tried) -> Choice:
        """The choice after one more training."""
        before = self.tried.get(one.learning_rate)
        attempts = 1 if one.trained or before is None else before.attempts + 1
        return replace(self, tried={**self.tried, one.learning_rate: replace(one, attempts=attempts)})

    def without_trained(self, rates: Iterable[float]) -> Choice:
        """The choice while heads that were trained before are made anew: what comes of them is not known."""
        unknown = [rate for rate in rates if rate in self.tried and self.tried[rate].trained]
        return replace(self, tried={rate: one for rate, one in self.tried.items() if rate not in unknown})

    def write(self, folder: Path) -> None:
        """Keep it in a group's folder."""
        chosen = self.chosen
        data = {
            "task": self.task.code,
            "metric": self.task.dev_metric.name,
            "learning_rate": chosen and chosen.learning_rate,
            "head": chosen and f"lr-{chosen.learning_rate:g}/{chosen.checkpoint}",
            "tried": [vars(one) for _, one in sorted(self.tried.items(), reverse=True)],
        }
        write_text(folder / CHOICE_FILE, json.dumps(data, indent=1, allow_nan=False) + "\n")

    @property
    def _counted(self) -> list[Tried]:
        return [self.tried[rate] for rate in self.rates if rate in self.tried]


def read_tried(folder: Path) -> dict[float, Tried] | None:
    """What was tried in a group's folder; None where there is no file that can be read."""
    try:
        found = json.loads((folder / CHOICE_FILE).read_text(encoding="utf-8"))["tried"]
        return {one["learning_rate"]: tried_from(one) for one in found}
    except (FileNotFoundError, ValueError, KeyError, TypeError):
        return None


def read_chosen(folder: Path) -> str | None:
    """The chosen head's file below a group's folder; None where none is chosen, and as of `read_tried`."""
    try:
        return json.loads((folder / CHOICE_FILE).read_text(encoding="utf-8"))["head"]
    except (FileNotFoundError, ValueError, KeyError, TypeError):
        return None


def tried_from(data: Mapping[str, Any]) -> Tried:
    """One learning rate from plain data, as :meth:`Choice.write` and records have it."""
    known = {field.name for field in fields(Tried)}
    values = {key: value for key, value in data.items() if key in known}
    return Tried(**{**values, "resumed_at": tuple(data.get("resumed_at", ()))})


def tried_of(rate: float, outcome: Outcome) -> Tried:
    """What came of a training."""
    if outcome.state != "done":
        return Tried(rate, None, reason=outcome.reason or "its training left no checkpoint", trained=False)
    tried = tried_from({**outcome.result, "learning_rate": rate})
    return tried if tried.dev_score is not None else replace(tried, reason="no score on a development set")
