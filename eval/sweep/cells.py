"""A sweep taken apart: groups (one upstream on one task with one seed), their heads and their cells."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from robustdistiller.acoustics import Condition
from robustdistiller.common.files import slug
from robustdistiller.eval.results.record import NO_CHECKPOINT, NO_HEAD, Metric, Record
from robustdistiller.eval.run.run_info import versions
from robustdistiller.eval.sweep.config import SweepConfig, TaskEntry, UpstreamEntry
from robustdistiller.eval.sweep.errors import SweepError
from robustdistiller.eval.sweep.heard import conditions_of
from robustdistiller.eval.tasks.rules import deviations, split
from robustdistiller.upstream import ModelName, checkpoint_digest
from robustdistiller.upstream.s3prl.entries import find_checkpoint


@dataclass(frozen=True, eq=False)
class Group:
    """What shares heads: one upstream on one task, or one fold of it, with one seed.

    Attributes:
        upstream, task, seed: as in the sweep's file.
        config: configuration of the heads; its learning rate is the task's default.
        digest: SHA-256 of the checkpoint; ``none`` without a file.
        learning_rates: tried, the largest first; empty for a task without a trained head.
        conditions: test conditions, in the order of evaluation.
        root: folder of the sweep.
        fold: test fold, of a task with folds.
    """

    upstream: UpstreamEntry
    task: TaskEntry
    seed: int
    config: Mapping[str, Any]
    digest: str
    learning_rates: tuple[float, ...]
    conditions: tuple[Condition, ...]
    root: Path
    fold: str = ""

    @property
    def title(self) -> str:
        """For people."""
        fold = f" {self.fold}" if self.fold else ""
        return f"{self.upstream.label} / {self.task.name}{fold} / seed {self.seed}"

    @cached_property
    def place(self) -> str:
        """Its folder below ``heads/``, ``records/`` and ``jobs/``: another checkpoint or configuration, another place.

        The learning rates are no part of it, so that a longer list reuses the heads of a shorter one.
        """
        entry = self.upstream
        shared = {**self.config, "optimizer": {**(self.config.get("optimizer") or {}), "lr": None}}
        identity = [
            *(entry.name, self.digest, _text(entry.options), entry.feature_selection, entry.layer),
            *(entry.checkpoint if self.digest == NO_CHECKPOINT else "", self.task.registry.code, self.seed),
            *(json.dumps(shared, sort_keys=True, default=str), *([self.fold] if self.fold else [])),
        ]
        fold = f"-{slug(self.fold)}" if self.fold else ""
        short = hashlib.sha256(json.dumps(identity).encode()).hexdigest()[:8]
        return f"{slug(entry.name)}-{self.digest[:12]}/{slug(self.task.name)}{fold}-seed{self.seed}-{short}"

    @property
    def records(self) -> Path:
        """Folder of its records."""
        return self.root / "records" / self.place

    @property
    def heads(self) -> list[Head]:
        """One per learning rate."""
        return [Head(self, rate) for rate in self.learning_rates]

    @property
    def cells(self) -> list[Cell]:
        """One per split and condition."""
        return [Cell(self, split, condition) for split in self.task.splits for condition in self.conditions]


@dataclass(frozen=True)
class Head:
    """One head to train."""

    group: Group
    learning_rate: float

    @property
    def name(self) -> str:
        """Of its folders."""
        return f"lr-{self.learning_rate:g}"

    @property
    def folder(self) -> Path:
        """Where s3prl writes it."""
        return self.group.root / "heads" / self.group.place / self.name

    @property
    def config(self) -> dict[str, Any]:
        """Its s3prl configuration."""
        return {**self.group.config, "optimizer": {**self.group.config["optimizer"], "lr": self.learning_rate}}


@dataclass(frozen=True)
class Cell:
    """One number to measure: a group's chosen head on a split under a condition."""

    group: Group
    split: str
    condition: Condition

    @property
    def title(self) -> str:
        """For people."""
        split = f" / {self.split}" if len(self.group.task.splits) > 1 else ""
        return f"{self.group.title}{split} / {self.condition.label}"

    def failed_record(self, reason: str, start_utc: str, device: str) -> Record:
        """The record of a cell for which there is no head to evaluate.

        Args:
            reason: why, in a sentence.
            start_utc: ISO 8601.
            device: where it was tried.
        """
        group, task = self.group, self.group.task.registry
        arguments = {
            "upstream_feature_selection": group.upstream.feature_selection,
            "upstream_layer_selection": group.upstream.layer,
        }
        return Record(
            upstream=group.upstream.name,
            label=group.upstream.label,
            upstream_options=_text(group.upstream.options),
            checkpoint=ModelName.short_of(group.upstream.checkpoint),
            checkpoint_digest=group.digest if group.digest != NO_CHECKPOINT else "",  # nothing was loaded
            checkpoint_digest_of="file" if group.digest != NO_CHECKPOINT else "none",
            parameters=None,
            task=task.code,
            downstream=task.downstream,
            head_digest=NO_HEAD,
            rules_digest=split(task, group.config, arguments).digest,
            condition=self.condition.label,
            condition_parameters=self.condition.to_dict(),
            split=self.split,
            fold=group.fold,
            metrics=[Metric(m.name, None, m.higher_is_better, m.unit, "not evaluated") for m in task.metrics],
            items_expected=None,
            items_scored=0,
            learning_rate=None,
            seed=group.seed,
            versions=versions(),
            device=device,
            start_utc=start_utc,
            duration_s=0.0,
            status="failed",
            reason=reason,
            non_standard=deviations(task, group.config, arguments),
        )


