"""Trained heads on disk: which checkpoint of a folder counts, what it holds, and the note beside it.

s3prl stores the upstream's name and path with a head, not its weights, and nothing of how the head was chosen. All of
that stands in one note in the head's folder, ``head.json``.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import logging
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch

from robustdistiller.common.files import write_text

logger = logging.getLogger(__name__)

NOTE = "head.json"
# What was written beside heads before there was one note.
_UPSTREAM, _TRAINING, _FEATURES = "upstream.json", "train-condition.json", "feature-cache.json"
_SELECTION, _DEV_SCORES = "selection.json", "dev-scores.jsonl"
_OLD_NOTES = (_UPSTREAM, _TRAINING, _FEATURES, _SELECTION, _DEV_SCORES)
# Parts of s3prl's checkpoints that hold weights.
_WEIGHTS = ("Downstream", "Featurizer", "Upstream")


class LaunchError(ValueError):
    """What is asked for cannot run."""


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
        finished: the training ran to its end.
        selection: how it was chosen among several; None for a head that was not.
        reported: name of the checkpoint that counts where no development set chooses one; empty elsewhere.

    Example:
        >>> import tempfile
        >>> folder = tempfile.mkdtemp()
        >>> HeadNote.read(folder) is None
        True
        >>> _ = HeadNote({"name": "fbank"}, quick="quick: 10 % of items, 100 steps").write(folder)
        >>> HeadNote.read(folder).upstream
        {'name': 'fbank'}
    """

    upstream: dict[str, Any] = field(default_factory=dict)
    made: dict[str, Any] = field(default_factory=dict)
    train_condition: dict[str, Any] | None = None
    features: str = ""
    quick: str = ""
    dev_scores: list[dict[str, Any]] = field(default_factory=list)
    resumed_at: list[int] = field(default_factory=list)
    finished: bool = False
    selection: dict[str, Any] | None = None
    reported: str = ""

    @classmethod
    def read(cls, folder: str | Path) -> HeadNote | None:
        """The note in a head's folder, those of earlier versions included; None without one.

        Raises:
            LaunchError: the file is no note.
        """
        folder = Path(folder)
        path = folder / NOTE
        try:
            if path.is_file():
                known = {one.name for one in dataclasses.fields(cls)}
                values = json.loads(path.read_text(encoding="utf-8"))
                return cls(**{key: value for key, value in values.items() if key in known})
            return cls._read_old(folder)
        except (ValueError, TypeError, AttributeError, KeyError) as error:
            raise LaunchError(f"the note beside the head in {folder} cannot be read: {error}") from error

    @classmethod
    def _read_old(cls, folder: Path) -> HeadNote | None:
        found = {name: folder / name for name in _OLD_NOTES if (folder / name).is_file()}
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

    def write(self, folder: str | Path) -> Path:
        """Put the note into a head's folder."""
        return write_text(Path(folder) / NOTE, json.dumps(asdict(self), indent=1, default=str) + "\n")

    def require_upstream(self, found: Mapping[str, Any], folder: Path) -> None:
        """Refuse an upstream that the head was not trained on.

        Args:
            found: what `upstream` would be now.
            folder: the head's.

        Raises:
            LaunchError: its weights or its options differ.
        """
        noted = self.upstream
        if noted.get("weights_of") == found["weights_of"] and noted["weights"] != found["weights"]:
            raise LaunchError(
                f"the head in {folder} was trained on {noted.get('checkpoint') or noted.get('name')} with SHA-256 "
                f"{noted['weights'][:12]}, but {found['checkpoint'] or found['name']} now has "
                f"{found['weights'][:12]}: train the head again, or bring the old weights back "
                "(if they moved: -o \"args.upstream_ckpt='PATH'\")"
            )
        if "options" in noted and noted["options"] != found["options"]:
            raise LaunchError(
                f"the head in {folder} was trained on {noted['name']} with the options {noted['options'] or 'none'!r}, "
                f"found {found['options'] or 'none'!r}: train the head again, or bring the old options back "
                "(if they moved: -o \"args.upstream_model_config='PATH'\")"
            )


def check_trained_on(head: str | Path, digest: str) -> None:
    """Compare the digest of an upstream's file with the note beside a head, if there is one.

    Raises:
        LaunchError: the head was trained on other weights.

    Example:
        >>> check_trained_on("nowhere/dev-best.ckpt", "ab")
    """
    head = Path(head).expanduser()
    note = HeadNote.read(head if head.is_dir() else head.parent)
    trained = note.upstream if note else {}
    if trained.get("weights_of") == "file" and trained["weights"] != digest:
        raise LaunchError(
            f"head {head} was trained on {trained.get('checkpoint')} with SHA-256 {str(trained['weights'])[:12]}, "
            f"the upstream has {digest[:12]}: its layer weights belong to another network"
        )


