"""What a sweep made and nobody needs any more: heads that lost, features, logs."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from robustdistiller.eval.sweep.choice import CHOICE_FILE
from robustdistiller.eval.sweep.config import SweepError
from robustdistiller.eval.sweep.engine import LOG_FILE, WORK_FILE
from robustdistiller.eval.sweep.engines import folder_lock

#: What can be deleted, and what it is.
KINDS = {
    "heads": "heads of learning rates that were not chosen",
    "checkpoints": "checkpoints of the chosen heads, but for the one that is evaluated",
    "features": "features kept for trainings and evaluations to come",
    "logs": "logs of jobs",
}


@dataclass(frozen=True)
class Removable:
    """A file or folder that can be deleted, of one of the `KINDS`, and what it takes on the disk."""

    kind: str
    path: Path
    size_bytes: int


def removable(root: str | Path, kinds: Iterable[str] = KINDS) -> list[Removable]:
    """What a sweep's folder (``out``) holds that it does not need to go on, to evaluate more, or to show its numbers.

    Raises:
        SweepError: no sweep has worked in the folder, or a kind is none of them.
    """
    root = Path(root)
    unknown = [kind for kind in kinds if kind not in KINDS]
    if unknown:
        raise SweepError(f"unknown kind {unknown[0]!r}; known: {', '.join(KINDS)}")
    if not (root / "jobs").is_dir():
        raise SweepError(f"{root} is no sweep's folder: expected jobs and heads in it; give what the file calls out")
    return [Removable(kind, path, _size(path)) for kind in kinds for path in _find(kind, root)]


def clean(root: str | Path, kinds: Iterable[str] = KINDS) -> list[Removable]:
    """Delete what :func:`removable` lists; returns it."""
    found = removable(root, kinds)
    with folder_lock(Path(root)):
        for one in found:
            shutil.rmtree(one.path) if one.path.is_dir() else one.path.unlink(missing_ok=True)
    return found


def _find(kind: str, root: Path) -> list[Path]:
    if kind == "features":
        return [root / "features"] if (root / "features").is_dir() else []
    if kind == "logs":
        names = (LOG_FILE, f"{Path(LOG_FILE).stem}.previous.txt", WORK_FILE)
        files = [path for name in names for path in sorted((root / "jobs").rglob(name))]
        return [*files, *([root / "jobs" / "slurm"] if (root / "jobs" / "slurm").is_dir() else [])]
    found = []
    for path in sorted((root / "heads").glob(f"*/*/{CHOICE_FILE}")):
        head = json.loads(path.read_text(encoding="utf-8"))["head"]
        if head and (kept := path.parent / head).is_file():  # of a group that has not chosen, everything stays
            found += sorted(path.parent.glob("lr-*") if kind == "heads" else kept.parent.glob("*.ckpt"))
            found.remove(kept.parent if kind == "heads" else kept)
    return found


def _size(path: Path) -> int:
    files = [path] if path.is_file() else [one for one in path.rglob("*") if one.is_file()]
    return sum(one.stat().st_size for one in files)
