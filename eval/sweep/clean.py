"""What a sweep made and nobody needs any more: heads that lost, features, logs."""

from __future__ import annotations

import shutil
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from robustdistiller.eval.sweep.choice import CHOICE_FILE, read_chosen, read_tried
from robustdistiller.eval.sweep.config import SweepError
from robustdistiller.eval.sweep.engine import LOG_FILE, OUTCOME_FILE, WORK_FILE
from robustdistiller.eval.sweep.engines import folder_lock
from robustdistiller.eval.sweep.slurm import QUEUED_FILE

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

    Heads in training are not among it, nor are folders that are links to others.

    Raises:
        SweepError: no sweep has worked in the folder, or a kind is none of them.
    """
    root, kinds = Path(root), list(kinds)
    unknown = [kind for kind in kinds if kind not in KINDS]
    if unknown:
        raise SweepError(f"unknown kind {unknown[0]!r}; known: {', '.join(KINDS)}")
    if not any(next((root / "jobs").rglob(name), None) for name in (OUTCOME_FILE, WORK_FILE)):
        expected = f"jobs with {OUTCOME_FILE} or {WORK_FILE} in them"
        raise SweepError(f"{root} is no sweep's folder: expected {expected}; give what the sweep's file calls out")
    return [Removable(kind, path, _size(path)) for kind in dict.fromkeys(kinds) for path in _find(kind, root)]


def clean(root: str | Path, kinds: Iterable[str] = KINDS) -> list[Removable]:
    """Delete what :func:`removable` lists; returns it."""
    found = removable(root, kinds)
    with folder_lock(Path(root)):
        for one in found:
            shutil.rmtree(one.path) if one.path.is_dir() else one.path.unlink(missing_ok=True)
    return found


def _find(kind: str, root: Path) -> list[Path]:
    if kind == "features":
        return [one for one in [root / "features"] if _is_own_folder(one)]
    if kind == "logs":
        names = (LOG_FILE, f"{Path(LOG_FILE).stem}.previous.txt", WORK_FILE)
        queued = {note.parent for note in (root / "jobs").rglob(QUEUED_FILE)}  # SLURM has them, whoever asked has gone
        files = [path for name in names for path in sorted((root / "jobs").rglob(name)) if path.parent not in queued]
        return [*files, *(one for one in [root / "jobs" / "slurm"] if _is_own_folder(one) and not queued)]
    found = []
    for folder in [path.parent for path in sorted((root / "heads").glob(f"*/*/{CHOICE_FILE}"))]:
        head = read_chosen(folder)
        if not head or not (kept := folder / head).is_file():
            continue  # of a group that has not chosen, everything stays
        if kind == "checkpoints":
            found += [path for path in sorted(kept.parent.glob("*.ckpt")) if path != kept]
            continue
        trained = [folder / f"lr-{one.learning_rate:g}" for one in (read_tried(folder) or {}).values() if one.trained]
        found += [path for path in sorted(trained) if path != kept.parent and _is_own_folder(path)]
    return found


def _is_own_folder(path: Path) -> bool:
    """Whether it is a folder, and not a link to one, which may be others' too and stays."""
    return path.is_dir() and not path.is_symlink()


def _size(path: Path) -> int:
    files = [path] if path.is_file() else [one for one in path.rglob("*") if one.is_file()]
    return sum(one.stat().st_size for one in files)
