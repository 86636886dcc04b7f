"""What stands in a sweep's file for a task."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

from robustdistiller.common.names import did_you_mean
from robustdistiller.eval import tasks
from robustdistiller.eval.tasks import Task
from robustdistiller.eval.tasks import configs as task_configs

_DEV = ("dev", "valid")  # what names of development sets begin with
# Settings that s3prl reads where they are given, though no shipped configuration has them.
_EXTRA_KEYS = ("scheduler", "specaug", "optimizer", "runner.fp16", "runner.train_dataloader")


class SweepError(ValueError):
    """A sweep cannot run as it is written; the message is one sentence."""


@dataclass
class TaskEntry:
    """A task; in the file, its code alone or a mapping.

    Attributes:
        task: code (``IC``) or s3prl's name; in Python, a task itself too.
        name: tells two entries of the same task apart; default: the code.
        data: where its data is, by the last part of the key in the task's configuration, e.g. ``file_path``.
        override: settings of s3prl's configuration, by dotted key.
        splits: evaluated splits, test sets of the task or development sets; default: the task's first.
        learning_rates: instead of the sweep's.
        conditions: instead of the sweep's conditions and suites.
        folds: of a task with cross-validation (ER); default: all, whose mean is the benchmark's number.

    Example:
        >>> TaskEntry("ic").name
        'IC'
    """

    short_form: ClassVar[str] = "task"

    task: str
    name: str = ""
    data: dict[str, str | list[str]] = field(default_factory=dict)
    override: dict[str, Any] = field(default_factory=dict)
    splits: list[str] = field(default_factory=list)
    learning_rates: list[float] | None = None
    conditions: list[str] | None = None
    folds: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        try:
            self.registry = self.task if isinstance(self.task, Task) else tasks.get(self.task)
        except ValueError as error:
            raise SweepError(str(error)) from error
        self.task = self.registry.code
        self.name = self.name or self.registry.code
        self.splits = self.splits or [self.registry.splits[0]]
        for one in self.splits:
            if one not in self.registry.splits and not one.startswith(_DEV):
                raise SweepError(
                    f"task {self.name}: unknown split {one!r}{did_you_mean(one, self.registry.splits)}; known: "
                    f"{', '.join(self.registry.splits)}, and development sets, which begin with dev or valid"
                )
        known, key = self.registry.folds, self.registry.fold_key
        if len(set(self.folds) & set(known)) < len(self.folds):
            raise SweepError(
                f"task {self.name}: folds must be {'some of ' + ', '.join(known) if known else 'left out'}, each once, "
                f"found {', '.join(self.folds)}"
            )
        if known and any(one in self.override for one in (key, key.removeprefix("config."))):
            raise SweepError(f"task {self.name}: override sets {key.rsplit('.', 1)[-1]}; give folds: [FOLD] instead")
        self.folds = self.folds or list(known)

    def compose(self, fold: str = "") -> dict[str, Any]:
        """The configuration of the task's heads, without the learning rate's choice.

        During training only the development set is scored, not the test set as some of s3prl's configurations do.

        Args:
            fold: the fold to test on, of a task with folds.

        Raises:
            SweepError: a key that does not exist, missing data, or a training without a score on the development set.
        """
        config = task_configs.load_config(self.registry)
        runner = config["runner"] = config.get("runner") or {}  # a task without a head has none
        runner["eval_dataloaders"] = [split for split in runner.get("eval_dataloaders") or [] if split.startswith(_DEV)]
        roots = {root.key.rsplit(".", 1)[-1]: root.key for root in self.registry.roots}
        settings = {}
        for key, value in self.data.items():
            if key not in roots and key not in roots.values():
                raise SweepError(f"task {self.name}: unknown key 'data.{key}'{did_you_mean(key, roots)}")
            settings[roots.get(key, key)] = absolute(value)
        settings |= self.override
        settings |= {self.registry.fold_key: fold} if fold else {}
        for key, value in settings.items():
            self._set(config, key.removeprefix("config."), value)
        try:
            task_configs.check_roots(self.registry, config)
        except FileNotFoundError as error:
            hint = ", ".join(f"{name}: PATH" for name in roots)
            raise SweepError(f"{error}\nIn the sweep's file: data: {{{hint}}}") from error
        if self.registry.trainable:
            self._check_steps(runner)
        return config

    def _set(self, config: dict[str, Any], key: str, value: Any) -> None:
        """Set a dotted key that the configuration has, or one of the few that s3prl reads beyond it."""
        if key == "runner.evaluate_ratio":
            raise SweepError(
                f"task {self.name}: runner.evaluate_ratio gives numbers of a part of the test set; for a quick look "
                "set quick: true, which labels them as such"
            )
        free = any(key == extra or key.startswith(extra + ".") for extra in _EXTRA_KEYS)
        node: Any = config
        parts = key.split(".")
        for depth, part in enumerate(parts, 1):
            known = node if isinstance(node, Mapping) else {}
            if part not in known and (not free or not isinstance(node, Mapping)):
                raise SweepError(f"task {self.name}: unknown key {key!r}{did_you_mean(part, known)}")
            if depth == len(parts):
                node[part] = copy.deepcopy(value)
            else:
                node = node.setdefault(part, {})

    def _check_steps(self, runner: Mapping[str, Any]) -> None:
        for name, done in (("eval_step", "scored"), ("save_step", "saved")):
            wanted = name == "save_step" or runner["eval_dataloaders"]
            if wanted and runner[name] > runner["total_steps"]:
                raise SweepError(
                    f"task {self.name}: runner.{name} is {runner[name]} and runner.total_steps only "
                    f"{runner['total_steps']}, so nothing would be {done}; override runner.{name} too"
                )


def absolute(value: Any) -> Any:
    """A path, or each of several, that holds wherever a job runs."""
    if isinstance(value, list):
        return [absolute(one) for one in value]
    return str(Path(value).expanduser().absolute()) if isinstance(value, str) else value
