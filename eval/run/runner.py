"""s3prl's runner, evaluating under conditions and writing records; everything else is s3prl's."""

from __future__ import annotations

import copy
import dataclasses
import json
import logging
import math
import time
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from dataclasses import dataclass, field
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import torch

from robustdistiller.acoustics import Condition, Corruptor
from robustdistiller.common.files import file_digest, slug, write_text
from robustdistiller.eval import tasks
from robustdistiller.eval.conditions.asv_sides import sides_apart
from robustdistiller.eval.conditions.loader import ConditionLoader
from robustdistiller.eval.conditions.manifest import SUFFIX
from robustdistiller.eval.conditions.replay import ReplayedCorruptor
from robustdistiller.eval.conditions.sources import Sources
from robustdistiller.eval.conditions.train_condition import TrainingPlan, read_note
from robustdistiller.eval.report.robustness import CLEAN
from robustdistiller.eval.results.files import decide, look_up, record_path, write_record
from robustdistiller.eval.results.identity import made_digest
from robustdistiller.eval.results.item_scores import NoOutcomes, Outcomes, check_against, outcomes_of, write_outcomes
from robustdistiller.eval.results.record import Metric, Record
from robustdistiller.eval.run.cache import CachePlan
from robustdistiller.eval.run.cache.source_code import upstream_code
from robustdistiller.eval.run.cache.wrapper import CachedUpstream
from robustdistiller.eval.run.dev_choice import append_scores, read_selection
from robustdistiller.eval.run.head_checkpoint import LaunchError
from robustdistiller.eval.run.run_info import (
    git_state,
    identify_weights,
    read_options,
    tf32_enabled,
    versions,
)
from robustdistiller.eval.tasks import Task
from robustdistiller.eval.tasks.rules import deviations, split, test_set_deviations
from robustdistiller.eval.tasks.scoring import OfficialScore, official_score
from robustdistiller.upstream import ModelName

logger = logging.getLogger(__name__)

# What makes a head that was not trained: how the upstream's output reaches it.
_HEAD_ARGUMENTS = (
    "upstream_trainable",
    "upstream_feature_selection",
    "upstream_layer_selection",
    "upstream_feature_normalize",
    "downstream_variant",
)

# Attributes of experts that say where predictions are written, and where below an output folder they point.
_FEATURES_NOTE = "feature-cache.json"
_OUTPUT_FOLDERS = {"expdir": "", "score_dir": "scoring"}


@dataclass
class EvaluationPlan:
    """What an evaluation run is asked to do.

    Attributes:
        task: registry entry; None for a downstream this project does not know (then stock evaluation, no records).
        corruptors: test conditions in the order they are evaluated, each with what carries it out (None for clean); a
            `ReplayedCorruptor` replays a manifest.
        sources: noise, rooms and speech for all of them.
        records: folder of records.
        overwrite: one of `files.POLICIES`.
        label: name of the upstream in tables; empty for the upstream's own.
        dump_audio: number of utterances per condition to write, to listen to.
        dump_folder: where; None is the experiment's folder.
        save_manifest: folder for one manifest per condition; each is also in the experiment's folder.

    Example:
        >>> [str(condition) for condition in EvaluationPlan(task=None).corruptors]
        ['clean']
    """

    task: Task | None
    corruptors: Mapping[Condition, Corruptor | None] = field(default_factory=lambda: {Condition(): None})
    sources: Sources = field(default_factory=Sources)
    records: Path = Path("records")
    overwrite: str = "rerun"
    label: str = ""
    dump_audio: int = 0
    dump_folder: Path | None = None
    save_manifest: Path | None = None


