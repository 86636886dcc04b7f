"""Records: what is known about one measured cell, validated. All tables, plots and leaderboards are made from these."""

from __future__ import annotations

import dataclasses
import json
import math
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from robustdistiller.common.settings import read
from robustdistiller.eval.results.migration import SCHEMA_VERSION, to_current

OUTCOMES_VERSION = 1
STATUSES = ("ok", "partial", "failed")
NO_CHECKPOINT = "none"
NO_HEAD = "none"
_HEX64 = re.compile(r"[0-9a-f]{64}")


class RecordError(ValueError):
    """A record, or a set of records, that must not be used."""


@dataclass(frozen=True)
class Metric:
    """One number of a cell.

    Attributes:
        name: as the task registry names it, e.g. ``accuracy`` or ``wer``.
        value: the number s3prl computed, accuracies and error rates in per cent; None when it could not be computed
            (then `reason` says why).
        higher_is_better: direction.
        unit: ``%``, ``dB`` or empty.
        reason: why there is no value.
    """

    name: str
    value: float | None
    higher_is_better: bool
    unit: str = ""
    reason: str = ""


@dataclass
class Record:
    """Everything that is known about one measured cell (see `eval.results.identity`). Validated on construction.

    Attributes:
        upstream: name of the upstream entry, as given to ``-u``.
        checkpoint_digest: SHA-256 of the upstream's checkpoint file (or of its tensors, see `checkpoint_digest_of`);
            ``none`` for upstreams without weights such as fbank, empty where a run failed before they were loaded.
        checkpoint_digest_of: ``file``, ``tensors`` or ``none``.
        parameters: parameters of the upstream that are used when features are extracted; None when not known.
        task: registry name of the task, e.g. ``IC``.
        downstream: s3prl's name of the task, e.g. ``fluent_commands``.
        condition: canonical one-line form of the test condition.
        metrics: the main metric first.
        items_expected: items of the split (None where the loader cannot tell).
        items_scored: items that reached the head.
        learning_rate: learning rate of the head; None without one.
        seed: seed of the head's training.
        versions: of our package, s3prl, torch, torchaudio and Python.
        device, threads, tf32: what computed it.
        start_utc: ISO 8601, UTC.
        duration_s: seconds from `start_utc` to the score.
        head_digest: SHA-256 of the evaluated head's checkpoint file; of a head without training the digest of how it
            was made; ``none`` when there is no head because its training failed; empty when not known.
        rules_digest: SHA-256 of what the task's rules fix, as this run has it; empty when not known.
        settings: what the run chose freely (learning rate, workers ...), by dotted key.
        label: name to show in tables; the upstream's name unless the user gave another.
        checkpoint: short name of the upstream's checkpoint.
        upstream_options: contents of the upstream's own options file (``-g``), empty without one.
        upstream_code: SHA-256 of the source files of an upstream that is neither this package's nor s3prl's.
        condition_parameters: the condition as a dictionary.
        sources: noise, RIR and speech the condition drew from: ``{"noise": {"name": ..., "digest": ...}}``.
        corruption_seed: seed of the drawn corruption.
        manifest_digest: SHA-256 over all drawn corruption parameters by utterance id; ``none`` when nothing was drawn.
        audio_digest: SHA-256 over the digests of the corrupted utterances' samples; empty for clean audio.
        split: evaluated split.
        fold: test fold of a task with cross-validation; empty for other tasks.
        train_condition: condition of the head's training audio.
        quick: what a quick look leaves out, in words; empty for a full run.
        step: training step of the evaluated head, where known.
        git: ``{"commit": ..., "dirty": ...}`` when run from a git checkout.
        status: ``ok``, ``partial`` (fewer items scored than expected) or ``failed``.
        reason: why the status is not ``ok``.
        macs: multiply-accumulate operations, where measured; otherwise `macs_note` says why not.
        layer_weights: learned softmax weights of the hidden states, where there are any.
        outcomes: where the results of the single items are (see `eval.results.item_scores`): ``{"version": 1,
            "file": name of a file beside the record, "sha256": ..., "items": ...}``; None where there are none.
        feature_cache: where the head was given kept features, which: of ``training`` and ``evaluation``, e.g.
            ``means float32``, exact but for rounding, or ``frames float16``.
        selection: how the head was chosen on the development set (see `eval.sweep.choice`); None for a head that
            was trained with one learning rate, by hand.
        non_standard: in what the run differs from the benchmark's rules (see `eval.tasks.rules`), one phrase each;
            empty for a standard run, None when not known.
        scoring: how a score that s3prl does not compute itself came about (see `eval.tasks.scoring`): thresholds,
            collar, costs; None where s3prl's is the benchmark's.
        unknown: names of fields that the version which wrote the record did not have.

    Raises:
        RecordError: a field is missing, has the wrong type, or contradicts another.
    """

    upstream: str
    checkpoint_digest: str
    checkpoint_digest_of: str
    parameters: int | None
    task: str
    downstream: str
    condition: str
    metrics: list[Metric]
    items_expected: int | None
    items_scored: int
    learning_rate: float | None
    seed: int
    versions: dict[str, str]
    device: str
    start_utc: str
    duration_s: float
    head_digest: str
    rules_digest: str
    settings: dict[str, Any] = field(default_factory=dict)
    label: str = ""
    checkpoint: str = ""
    upstream_options: str = ""
    upstream_code: str = ""
    condition_parameters: dict[str, Any] = field(default_factory=dict)
    sources: dict[str, dict[str, Any]] = field(default_factory=dict)
    corruption_seed: int = 0
    manifest_digest: str = "none"
    audio_digest: str = ""
    split: str = "test"
    fold: str = ""
    train_condition: str = "clean"
    quick: str = ""
    step: int | None = None
    git: dict[str, Any] | None = None
    threads: int = 1
    tf32: bool = False
    status: str = "ok"
    reason: str = ""
    macs: int | None = None
    macs_note: str = "not measured"
    layer_weights: list[float] | None = None
    outcomes: dict[str, Any] | None = None
    feature_cache: dict[str, str] = field(default_factory=dict)
    selection: dict[str, Any] | None = None
    non_standard: list[str] | None = None
    scoring: dict[str, Any] | None = None
    unknown: list[str] = field(default_factory=list)
    schema_version: int = SCHEMA_VERSION

    def __post_init__(self) -> None:
        self.label = self.label or self.upstream
        self.metrics = [metric if isinstance(metric, Metric) else Metric(**metric) for metric in self.metrics]
        problem = _find_problem(self)
        if problem:
            raise RecordError(problem)

    @property
    def main_metric(self) -> Metric:
        """The metric that tables show."""
        return self.metrics[0]

    def value(self, metric: str) -> float | None:
        """One of its metrics by name; None where it has none."""
        return next((one.value for one in self.metrics if one.name == metric), None)

    def to_dict(self) -> dict[str, Any]:
        """Plain data, JSON-able."""
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> Record:
        """Build a record from plain data; unknown and missing keys are refused. Older schemas are brought up to date.

        Raises:
            RecordError: with the offending keys.
        """
        try:
            data = to_current(data)
            record = read(cls, data)
        except ValueError as error:
            raise RecordError(str(error)) from error
        missing = {f.name for f in dataclasses.fields(cls)} - set(data)
        if missing:
            raise RecordError(f"missing keys: {', '.join(sorted(missing))}")
        return record


