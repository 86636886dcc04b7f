"""What a sweep asks of the launcher: its jobs as command lines of ``run_downstream.py``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from robustdistiller.acoustics.condition import SOURCES
from robustdistiller.eval.sweep.cells import Cell, Group, Head
from robustdistiller.eval.sweep.config import SweepConfig, UpstreamEntry
from robustdistiller.eval.sweep.heard import write_suite
from robustdistiller.eval.sweep.jobs import Job
from robustdistiller.eval.sweep.plan import job_folder
from robustdistiller.upstream.pretrained.names import existing_path


def contract_job(group: Group, device: str) -> Job:
    """Look at an upstream with two short noises."""
    entry = group.upstream
    work = {
        "name": entry.name,
        "checkpoint": _absolute(entry.checkpoint),
        "options": _absolute(entry.options),
        "device": device,
    }
    folder = group.root / "jobs" / group.place.split("/")[0] / "contract"
    return Job("contract", f"{entry.label}: looking at the upstream", folder, work)


def train_job(sweep: SweepConfig, head: Head, fresh: bool) -> Job:
    """Train one head on clean audio.

    Args:
        sweep: for the device, and what becomes of features.
        head: the head.
        fresh: even where it can go on from a checkpoint.
    """
    group = head.group
    work = {
        "task": group.task.registry.code,
        "arguments": [*_upstream(group), "-d", group.task.registry.code, "--seed", str(group.seed)],
        "options": ["--device", sweep.device, *sweep.feature_plan.arguments()],
        "config": head.config,
        "folder": str(head.folder),
        "total_steps": int(head.config["runner"]["total_steps"]),
    }
    title = f"{group.title}: training, learning rate {head.learning_rate:g}"
    return Job("train", title, job_folder(head), work, fresh)


def evaluate_job(sweep: SweepConfig, group: Group, cells: list[Cell], checkpoint: Path | None) -> Job:
    """Evaluate the chosen head, all conditions of a split in one call.

    Args:
        sweep: for the sources of the conditions.
        group: whose head.
        cells: of the group, those to evaluate.
        checkpoint: of the head; None for a task without one.
    """
    calls = []
    cache = sweep.feature_plan.arguments()
    folder = group.root / "jobs" / group.place / "evaluate"
    for split in dict.fromkeys(cell.split for cell in cells):
        call = ["-m", "evaluate", *_head(group, checkpoint), "-t", split, "--device", sweep.device, *cache]
        call += ["--label", group.upstream.label, "--records", str(group.records), "--overwrite", "reuse"]
        for option, paths in ((f"--{kind}", getattr(sweep, kind)) for kind in SOURCES):
            call += [part for path in paths for part in (option, path)]
        call += ["--corruption-seed", str(sweep.corruption_seed)]
        conditions = [cell.condition for cell in cells if cell.split == split]
        if sweep.suites:
            call += ["--suite", str(write_suite(sweep, folder, split, conditions))]
        else:
            call += [part for condition in conditions for part in ("--condition", str(condition))]
        calls.append(call)
    return Job("evaluate", f"{group.title}: evaluating", folder, {"calls": calls})


def _head(group: Group, checkpoint: Path | None) -> list[str]:
    if checkpoint is not None:
        return ["-e", str(checkpoint), "-o", _moved(group, checkpoint)]
    folder = group.root / "heads" / group.place / "untrained"
    folder.mkdir(parents=True, exist_ok=True)
    config = folder / "head.yaml"
    config.write_text(yaml.safe_dump(dict(group.config), sort_keys=False), encoding="utf-8")
    task = group.task.registry.code
    return [*_upstream(group), "-d", task, "-c", str(config), "-p", str(folder), "--seed", str(group.seed)]


def _moved(group: Group, checkpoint: Path) -> str:
    """Where things are now: a head remembers the paths of the day it was trained."""
    settings: dict[str, Any] = {"args.expdir": str(checkpoint.parent)}
    if group.digest != "none":
        settings["args.upstream_ckpt"] = _absolute(group.upstream.checkpoint)
    for root in group.task.registry.roots:
        node: Any = group.config
        for part in root.key.removeprefix("config.").split("."):
            node = node[part]
        settings[root.key] = node
    texts = [f"{key}={value!r}" for key, value in settings.items()]
    # s3prl cannot be told of a path with its own separators in it; such data has to stay where it was.
    return ",,".join(text for text in texts if text.count("=") == 1 and ",," not in text)


def _upstream(group: Group) -> list[str]:
    entry: UpstreamEntry = group.upstream
    arguments = ["-u", entry.name, "-s", entry.feature_selection]
    for option, value in (("-k", _absolute(entry.checkpoint)), ("-g", _absolute(entry.options)), ("-l", entry.layer)):
        arguments += [] if value is None else [option, str(value)]
    return arguments


def _absolute(text: str | None) -> str | None:
    path = existing_path(text) if text else None
    return text if path is None else str(path.absolute())
