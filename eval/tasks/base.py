"""What a SUPERB task is: its metrics, its data, and how its batches and scores are read."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import PurePath
from typing import Any

from robustdistiller.eval.tasks.corpora import Corpus
from robustdistiller.eval.tasks.protocols import Protocol


@dataclass(frozen=True)
class Metric:
    """One number a task reports.

    ``key`` is how s3prl names it: the scalar ``.../{split}-{key}`` handed to the logger, or None where s3prl computes
    no score itself. ``scale`` turns s3prl's value into the reported one (accuracies and error rates become per cent).

    Example:
        >>> from robustdistiller.eval.tasks import get
        >>> wer = get("ASR").metric
        >>> wer.key, wer.higher_is_better, wer.unit
        ('wer', False, '%')
    """

    name: str
    key: str | None
    higher_is_better: bool
    unit: str = "%"
    scale: float = 100.0


@dataclass(frozen=True)
class DataRoot:
    """A path the user must give: its ``-o`` key and what has to be there.

    Example:
        >>> from robustdistiller.eval.tasks import get
        >>> get("IC").roots[0].key
        'config.downstream_expert.datarc.file_path'
    """

    key: str
    what: str
    is_list: bool = False


@dataclass(frozen=True)
class Task:
    """How s3prl runs one task, and what we need to know around it.

    Attributes:
        code: short name, as in SUPERB's table (``IC``).
        title: what the task is.
        downstream: s3prl's ``-d`` name.
        config: file in ``downstream_configs/`` without ``.yaml``.
        metrics: the first one is the task's headline number.
        splits: test splits for ``-t``; the first one is the default.
        roots: paths the user must give.
        corpora: what is needed, and where it comes from.
        protocol: how heads are trained, chosen and scored, and what a standard run may not change.
        id_position: index of the utterance ids in what follows the waveforms in a batch, ``(waveforms, *others)``.
        corruption: ``"waveforms"``: corrupting the first batch item is enough; ``"mixture"``: the batch also holds the
            mixture's spectrogram, which must be rebuilt; ``"recordings"``: the waveforms are parts of recordings, which
            are corrupted whole, so that upstreams of any frame rate get the same; ``"none"``: another layout.
        best_checkpoint: what s3prl saves when the development score improves, None if it chooses no checkpoint.
        trainable: False for a task without a trained head.
        pooled_head: the expert hands an utterance's frames to its ``projector`` and ``model`` and to nothing else.
        random_crops: training audio is cut at random places, so that much of it is never heard twice.
        packages: import names needed beyond the core, given as ``import name: pip name``.
        tools: system tools needed.
        item_counts: scored items of the official test split, where published.
        folds: cross-validation folds; the benchmark's number is the mean over all of them.
        fold_key: ``-o`` key that chooses one.
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
    config: str
    metrics: tuple[Metric, ...]
    roots: tuple[DataRoot, ...]
    corpora: tuple[Corpus, ...]
    protocol: Protocol
    splits: tuple[str, ...] = ("test",)
    id_position: int = 1
    corruption: str = "waveforms"
    best_checkpoint: str | None = "dev-best.ckpt"
    trainable: bool = True
    pooled_head: bool = False
    random_crops: bool = False
    packages: Mapping[str, str] = field(default_factory=dict)
    tools: tuple[str, ...] = ()
    item_counts: Mapping[str, int] = field(default_factory=dict)
    folds: tuple[str, ...] = ()
    fold_key: str = ""
    note: str = ""

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

        Example:
            >>> from robustdistiller.eval.tasks import get
            >>> get("IC").scores({"fluent_commands/test-acc": 0.5, "fluent_commands/test-intent_loss": 2.0}, "test")
            {'accuracy': 50.0}
        """
        found = {}
        for metric in self.metrics:
            values = [value for tag, value in scalars.items() if tag.endswith(f"/{split}-{metric.key}")]
            if values:
                found[metric.name] = float(values[-1]) * metric.scale
        if self.dev_metric.key is not None and self.dev_metric.name not in found:
            raise ValueError(
                f"s3prl logged no {self.code} {self.dev_metric.name} for split {split!r}: expected a scalar ending in "
                f"'/{split}-{self.dev_metric.key}', found {sorted(scalars)}. Was the evaluation interrupted?"
            )
        return found

    def utterance_ids(self, others: Sequence[Any], batch_size: int) -> list[str]:
        """Ids of a batch's waveforms, the same wherever the corpus lies.

        A diarization recording arrives cut into chunks: it has one id. Verification names utterances by their path:
        its last three parts are kept.

        Args:
            others: what follows the waveforms in the batch.
            batch_size: number of waveforms.

        Raises:
            ValueError: the task has no ids in its batches, or their number differs from ``batch_size``.

        Example:
            >>> from robustdistiller.eval.tasks import get
            >>> get("ASV").utterance_ids((["/data/vox1/test/wav/id10270/5r0dWxy17C8/00001.wav"],), 1)
            ['id10270-5r0dWxy17C8-00001']
            >>> get("SD").utterance_ids((None, None, "rec7"), 2)
            ['rec7']
        """
        if self.corruption == "none":
            raise ValueError(f"{self.code} batches carry no utterance ids: this task cannot be evaluated corrupted.")
        ids = others[self.id_position]
        if self.corruption == "recordings" and isinstance(ids, str):
            return [ids]
        if self.code == "ASV":
            ids = ["-".join(PurePath(path).with_suffix("").parts[-3:]) for path in ids]
        if len(ids) != batch_size:
            raise ValueError(f"{self.code}: a batch of {batch_size} waveforms came with {len(ids)} ids: {ids!r}.")
        return [str(utterance_id) for utterance_id in ids]
