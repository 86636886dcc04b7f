"""All tasks on toy corpora, side by side, each in a process of its own."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from robustdistiller.common.process import ProcessDied, call_apart
from robustdistiller.eval import tasks
from robustdistiller.eval.check.toy_corpora import BUILDERS
from robustdistiller.eval.data.build import mapped
from robustdistiller.eval.sweep.pool import environment_of
from robustdistiller.eval.tasks.needs import look_at
from robustdistiller.upstream.contract import Finding, check_upstream

#: Seconds after which a task is taken to hang.
HANGS_S = 1800.0


@dataclass(frozen=True)
class TaskCheck:
    """What was found of one task.

    Attributes:
        task: its code.
        status: ``"ok"``; ``"differs"``, its scores or heads are not those of stock s3prl, or change with the feature
            cache; ``"failed"``; ``"skipped"``, packages or tools are missing.
        why: in words, where it is not ok.
        scores: metric to value, of ``"s3prl"``, ``"here"`` and ``"cached"``.
        cache: what features the cache held, or why it was not used.
        duration_s: how long it took.
    """

    task: str
    status: str
    why: str = ""
    scores: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    cache: str = ""
    duration_s: float = 0.0


@dataclass(frozen=True)
class UpstreamCheck:
    """What was found of an upstream.

    Attributes:
        upstream: entry of s3prl's hub.
        checkpoint: what its ``-k`` was given.
        contract: what s3prl's heads rely on.
        tasks: in the order of SUPERB's table; empty where the contract is broken.
    """

    upstream: str
    checkpoint: str | None
    contract: tuple[Finding, ...]
    tasks: tuple[TaskCheck, ...] = ()

    @property
    def ok(self) -> bool:
        """Nothing is broken, differs or failed."""
        broken = any(not finding.ok and finding.required for finding in self.contract)
        return not broken and all(one.status in ("ok", "skipped") for one in self.tasks)

    def to_dict(self) -> dict[str, Any]:
        """JSON-able content."""
        return {"ok": self.ok, **asdict(self)}


def check_on_tasks(
    upstream: str,
    checkpoint: str | None = None,
    options: str | None = None,
    *,
    folder: Path,
    codes: Sequence[str] = (),
    steps: int = 8,
    device: str = "cpu",
    jobs: int = 1,
    on_result: Callable[[TaskCheck], None] = lambda _: None,
) -> UpstreamCheck:
    """Train and score small heads of every task on toy corpora, by stock s3prl and by this package, and compare.

    Scores on toy corpora mean nothing; that they are equal means that a run of the real task would be stock s3prl's.

    Raises:
        ValueError: a task is not known or has no toy corpus, or the folder holds an earlier check of it.
    """
    chosen = list(dict.fromkeys(tasks.get(code).code for code in codes)) or list(BUILDERS)
    absent = [code for code in chosen if code not in BUILDERS]
    if absent:
        raise ValueError(f"no toy corpus of {', '.join(absent)}; there are {', '.join(BUILDERS)}")
    if used := [code for code in chosen if any((folder / code).glob("*"))]:
        raise ValueError(
            f"{folder} holds an earlier check of {', '.join(used)}, whose heads and records would be mixed with this "
            "one's; give a new folder, or delete that one"
        )
    contract = tuple(check_upstream(upstream, checkpoint, options, device))
    found = UpstreamCheck(upstream, checkpoint, contract)
    if not found.ok:
        return found

    def examine(code: str) -> TaskCheck:
        given = {"-u": upstream, "-k": checkpoint, "-g": options}, steps
        result = _examine(code, folder.resolve() / code, device, *given)
        on_result(result)
        return result

    return replace(found, tasks=tuple(mapped(examine, chosen, jobs)))


def _examine(code: str, folder: Path, device: str, *given: Any) -> TaskCheck:
    needs = look_at(tasks.get(code))
    if needs.missing:
        why = f"{', '.join(needs.missing)} not found here; type: {' && '.join(needs.commands)}"
        return TaskCheck(code, "skipped", why)
    started = time.monotonic()
    folder.mkdir(parents=True, exist_ok=True)
    log = folder / "log.txt"
    # s3prl's own runner takes the first GPU that it sees, for some tasks whatever its --device is.
    environment = {**environment_of(device, threads=1), "XDG_CACHE_HOME": str(folder / "cache")}
    one_task = "robustdistiller.eval.check.one_task:examine", code, *given, device.partition(":")[0], str(folder)
    try:
        answer = call_apart(*one_task, environment=environment, timeout_s=HANGS_S, log=log)
    except ProcessDied as error:
        answer = {"status": "failed", "why": f"{error}; see {log}"}
    return TaskCheck(code, **answer, duration_s=round(time.monotonic() - started, 1))
