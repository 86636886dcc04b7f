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
from robustdistiller.eval.conditions.sources import Sources
from robustdistiller.eval.results.identity import condition_digest
from robustdistiller.eval.results.record import NO_CHECKPOINT, NO_HEAD, Metric, Record
from robustdistiller.eval.run.run_info import identify_weights, read_options, versions
from robustdistiller.eval.run.specs import HeadSpec, Upstream
from robustdistiller.eval.sweep.config import SweepConfig, SweepError, TaskEntry
from robustdistiller.eval.sweep.work import CODE_FILE
from robustdistiller.eval.tasks.rules import IDLE, Split, deviations, split
from robustdistiller.upstream import ModelName, checkpoint_digest
from robustdistiller.upstream.s3prl.entries import find_checkpoint

# What of a head's free settings is not in the name of its place: each rate has a place below it.
_NOT_IN_THE_PLACE = ("lr", *IDLE)


@dataclass(frozen=True, eq=False)
class System:
    """An upstream of the sweep, and what its weights are.

    Attributes:
        upstream: as in the sweep's file.
        weights: SHA-256 of its checkpoint, file or folder, or of its tensors where it is in memory; empty where it
            fetches its own weights, or has none.
        root: folder of the sweep.
    """

    upstream: Upstream
    weights: str
    root: Path

    @cached_property
    def options(self) -> str:
        """What its options file says."""
        return read_options(self.upstream.options)

    @property
    def arguments(self) -> dict[str, Any]:
        """s3prl's settings of how its features reach the head."""
        return {
            "upstream_feature_selection": self.upstream.feature_selection,
            "upstream_layer_selection": self.upstream.layer,
        }

    @property
    def identity(self) -> list[Any]:
        """What tells it from other upstreams, JSON-able: its label does not."""
        one = self.upstream
        given = "" if self.weights else one.checkpoint
        return [one.name, self.weights, given, self.options, one.feature_selection, one.layer]

    @property
    def place(self) -> str:
        """Its folder below ``heads/`` and ``jobs/``."""
        return f"{slug(self.upstream.name)}-{self.weights[:12] or NO_CHECKPOINT}"

    @cached_property
    def look_folder(self) -> Path:
        """Of the job that looks at it first."""
        return self.root / "jobs" / self.place / f"check-{short_digest(self.identity)}"


