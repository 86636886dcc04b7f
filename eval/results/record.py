"""Records: what is known about one measured cell. All tables, plots and leaderboards are made from these."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

from pydantic import Field

from robustdistiller.common.settings import read
from robustdistiller.eval.results.migration import SCHEMA_VERSION, to_current

NO_CHECKPOINT = "none"
NO_HEAD = "none"
Name = Annotated[str, Field(min_length=1)]
Digest = Annotated[str, Field(pattern="^[0-9a-f]{64}$")]
Whole = Annotated[int, Field(ge=-(2**63), lt=2**63)]  # as tables hold them


class RecordError(ValueError):
    """A record, or a set of records, that must not be used."""


def digits_of(metric: str) -> int:
    """Digits behind the point of a metric's numbers."""
    return 4 if metric == "mtwv" else 2


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
    value: Annotated[float, Field(allow_inf_nan=False)] | None
    higher_is_better: bool
    unit: str = ""
    reason: str = ""

    def __str__(self) -> str:
        """Name and value, such as ``accuracy 75.00%``."""
        value = "none" if self.value is None else f"{self.value:.{digits_of(self.name)}f}{self.unit}"
        return f"{self.name} {value}"


@dataclass(frozen=True)
class ItemsFile:
    """Where the results of a cell's single items are, see `eval.results.item_scores`.

    Attributes:
        version: of the format.
        file: its name; it lies beside the record.
        sha256: of its content.
        items: how many.
    """

    version: Annotated[int, Field(ge=1, le=1)]
    file: Annotated[str, Field(pattern=r"^[^/\\.][^/\\]*\.npz$")]
    sha256: Digest
    items: Annotated[int, Field(ge=1)]


@dataclass
class Record:
    """Everything that is known about one measured cell (see `eval.results.identity`).

    What contradicts itself cannot be made; types and forms are checked when a record is read or written.

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
        outcomes: where the results of the single items are; None where there are none.
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
        RecordError: a field contradicts another.
    """

    upstream: Name
    checkpoint_digest: Digest | Literal["none", ""]
    checkpoint_digest_of: str
    parameters: Whole | None
    task: Name
    downstream: Name
    condition: Name
    metrics: list[Metric]
    items_expected: Whole | None
    items_scored: Whole
    learning_rate: float | None
    seed: Whole
    versions: dict[str, str]
    device: Name
    start_utc: Name
    duration_s: float
    head_digest: Digest | Literal["none", ""]
    rules_digest: Digest | Literal[""]
    settings: dict[str, Any] = field(default_factory=dict)
    label: str = ""
    checkpoint: str = ""
    upstream_options: str = ""
    upstream_code: str = ""
    condition_parameters: dict[str, Any] = field(default_factory=dict)
    sources: dict[str, dict[str, Any]] = field(default_factory=dict)
    corruption_seed: Whole = 0
    manifest_digest: str = "none"
    audio_digest: str = ""
    split: Name = "test"
    fold: str = ""
    train_condition: str = "clean"
    quick: str = ""
    step: Whole | None = None
    git: dict[str, Any] | None = None
    threads: Whole = 1
    tf32: bool = False
    status: Literal["ok", "partial", "failed"] = "ok"
    reason: str = ""
    macs: Whole | None = None
    macs_note: str = "not measured"
    layer_weights: list[float] | None = None
    outcomes: ItemsFile | None = None
    feature_cache: dict[str, str] = field(default_factory=dict)
    selection: dict[str, Any] | None = None
    non_standard: list[Name] | None = None
    scoring: dict[str, Any] | None = None
    unknown: list[str] = field(default_factory=list)
    schema_version: int = SCHEMA_VERSION

    def __post_init__(self) -> None:
        self.label = self.label or self.upstream
        for problem in self._contradictions():
            raise RecordError(problem)

    @property
    def main_metric(self) -> Metric:
        """The metric that tables show."""
        return self.metrics[0]

    @property
    def finished(self) -> bool:
        """Whether it has its number, over all items."""
        return self.status == "ok" and self.main_metric.value is not None

    @property
    def trouble(self) -> str:
        """Why it is not finished; empty where it is."""
        if self.finished:
            return ""
        if self.status == "ok":
            return f"no {self.main_metric.name}: {self.main_metric.reason}"
        return f"{self.status}, {self.reason}"

    @property
    def scores(self) -> str:
        """Its numbers in words, such as ``accuracy 75.00%``; empty where it has none."""
        return ", ".join(str(one) for one in self.metrics if one.value is not None)

    def value(self, metric: str) -> float | None:
        """One of its metrics by name; None where it has none."""
        return next((one.value for one in self.metrics if one.name == metric), None)

    def to_dict(self) -> dict[str, Any]:
        """Plain data, JSON-able."""
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> Record:
        """Build a record from plain data of any schema."""
        try:
            return read(cls, to_current(data))
        except ValueError as error:
            raise RecordError(str(error)) from error

    def _contradictions(self) -> Iterator[str]:
        if self.checkpoint_digest == "" and self.status != "failed":
            yield "checkpoint_digest may be empty only where a run failed before its upstream was loaded"
        for kind, source in self.sources.items():
            if not source.get("digest"):
                yield f"sources.{kind} needs a digest, found {source!r}"
        if self.status != "ok" and not self.reason:
            yield f"a record with status {self.status!r} needs a reason"
        if self.status != "failed" and not self.metrics:
            yield "a record needs at least one metric"
        for metric in self.metrics:
            if metric.value is None and not metric.reason:
                yield f"metric {metric.name!r} has neither a value nor a reason"
        expected, scored = self.items_expected, self.items_scored
        if self.status == "ok" and (scored < 1 or expected not in (None, scored)):
            of_expected = "" if expected is None else f" of {expected}"
            yield (
                f"a record with {scored}{of_expected} items scored cannot have status 'ok'; "
                "expected 'partial' or 'failed' with a reason"
            )
