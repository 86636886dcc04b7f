"""Trained heads on disk: which checkpoint of a folder counts, and what it holds."""

from __future__ import annotations

import hashlib
import logging
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch.utils._pytree import tree_leaves

from robustdistiller.eval.run.errors import RunError
from robustdistiller.eval.run.head_note import NOTE, OLD_NOTES, HeadNote
from robustdistiller.upstream.s3prl import bridge

logger = logging.getLogger(__name__)

# Parts of s3prl's checkpoints that hold weights.
_WEIGHTS = ("Downstream", "Featurizer", "Upstream")


def find_head(path: str | Path) -> Path:
    """The checkpoint to evaluate: the file itself, or of a folder the one that its note names or that was best on dev.

    s3prl takes the newest ``states-*.ckpt`` of a folder, which SUPERB's rules do not.
    """
    path = Path(path)
    if not path.is_dir():
        if not path.exists():
            raise RunError(f"-e {path}: no such file or folder")
        return path
    note = HeadNote.read(path)
    if note is not None and note.made and not note.finished:
        logger.warning("-e %s: the training of this head has not ended", path)
    if note is not None and note.reported and (path / note.reported).is_file():
        return path / note.reported
    best = best_checkpoints(path)
    if len(best) == 1:
        logger.info("-e %s: evaluating %s, the best on the development set", path, best[0].name)
        return best[0]
    if best:
        raise RunError(f"-e {path} holds several best checkpoints ({', '.join(p.name for p in best)}): give the file")
    states = sorted(path.glob("states-*.ckpt"), key=step_of)
    if not states:
        raise RunError(f"-e {path}: no checkpoint (dev-best.ckpt or states-N.ckpt) in this folder")
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
        RunError: the file cannot be read, or is no head of s3prl's; a full disk or a crash leaves such files.
    """
    bridge.install()  # lets torch read the argument namespace that s3prl stores
    try:
        states = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        said = (str(error).splitlines() or [type(error).__name__])[0][:100]
        raise RunError(
            f"{path} cannot be read ({said}): it was cut short or is no checkpoint; train the head again, or give "
            "another checkpoint"
        ) from error
    if not isinstance(states, dict) or not {"Args", "Config", "Step"} <= states.keys():
        raise RunError(f"{path} is no head of s3prl's: expected Args, Config and Step in it")
    return states


def newest_states(folder: str | Path) -> tuple[Path, dict[str, Any]] | None:
    """The checkpoint of a head that got furthest and can be read, and what it holds; None when there is none."""
    newest = None
    for path in sorted(Path(folder).glob("*.ckpt")):
        try:
            states = read_checkpoint(path)
        except RunError as error:
            logger.warning("%s", error)
            continue
        if newest is None or states["Step"] > newest[1]["Step"]:
            newest = path, states
    return newest


def head_digest(states: Mapping[str, Any]) -> str:
    """SHA-256 of a head's weights in what s3prl saved; the same for one head in two files."""
    return tensors_digest(head_tensors(states))


def head_tensors(states: Mapping[str, Any]) -> dict[str, torch.Tensor]:
    """A head's weights in what s3prl saved, by part and name."""
    return {f"{part}.{name}": one for part in _WEIGHTS for name, one in states.get(part, {}).items()}


def tensors_digest(state: Mapping[str, Any]) -> str:
    """SHA-256 over names, types, shapes and values of a state dict; quantised modules have more than tensors in it."""
    digest = hashlib.sha256()
    for name, value in sorted(state.items()):
        for leaf in tree_leaves(value):
            if not isinstance(leaf, torch.Tensor):
                digest.update(f"{name} {leaf!r}".encode())
                continue
            digest.update(f"{name} {tuple(leaf.shape)} {leaf.dtype}".encode())
            plain = (leaf.dequantize() if leaf.is_quantized else leaf).detach().cpu().contiguous()
            digest.update(plain.view(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def clear(folder: str | Path) -> None:
    """Remove the checkpoints and notes of an earlier head: a new training must not leave its best one standing."""
    folder = Path(folder)
    old = [*folder.glob("*.ckpt"), *(path for name in (NOTE, *OLD_NOTES) if (path := folder / name).is_file())]
    if old:
        logger.warning("%s: an earlier head is removed (%s)", folder, ", ".join(path.name for path in old))
    for path in old:
        path.unlink()
