"""The benchmark's score of an evaluation that s3prl has just finished, from the files its expert wrote."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from robustdistiller.eval.results.item_scores import ItemScores
from robustdistiller.eval.tasks.base import Task
from robustdistiller.eval.tasks.scoring import diarization, qbe
from robustdistiller.eval.tasks.scoring.reasons import ScoringError


@dataclass(frozen=True)
class OfficialScore:
    """A number that s3prl does not compute.

    Attributes:
        metric: name of the task's headline metric.
        value: as reported (rates in per cent); None where it cannot be had, then `reason` says why.
        reason: why there is no value.
        settings: how it was computed, plain data for the record's field `scoring`.
        ids: names of the scored items, where there are results of single items.
        items: their results, in the order of `ids`.

    Example:
        >>> OfficialScore("mtwv", None, reason="no ground truth").ids
        ()
    """

    metric: str
    value: float | None
    reason: str = ""
    settings: Mapping[str, Any] | None = None
    ids: tuple[str, ...] = ()
    items: ItemScores | None = field(default=None, compare=False)


def official_score(task: Task, expert: Any, split: str, recordings: Sequence[str] = ()) -> OfficialScore | None:
    """The benchmark's own score.

    Args:
        task: registry entry.
        expert: s3prl's expert after the evaluation; it says where its predictions and its data are.
        split: that was evaluated.
        recordings: names of the evaluated recordings, of diarization.

    Returns:
        None where what s3prl computes is what the benchmark reports.

    Example:
        >>> from robustdistiller.eval import tasks
        >>> official_score(tasks.get("IC"), None, "test") is None
        True
    """
    scorer = _SCORERS.get(task.code)
    if scorer is None:
        return None
    try:
        return scorer(task, expert, split, recordings)
    except ScoringError as error:
        return OfficialScore(task.metric.name, None, str(error))


def _diarization(task: Task, expert: Any, split: str, recordings: Sequence[str]) -> OfficialScore:
    if not expert.save_predictions:
        raise ScoringError("scorerc.save_predictions is false, so there is nothing to score; set it to true")
    reference, source = diarization.read_reference(expert.loaderrc[f"{split}_dir"])
    posteriors = diarization.read_posteriors(Path(expert.score_dir) / "predictions", recordings)
    frame_shift = int(expert.datarc["frame_shift"])
    found = diarization.score_diarization(posteriors, reference, frame_shift)
    settings = {
        "threshold": found.threshold,
        "median_frames": found.median_frames,
        "collar_s": diarization.COLLAR_S,
        "frame_shift": frame_shift,
        "reference": source,
        "rates": {f"threshold {t:g}, median {m}": rate for (t, m), rate in found.rates.items()},
    }
    times = [found.recordings[name] for name in recordings]
    items = ItemScores(np.array([t.error_s for t in times]), np.array([t.scored_s for t in times]))
    return OfficialScore(task.metric.name, found.total.rate, "", settings, tuple(recordings), items)


def _query_by_example(task: Task, expert: Any, split: str, _: Sequence[str]) -> OfficialScore:
    part = "dev" if split == "dev" else "eval"  # as s3prl reads -t
    truth = qbe.read_ground_truth(Path(expert.datarc["dataset_root"]) / "scoring" / f"groundtruth_quesst14_{part}")
    scores = qbe.read_stdlist(Path(expert.expdir) / "benchmark.stdlist.xml")
    found = qbe.max_term_weighted_value(scores, truth)
    settings = {
        "threshold": found.threshold if np.isfinite(found.threshold) else None,
        "queries": found.queries,
        "queries_searched": found.searched,
        "beta": truth.beta,
        "default_score": qbe.DEFAULT_SCORE,
    }
    return OfficialScore(task.metric.name, found.value, "", settings)


_SCORERS: Mapping[str, Callable[[Task, Any, str, Sequence[str]], OfficialScore]] = {
    "SD": _diarization,
    "QbE": _query_by_example,
}
