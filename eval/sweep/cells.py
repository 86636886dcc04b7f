"""A sweep taken apart: groups (one upstream on one task with one seed), their heads and their cells."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timezone
from functools import cached_property
from pathlib import Path
from typing import Any

from robustdistiller.acoustics import Condition
from robustdistiller.common.files import slug
from robustdistiller.eval.results.record import NO_CHECKPOINT, NO_HEAD, Metric, Record
from robustdistiller.eval.run.quick import Quick
from robustdistiller.eval.run.run_info import read_options, versions
from robustdistiller.eval.sweep.config import SweepConfig, SweepError, TaskEntry, UpstreamEntry
from robustdistiller.eval.tasks.rules import Split, deviations, split
from robustdistiller.upstream import ModelName, checkpoint_digest
from robustdistiller.upstream.s3prl.entries import find_checkpoint

# What of a head's free settings changes nothing in it.
_NOT_OF_THE_HEAD = ("lr", "num_workers", "max_workers", "log_step", "max_keep", "eval_batch_size", "eval_batchsize")


@dataclass(frozen=True, eq=False)
class Upstream:
    """An upstream of the sweep, and what its weights are.

    Attributes:
        entry: as in the sweep's file.
        weights: SHA-256 of its checkpoint, file or folder; empty where it fetches its own weights, or has none.
    """

    entry: UpstreamEntry
    weights: str = ""

    @cached_property
    def options(self) -> str:
        """What its options file says."""
        return read_options(self.entry.options)

    @property
    def arguments(self) -> dict[str, Any]:
        """s3prl's settings of how its features reach the head."""
        return {
            "upstream_feature_selection": self.entry.feature_selection,
            "upstream_layer_selection": self.entry.layer,
        }

    @property
    def identity(self) -> list[Any]:
        """What tells it from other upstreams, JSON-able: its label does not."""
        given = "" if self.weights else self.entry.checkpoint
        return [self.entry.name, self.weights, given, self.options, self.entry.feature_selection, self.entry.layer]

    @cached_property
    def digest(self) -> str:
        """Of its identity, eight digits."""
        return hashlib.sha256(json.dumps(self.identity).encode()).hexdigest()[:8]

    @property
    def place(self) -> str:
        """Its folder below ``heads/`` and ``jobs/``."""
        return f"{slug(self.entry.name)}-{self.weights[:12] or NO_CHECKPOINT}"


@dataclass(frozen=True, eq=False)
class Group:
    """What shares heads: one upstream on one task, or one fold of it, with one seed.

    Attributes:
        upstream, task, seed: what is measured.
        config: configuration of the heads; its learning rate is the task's default.
        learning_rates: to choose from, the largest first; empty for a task without a trained head.
        conditions: test conditions, in the order of evaluation.
        root: folder of the sweep.
        fold: test fold, of a task with folds.
        leader: the group whose learning rate is taken over; None where the group chooses its own.
        half_precision: features are kept in half precision.
        quick: the part of the data that is looked at; None for all of it.
    """

    upstream: Upstream
    task: TaskEntry
    seed: int
    config: Mapping[str, Any]
    learning_rates: tuple[float, ...]
    conditions: tuple[Condition, ...]
    root: Path
    fold: str = ""
    leader: Group | None = None
    half_precision: bool = False
    quick: Quick | None = None

    @property
    def title(self) -> str:
        """One line for the user."""
        fold = f" {self.fold}" if self.fold else ""
        return f"{self.upstream.entry.label} / {self.task.name}{fold} / seed {self.seed}"

    @cached_property
    def settings(self) -> Split:
        """What the task's rules fix of its configuration, and what they leave free."""
        return self._split("")

    @cached_property
    def rules(self) -> set[str]:
        """Digests of what the rules fix: heads that need means only never see half precision."""
        kinds = ("", "frames float16") if self.half_precision else ("",)
        return {self._split(kind).digest for kind in kinds}

    def _split(self, features: str) -> Split:
        quick = self.quick.label if self.quick else ""
        return split(self.task.registry, self.config, self.upstream.arguments, features=features, quick=quick)

    @property
    def scored_on_dev(self) -> bool:
        """Whether s3prl scores a development set while it trains."""
        return bool(self.config["runner"]["eval_dataloaders"])

    @cached_property
    def place(self) -> str:
        """Its folder below ``heads/`` and ``jobs/``: other weights or settings, another place.

        The learning rates are no part of it, so that a longer list reuses the heads of a shorter one; nor is where the
        data lies.
        """
        roots = {root.key.removeprefix("config.") for root in self.task.registry.roots}
        free = {
            key: value
            for key, value in self.settings.free.items()
            if key not in roots and key.rsplit(".", 1)[-1] not in _NOT_OF_THE_HEAD
        }
        identity = [self.upstream.identity, self.task.registry.code, self.settings.fixed, free, self.seed, self.fold]
        identity += ["fp16"] if self.half_precision else []
        short = hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()[:8]
        fold = f"-{slug(self.fold)}" if self.fold else ""
        return f"{self.upstream.place}/{slug(self.task.name)}{fold}-seed{self.seed}-{short}"

    @property
    def folder(self) -> Path:
        """Of its heads and their choice."""
        return self.root / "heads" / self.place

    def head(self, learning_rate: float) -> Head:
        """The head of one learning rate."""
        return Head(self, learning_rate)

    @cached_property
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
        return self.group.folder / self.name

    @property
    def job_folder(self) -> Path:
        """Where its training keeps its job's files."""
        return self.group.root / "jobs" / self.group.place / self.name

    @property
    def config(self) -> dict[str, Any]:
        """Its s3prl configuration."""
        return {**self.group.config, "optimizer": {**self.group.config["optimizer"], "lr": self.learning_rate}}


