"""Trained heads: which checkpoint to evaluate, and which upstream weights it was trained on.

s3prl stores the upstream's name and path with the head, not its weights. A checkpoint overwritten since then would
give numbers that belong to no model; a note in the experiment's folder makes that an error.
"""

from __future__ import annotations

import argparse
import json
import logging
import re
from pathlib import Path

from robustdistiller.common.files import write_text
from robustdistiller.eval.results.record import RecordError
from robustdistiller.upstream import checkpoint_digest, find_local

logger = logging.getLogger(__name__)

NOTE = "upstream.json"


class LaunchError(ValueError):
    """The command line asks for something that cannot run."""


def find_head(path: str | Path) -> Path:
    """The checkpoint to evaluate: the file itself, or of a folder the one that was best on the development set.

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
    best = sorted(
        p for p in path.glob("*.ckpt") if "best" in p.name and ("dev" in p.name or p.name.startswith("valid"))
    )
    if len(best) == 1:
        logger.info("-e %s: evaluating %s, the best on the development set", path, best[0].name)
        return best[0]
    if best:
        raise LaunchError(
            f"-e {path} holds several best checkpoints ({', '.join(p.name for p in best)}): give the file"
        )
    states = sorted(path.glob("states-*.ckpt"), key=lambda p: int(re.sub(r"\D", "", p.stem) or 0))
    if not states:
        raise LaunchError(f"-e {path}: no checkpoint (dev-best.ckpt or states-N.ckpt) in this folder")
    logger.warning(
        "-e %s: no checkpoint was best on a development set; evaluating the newest, %s", path, states[-1].name
    )
    return states[-1]


def write_origin(args: argparse.Namespace) -> None:
    """Note name and digest of the upstream in the experiment's folder; refuse to go on with another one.

    Raises:
        RecordError: the folder's head was trained on other weights.

    Example:
        >>> import tempfile
        >>> folder = Path(tempfile.mkdtemp())
        >>> _ = (folder / "student.ckpt").write_bytes(b"weights")
        >>> args = argparse.Namespace(
        ...     expdir=str(folder), upstream="u", upstream_ckpt=str(folder / "student.ckpt"), init_ckpt=None)
        >>> write_origin(args)
        >>> check_origin(args)
    """
    origin = _origin(args)
    if origin is None:
        return
    if args.init_ckpt:
        check_origin(args)
    write_text(Path(args.expdir) / NOTE, json.dumps(origin))


def check_origin(args: argparse.Namespace) -> None:
    """Compare the upstream with the note beside the head, if both are there.

    Raises:
        RecordError: the weights differ.
    """
    note = Path(args.init_ckpt or args.expdir)
    note = (note if note.is_dir() else note.parent) / NOTE
    origin = _origin(args)
    if origin is None or not note.is_file():
        return
    trained = json.loads(note.read_text(encoding="utf-8"))
    if trained.get("digest") != origin["digest"]:
        raise RecordError(
            f"the head in {note.parent} was trained on {trained.get('checkpoint')} with SHA-256 "
            f"{str(trained.get('digest'))[:12]}, but {origin['checkpoint']} now has {origin['digest'][:12]}: "
            "train the head again, or bring the old checkpoint back "
            "(if it moved: -o \"args.upstream_ckpt='PATH'\")"
        )


def check_trained_on(head: str | Path, digest: str) -> None:
    """Compare the upstream's digest with the note that training leaves beside a head, if there is one.

    Raises:
        ValueError: the head was trained on other weights.

    >>> check_trained_on("nowhere/dev-best.ckpt", "ab")
    """
    head = Path(head).expanduser()
    note = (head if head.is_dir() else head.parent) / NOTE
    if not note.is_file():
        return
    try:
        trained = json.loads(note.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{note} is damaged: {error}") from error
    if trained.get("digest") != digest:
        raise ValueError(
            f"head {head} was trained on {trained.get('checkpoint')} with SHA-256 {str(trained.get('digest'))[:12]}, "
            f"the upstream has {digest[:12]}: its layer weights belong to another network"
        )


def _origin(args: argparse.Namespace) -> dict[str, str] | None:
    checkpoint = args.upstream_ckpt
    path = find_local(checkpoint) if checkpoint else None
    if path is None or (path.is_dir() and not (path / "config.json").is_file()):
        return None
    return {"upstream": args.upstream, "checkpoint": str(checkpoint), "digest": checkpoint_digest(path)}
