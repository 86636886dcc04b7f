"""What the jobs of a sweep do, as typed values that are pickled: look at an upstream, train a head, evaluate it."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import datetime, timezone
from importlib import import_module
from pathlib import Path
from typing import Any, ClassVar

from robustdistiller.acoustics import Condition
from robustdistiller.common.files import write_text
from robustdistiller.eval.run.specs import HeadSpec, Upstream
from robustdistiller.eval.sweep.engine import BEGUN_FILE

logger = logging.getLogger(__name__)

#: In the job's folder of a head: digest of the upstream's source code that it is trained with.
CODE_FILE = "code.txt"


def import_all() -> None:
    """Import what the jobs below import, and what their libraries import at the first step."""
    from robustdistiller.upstream.s3prl import bridge

    bridge.install()
    for name in (
        *("torch._dynamo", "s3prl.hub", "s3prl.run_downstream", "robustdistiller.upstream.contract"),
        *("robustdistiller.eval.run.train", "robustdistiller.eval.run.evaluate"),
    ):
        import_module(name)


@dataclass(frozen=True)
class Check:
    """Look at an upstream with two short noises."""

    doing: ClassVar[str] = "checking"

    upstream: Upstream
    device: str

    def __call__(self, folder: Path) -> dict[str, Any]:
        """Raise what is wrong; otherwise what was loaded: digests of weights and source code, parameters."""
        from robustdistiller.eval.run.run_info import code_digest, identify_weights, parameters_of, source_files
        from robustdistiller.upstream.contract import examine, open_upstream, require
        from robustdistiller.upstream.device import usable_device

        given = self.upstream
        upstream = given.module
        if upstream is None:
            upstream = open_upstream(given.name, given.checkpoint, given.options)
        findings = examine(upstream, str(usable_device(self.device)))
        for finding in findings:
            logger.info("%s: %s", finding.name, finding.found)
        require(findings)
        weights, of = identify_weights(upstream, getattr(upstream, "checkpoint_path", None) or given.checkpoint)
        files = source_files(upstream)
        return {
            "weights": weights,
            "weights_of": of,
            "source_files": files,
            "code": code_digest(files),
            "parameters": parameters_of(upstream),
            "findings": [asdict(finding) for finding in findings],
        }


@dataclass(frozen=True)
class Train:
    """Train a head, or go on with it.

    Attributes:
        fresh: begin anew even where there is something to go on from.
        code: digest of the upstream's source code, where it is known; after a change of it, a head is trained anew.
    """

    doing: ClassVar[str] = "training"

    head: HeadSpec
    fresh: bool = False
    code: str = ""

    def __call__(self, folder: Path) -> dict[str, Any]:
        """Train; what is to be evaluated, and its score on the development set."""
        from robustdistiller.eval.run.head_checkpoint import clear
        from robustdistiller.eval.run.head_note import HeadNote
        from robustdistiller.eval.run.train import train_head

        begun, code = folder / BEGUN_FILE, folder / CODE_FILE
        changed = self.code and code.exists() and code.read_text(encoding="utf-8") not in ("", self.code)
        fresh = bool(changed or self.fresh) and not begun.exists()  # a job that is put back into the queue goes on
        before = HeadNote.read(self.head.folder) or HeadNote()
        if fresh:  # before it is noted as begun: what then fails leaves no head of other code behind
            clear(self.head.folder)
        begun.touch()
        write_text(code, self.code)
        trained = train_head(self.head, resume=not fresh)
        resumed_at = (HeadNote.read(self.head.folder) or HeadNote()).resumed_at
        done = 0 if before.finished and not fresh else self.head.total_steps
        return {
            "units": done - (resumed_at[-1] if done and len(resumed_at) > len(before.resumed_at) else 0),
            "head": trained.head_digest,
            "checkpoint": trained.checkpoint.name,
            "dev_score": trained.dev_score,
            "step": trained.step,
            "resumed_at": list(resumed_at),
        }


@dataclass(frozen=True)
class Evaluate:
    """Evaluate a head under conditions, by split, all of a split in one call; `options` are of `evaluate_head`.

    A job that is put back into the queue goes on: what it evaluated before is not evaluated again.
    """

    doing: ClassVar[str] = "evaluating"

    head: HeadSpec
    cells: Mapping[str, tuple[Condition, ...]]
    options: Mapping[str, Any]

    def __call__(self, folder: Path) -> dict[str, Any]:
        """Evaluate all splits; the first failure is raised after all of them."""
        from robustdistiller.eval.run.evaluate import evaluate_head, raise_failures

        begun, errors = folder / BEGUN_FILE, []
        if not begun.exists():
            write_text(begun, datetime.now(timezone.utc).isoformat(timespec="seconds"))
        since_utc = begun.read_text(encoding="utf-8")
        for split, conditions in self.cells.items():
            try:
                found = evaluate_head(self.head, conditions, split=split, since_utc=since_utc, **self.options)
                raise_failures(found)
            except Exception as error:
                logger.exception("%s failed", split)
                errors.append(error)
        if errors:
            raise errors[0]
        return {"units": sum(map(len, self.cells.values()))}