def find_head(path: str | Path) -> Path:
    """The checkpoint to evaluate: the file itself, or of a folder the one that its note names or that was best on dev.

    s3prl takes the newest ``states-*.ckpt`` of a folder, which SUPERB's rules do not.

    Raises:
        LaunchError: nothing to evaluate, or several candidates.

    Example:
        >>> import tempfile
        >>> folder = Path(tempfile.mkdtemp())
        >>> for name in ("states-100.ckpt", "dev-best.ckpt"):
        ...     (folder / name).touch()
        >>> find_head(folder).name
        'dev-best.ckpt'
    """
    path = Path(path)
    if not path.is_dir():
        if not path.exists():
            raise LaunchError(f"-e {path}: no such file or folder")
        return path
    note = HeadNote.read(path)
    if note is not None and note.reported and (path / note.reported).is_file():
        return path / note.reported
    best = best_checkpoints(path)
    if len(best) == 1:
        logger.info("-e %s: evaluating %s, the best on the development set", path, best[0].name)
        return best[0]
    if best:
        raise LaunchError(
            f"-e {path} holds several best checkpoints ({', '.join(p.name for p in best)}): give the file"
        )
    states = sorted(path.glob("states-*.ckpt"), key=step_of)
    if not states:
        raise LaunchError(f"-e {path}: no checkpoint (dev-best.ckpt or states-N.ckpt) in this folder")
    logger.warning(
        "-e %s: no checkpoint was best on a development set; evaluating the newest, %s", path, states[-1].name
    )
    return states[-1]


def step_of(checkpoint: Path) -> int:
    """The training step in the name of one of s3prl's ``states-STEP.ckpt``."""
    return int(re.sub(r"\D", "", checkpoint.stem) or 0)


def best_checkpoints(folder: Path) -> list[Path]:
    """The checkpoints of a folder that s3prl saved for their score on the development set."""
    named = (path for path in sorted(folder.glob("*.ckpt")) if "best" in path.name)
    return [path for path in named if "dev" in path.name or path.name.startswith("valid")]


def read_checkpoint(path: str | Path) -> dict[str, Any]:
    """What s3prl saved, on the CPU.

    Raises:
        LaunchError: the file cannot be read, or is no head of s3prl's; a full disk or a crash leaves such files.
    """
    from robustdistiller.upstream.s3prl import bridge

    bridge.install()  # lets torch read the argument namespace that s3prl stores
    try:
        states = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        said = (str(error).splitlines() or [type(error).__name__])[0][:100]
        raise LaunchError(
            f"{path} cannot be read ({said}): it was cut short or is no checkpoint; train the head again, or give "
            "another checkpoint"
        ) from error
    if not isinstance(states, dict) or not {"Args", "Config", "Step"} <= states.keys():
        raise LaunchError(f"{path} is no head of s3prl's: expected Args, Config and Step in it")
    return states


def newest_states(folder: str | Path) -> tuple[Path, dict[str, Any]] | None:
    """The checkpoint of a head that got furthest and can be read, and what it holds; None when there is none."""
    newest = None
    for path in sorted(Path(folder).glob("*.ckpt")):
        try:
            states = read_checkpoint(path)
        except LaunchError as error:
            logger.warning("%s", error)
            continue
        if newest is None or states["Step"] > newest[1]["Step"]:
            newest = path, states
    return newest


def head_digest(states: Mapping[str, Any]) -> str:
    """SHA-256 of a head's weights, by name, shape and values; the same for one head in two files.

    Args:
        states: what s3prl saved.

    Example:
        >>> states = {"Downstream": {"weight": torch.zeros(2)}, "Step": 4}
        >>> head_digest(states) == head_digest({**states, "Step": 8}), len(head_digest(states))
        (True, 64)
    """
    tensors = {f"{part}.{name}": one for part in _WEIGHTS for name, one in states.get(part, {}).items()}
    return tensors_digest(tensors)


def tensors_digest(tensors: Mapping[str, torch.Tensor]) -> str:
    """SHA-256 over names, types, shapes and values."""
    digest = hashlib.sha256()
    for name, tensor in sorted(tensors.items()):
        digest.update(f"{name} {tuple(tensor.shape)} {tensor.dtype}".encode())
        digest.update(tensor.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def clear(folder: str | Path) -> None:
    """Remove the checkpoints and notes of an earlier head: a new training must not leave its best one standing."""
    folder = Path(folder)
    old = [*folder.glob("*.ckpt"), *(path for name in (NOTE, *_OLD_NOTES) if (path := folder / name).is_file())]
    if old:
        logger.warning("%s: an earlier head is removed (%s)", folder, ", ".join(path.name for path in old))
    for path in old:
        path.unlink()


def _whole_lines(text: str):
    for line in text.splitlines():
        try:
            yield json.loads(line)
        except json.JSONDecodeError:  # broken off in the middle; that step was evaluated again
            continue
