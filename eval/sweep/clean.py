"""What a sweep made and nobody needs any more: heads that lost, features, logs."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from robustdistiller.common.locks import Busy, locked
from robustdistiller.eval.sweep.choice import CHOICE_FILE
from robustdistiller.eval.sweep.config import SweepError
from robustdistiller.eval.sweep.engine import LOG_FILE, WORK_FILE

#: What can be deleted, and what it is.
KINDS = {
    "heads": "heads of learning rates that were not chosen",
    "checkpoints": "checkpoints of the chosen heads, but for the one that is evaluated",
    "features": "features kept for trainings and evaluations to come",
    "logs": "logs of jobs",
}


@dataclass(frozen=True)
class Removable:
    """One thing that can be deleted.

    Attributes:
        kind: one of `KINDS`.
        path: file or folder.
        size_bytes: what it takes on the disk.
    """

    kind: str
    path: Path
    size_bytes: int


def removable(root: str | Path, kinds: Iterable[str] = KINDS) -> list[Removable]:
    """What a sweep's folder holds that the sweep does not need to go on, to evaluate more, or to show its numbers.

    Args:
        root: the sweep's folder (``out``).
        kinds: some of `KINDS`.

    Raises:
        SweepError: no sweep has worked in the folder, or a kind is none of them.
    """
    root = Path(root)
    unknown = [kind for kind in kinds if kind not in KINDS]
    if unknown:
        raise SweepError(f"unknown kind {unknown[0]!r}; known: {', '.join(KINDS)}")
    if not (root / "jobs").is_dir():
        raise SweepError(f"{root} is no sweep's folder: expected jobs and heads in it; give what the file calls out")
    find = {"heads": _losing, "checkpoints": _spare, "features": _features, "logs": _logs}
    return [Removable(kind, path, _size(path)) for kind in kinds for path in find[kind](root)]


def clean(root: str | Path, kinds: Iterable[str] = KINDS) -> list[Removable]:
    """Delete what :func:`removable` lists; returns it.

    Raises:
        SweepError: as for :func:`removable`, or the sweep is running.
    """
    found = removable(root, kinds)
    try:
        with locked(Path(root) / ".lock", wait=False):
            for one in found:
                shutil.rmtree(one.path) if one.path.is_dir() else one.path.unlink(missing_ok=True)
    except Busy as error:
        raise SweepError(f"{root} is in use by a sweep; wait for it or stop it") from error
    return found


def _chosen(root: Path) -> Iterator[Path]:
    """The chosen checkpoint of each group that has chosen."""
    for path in sorted((root / "heads").glob(f"*/*/{CHOICE_FILE}")):
        head = json.loads(path.read_text(encoding="utf-8"))["head"]
        if head and (path.parent / head).is_file():
            yield path.parent / head


def _losing(root: Path) -> list[Path]:
    return [one for kept in _chosen(root) for one in sorted(kept.parents[1].glob("lr-*")) if one != kept.parent]


def _spare(root: Path) -> list[Path]:
    return [one for kept in _chosen(root) for one in sorted(kept.parent.glob("*.ckpt")) if one != kept]


def _features(root: Path) -> list[Path]:
    return [root / "features"] if (root / "features").is_dir() else []


def _logs(root: Path) -> list[Path]:
    names = (LOG_FILE, f"{Path(LOG_FILE).stem}.previous.txt", WORK_FILE)
    files = [path for name in names for path in sorted((root / "jobs").rglob(name))]
    return [*files, *([root / "jobs" / "slurm"] if (root / "jobs" / "slurm").is_dir() else [])]


def _size(path: Path) -> int:
    files = [path] if path.is_file() else [one for one in path.rglob("*") if one.is_file()]
    return sum(one.stat().st_size for one in files)
