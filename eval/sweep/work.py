"""What the jobs of a sweep do, as typed values that are pickled: look at an upstream, train a head, evaluate it."""

from __future__ import annotations

import json
import logging
import shutil
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import yaml

from robustdistiller.acoustics import Condition
from robustdistiller.common.files import file_digest, write_text
from robustdistiller.eval.conditions.sources import Sources
from robustdistiller.eval.run.cache import CachePlan
from robustdistiller.eval.sweep.config import UpstreamEntry

logger = logging.getLogger(__name__)
_BEGUN = "begun"


@dataclass(frozen=True)
class Check:
    """Look at an upstream with two short noises."""

    doing: ClassVar[str] = "checking"

    upstream: UpstreamEntry
    device: str

    def __call__(self, folder: Path) -> dict[str, Any]:
        """Raise what is wrong; what was loaded otherwise: digest of the weights, of what it is, parameters."""
        from robustdistiller.eval.run.run_info import identify_weights
        from robustdistiller.upstream.contract import examine, open_upstream, require

        entry = self.upstream
        upstream = open_upstream(entry.name, entry.checkpoint, entry.options)
        findings = examine(upstream, _device(self.device))
        for finding in findings:
            logger.info("%s: %s", finding.name, finding.found)
        require(findings)
        weights, of = identify_weights(upstream, getattr(upstream, "checkpoint_path", None) or entry.checkpoint)
        count = getattr(upstream, "num_parameters", 0) or sum(one.numel() for one in upstream.parameters())
        return {
            "kind": "check",
            "weights": weights,
            "weights_of": of,
            "parameters": count,
            "findings": [asdict(finding) for finding in findings],
        }


@dataclass(frozen=True)
class Train:
    """Train a head on clean audio, or go on with it.

    Attributes:
        task: code or name that the registry knows.
        config: the head's complete s3prl configuration.
        folder: the head's.
        key: upstream and task, by which it is timed.
        fresh: begin anew even where there is something to go on from.
    """

    doing: ClassVar[str] = "training"

    upstream: UpstreamEntry
    task: str
    config: Mapping[str, Any]
    seed: int
    folder: Path
    device: str
    features: CachePlan
    key: tuple[str, str]
    fresh: bool = False

    def __call__(self, folder: Path) -> dict[str, Any]:
        """Train; what was chosen on the development set."""
        if self.fresh and not (folder / _BEGUN).exists():
            shutil.rmtree(self.folder, ignore_errors=True)
        (folder / _BEGUN).touch()  # a job that is put back into the queue goes on
        return {**train(self), "kind": "train", "upstream": self.key[0], "task": self.key[1]}


@dataclass(frozen=True)
class Evaluate:
    """Evaluate a head, all conditions of a split in one call.

    Attributes:
        cells: conditions by split.
        checkpoint: of the head; None for a task without one.
        selection: how the head was chosen.
    """

    doing: ClassVar[str] = "evaluating"

    upstream: UpstreamEntry
    task: str
    config: Mapping[str, Any]
    seed: int
    folder: Path
    device: str
    features: CachePlan
    key: tuple[str, str]
    cells: Mapping[str, tuple[Condition, ...]]
    records: Path
    sources: Sources = field(default_factory=Sources)
    corruption_seed: int = 0
    checkpoint: Path | None = None
    selection: Mapping[str, Any] | None = None
    policy: str = "reuse"

    def __call__(self, folder: Path) -> dict[str, Any]:
        """Evaluate all splits; the first failure is raised after all of them."""
        errors = []
        for split, conditions in self.cells.items():
            try:
                evaluate(self, split, conditions)
            except Exception as error:
                logger.exception("%s failed", split)
                errors.append(error)
        if errors:
            raise errors[0]
        units = sum(map(len, self.cells.values()))
        return {"kind": "evaluate", "upstream": self.key[0], "task": self.key[1], "units": units}