def _find_problem(record: Record) -> str:
    """The first contradiction in a record, or an empty string."""
    return next((problem for check in (_fields, _digests, _scores, _pointer, _plain) for problem in check(record)), "")


def _fields(record: Record) -> Iterator[str]:
    for name in ("upstream", "task", "downstream", "condition", "split", "device", "start_utc", "status"):
        if not isinstance(value := getattr(record, name), str) or not value:
            yield f"{name} must be a non-empty string, found {value!r}"
    for name in ("items_scored", "seed", "corruption_seed", "threads"):
        if not _is_whole(value := getattr(record, name)):
            yield f"{name} must be an integer, found {value!r}"
    for name in ("parameters", "macs", "step", "items_expected"):
        if (value := getattr(record, name)) is not None and not _is_whole(value):
            yield f"{name} must be an integer or null, found {value!r}"
    if record.status not in STATUSES:
        yield f"status must be one of {', '.join(STATUSES)}, found {record.status!r}"
    if record.status != "ok" and not record.reason:
        yield f"a record with status {record.status!r} needs a reason"
    marks = record.non_standard
    if marks is not None and not (isinstance(marks, list) and all(isinstance(one, str) and one for one in marks)):
        yield f"non_standard must be a list of phrases or null, found {marks!r}"


def _digests(record: Record) -> Iterator[str]:
    for kind, source in record.sources.items():
        if not source.get("digest"):
            yield f"sources.{kind} needs a digest, found {source!r}"

    unloaded = [""] if record.status == "failed" else []
    words = {"checkpoint_digest": [NO_CHECKPOINT, *unloaded], "head_digest": [NO_HEAD, ""], "rules_digest": [""]}
    for name, known in words.items():
        value = getattr(record, name)
        if value not in known and not _HEX64.fullmatch(str(value)):
            allowed = " or ".join(["64 hexadecimal digits", *(repr(word) if word else "empty" for word in known)])
            yield f"{name} must be {allowed}, found {value!r}"


