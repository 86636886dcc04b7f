"""The note beside a trained head, ``head.json``.

s3prl stores the upstream's name and path with a head, not its weights, and nothing of how the head was chosen. All of
that stands in one note in the head's folder.
"""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from robustdistiller.common.files import write_text
from robustdistiller.eval.run.errors import RunError
from robustdistiller.eval.tasks.base import Task

NOTE = "head.json"
# What was written beside heads before there was one note.
_UPSTREAM, _TRAINING, _FEATURES = "upstream.json", "train-condition.json", "feature-cache.json"
_SELECTION, _DEV_SCORES = "selection.json", "dev-scores.jsonl"
OLD_NOTES = (_UPSTREAM, _TRAINING, _FEATURES, _SELECTION, _DEV_SCORES)


@dataclass
class HeadNote:
    """What is known of a head beside its checkpoints.

    Attributes:
        upstream: that it was trained on: ``name``, ``checkpoint``, ``weights`` (digest), ``weights_of`` and ``options``
            (contents of its options file); heads of earlier versions know fewer.
        made: all else that decides its weights: task, seed, configuration without data folders, training condition,
            features, quick look; empty where an earlier version trained it.
        train_condition: conditions and sources of its training audio; None for clean audio.
        features: what of a feature cache it was trained on, e.g. ``means float32``; empty without one.
        quick: label of the part of the data that it was trained on; empty for all of it.
        dev_scores: each evaluation during training: ``split``, ``step``, ``scalars`` and checkpoints ``saved``.
        resumed_at: steps at which the training went on after it had been stopped.
        threads: CPU threads of the training; None where an earlier version trained it.
        finished: the training ran to its end.
        selection: how it was chosen among several; None for a head that was not.
        reported: name of the checkpoint that counts where no development set chooses one; empty elsewhere.
    """

    upstream: dict[str, Any] = field(default_factory=dict)
    made: dict[str, Any] = field(default_factory=dict)
    train_condition: dict[str, Any] | None = None
    features: str = ""
    quick: str = ""
    dev_scores: list[dict[str, Any]] = field(default_factory=list)
    resumed_at: list[int] = field(default_factory=list)
    threads: int | None = None
    finished: bool = False
    selection: dict[str, Any] | None = None
    reported: str = ""

    @classmethod
    def read(cls, folder: str | Path) -> HeadNote | None:
        """The note in a head's folder, those of earlier versions included; None without one."""
        folder = Path(folder)
        path = folder / NOTE
        try:
            if path.is_file():
                known = {one.name for one in dataclasses.fields(cls)}
                values = json.loads(path.read_text(encoding="utf-8"))
                return cls(**{key: value for key, value in values.items() if key in known})
            return cls._read_old(folder)
        except (ValueError, TypeError, AttributeError, KeyError) as error:
            raise RunError(f"the note beside the head in {folder} cannot be read: {error}") from error

    @classmethod
    def _read_old(cls, folder: Path) -> HeadNote | None:
        found = {name: folder / name for name in OLD_NOTES if (folder / name).is_file()}
        if not found:
            return None
        read = {name: path.read_text(encoding="utf-8") for name, path in found.items()}
        upstream = json.loads(read.get(_UPSTREAM, "{}"))
        if upstream:
            name, checkpoint, digest = (upstream.get(key) for key in ("upstream", "checkpoint", "digest"))
            upstream = {"name": name, "checkpoint": checkpoint, "weights": digest, "weights_of": "file"}
        return cls(
            upstream,
            train_condition=json.loads(read.get(_TRAINING, "null")),
            features=json.loads(read.get(_FEATURES, "{}")).get("features", ""),
            selection=json.loads(read.get(_SELECTION, "null")),
            dev_scores=list(_whole_lines(read.get(_DEV_SCORES, ""))),
        )

    def dev_score(self, task: Task) -> float | None:
        """Score on the development set of the checkpoint that is evaluated, in the units of records, if there is one.

        Where s3prl saved no best checkpoint (its first best score is 0 % right, which must be beaten), the last
        checkpoint stands in for it, and so does its score.
        """
        scored = [one for one in self.dev_scores if one["split"].startswith(("dev", "valid"))]
        if not scored:
            return None
        chosen = next((one for one in reversed(scored) if one["saved"]), scored[-1])
        score = task.scores(chosen["scalars"], chosen["split"]).get(task.dev_metric.name)
        return None if score is None or not math.isfinite(score) else score

    def write(self, folder: str | Path) -> Path:
        """Put the note into a head's folder."""
        return write_text(Path(folder) / NOTE, json.dumps(asdict(self), indent=1, default=str) + "\n")

    def require_upstream(self, found: Mapping[str, Any], folder: str | Path) -> None:
        """Refuse an upstream that the head in `folder` was not trained on.

        Args:
            found: what `upstream` would be now, or a part of it.

        Raises:
            RunError: its weights or its options differ.
        """
        noted = self.upstream
        if noted.get("weights_of") == found["weights_of"] and noted["weights"] != found["weights"]:
            raise RunError(
                f"the head in {folder} was trained on {noted.get('checkpoint') or noted.get('name')} with SHA-256 "
                f"{noted['weights'][:12]}, but {found['checkpoint'] or found['name']} now has "
                f"{found['weights'][:12]}: train the head again, or bring the old weights back "
                "(if they moved: -o \"args.upstream_ckpt='PATH'\")"
            )
        if "options" in noted and noted["options"] != found.get("options", noted["options"]):
            raise RunError(
                f"the head in {folder} was trained on {noted['name']} with the options {noted['options'] or 'none'!r}, "
                f"found {found['options'] or 'none'!r}: train the head again, or bring the old options back "
                "(if they moved: -o \"args.upstream_model_config='PATH'\")"
            )


def _whole_lines(text: str) -> Iterator[dict[str, Any]]:
    for line in text.splitlines():
        try:
            yield json.loads(line)
        except json.JSONDecodeError:  # broken off in the middle; that step was evaluated again
            continue
