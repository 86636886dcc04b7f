"""The evaluation of one head under several conditions, with head, upstream and data loaded once.

The expert's loader is wrapped for each condition, its predictions go to a folder of the condition's own, and its scores
become a record.
"""

from __future__ import annotations

import dataclasses
import logging
import math
import time
from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from robustdistiller.acoustics import Condition, Corruptor
from robustdistiller.common.files import slug
from robustdistiller.eval.conditions.asv_sides import sides_apart
from robustdistiller.eval.conditions.loader import ConditionLoader
from robustdistiller.eval.conditions.manifest import SUFFIX
from robustdistiller.eval.conditions.replay import ReplayedCorruptor
from robustdistiller.eval.conditions.sources import Sources
from robustdistiller.eval.results.files import decide, look_up, record_path, write_record
from robustdistiller.eval.results.item_scores import (
    ItemScores,
    NoOutcomes,
    Outcomes,
    check_against,
    outcomes_of,
    write_outcomes,
)
from robustdistiller.eval.results.record import Metric, Record
from robustdistiller.eval.run.head_note import HeadNote
from robustdistiller.eval.run.record_fields import (
    condition_fields,
    head_fields,
    machine_fields,
    upstream_fields,
)
from robustdistiller.eval.run.s3prl_runner import HeadRunner
from robustdistiller.eval.tasks import OfficialScore
from robustdistiller.eval.tasks.rules import test_set_deviations

logger = logging.getLogger(__name__)

# Attributes of experts that say where predictions are written, and where below an output folder they point.
_OUTPUT_FOLDERS = {"expdir": "", "score_dir": "scoring"}


@dataclass(frozen=True)
class AudioExamples:
    """Utterances of each condition that are written, to listen to.

    Attributes:
        count: of each condition.
        folder: of all; None for the head's own.
    """

    count: int = 0
    folder: Path | None = None


@dataclass
class Evaluation:
    """One head under several conditions; called with its runner.

    Attributes:
        note: beside the head.
        corruptors: conditions in the order of their evaluation, each with what carries it out (None for clean audio).
        sources, split, records, policy, since_utc, label, examples, save_manifests: of `evaluate.evaluate_head`.
        found: one record for each condition, once it is evaluated or taken from disk.
    """

    note: HeadNote
    corruptors: Mapping[Condition, Corruptor | None]
    sources: Sources
    split: str
    records: Path
    policy: str
    since_utc: str
    label: str
    examples: AudioExamples
    save_manifests: Path | None
    found: list[Record] = field(default_factory=list)

    def __call__(self, runner: HeadRunner) -> None:
        """Evaluate each condition. One that fails has a record that says so, and is raised after the others."""
        if not runner.upstream.trainable and runner.init_ckpt:
            self.note.require_upstream(runner.upstream_facts, Path(runner.args.init_ckpt).parent)
        expert = runner.downstream.model
        replaced = ("get_dataloader", "log_records", *_OUTPUT_FOLDERS)
        stock = {name: getattr(expert, name) for name in replaced if hasattr(expert, name)}
        # One loader for all conditions: some experts build a dataset, or change their settings, on every call.
        loader = stock["get_dataloader"](self.split)
        quick = runner.spec.quick
        if quick and not runner.task.scored_in_pairs:
            loader = quick.part_of(loader, self.split)
        items = ConditionLoader(loader, None, runner.task).items_expected
        failures = []
        for condition, corruptor in self.corruptors.items():
            if runner.cached is not None:
                runner.cached.keeps = corruptor is None or runner.spec.features.keep_conditions
            try:
                cell = self._cell(runner, condition, corruptor, items)
                known = look_up(self.records, cell)
                is_new = self.since_utc and isinstance(known, Record) and known.start_utc > self.since_utc
                decision = decide(known, "reuse" if is_new else self.policy)
                if decision.run:
                    self.found.append(_Run(self, runner, cell, corruptor).measure(loader))
                else:
                    logger.info("%s: %s", cell.condition, decision.why)
                    self.found += [decision.reused] if decision.reused else []
            except Exception as error:  # noqa: BLE001 - raised again after the other conditions
                logger.error("%s: failed, %s: %s", condition.label, type(error).__name__, error)
                failures.append(error)
            finally:
                for name, value in stock.items():
                    setattr(expert, name, value)
        if failures:
            raise failures[0]

    def _cell(self, runner: HeadRunner, condition: Condition, corruptor: Corruptor | None, items: int) -> Record:
        """All that is known about a cell before it is evaluated."""
        return Record(
            **upstream_fields(runner, self.label),
            **head_fields(runner, self.note),
            **condition_fields(condition, corruptor, self.sources),
            **machine_fields(runner),
            metrics=[],
            status="failed",
            reason="not evaluated",
            items_expected=items,
            items_scored=0,
            duration_s=0.0,
            split=self.split,
        )