def train(work: Train) -> dict[str, Any]:
    """Train a head or go on with it, through the launcher."""
    from robustdistiller.eval import tasks
    from robustdistiller.eval.run.dev_choice import dev_score
    from robustdistiller.eval.run.head_checkpoint import find_head
    from robustdistiller.eval.run.launcher import Launch

    total = int(work.config["runner"]["total_steps"])
    path, step = _newest(work.folder)
    resumed_file = work.folder / "resumed.json"
    options = ["--device", _device(work.device), *work.features.arguments()]
    if path is None:
        shutil.rmtree(work.folder, ignore_errors=True)
        work.folder.mkdir(parents=True)
        config = work.folder / "head.yaml"
        config.write_text(yaml.safe_dump(dict(work.config), sort_keys=False), encoding="utf-8")
        given = ["-d", work.task, "-c", str(config), "-p", str(work.folder), "--seed", str(work.seed)]
        Launch(["-m", "train", *_named(work.upstream), *given, *options]).run()
    elif step < total:
        write_text(resumed_file, json.dumps([*_read(resumed_file), step]))
        Launch(["-m", "train", "-e", str(path), *options, "-o", f"args.expdir={str(work.folder)!r}"]).run()
    score, at = dev_score(work.folder, tasks.get(work.task))
    head = find_head(work.folder)
    return {
        "units": total - step,
        "head": file_digest(head),
        "checkpoint": head.name,
        "dev_score": score,
        "step": at,
        "resumed_at": _read(resumed_file),
    }


def evaluate(work: Evaluate, split: str, conditions: Iterable[Condition]) -> None:
    """Evaluate a head on a split, through the launcher."""
    from robustdistiller.eval.run.dev_choice import write_selection
    from robustdistiller.eval.run.launcher import Launch

    class Typed(Launch):
        def _read_conditions(self) -> None:
            self.conditions, self.sources = tuple(conditions), work.sources

    if work.checkpoint is None:
        work.folder.mkdir(parents=True, exist_ok=True)
        config = work.folder / "head.yaml"
        config.write_text(yaml.safe_dump(dict(work.config), sort_keys=False), encoding="utf-8")
        head = [*_named(work.upstream), "-d", work.task, "-c", str(config), "-p", str(work.folder)]
        head += ["--seed", str(work.seed)]
    else:
        write_selection(work.checkpoint.parent, work.selection or {})
        head = ["-e", str(work.checkpoint), "-o", f"args.expdir={str(work.checkpoint.parent)!r}"]
    call = ["-m", "evaluate", *head, "-t", split, "--device", _device(work.device), *work.features.arguments()]
    call += ["--label", work.upstream.label, "--records", str(work.records)]
    call += ["--corruption-seed", str(work.corruption_seed)]
    call += ["--overwrite", {"reuse": "only-missing", "rerun": "always"}[work.policy]]
    Typed(call).run()


def _newest(folder: Path) -> tuple[Path | None, int]:
    import torch

    from robustdistiller.upstream.s3prl import bridge

    bridge.install()
    best, most = None, 0
    for path in sorted(folder.glob("*.ckpt")):
        try:
            step = int(torch.load(path, map_location="cpu", weights_only=True)["Step"])
        except Exception as error:  # noqa: BLE001 - of whatever is wrong with half a file
            logger.warning("%s cannot be read and is left out: %s", path, str(error).splitlines()[0][:100])
            continue
        if best is None or step > most:
            best, most = path, step
    return best, most


def _named(entry: UpstreamEntry) -> list[str]:
    arguments = ["-u", entry.name, "-s", entry.feature_selection]
    for option, value in (("-k", entry.checkpoint), ("-g", entry.options), ("-l", entry.layer)):
        arguments += [] if value is None else [option, str(value)]
    return arguments


def _read(path: Path) -> list[int]:
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else []


def _device(name: str) -> str:
    import torch

    return name if name != "auto" else "cuda" if torch.cuda.is_available() else "cpu"
