"""What stands in a sweep's file for an upstream and for a task."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

from robustdistiller.common.names import did_you_mean
from robustdistiller.eval import tasks
from robustdistiller.eval.run.specs import Upstream
from robustdistiller.eval.tasks import Task
from robustdistiller.eval.tasks import configs as task_configs
from robustdistiller.upstream import ModelName
from robustdistiller.upstream.s3prl.entries import entry_of

# Settings that s3prl reads where they are given, though no shipped configuration has them.
_EXTRA_KEYS = ("scheduler", "specaug", "optimizer", "runner.fp16", "runner.train_dataloader")
_QUICK_HINT = "for a quick look set quick: true, which labels them as such"


class SweepError(ValueError):
    """A sweep cannot run as it is written; the message is one sentence."""


@dataclass
class UpstreamEntry:
    """An upstream under test; in the file, its name alone or a mapping.

    Attributes:
        name: entry of s3prl's hub (``-u``), or a model's name.
        checkpoint: its weights (``-k``): a path, a URL, ``org/name[@revision]`` on the Hub, or a registered name.
        options: its own options file (``-g``).
        label: name in tables; default: the name, or the checkpoint's file name where there is one.
        feature_selection: which output the head sees (``-s``), e.g. ``hidden_states`` or ``paper``.
        layer: a single hidden state instead of the weighted sum (``-l``).
        seeds: of its heads, instead of the sweep's.

    Example:
        >>> UpstreamEntry("fbank").label, UpstreamEntry("microsoft/wavlm-large").label
        ('fbank', 'wavlm-large')
    """

    short_form: ClassVar[str] = "name"

    name: str
    checkpoint: str | None = None
    options: str | None = None
    label: str = ""
    feature_selection: str = "hidden_states"
    layer: int | None = None
    seeds: list[int] = field(default_factory=list)

    def __post_init__(self) -> None:
        if self.checkpoint is None:
            self.name, self.checkpoint = entry_of(self.name)
        self.label = self.label or (
            ModelName.parse(self.checkpoint, strict=False).label if self.checkpoint else self.name
        )

    @property
    def spec(self) -> Upstream:
        """As heads are trained on it."""
        return Upstream(self.name, self.checkpoint, self.options, self.label, self.feature_selection, self.layer)


@dataclass
class TaskEntry:
    """A task; in the file, its code alone or a mapping.

    Attributes:
        task: code (``IC``) or s3prl's name; in Python, a task itself too.
        name: tells two entries of the same task apart; default: the code.
        data: where its data is, by the last part of the key in the task's configuration, e.g. ``file_path``.
        override: settings of s3prl's configuration, by dotted key.
        splits: evaluated splits; default: the task's first.
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
        known, key = self.registry.folds, self.registry.fold_key
        unknown = [fold for fold in self.folds if fold not in known]
        if unknown or len(set(self.folds)) < len(self.folds):
            raise SweepError(
                f"task {self.name}: folds must be {'some of ' + ', '.join(known) if known else 'left out'}, each once, "
                f"found {', '.join(self.folds)}"
            )
        if known and any(one in self.override for one in (key, key.removeprefix("config."))):
            raise SweepError(f"task {self.name}: override sets {key.rsplit('.', 1)[-1]}; give folds: [FOLD] instead")
        self.folds = self.folds or list(known)

    def compose(self, fold: str = "") -> dict[str, Any]:
        """The configuration of the task's heads, without the learning rate's choice.

        Args:
            fold: the fold to test on, of a task with folds.

        During training only the development set is scored, not the test set as some of s3prl's configurations do.

        Raises:
            SweepError: a key that does not exist, missing data, or a training without a score on the development set.

        Example:
            >>> TaskEntry("IC", override={"runner.total_stepz": 10}).compose()
            Traceback (most recent call last):
            robustdistiller.eval.sweep.entries.SweepError: task IC: unknown key 'runner.total_stepz'; did you mean \
'total_steps'?
        """
        config = task_configs.load_config(self.registry)
        runner = config.get("runner") or {}
        developing = [s for s in runner.get("eval_dataloaders") or [] if s.startswith(("dev", "valid"))]
        runner["eval_dataloaders"] = developing
        settings = {**self._settings(), **({self.registry.fold_key: fold} if fold else {})}
        for key, value in settings.items():
            _set(config, key.removeprefix("config."), value, self.name)
        try:
            task_configs.check_roots(self.registry, config)
        except FileNotFoundError as error:
            raise SweepError(f"{error}\nIn the sweep's file: data: {self._data_hint()}") from error
        self._check_steps(config)
        return config

    def _settings(self) -> dict[str, Any]:
        roots = {root.key.rsplit(".", 1)[-1]: root.key for root in self.registry.roots}
        settings = {}
        for key, value in self.data.items():
            if key not in roots and key not in roots.values():
                raise SweepError(f"task {self.name}: unknown key 'data.{key}'{did_you_mean(key, roots)}")
            settings[roots.get(key, key)] = absolute(value)
        return {**settings, **self.override}

    def _data_hint(self) -> str:
        return "{" + ", ".join(f"{root.key.rsplit('.', 1)[-1]}: PATH" for root in self.registry.roots) + "}"

    def _check_steps(self, config: Mapping[str, Any]) -> None:
        if not self.registry.trainable:
            return
        runner = config["runner"]
        for name in ("eval_step", "save_step"):
            scored = runner["eval_dataloaders"] or name == "save_step"
            if scored and runner[name] > runner["total_steps"]:
                raise SweepError(
                    f"task {self.name}: runner.{name} is {runner[name]} and runner.total_steps only "
                    f"{runner['total_steps']}, so nothing would be {'saved' if name == 'save_step' else 'scored'}; "
                    f"override runner.{name} too"
                )


def absolute(value: Any) -> Any:
    """A path, or each of several, that holds wherever a job runs."""
    if isinstance(value, list):
        return [absolute(one) for one in value]
    return str(Path(value).expanduser().absolute()) if isinstance(value, str) else value


def _set(config: dict[str, Any], key: str, value: Any, task: str) -> None:
    """Set a dotted key that the configuration has, or one of the few that s3prl reads beyond it."""
    if key == "runner.evaluate_ratio":
        raise SweepError(f"task {task}: runner.evaluate_ratio gives numbers of a part of the test set; {_QUICK_HINT}")
    free = any(key == extra or key.startswith(extra + ".") for extra in _EXTRA_KEYS)
    *parents, last = key.split(".")
    node: Any = config
    for depth, part in enumerate([*parents, last]):
        known = node if isinstance(node, Mapping) else {}
        if part not in known and not free:
            raise SweepError(f"task {task}: unknown key {key!r}{did_you_mean(part, known)}")
        if depth < len(parents):
            node = node.setdefault(part, {})
    node[last] = copy.deepcopy(value)