@dataclass(frozen=True, eq=False)
class Group:
    """What shares heads: one upstream on one task, or one fold of it, with one seed.

    Attributes:
        sweep: that it is part of.
        system, task, fold, seed: what is measured.
        config: configuration of the heads; its learning rate is the task's default.
        learning_rates: to choose from, the largest first; empty for a task without a trained head.
        sources: what each test condition draws from, name and digest of each kind, in the order of evaluation.
        leader: the group whose learning rate is taken over; None where the group chooses its own.
    """

    sweep: SweepConfig
    system: System
    task: TaskEntry
    fold: str
    seed: int
    config: Mapping[str, Any]
    learning_rates: tuple[float, ...]
    sources: Mapping[Condition, Mapping[str, Mapping[str, Any]]]
    leader: Group | None = None

    @property
    def title(self) -> str:
        fold = f" {self.fold}" if self.fold else ""
        return f"{self.system.upstream.label} / {self.task.name}{fold} / seed {self.seed}"

    @cached_property
    def settings(self) -> Split:
        """What the task's rules fix of its configuration, and what they leave free."""
        return self._split("")

    @cached_property
    def rules(self) -> set[str]:
        """Digests of what the rules fix: heads that need means only never see half precision."""
        kinds = ("", "frames float16") if self._half_precision else ("",)
        return {self._split(kind).digest for kind in kinds}

    @property
    def _half_precision(self) -> bool:
        plan = self.sweep.feature_plan
        return plan.folder is not None and plan.dtype == "fp16"

    def _split(self, features: str) -> Split:
        return split(self.task.registry, self.config, self.system.arguments, features=features, quick=self.quick)

    @property
    def quick(self) -> str:
        """Label of the part of the data that is looked at; empty for all of it."""
        return self.sweep.quick_look.label if self.sweep.quick_look else ""

    @property
    def has_choice(self) -> bool:
        """Whether the learning rate is chosen here, by the development set that s3prl scores while it trains."""
        return self.leader is None and bool(self.config["runner"]["eval_dataloaders"])

    @cached_property
    def place(self) -> str:
        """Its folder below ``heads/`` and ``jobs/``: other weights or settings, another place.

        Learning rates are no part of it, so that a longer list reuses heads of a shorter one; nor is where data lies.
        """
        roots = {root.key.removeprefix("config.") for root in self.task.registry.roots}
        free = {
            key: value
            for key, value in self.settings.free.items()
            if key not in roots and key.rsplit(".", 1)[-1] not in _NOT_IN_THE_PLACE
        }
        identity = [self.system.identity, self.task.registry.code, self.settings.fixed, free, self.seed, self.fold]
        identity += ["fp16"] if self._half_precision else []
        fold = f"-{slug(self.fold)}" if self.fold else ""
        return f"{self.system.place}/{slug(self.task.name)}{fold}-seed{self.seed}-{short_digest(identity)}"

    @property
    def folder(self) -> Path:
        """Of its heads and their choice."""
        return self.sweep.root / "heads" / self.place

    @property
    def jobs(self) -> Path:
        """Of the files of its jobs, one folder below it for each: ``lr-RATE`` and ``evaluate``."""
        return self.sweep.root / "jobs" / self.place

    @cached_property
    def cells(self) -> list[Cell]:
        """One per split and condition."""
        return [Cell(self, split, condition) for split in self.task.splits for condition in self.sources]


@dataclass(frozen=True)
class Head:
    """One head of a group; of a task without a trained head, its learning rate is None."""

    group: Group
    learning_rate: float | None

    @property
    def name(self) -> str:
        return "untrained" if self.learning_rate is None else f"lr-{self.learning_rate:g}"

    @property
    def job_folder(self) -> Path:
        """Of the job that trains it."""
        return self.group.jobs / self.name

    @property
    def code(self) -> str:
        """Digest of the upstream's source code that it was trained with; empty where that is not known."""
        path = self.job_folder / CODE_FILE
        return path.read_text(encoding="utf-8") if path.is_file() else ""

    @property
    def spec(self) -> HeadSpec:
        """All that decides how it is trained."""
        group, config = self.group, dict(self.group.config)
        if self.learning_rate is not None:
            config["optimizer"] = {**config["optimizer"], "lr": self.learning_rate}
        return HeadSpec(
            upstream=group.system.upstream,
            task=group.task.registry,
            config=config,
            folder=group.folder / self.name,
            seed=group.seed,
            device=group.sweep.job_device,
            features=group.sweep.feature_plan,
            quick=group.sweep.quick_look,
            threads=group.sweep.executor.threads,
        )


