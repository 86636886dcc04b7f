"""What a head is made of, and whether the head in a folder is made of the same."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from robustdistiller.common.written import flatten
from robustdistiller.eval.conditions.train_condition import TrainingPlan, identity_of
from robustdistiller.eval.results.identity import CLEAN
from robustdistiller.eval.run.errors import RunError
from robustdistiller.eval.run.head_note import HeadNote
from robustdistiller.eval.run.specs import HeadSpec
from robustdistiller.eval.tasks.configs import vocabulary_paths
from robustdistiller.eval.tasks.parts import lookup
from robustdistiller.eval.tasks.rules import IDLE, content_of

# What may differ between two starts of one training.
_NOT_MADE_OF = ("save_step", *IDLE)


def training_plan(spec: HeadSpec) -> TrainingPlan | None:
    """What a head is trained under; None for clean audio.

    Raises:
        FileNotFoundError, ValueError: a source is not there, or heads of the task cannot be trained so.
    """
    conditions = spec.train_conditions
    if not conditions:
        return None
    if spec.task is None or spec.task.corruption == "none" or not spec.task.trainable:
        name = spec.task.code if spec.task else spec.s3prl.get("downstream")
        raise RunError(f"--train-condition: heads of {name} cannot be trained on corrupted audio")
    if any("side" in condition for condition in conditions):
        raise RunError("--train-condition: only trials have a test side; leave out side=")
    try:
        corruptors = spec.sources.corruptors(conditions, spec.corruption_seed)
    except ValueError as error:
        raise RunError(f"--train-condition: {error}") from error
    described = [spec.sources.describe(condition, one) for condition, one in corruptors.items()]
    return TrainingPlan(corruptors, described, spec.corruption_seed, spec.task)


def made_of(spec: HeadSpec, training: TrainingPlan | None = None) -> dict[str, Any]:
    """What decides a head's weights, beside the upstream's: plain data with flat keys, wherever this package lies."""
    roots = {root.key.removeprefix("config.") for root in spec.task.roots} if spec.task else set()
    config = flatten(spec.quick.shorten(spec.config) if spec.quick else spec.config)
    config = {key: list(value) if isinstance(value, tuple) else value for key, value in config.items() if value != {}}
    config |= {key: content_of(config[key]) for key in _vocabularies(spec) if key in config}
    found = {
        "upstream": spec.upstream.name,
        "feature_selection": spec.upstream.feature_selection,
        "layer": spec.upstream.layer,
        "seed": spec.seed,
        "train_condition": training.identity() if training else None,
        "quick": spec.quick.label if spec.quick else "",
        "half_features": bool(spec.features.folder) and spec.features.dtype == "fp16",
        **{k: v for k, v in config.items() if k not in roots and k.rsplit(".", 1)[-1] not in _NOT_MADE_OF},
    }
    return {key: str(value) if isinstance(value, Path) else value for key, value in found.items()}


def require_own(spec: HeadSpec, made: dict[str, Any] | None = None) -> None:
    """Refuse a head's folder that holds another head.

    Raises:
        RunError: with what differs.
    """
    made = made or made_of(spec, training_plan(spec))
    note = HeadNote.read(spec.folder)
    if note is None:
        return
    there, wanted = note.train_condition, made["train_condition"]
    if (identity_of(there) if there else None) != wanted:
        before, now = (one["train_condition"] if one else CLEAN for one in (there, wanted))
        raise RunError(
            f"the head in {spec.folder} was trained under {before!r} so far, it cannot go on under {now!r} with these "
            "sources and seed; give --train-condition, --noise, --rir, --speech and --corruption-seed as before"
        )
    # Earlier versions noted where a vocabulary lay, not what it says.
    old = {
        key
        for key in _vocabularies(spec)
        if Path(str(note.made.get(key))).name == Path(str(lookup(spec.config, key))).name
    }
    keys = [key for key in {**note.made, **made} if key not in {"train_condition", *old}] if note.made else []
    differing = [key for key in keys if note.made.get(key) != made.get(key)]
    if differing:
        key = differing[0]
        raise RunError(
            f"{spec.folder} holds a head with {key} {note.made.get(key)!r}, asked for is {made.get(key)!r}; give "
            "another folder, or remove this one"
        )


def _vocabularies(spec: HeadSpec) -> list[str]:
    return [key.removeprefix("config.") for key in vocabulary_paths(spec.task)] if spec.task else []