class ScoreLogger:
    """Stands where s3prl's experts expect a TensorBoard writer, and keeps the scalars.

    Args:
        writer: the TensorBoard writer behind it, which everything is handed on to; None without one.

    Example:
        >>> scores = ScoreLogger()
        >>> scores.add_scalar("fluent_commands/test-acc", 0.5, global_step=0)
        >>> scores.add_audio("mixture", [0.0])
        >>> scores.scalars
        {'fluent_commands/test-acc': 0.5}
    """

    def __init__(self, writer: Any = None) -> None:
        self.scalars: dict[str, float] = {}
        self._writer = writer

    def add_scalar(self, tag: str, value: float, *args: Any, **options: Any) -> None:
        """Keep one scalar and hand it on."""
        self.scalars[tag] = float(value)
        if self._writer is not None:
            self._writer.add_scalar(tag, value, *args, **options)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("add_") or name in ("flush", "close"):
            return (lambda *_, **__: None) if self._writer is None else getattr(self._writer, name)
        raise AttributeError(name)


class ConditionRunner:
    """Put before s3prl's ``Runner`` in a class: ``-m evaluate`` runs each condition of `plan` and writes its record.

    Model, head and data are loaded once. Training, and the evaluation of the development set during training, go
    straight to s3prl.
    """

    plan: EvaluationPlan
    training: TrainingPlan | None = None
    feature_plan: CachePlan = CachePlan()
    _cached: CachedUpstream | None = None

    def __init__(self, args: Any, config: Mapping[str, Any]) -> None:
        self._config_as_given = copy.deepcopy(config)  # experts change theirs
        super().__init__(args, config)

    def _get_upstream(self) -> Any:
        try:
            entry = super()._get_upstream()
        except ValueError as error:
            raise LaunchError(f"upstream {self.args.upstream}: {error}") from error
        if not entry.trainable and hasattr(entry.model, "accelerate"):  # one of ours
            entry.model.accelerate()
        return entry

    def train(self) -> None:
        """s3prl's training; on corrupted audio when a training condition was asked for."""
        expert = self.downstream.model
        stock = expert.get_dataloader
        if self.training is not None:
            expert.get_dataloader = self.training.wrap(stock, self.config["runner"].get("train_dataloader", "train"))
        cached = self._open_cache()
        if cached is not None:
            text = json.dumps({"features": cached.features}) + "\n"
            write_text(Path(self.args.expdir) / _FEATURES_NOTE, text)
            expert.get_dataloader = cached.announcing(expert.get_dataloader)
        try:
            super().train()
        finally:
            expert.get_dataloader = stock
            self._say_what_was_cached()

    def evaluate(self, split: str | None = None, writer: Any = None, global_step: int = 0) -> list[str]:
        """Evaluate under each condition when called by the command line.

        During training it is s3prl's evaluation, unchanged; its scores are kept in a file beside the head.
        """
        if split is not None:  # during training
            scores = ScoreLogger(writer)
            expert = self.downstream.model
            stock = expert.get_dataloader
            expert.get_dataloader = lambda *args, **options: self._ahead(stock(*args, **options))
            try:
                saved = super().evaluate(split, scores, global_step)
            finally:
                expert.get_dataloader = stock
            append_scores(self.args.expdir, split, global_step, scores.scalars, saved)
            return saved
        if self.plan.task is None:
            return super().evaluate(split, writer, global_step)
        expert = self.downstream.model
        replaced = ("get_dataloader", "log_records", *_OUTPUT_FOLDERS)
        stock = {name: getattr(expert, name) for name in replaced if hasattr(expert, name)}
        # One loader for all conditions: some experts build a dataset, or change their settings, on every call.
        loader = expert.get_dataloader(self.args.evaluate_split)
        try:
            failures = []
            cached = self._open_cache()
            for condition, corruptor in self.plan.corruptors.items():
                if cached is not None:
                    cached.keeps = corruptor is None or self.feature_plan.keep_conditions
                try:
                    self._evaluate_condition(condition, corruptor, loader, stock["log_records"])
                except Exception as error:  # noqa: BLE001 - raised again after the other conditions
                    logger.error("%s: failed, %s: %s", condition.label, type(error).__name__, error)
                    failures.append(error)  # its record says so; the other conditions go on
            self._say_what_was_cached()
            if failures:
                raise failures[0]
        finally:
            for name, value in stock.items():
                setattr(expert, name, value)
        return []

    def _evaluate_condition(
        self, condition: Condition, corruptor: Corruptor | None, loader: Any, log_records: Callable
    ) -> None:
        planned = self._blank_record(condition, corruptor)
        folder = self._folder_of(planned, corruptor)
        decision = decide(look_up(self.plan.records, planned), self.plan.overwrite)
        logger.info("%s: %s", condition.label, decision.why)
        if not decision.run:
            if self.plan.save_manifest is not None and corruptor is not None:
                logger.warning("%s: no manifest is written for a cell that is not run", condition.label)
            return
        if corruptor is not None:
            self._write_predictions_to(folder)
        with sides_apart(self.downstream.model, loader) if "side" in condition else nullcontext(loader) as heard:
            self._run(planned, corruptor, heard, folder, log_records)

    def _folder_of(self, planned: Record, corruptor: Corruptor | None) -> Path:
        """Where predictions go; those of a condition stand beside those of clean audio, not over them."""
        folder = Path(self.args.expdir)
        if corruptor is None:
            return folder
        return folder / "conditions" / record_path(self.plan.records, planned).parent.name

    def _run(
        self, planned: Record, corruptor: Corruptor | None, loader: Any, folder: Path, log_records: Callable
    ) -> None:
        examples = self.plan.dump_folder and self.plan.dump_folder / slug(planned.condition)
        view = ConditionLoader(
            loader, corruptor, self.plan.task, examples or folder / "audio", self.plan.dump_audio, self._ahead
        )
        self.downstream.model.get_dataloader = lambda *_, **__: view
        items: list[Outcomes | str] = []

        def log_and_keep(split: str, records: Mapping[str, Any], **others: Any) -> Any:
            try:
                items.append(outcomes_of(self.plan.task, records, view.recordings))
            except (NoOutcomes, KeyError) as error:  # then the score has no interval; it stands all the same
                items.append(str(error))
            return log_records(split, records=records, **others)

        self.downstream.model.log_records = log_and_keep
        scores, started = ScoreLogger(), time.perf_counter()
        logger.info("%s: evaluating split %s", planned.condition, self.args.evaluate_split)
        try:
            super().evaluate(self.args.evaluate_split, scores, 0)
            official = official_score(self.plan.task, self.downstream.model, self.args.evaluate_split, view.recordings)
            outcome = self._outcome(view, scores.scalars, planned, official)
        except Exception as error:
            reason = f"{type(error).__name__}: {error}"
            self._write(planned, {"status": "failed", "reason": reason, "items_scored": view.items_scored}, started)
            raise
        if isinstance(corruptor, ReplayedCorruptor):
            logger.info("%s: %s", planned.condition, corruptor.compare(view.drawn))
        if corruptor is not None:
            self._save_manifest(view, planned, folder, complete=outcome["status"] == "ok")
        kept = items[0] if items else None
        if isinstance(kept, Outcomes) and official is not None and official.items is not None:
            kept = kept.with_metric(official.metric, official.ids, official.items)
        self._write(planned, outcome, started, kept)

    def _save_manifest(self, view: ConditionLoader, planned: Record, folder: Path, complete: bool) -> None:
        seed, label = planned.corruption_seed, planned.condition
        manifest = view.manifest(split=planned.split, condition=label, seed=seed, sources=planned.sources)
        manifest.save(folder / f"manifest{SUFFIX}")
        if self.plan.save_manifest is None:
            return
        if not complete:
            logger.warning("%s: no manifest is written, the split was not evaluated to its end", label)
            return
        name = f"{planned.task}-{slug(planned.split)}-{folder.name}{SUFFIX}"
        logger.info("%s: manifest %s", label, manifest.save(self.plan.save_manifest / name))

    def _write_predictions_to(self, folder: Path) -> None:
        expert = self.downstream.model
        for name, subfolder in _OUTPUT_FOLDERS.items():
            if hasattr(expert, name):
                (folder / subfolder / "predictions" if subfolder else folder).mkdir(parents=True, exist_ok=True)
                setattr(expert, name, type(getattr(expert, name))(folder / subfolder))

    def _outcome(
        self, view: ConditionLoader, scalars: Mapping[str, float], planned: Record, official: OfficialScore | None
    ) -> dict[str, Any]:
        """Scores and status of a finished evaluation, as fields of a record."""
        task = self.plan.task
        scores = task.scores(scalars, self.args.evaluate_split)
        metrics, status, reason = [], "ok", ""
        for metric in task.metrics:
            value, why = scores.get(metric.name), ""
            if official is not None and metric.name == official.metric:
                value, why = official.value, official.reason
            elif value is None:
                why = "not logged by s3prl"
            elif not math.isfinite(value):
                value, why = None, f"s3prl computed {value}"
                status, reason = "failed", f"{metric.name}: {why}"
            metrics.append(Metric(metric.name, value, metric.higher_is_better, metric.unit, why))
        if status == "ok" and view.items_scored != view.items_expected:
            status = "partial"
            reason = f"{view.items_scored} of {view.items_expected} items scored (runner.evaluate_ratio below 1?)"
        return {
            "metrics": metrics,
            "status": status,
            "reason": reason,
            "items_scored": view.items_scored,
            "items_expected": view.items_expected,
            "non_standard": [
                *(planned.non_standard or []),
                *test_set_deviations(task, planned.split, view.items_expected, planned.fold),
            ],
            "scoring": dict(official.settings) if official is not None and official.settings else None,
            "manifest_digest": view.manifest_digest(),
            "audio_digest": view.audio_digest(),
        }

    def _write(
        self, planned: Record, outcome: dict[str, Any], started: float, items: Outcomes | str | None = None
    ) -> None:
        values = {**planned.to_dict(), **outcome, "duration_s": round(time.perf_counter() - started, 3)}
        record = Record.from_dict(values)
        if record.status == "ok" and items is not None:
            record = self._write_items(record, items)
        path = write_record(self.plan.records, record)
        logger.info("%s: %s, record %s", record.condition, _describe(record), path)

    def _write_items(self, record: Record, items: Outcomes | str) -> Record:
        """Write the results of single items beside the record to be, which then points to them."""
        try:
            if isinstance(items, str):
                raise NoOutcomes(items)
            check_against(items, record)
        except NoOutcomes as error:
            logger.info("%s: no results of single items, so no intervals: %s", record.condition, error)
            return record
        path = record_path(self.plan.records, record).with_suffix(".npz")
        return dataclasses.replace(record, outcomes=write_outcomes(path, items))

    def _blank_record(self, condition: Condition, corruptor: Corruptor | None) -> Record:
        """Everything about a cell that is known before it is evaluated."""
        upstream, task = self._cached.upstream if self._cached else self.upstream.model, self.plan.task
        digest, digest_of = self._weights()
        weights = getattr(self.featurizer.model, "weights", None)
        beside = Path(self.args.init_ckpt).parent if self.args.init_ckpt else None
        selection, trained = (read_selection(beside), read_note(beside)) if beside else (None, None)
        train_condition = trained["train_condition"] if trained else CLEAN
        kept = self._kept_features(beside)
        run = {"train_condition": train_condition, "features": kept}
        rules = split(task, self._config_as_given, vars(self.args), **run)
        if isinstance(corruptor, ReplayedCorruptor):
            sources = corruptor.manifest.sources  # its recordings are these, byte for byte
        else:
            sources = self.plan.sources.describe(condition, corruptor)
        return Record(
            upstream=self.args.upstream,
            label=self.plan.label,
            upstream_options=read_options(self.args.upstream_model_config),
            checkpoint=ModelName.short_of(self.args.upstream_ckpt),
            upstream_code=upstream_code(upstream),
            checkpoint_digest=digest,
            checkpoint_digest_of=digest_of,
            # A file that another runtime runs has no parameters here, and says how many it holds.
            parameters=getattr(upstream, "num_parameters", 0) or sum(p.numel() for p in upstream.parameters()),
            task=task.code,
            downstream=self.args.downstream,
            head_digest=self._head_digest(),
            rules_digest=rules.digest,
            settings=rules.free,
            train_condition=train_condition,
            selection=selection,
            feature_cache=kept,
            non_standard=deviations(task, self._config_as_given, vars(self.args), **run),
            condition=condition.label,
            condition_parameters=condition.to_dict(),
            sources=sources,
            corruption_seed=corruptor.seed if corruptor is not None else 0,
            split=self.args.evaluate_split,
            fold=self.downstream.model.fold if task.folds else "",
            metrics=[],
            status="failed",
            reason="not evaluated",
            items_expected=None,
            items_scored=0,
            learning_rate=(self.config.get("optimizer") or {}).get("lr"),
            seed=self.args.seed,
            step=self.init_ckpt.get("Step"),
            versions=versions(),
            git=git_state(),
            device=_device_name(self.args.device),
            threads=torch.get_num_threads(),
            tf32=tf32_enabled(),
            start_utc=datetime.now(timezone.utc).isoformat(timespec="seconds"),
            duration_s=0.0,
            layer_weights=None if weights is None else torch.softmax(weights.detach().float().cpu(), 0).tolist(),
        )

    def _head_digest(self) -> str:
        """Of the checkpoint that is evaluated; without one, of how the head was made."""
        if not hasattr(self, "_head"):
            made = {name: getattr(self.args, name, None) for name in (*_HEAD_ARGUMENTS, "seed")}
            self._head = file_digest(self.args.init_ckpt) if self.args.init_ckpt else made_digest(**made)
        return self._head

    def _open_cache(self) -> CachedUpstream | None:
        """The upstream gets a cache, where one was asked for."""
        task = tasks.identify(self.args.downstream, self.config)
        digest, digest_of = self._weights()
        training = self.args.mode == "train"
        self._cached = self.feature_plan.open(
            self.upstream.model,
            self.featurizer.model,
            self.downstream.model,
            identity={
                "upstream": self.args.upstream,
                "weights": digest,
                "weights_of": digest_of,
                "upstream_options": read_options(self.args.upstream_model_config),
                "device": str(self.args.device).partition(":")[0],
                "versions": {name: versions()[name] for name in ("robustdistiller", "s3prl", "torch")},
            },
            device=self.args.device,
            pooled_head=task is not None and task.pooled_head and not self.config.get("specaug"),
            training=training,
            crops=training and (self.training is not None or (task is not None and task.random_crops)),
        )
        if self._cached is not None:
            self.upstream.model = self._cached
        return self._cached

    def _ahead(self, loader: Any) -> Any:
        return self._cached.ahead(loader) if self._cached else loader

    def _say_what_was_cached(self) -> None:
        if self._cached:
            logger.info("Feature cache: %s", self._cached.summary())

    def _kept_features(self, beside: Path | None) -> dict[str, str]:
        """What features of a cache the head was trained on and is evaluated on."""
        note = beside / _FEATURES_NOTE if beside else None
        trained = json.loads(note.read_text(encoding="utf-8"))["features"] if note and note.is_file() else ""
        kept = {"training": trained, "evaluation": self._cached.features if self._cached else ""}
        return {when: what for when, what in kept.items() if what}

    def _weights(self) -> tuple[str, str]:
        if not hasattr(self, "_identified"):
            checkpoint = getattr(self.upstream.model, "checkpoint_path", None) or self.args.upstream_ckpt
            self._identified = identify_weights(self.upstream.model, checkpoint)
        return self._identified


def _device_name(device: str) -> str:
    if str(device).startswith("cuda") and torch.cuda.is_available():
        return f"{device} ({torch.cuda.get_device_name(device)})"
    return str(device)


def _describe(record: Record) -> str:
    scores = ", ".join(f"{m.name} {m.value:.2f}{m.unit}" for m in record.metrics if m.value is not None)
    count = f"{record.items_scored} items"
    return f"{scores or 'no score'} ({count})" + (
        "" if record.status == "ok" else f", {record.status}: {record.reason}"
    )