@dataclass(frozen=True)
class Cell:
    """One number to measure: a group's chosen head on a split under a condition."""

    group: Group
    split: str
    condition: Condition

    @property
    def title(self) -> str:
        split = f" / {self.split}" if len(self.group.task.splits) > 1 else ""
        return f"{self.group.title}{split} / {self.condition.label}"

    @cached_property
    def condition_digest(self) -> str:
        """What decides how its audio sounds, as records have it."""
        sources = self.group.sources[self.condition]
        return condition_digest(self.condition.label, sources, self.group.sweep.corruption_seed)

    def failed_record(self, reason: str, start_utc: str, loaded: Mapping[str, Any]) -> Record:
        """The record of the cell where there was no head to evaluate, or its evaluation left none."""
        group, task, system = self.group, self.group.task.registry, self.group.system
        in_file = bool(system.weights) and system.upstream.module is None
        return Record(
            upstream=system.upstream.name,
            label=system.upstream.label,
            upstream_options=system.options,
            upstream_code=loaded.get("code", ""),
            checkpoint=ModelName.short_of(system.upstream.checkpoint),
            checkpoint_digest=system.weights or loaded.get("weights", ""),
            checkpoint_digest_of="file" if in_file else loaded.get("weights_of", "none"),
            parameters=loaded.get("parameters"),
            task=task.code,
            downstream=task.downstream,
            head_digest=NO_HEAD,
            rules_digest=group.settings.digest,
            settings=group.settings.free,
            condition=self.condition.label,
            condition_parameters=self.condition.to_dict(),
            sources={kind: dict(one) for kind, one in group.sources[self.condition].items()},
            corruption_seed=0 if self.condition.kind == "clean" else group.sweep.corruption_seed,
            split=self.split,
            fold=group.fold,
            metrics=[Metric(m.name, None, m.higher_is_better, m.unit, "not evaluated") for m in task.metrics],
            items_expected=None,
            items_scored=0,
            learning_rate=None,
            seed=group.seed,
            versions=versions(),
            device=group.sweep.job_device,
            start_utc=start_utc,
            duration_s=0.0,
            status="failed",
            reason=reason,
            quick=group.quick,
            non_standard=deviations(task, group.settings),
        )


def expand(sweep: SweepConfig, sources: Sources | None = None) -> list[Group]:
    """All groups of a sweep, tasks outermost, so that a table fills row by row.

    Raises:
        SweepError: missing data or checkpoints, keys that do not exist, a grid of learning rates on a task without a
            development set.
        FileNotFoundError, ValueError: a source cannot be read or has no fitting room.
    """
    tasks = []
    for task in sweep.tasks:
        configs = [(fold, task.compose(fold)) for fold in task.folds or [""]]
        heads = [(fold, config, learning_rates(sweep, task, config)) for fold, config in configs]
        tasks.append((task, sweep.conditions_of(task), heads))
    systems = [System(one, _weights(one), sweep.root) for one in sweep.upstreams]  # downloads: when all else is there
    sources = sources or sweep.sources
    corruptors = sources.corruptors([one for _, found, _ in tasks for one in found], sweep.corruption_seed)
    described = {condition: sources.describe(condition, one) for condition, one in corruptors.items()}
    groups: dict[str, Group] = {}
    for task, conditions, heads in tasks:
        drawn = {condition: described[condition] for condition in conditions}
        for system in systems:
            leader = None
            for seed in sweep.upstream_seeds.get(system.upstream.label, sweep.seeds):
                for fold, config, rates in heads:
                    group = Group(sweep, system, task, fold, seed, config, rates, drawn, leader)
                    if leader is None and sweep.search == "once" and len(rates) > 1:
                        leader = group
                    other = groups.setdefault(group.place, group)
                    if other is not group:
                        raise SweepError(
                            f"{other.title} and {group.title} are the same upstream on the same task; drop one"
                        )
    return list(groups.values())


def learning_rates(sweep: SweepConfig, task: TaskEntry, config: Mapping[str, Any]) -> tuple[float, ...]:
    """The learning rates to try on a task, the largest first.

    Raises:
        SweepError: a rate that is not positive, one set by `override`, or several where s3prl scores no development
            set while it trains.
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


def short_digest(identity: Any) -> str:
    """Of JSON-able values, eight digits."""
    return hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()[:8]


def _weights(upstream: Upstream) -> str:
    if upstream.module is not None:
        weights, of = identify_weights(upstream.module, None)
        return weights if of == "tensors" else ""
    try:  # downloaded now: heads are kept by this digest, on machines that may have no network
        path = find_checkpoint(upstream.name, upstream.checkpoint)
        return "" if path is None else checkpoint_digest(path)
    except (FileNotFoundError, ValueError) as error:
        raise SweepError(f"upstream {upstream.label}: {error}") from error