@dataclass(frozen=True)
class Draws:
    """What the conditions of a sweep draw from: by condition, name and digest of each kind of source.

    Attributes:
        sources: by condition, as records have it.
        seed: of what is drawn.
    """

    sources: Mapping[Condition, Mapping[str, Mapping[str, Any]]] = field(default_factory=dict)
    seed: int = 0


@dataclass(frozen=True)
class Cell:
    """One number to measure: a group's chosen head on a split under a condition."""

    group: Group
    split: str
    condition: Condition

    @property
    def title(self) -> str:
        """One line for the user."""
        split = f" / {self.split}" if len(self.group.task.splits) > 1 else ""
        return f"{self.group.title}{split} / {self.condition.label}"

    def failed_record(self, reason: str, draws: Draws, device: str, loaded: Mapping[str, Any]) -> Record:
        """The record of the cell where there was no head to evaluate, or its evaluation left none.

        Args:
            reason: why, in a sentence.
            draws: what the conditions draw from.
            device: where it was tried.
            loaded: what is known of the upstream, where it was loaded.
        """
        group, task, upstream = self.group, self.group.task.registry, self.group.upstream
        quick = group.quick.label if group.quick else ""
        return Record(
            upstream=upstream.entry.name,
            label=upstream.entry.label,
            upstream_options=upstream.options,
            checkpoint=ModelName.short_of(upstream.entry.checkpoint),
            checkpoint_digest=upstream.weights or loaded.get("weights", ""),
            checkpoint_digest_of="file" if upstream.weights else loaded.get("weights_of", "none"),
            parameters=loaded.get("parameters"),
            task=task.code,
            downstream=task.downstream,
            head_digest=NO_HEAD,
            rules_digest=group.settings.digest,
            settings=group.settings.free,
            condition=self.condition.label,
            condition_parameters=self.condition.to_dict(),
            sources={kind: dict(one) for kind, one in draws.sources[self.condition].items()},
            corruption_seed=0 if self.condition.kind == "clean" else draws.seed,
            split=self.split,
            fold=group.fold,
            metrics=[Metric(m.name, None, m.higher_is_better, m.unit, "not evaluated") for m in task.metrics],
            items_expected=None,
            items_scored=0,
            learning_rate=None,
            seed=group.seed,
            versions=versions(),
            device=device,
            start_utc=now_utc(),
            duration_s=0.0,
            status="failed",
            reason=reason,
            quick=quick,
            non_standard=deviations(task, group.config, upstream.arguments, quick=quick),
        )


def expand(sweep: SweepConfig) -> list[Group]:
    """All groups of a sweep, tasks outermost, so that a table fills row by row.

    Raises:
        SweepError: missing data or checkpoints, keys that do not exist, a grid of learning rates on a task without a
            development set.

    Example:
        >>> expand(SweepConfig(out="o", upstreams=[UpstreamEntry("fbank")], tasks=[TaskEntry("QbE")]))
        Traceback (most recent call last):
        robustdistiller.eval.sweep.entries.SweepError: QbE (query by example, QUESST 2014 English) needs data ...
    """
    runs = []
    for task in sweep.tasks:
        conditions = sweep.conditions_of(task)
        configs = [(fold, task.compose(fold)) for fold in task.folds or [""]]
        trainings = [(fold, config, learning_rates(sweep, task, config)) for fold, config in configs]
        runs.append((task, conditions, trainings))
    upstreams = [Upstream(entry, _weights(entry)) for entry in sweep.upstreams]  # downloads: when all else is there
    half = sweep.feature_plan.folder is not None and sweep.feature_cache_dtype == "fp16"
    groups: list[Group] = []
    places: dict[str, Group] = {}
    for task, conditions, trainings in runs:
        for upstream in upstreams:
            leader = None
            for seed in upstream.entry.seeds or sweep.seeds:
                for fold, config, rates in trainings:
                    group = Group(
                        upstream,
                        task,
                        seed,
                        config,
                        rates,
                        conditions,
                        sweep.root,
                        fold,
                        leader,
                        half,
                        sweep.quick_look,
                    )
                    if leader is None and sweep.search == "once" and len(rates) > 1:
                        leader = group
                    other = places.setdefault(group.place, group)
                    if other is not group:
                        raise SweepError(
                            f"{other.title} and {group.title} are the same upstream on the same task; drop one"
                        )
                    groups.append(group)
    return groups


def now_utc() -> str:
    """Of this moment, as records have it."""
    return datetime.now(timezone.utc).isoformat(timespec="seconds")


def draws_of(sweep: SweepConfig, groups: list[Group]) -> Draws:
    """Open the sources of all conditions.

    Raises:
        FileNotFoundError, ValueError: a source cannot be read or has no fitting room.
    """
    sources = sweep.sources
    conditions = dict.fromkeys(condition for group in groups for condition in group.conditions)
    corruptors = sources.corruptors(conditions, sweep.corruption_seed)
    described = {condition: sources.describe(condition, one) for condition, one in corruptors.items()}
    return Draws(described, sweep.corruption_seed)


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


def _weights(entry: UpstreamEntry) -> str:
    try:  # downloaded now: heads are kept by this digest, on machines that may have no network
        path = find_checkpoint(entry.name, entry.checkpoint)
        return "" if path is None else checkpoint_digest(path)
    except (FileNotFoundError, ValueError) as error:
        raise SweepError(f"upstream {entry.label}: {error}") from error
