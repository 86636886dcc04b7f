"""What a record says of a cell before it is evaluated, gathered from where it is known."""

from __future__ import annotations

from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import torch

from robustdistiller.acoustics import Condition, Corruptor
from robustdistiller.eval.conditions.replay import ReplayedCorruptor
from robustdistiller.eval.conditions.sources import Sources
from robustdistiller.eval.results.identity import made_digest
from robustdistiller.eval.run.head_checkpoint import head_digest
from robustdistiller.eval.run.head_note import HeadNote
from robustdistiller.eval.run.run_info import git_state, parameters_of, tf32_enabled, upstream_code, versions
from robustdistiller.eval.run.s3prl_runner import HeadRunner
from robustdistiller.eval.tasks.rules import ARGUMENTS, CLEAN, deviations, split
from robustdistiller.upstream import ModelName


def upstream_fields(runner: HeadRunner, label: str) -> dict[str, Any]:
    """The system under test."""
    model, facts = runner.bare_upstream, runner.upstream_facts
    return {
        "upstream": facts["name"],
        "label": label,
        "upstream_options": facts["options"],
        "upstream_code": upstream_code(model),
        "checkpoint": ModelName.short_of(facts["checkpoint"]),
        "checkpoint_digest": facts["weights"],
        "checkpoint_digest_of": facts["weights_of"],
        "parameters": parameters_of(model),
    }


def head_fields(runner: HeadRunner, note: HeadNote) -> dict[str, Any]:
    """The head, how it was trained, and in what that is not the benchmark's way."""
    task, args, config = runner.task, runner.args, runner.config_as_given
    made = {name: getattr(args, name, None) for name in (*ARGUMENTS, "seed")}
    cached = {"training": note.features, "evaluation": runner.cached.features if runner.cached else ""}
    cached = {when: what for when, what in cached.items() if what}
    train_condition = note.train_condition["train_condition"] if note.train_condition else CLEAN
    quick = runner.spec.quick.label if runner.spec.quick else note.quick
    rules = split(task, config, vars(args), train_condition=train_condition, features=cached, quick=quick)
    weights = getattr(runner.featurizer.model, "weights", None)
    return {
        "task": task.code,
        "downstream": args.downstream,
        "head_digest": head_digest(runner.init_ckpt) if runner.init_ckpt else made_digest(**made),
        "rules_digest": rules.digest,
        "settings": rules.free,
        "train_condition": train_condition,
        "quick": quick,
        "selection": note.selection,
        "feature_cache": cached,
        "non_standard": deviations(task, rules),
        "fold": (getattr(runner.downstream.model, "fold", "") or task.fold_of(config)) if task.folds else "",
        "learning_rate": (config.get("optimizer") or {}).get("lr"),
        "seed": args.seed,
        "step": runner.init_ckpt.get("Step"),
        "layer_weights": None if weights is None else torch.softmax(weights.detach().float().cpu(), 0).tolist(),
    }


def condition_fields(condition: Condition, corruptor: Corruptor | None, sources: Sources) -> dict[str, Any]:
    """What is heard."""
    described = sources.describe(condition, corruptor)
    if isinstance(corruptor, ReplayedCorruptor):
        manifest, given = corruptor.manifest, {kind: one["digest"] for kind, one in described.items()}
        described = manifest.sources  # its recordings are these, byte for byte
        if given == {kind: one["digest"] for kind, one in described.items()} and not corruptor.is_drawn_today():
            # Of another release: not the cell of what is drawn from the same sources now.
            described = {**described, "manifest": {"name": Path(corruptor.origin).name, "digest": manifest.digest}}
    return {
        "condition": condition.label,
        "condition_parameters": condition.to_dict(),
        "sources": described,
        "corruption_seed": corruptor.seed if corruptor is not None else 0,
    }


def machine_fields(runner: HeadRunner) -> dict[str, Any]:
    """What computes it, and when."""
    device = str(runner.args.device)
    return {
        "versions": versions(),
        "git": git_state(),
        "device": f"{device} ({torch.cuda.get_device_name(device)})" if device.startswith("cuda") else device,
        "threads": torch.get_num_threads(),
        "tf32": tf32_enabled(),
        "start_utc": datetime.now(timezone.utc).isoformat(timespec="seconds"),
    }
