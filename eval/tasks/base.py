"""What a task is: its metrics, its data, its rules, and how its batches and scores are read.

Everything in which tasks differ is an attribute of :class:`Task`. The rooms that run, record and report them know no
task by name.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from robustdistiller.eval.tasks.corpora import Corpus
from robustdistiller.eval.tasks.parts import DataRoot, Metric, OfficialScore, Rules, ScoringError, Submission, lookup

if TYPE_CHECKING:  # results are read without what conditions are made of
    from robustdistiller.acoustics import Condition


def _number_of(dataset: Any, indices: Sequence[int]) -> int:
    return len(indices)


@dataclass(frozen=True)
class Task:
    """How s3prl runs one task, and what we need to know around it.

    Attributes:
        code: short name, as in SUPERB's table (``IC``).
        title: what the task is.
        downstream: s3prl's ``-d`` name.
        metrics: the first one is the task's headline number.
        config: the head's configuration: a mapping, a YAML file, or the name of one in ``downstream_configs/`` without
            ``.yaml``.
        expert: ``package.module:Class`` of the downstream expert; empty for s3prl's own.
        splits: test splits for ``-t``; the first one is what the benchmark reports.
        roots: paths the user must give.
        corpora: what is needed, and where it comes from.
        rules: how heads are trained, chosen and scored, and what a standard run may not change.
        data: ``package.module:NAME`` of what must lie on disk, for ``robustdistiller prepare``; empty without.
        packages: import names needed beyond the core, given as ``import name: pip name``.
        needs_sox: s3prl reads its audio with SoX.
        recordings: all recordings of a task that says itself where its data lie; None for others.
        told_by: a setting and its value, in lower case, by which this task is told from others of its downstream.
        corruption: what of a batch ``(waveforms, *others)`` is corrupted. ``waveforms``: they are utterances;
            ``recordings``: they are parts of recordings, which are corrupted whole, so that upstreams of any frame rate
            get the same; ``mixture``: the batch also holds the mixture's spectrogram, which must be rebuilt; ``none``:
            the batch has another layout.
        id_position: index of the utterance ids in what follows the waveforms in a batch; None where there are none,
            then an utterance goes by the digest of its audio.
        portable_id: an id as the batch has it to one that is the same wherever the corpus lies.
        scored_in_pairs: no part of the test set can be scored alone.
        trial_sides: pairs are scored, and a condition may corrupt one side of them only (``side=test``).
        count_items: a dataset of the task, and the indices of its elements that are used, to the number of items.
        items: the expert's ``records`` at the end of an evaluation to the results of its single items: metric to their
            numerators and denominators, as rates below 1; None for one value of each item for each metric.
        speaker: an item's name to its speaker, or a regular expression whose groups are the speaker in it; empty where
            an item has no one speaker.
        score: the benchmark's number where s3prl computes another one: called with the expert after the evaluation, the
            split and the names of the recordings; raises `ScoringError`.
        best_of_every: where no development set chooses: of the checkpoints at multiples of this many steps the best on
            the clean test set is the benchmark's number; 0 elsewhere.
        chosen_with: attributes of the expert, and what they are while checkpoints are chosen on the development set.
        trainable: False for a task without a trained head.
        pooled_head: the expert hands an utterance's frames to its ``projector`` and ``model`` and to nothing else.
        random_crops: training audio is cut at random places, so that much of it is never heard twice.
        item_counts: scored items of the official test split, where published.
        folds: cross-validation folds; the benchmark's number is the mean over all of them.
        fold_key: ``-o`` key that chooses one.
        submission: part of SUPERB's archive; None for a task that it has no place for, then `note` may say why.
        note: what a reader of the number must know.

    Example:
        >>> from robustdistiller.eval.tasks import get
        >>> task = get("IC")
        >>> task.downstream, task.splits[0], task.item_counts["test"]
        ('fluent_commands', 'test', 3793)
    """

    code: str
    title: str
    downstream: str
    metrics: tuple[Metric, ...]
    config: str | Path | Mapping[str, Any]
    expert: str = ""
    splits: tuple[str, ...] = ("test",)
    roots: tuple[DataRoot, ...] = ()
    corpora: tuple[Corpus, ...] = ()
    rules: Rules = field(default_factory=Rules)
    data: str = ""
    packages: Mapping[str, str] = field(default_factory=dict)
    needs_sox: bool = False
    recordings: Callable[[], Iterable[Path]] | None = field(default=None, compare=False)
    told_by: tuple[str, str] | None = None
    corruption: str = "waveforms"
    id_position: int | None = 1
    portable_id: Callable[[str], str] = str
    scored_in_pairs: bool = False
    trial_sides: bool = False
    count_items: Callable[[Any, Sequence[int]], int] = _number_of
    items: Callable[[Mapping[str, Any]], Mapping[str, tuple[Sequence[float], Sequence[float]]]] | None = None
    speaker: str | Callable[[str], str] = field(default="", compare=False)
    score: Callable[[Any, str, Sequence[str]], OfficialScore] | None = None
    best_of_every: int = 0
    chosen_with: Mapping[str, Any] = field(default_factory=dict)
    trainable: bool = True
    pooled_head: bool = False
    random_crops: bool = False
    item_counts: Mapping[str, int] = field(default_factory=dict)
    folds: tuple[str, ...] = ()
    fold_key: str = ""
    submission: Submission | None = None
    note: str = ""

    def __post_init__(self) -> None:
        if self.corruption not in ("waveforms", "recordings", "mixture", "none"):
            raise ValueError(
                f"{self.code}: corruption must be waveforms, recordings, mixture or none, found {self.corruption!r}"
            )
        if not self.metrics or not self.splits:
            raise ValueError(f"task {self.code} needs at least one metric and one test split")

    @property
    def metric(self) -> Metric:
        """The headline metric."""
        return self.metrics[0]

    @property
    def dev_metric(self) -> Metric:
        """What heads are chosen by on the development set: the first metric that s3prl computes itself."""
        return next((metric for metric in self.metrics if metric.key is not None), self.metric)

    def scores(self, scalars: Mapping[str, float], split: str) -> dict[str, float]:
        """Pick this task's numbers out of what s3prl logged.

        Args:
            scalars: logger tag to value, as passed to ``add_scalar``.
            split: the evaluated split.

        Returns:
            Metric name to reported value (scaled, see :class:`Metric`).

        Raises:
            ValueError: the first metric that s3prl computes was not logged.
        """
        found = {}
        for metric in self.metrics:
            values = [value for tag, value in scalars.items() if f"/{tag}".endswith(f"/{split}-{metric.key}")]
            if values:
                found[metric.name] = float(values[-1]) * metric.scale
        if self.dev_metric.key is not None and self.dev_metric.name not in found:
            raise ValueError(
                f"s3prl logged no {self.code} {self.dev_metric.name} for split {split!r}: expected a scalar ending in "
                f"'/{split}-{self.dev_metric.key}', found {sorted(scalars)}. Was the evaluation interrupted?"
            )
        return found

    def why_not_under(self, condition: Condition) -> str:
        """Why the task cannot be evaluated under a condition; empty where it can."""
        if "side" in condition and not self.trial_sides:
            return "only speaker verification (ASV) has a test side; leave out --asv-corrupt and side="
        if self.corruption == "none" and condition.kind != "clean":
            return f"{self.code} can be evaluated on clean audio only: its batches carry no utterances to be corrupted"
        return ""

    def utterance_ids(self, others: Sequence[Any], batch_size: int) -> list[str] | None:
        """Ids of a batch's items, the same wherever the corpus lies.

        Args:
            others: what follows the waveforms in the batch.
            batch_size: number of waveforms.

        Returns:
            One id for each waveform; for a recording that came as several chunks its one id; None where the batches of
            the task have no ids.

        Raises:
            ValueError: the task's batches cannot be corrupted, or the number of ids differs from `batch_size`.
        """
        if self.corruption == "none":
            raise ValueError(f"{self.code} batches carry no utterance ids: this task cannot be evaluated corrupted.")
        if self.id_position is None:
            return None
        ids = others[self.id_position]
        if self.corruption == "recordings":
            if not isinstance(ids, str):
                raise ValueError(f"{self.code} names its recordings on the test split only, found {ids!r}.")
            return [self.portable_id(ids)]
        if len(ids) != batch_size:
            raise ValueError(f"{self.code}: a batch of {batch_size} waveforms came with {len(ids)} ids: {ids!r}.")
        return [self.portable_id(str(utterance_id)) for utterance_id in ids]

    def item_results(self, kept: Mapping[str, Any]) -> dict[str, tuple[Sequence[float], Sequence[float], float]]:
        """What s3prl's expert kept of each item: metric to numerators, denominators and scale.

        A metric is ``scale * sum(numerators) / sum(denominators)``.
        """
        if self.items is not None:
            return {name: (*ratio, 100.0) for name, ratio in self.items(kept).items()}
        found = {metric: kept[metric.key] for metric in self.metrics if metric.key and kept.get(metric.key)}
        return {m.name: ([float(value) for value in values], [1] * len(values), m.scale) for m, values in found.items()}

    def speaker_of(self, item: str) -> str:
        """The speaker of an item, by its name; the item's own name where its speaker is not known."""
        if callable(self.speaker):
            return self.speaker(item) or item
        found = re.search(self.speaker, item) if self.speaker else None
        return "-".join(found.groups()) if found else item

    def official_score(self, expert: Any, split: str, recordings: Sequence[str] = ()) -> OfficialScore | None:
        """The benchmark's own score of an evaluation that s3prl has just finished.

        Args:
            expert: s3prl's expert after the evaluation; it says where its predictions and its data are.
            split: that was evaluated.
            recordings: names of the evaluated recordings, of diarization.

        Returns:
            None where what s3prl computes is what the benchmark reports.
        """
        if self.score is None:
            return None
        try:
            return self.score(expert, split, recordings)
        except ScoringError as error:
            return OfficialScore(self.metric.name, None, str(error))

    def fold_of(self, config: Mapping[str, Any]) -> str:
        """The test fold of a run by its configuration; empty for a task without folds."""
        return str(lookup(config, self.fold_key) or "") if self.folds else ""