class _Run:
    """The evaluation of one cell, of which `cell` says what is known before."""

    def __init__(self, evaluation: Evaluation, runner: HeadRunner, cell: Record, corruptor: Corruptor | None) -> None:
        self.evaluation, self.runner, self.cell, self.corruptor = evaluation, runner, cell, corruptor
        self.task, self.expert = runner.task, runner.downstream.model
        # Predictions of a condition stand beside those of clean audio, not over them.
        self.folder = Path(runner.args.expdir)
        if corruptor is not None:
            self.folder /= f"conditions/{record_path(evaluation.records, cell).parent.name}"
        self.items: Outcomes | str = "s3prl's expert logged nothing"
        self.started = time.perf_counter()

    def measure(self, loader: Any) -> Record:
        """Evaluate, and write the record."""
        self._write_predictions()
        sided = sides_apart(self.expert, loader) if "side" in self.cell.condition_parameters else nullcontext(loader)
        with sided as heard:
            view = self._view(heard)
            logger.info("%s: evaluating split %s", self.cell.condition, self.cell.split)
            try:
                scalars = self.runner.evaluate_once(self.cell.split)
                official = self.task.official_score(self.expert, self.cell.split, view.recordings)
                outcome = self._outcome(view, scalars, official)
            except Exception as error:
                self._write(status="failed", reason=f"{type(error).__name__}: {error}", items_scored=view.items_scored)
                raise
        if isinstance(self.corruptor, ReplayedCorruptor):
            logger.info("%s: %s", self.cell.condition, self.corruptor.compare(view.drawn))
        if self.corruptor is not None:
            self._save_manifest(view, complete=outcome["status"] == "ok")
        if isinstance(self.items, Outcomes) and official is not None and official.items is not None:
            above, below = (np.asarray(one) for one in official.items)
            try:
                self.items = self.items.with_metric(official.metric, official.ids, ItemScores(above, below))
            except NoOutcomes as error:
                self.items = str(error)
        return self._write(**outcome)

    def _view(self, loader: Any) -> ConditionLoader:
        """The loader under the condition, in the place of the expert's."""
        examples = self.evaluation.examples
        listen = examples.folder / slug(self.cell.condition) if examples.folder else self.folder / "audio"
        view = ConditionLoader(loader, self.corruptor, self.task, listen, examples.count, self.runner.ahead)
        self.expert.get_dataloader = lambda *_, **__: view
        log_records = self.expert.log_records

        def log_and_keep(split: str, records: Mapping[str, Any], **others: Any) -> Any:
            try:
                self.items = outcomes_of(self.task, records, view.recordings)
            except (NoOutcomes, KeyError) as error:  # then the score has no interval; it stands all the same
                self.items = str(error)
            return log_records(split, records=records, **others)

        self.expert.log_records = log_and_keep
        return view

    def _write_predictions(self) -> None:
        for name, below in _OUTPUT_FOLDERS.items():
            if hasattr(self.expert, name):
                (self.folder / below / "predictions" if below else self.folder).mkdir(parents=True, exist_ok=True)
                setattr(self.expert, name, type(getattr(self.expert, name))(self.folder / below))

    def _save_manifest(self, view: ConditionLoader, complete: bool) -> None:
        cell, folder = self.cell, self.evaluation.save_manifests
        header = {"condition": cell.condition, "seed": cell.corruption_seed, "sources": cell.sources}
        manifest = view.manifest(split=cell.split, **header)
        manifest.save(self.folder / f"manifest-{slug(cell.split)}{SUFFIX}")
        if folder is None:
            return
        if not complete:
            logger.warning("%s: no manifest is written, the split was not evaluated to its end", cell.condition)
            return
        name = f"{cell.task}-{slug(cell.split)}-{self.folder.name}{SUFFIX}"
        logger.info("%s: manifest %s", cell.condition, manifest.save(folder / name))

    def _outcome(
        self, view: ConditionLoader, scalars: Mapping[str, float], official: OfficialScore | None
    ) -> dict[str, Any]:
        """Scores and status, as fields of the record."""
        scores = self.task.scores(scalars, self.cell.split)
        metrics, status, reason = [], "ok", ""
        for metric in self.task.metrics:
            value, why = scores.get(metric.name), ""
            if official is not None and metric.name == official.metric:
                value, why = official.value, official.reason
            elif value is None:
                why = "not logged by s3prl"
            elif not math.isfinite(value):
                value, why = None, f"s3prl computed {value}"
                status, reason = "failed", f"{metric.name}: {why}"
            metrics.append(Metric(metric.name, value, metric.higher_is_better, metric.unit, why))
        expected = view.items_expected
        if status == "ok" and view.items_scored != expected:
            status = "partial"
            reason = f"{view.items_scored} of {expected} items scored (runner.evaluate_ratio below 1?)"
        other_set = test_set_deviations(self.task, self.cell.split, expected, self.cell.fold)
        return {
            "metrics": metrics,
            "status": status,
            "reason": reason,
            "items_scored": view.items_scored,
            "items_expected": expected,
            "non_standard": [*(self.cell.non_standard or []), *other_set],
            "scoring": dict(official.settings) if official is not None and official.settings else None,
            "manifest_digest": view.manifest_digest(),
            "audio_digest": view.audio_digest(),
        }

    def _write(self, **outcome: Any) -> Record:
        """The record of the cell, written; with the results of single items beside it where there are any.

        One that failed, or is of a part of its split, is not written over one that is finished.
        """
        duration_s = round(time.perf_counter() - self.started, 3)
        record = dataclasses.replace(self.cell, **outcome, duration_s=duration_s)
        root = self.evaluation.records
        in_words = f"{record.scores or 'no score'} ({record.items_scored} items)"
        in_words += f", {record.trouble}" if record.trouble else ""
        before = look_up(root, record)
        if record.status != "ok" and isinstance(before, Record) and before.finished:
            logger.error("%s: %s; the record of %s stays", record.condition, in_words, before.start_utc)
            return record
        if record.status == "ok":
            try:
                if isinstance(self.items, str):
                    raise NoOutcomes(self.items)
                check_against(self.items, record)
                path = record_path(root, record).with_suffix(".npz")
                record = dataclasses.replace(record, outcomes=write_outcomes(path, self.items))
            except NoOutcomes as error:
                logger.info("%s: no results of single items, so no intervals: %s", record.condition, error)
        logger.info("%s: %s, record %s", record.condition, in_words, write_record(root, record))
        return record
