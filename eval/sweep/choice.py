"""Which learning rates were tried for the heads of a group, and what came of each: ``choice.json``.

The file says enough for heads to be deleted: one that lost is never needed again, and the one that won can be trained
again with its rate alone. SUPERB lets the head's learning rate be chosen for each model and task, by the development
set; no test audio takes part in a choice.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any

from robustdistiller.common.files import write_text
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
    """What was tried for a group of heads.

    Attributes:
        task: whose development set decides.
        tried: by learning rate.
        only: the rates that count; None: all of them.
        alone: a head that is the only one needs no score on a development set.
    """

    task: Task
    tried: Mapping[float, Tried]
    only: tuple[float, ...] | None = None
    alone: bool = False

    @property
    def chosen(self) -> Tried | None:
        """The best on the development set; of equal ones the smallest learning rate. None when there is none."""
        usable = [one for one in self._counted() if one.trained]
        if self.alone and len(usable) == 1:
            return usable[0]
        scored = [one for one in usable if one.dev_score is not None]
        sign = -1 if self.task.dev_metric.higher_is_better else 1
        return min(scored, key=lambda one: (sign * one.dev_score, one.learning_rate), default=None)

    @property
    def pending(self) -> list[float]:
        """The rates that have to be trained before there is a choice: new ones, and failed ones once more."""
        most = math.inf if self.chosen is None else ATTEMPTS
        tried = self.tried
        return [r for r in self._rates if r not in tried or (not tried[r].trained and tried[r].attempts < most)]

    def describe(self) -> dict[str, Any] | None:
        """The choice as records keep it; None where nothing is chosen."""
        chosen = self.chosen
        return chosen and {
            "metric": self.task.dev_metric.name,
            "higher_is_better": self.task.dev_metric.higher_is_better,
            "learning_rate": chosen.learning_rate,
            "dev_score": chosen.dev_score,
            "step": chosen.step,
            "tried": [_plain(one) for one in self._counted()],
        }

    def reasons(self) -> str:
        """Why nothing is chosen."""
        return "; ".join(f"learning rate {one.learning_rate:g}: {one.reason}" for one in self._counted())

    def limited_to(self, rates: Iterable[float], alone: bool) -> Choice:
        """The choice among some rates only."""
        return replace(self, only=tuple(rates), alone=alone)

    def with_tried(self, one: Tried) -> Choice:
        """The choice after one more training."""
        before = self.tried.get(one.learning_rate)
        attempts = 1 if one.trained or before is None else before.attempts + 1
        return replace(self, tried={**self.tried, one.learning_rate: replace(one, attempts=attempts)})

    def write(self, folder: Path) -> None:
        """Keep it in a group's folder."""
        chosen = self.chosen
        data = {
            "task": self.task.code,
            "metric": self.task.dev_metric.name,
            "learning_rate": chosen and chosen.learning_rate,
            "head": chosen and f"lr-{chosen.learning_rate:g}/{chosen.checkpoint}",
            "tried": [_plain(one) for _, one in sorted(self.tried.items(), reverse=True)],
        }
        write_text(folder / CHOICE_FILE, json.dumps(data, indent=1, allow_nan=False) + "\n")

    def _counted(self) -> list[Tried]:
        return [self.tried[rate] for rate in self._rates if rate in self.tried]

    @property
    def _rates(self) -> list[float]:
        return sorted(self.tried if self.only is None else self.only, reverse=True)


def read_choice(folder: Path, task: Task) -> Choice:
    """What is known of a group's heads; a file that is not there or damaged says nothing.

    Args:
        folder: of the group.
        task: of its heads.
    """
    try:
        found = json.loads((folder / CHOICE_FILE).read_text(encoding="utf-8"))["tried"]
        return Choice(task, {one["learning_rate"]: tried_from(one) for one in found})
    except (FileNotFoundError, ValueError, KeyError, TypeError):
        return Choice(task, {})


def tried_from(data: Mapping[str, Any]) -> Tried:
    """One learning rate from plain data, as :meth:`Choice.write` and records have it."""
    known = {field.name for field in fields(Tried)}
    values = {key: value for key, value in data.items() if key in known}
    return Tried(**{**values, "resumed_at": tuple(data.get("resumed_at", ()))})


def _plain(one: Tried) -> dict[str, Any]:
    return {**asdict(one), "resumed_at": list(one.resumed_at)}