def expand(sweep: SweepConfig) -> list[Group]:
    """All groups of a sweep, tasks outermost, so that a table fills row by row.

    Raises:
        SweepError: missing data or checkpoints, keys that do not exist, a grid of learning rates on a task without a
            development set.

    Example:
        >>> expand(SweepConfig(out="o", upstreams=[UpstreamEntry("fbank")], tasks=[TaskEntry("QbE")]))
        Traceback (most recent call last):
        robustdistiller.eval.sweep.errors.SweepError: QbE (query by example, QUESST 2014 English) needs data ...
    """
    runs = []
    for task in sweep.tasks:
        conditions = conditions_of(sweep, task)
        configs = [(fold, task.compose(fold)) for fold in task.folds or [""]]
        runs.append(
            (task, conditions, [(fold, config, learning_rates(sweep, task, config)) for fold, config in configs])
        )
    digests = {entry.label: _digest(entry) for entry in sweep.upstreams}  # downloads: when all else is there
    groups = [
        Group(entry, task, seed, config, digests[entry.label], rates, conditions, sweep.root, fold)
        for task, conditions, trainings in runs
        for entry in sweep.upstreams
        for seed in sweep.seeds
        for fold, config, rates in trainings
    ]
    places: dict[str, Group] = {}
    for group in groups:
        other = places.setdefault(group.place, group)
        if other is not group:
            raise SweepError(f"{other.title} and {group.title} are the same upstream on the same task; drop one")
    return groups


def learning_rates(sweep: SweepConfig, task: TaskEntry, config: Mapping[str, Any]) -> tuple[float, ...]:
    """The learning rates to try on a task, the largest first.

    Raises:
        SweepError: a rate that is not positive, one set by `override`, or several where s3prl scores no development
            set while it trains.

    Example:
        >>> sweep = SweepConfig(out="o", upstreams=[UpstreamEntry("fbank")], tasks=[TaskEntry("ASV")])
        >>> asv = {"runner": {"eval_dataloaders": []}, "optimizer": {"lr": 1e-4}}
        >>> learning_rates(sweep, sweep.tasks[0], asv)
        (0.0001,)
    """
    if not task.registry.trainable:
        return ()
    if any(key.removeprefix("config.") == "optimizer.lr" for key in task.override):
        raise SweepError(f"task {task.name}: override sets optimizer.lr; give learning_rates: [RATE] instead")
    rates = task.learning_rates if task.learning_rates is not None else sweep.learning_rates
    if not config["runner"]["eval_dataloaders"]:
        if task.learning_rates is not None and len(rates) > 1:
            raise SweepError(
                f"task {task.name}: s3prl scores no development set of it while it trains, so there is nothing to "
                f"choose among {len(rates)} learning rates by; give one"
            )
        rates = rates if task.learning_rates else [config["optimizer"]["lr"]]
    if not rates or not all(0 < rate < float("inf") for rate in rates):
        raise SweepError(f"task {task.name}: learning_rates must be positive numbers, found {rates}")
    return tuple(sorted(set(map(float, rates)), reverse=True))


def _digest(entry: UpstreamEntry) -> str:
    if not entry.checkpoint:
        return NO_CHECKPOINT
    try:  # downloaded now: heads are kept by this digest, on machines that may have no network
        path = find_checkpoint(entry.name, entry.checkpoint)
        return NO_CHECKPOINT if path is None else checkpoint_digest(path)
    except (FileNotFoundError, ValueError) as error:
        raise SweepError(f"upstream {entry.label}: {error}") from error


def _text(options: str | None) -> str:
    return Path(options).read_text(encoding="utf-8") if options and Path(options).is_file() else str(options or "")