def _scores(record: Record) -> Iterator[str]:
    if record.status != "failed" and not record.metrics:
        yield "a record needs at least one metric"
    for metric in record.metrics:
        if metric.value is None and not metric.reason:
            yield f"metric {metric.name!r} has neither a value nor a reason"
        if metric.value is not None and not math.isfinite(metric.value):
            yield f"metric {metric.name!r} must be a finite number, found {metric.value!r}"
    expected, scored = record.items_expected, record.items_scored
    if record.status == "ok" and (scored < 1 or expected not in (None, scored)):
        of_expected = "" if expected is None else f" of {expected}"
        yield (
            f"a record with {scored}{of_expected} items scored cannot have status 'ok'; "
            "expected 'partial' or 'failed' with a reason"
        )


def _pointer(record: Record) -> Iterator[str]:
    if (pointer := record.outcomes) is None:
        return
    keys = {"version", "file", "sha256", "items"}
    if not isinstance(pointer, dict) or set(pointer) != keys:
        yield f"outcomes must hold {', '.join(sorted(keys))}, found {pointer!r}"
    elif pointer["version"] != OUTCOMES_VERSION:
        yield f"outcomes have version {pointer['version']!r}, this release reads {OUTCOMES_VERSION}"
    elif not re.fullmatch(r"[^/\\.][^/\\]*\.npz", str(pointer["file"])):
        yield f"outcomes must name an .npz file beside the record, found {pointer['file']!r}"
    elif not _HEX64.fullmatch(str(pointer["sha256"])):
        yield f"outcomes need a sha256 of 64 hexadecimal digits, found {pointer['sha256']!r}"
    elif not isinstance(pointer["items"], int) or pointer["items"] < 1:
        yield f"outcomes need a positive number of items, found {pointer['items']!r}"


def _plain(record: Record) -> Iterator[str]:
    try:
        json.dumps(record.to_dict(), allow_nan=False)
    except (TypeError, ValueError) as error:
        yield f"a record must be plain JSON: {error}"


def _is_whole(value: object) -> bool:
    return type(value) is int and abs(value) < 2**63  # as tables hold them


def example_record(**changes: Any) -> Record:
    """A small valid record, for examples and tests."""
    values = {
        "upstream": "fbank",
        "checkpoint_digest": NO_CHECKPOINT,
        "checkpoint_digest_of": "none",
        "parameters": 0,
        "task": "IC",
        "downstream": "fluent_commands",
        "head_digest": "ab" * 32,
        "rules_digest": "cd" * 32,
        "condition": "clean",
        "metrics": [Metric("accuracy", 75.0, higher_is_better=True, unit="%")],
        "items_expected": 4,
        "items_scored": 4,
        "learning_rate": 1e-3,
        "seed": 1337,
        "versions": {"torch": "2.11.0"},
        "device": "cpu",
        "start_utc": "2025-01-01T00:00:00+00:00",
        "duration_s": 1.0,
        "non_standard": [],
    }
    return Record(**{**values, **changes})
