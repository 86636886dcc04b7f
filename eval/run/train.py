"""Train one head on a frozen upstream, with s3prl's own runner; a training that was stopped goes on exactly."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from robustdistiller.eval.conditions.train_condition import TrainingPlan
from robustdistiller.eval.run.dev_choice import dev_score
from robustdistiller.eval.run.errors import RunError
from robustdistiller.eval.run.evaluate import evaluate_head
from robustdistiller.eval.run.head_checkpoint import (
    best_checkpoints,
    clear,
    find_head,
    head_digest,
    newest_states,
    read_checkpoint,
    step_of,
)
from robustdistiller.eval.run.head_note import HeadNote
from robustdistiller.eval.run.resumption import why_not_exact
from robustdistiller.eval.run.s3prl_main import run_s3prl
from robustdistiller.eval.run.specs import HeadSpec, TrainedHead
from robustdistiller.upstream.s3prl.entries import register

logger = logging.getLogger(__name__)

# What may differ between two starts of one training: where things are, what is printed and saved, and how often.
_NOT_MADE_OF = ("num_workers", "max_workers", "log_step", "save_step", "max_keep", "eval_batch_size", "eval_batchsize")


def train_head(spec: HeadSpec, resume: bool | Path = True) -> TrainedHead:
    """Train a head, or take the one that stands in its folder.

    What is finished is not trained again. A training that was stopped goes on from its newest checkpoint, and ends with
    the head of a training that was never stopped, to the bit; where that cannot be, it begins anew and says why.

    Args:
        spec: the head.
        resume: a checkpoint to go on from, whether or not that is exact; or False, to begin anew and remove what stands
            in the folder.

    Returns:
        The head that is to be evaluated.

    Raises:
        InstallationError: a package or tool of the task is missing.
        FileNotFoundError, ValueError: data or upstream are not there, or the folder holds another head.
    """
    register()
    spec = spec.with_own_vocabularies()
    spec.check()
    training = _training_plan(spec)
    made = made_of(spec, training)
    start = _start(spec, made, resume)
    if start is not None and resume is True and _is_done(spec, start[1]):
        return trained_head(spec)
    spec.fetch_upstream()  # only what follows it writes
    if start is None:
        clear(spec.folder)
        note = HeadNote(made=made, quick=spec.quick.label if spec.quick else "")
        note.train_condition = training.note() if training else None
    else:
        note = HeadNote.read(spec.folder) or HeadNote()
        note.finished = False
        logger.info("Going on from step %d of %d (%s)", start[1]["Step"], spec.total_steps, start[0].name)
    path = None if start is None else str(start[0])
    runner = run_s3prl(
        spec.arguments("train", past_exp=path, init_ckpt=path),
        spec.quick.shorten(spec.config) if spec.quick else spec.config,
        task=spec.task,
        module=spec.upstream.module,
        feature_plan=spec.features,
        quick=spec.quick,
        training=training,
        note=note,
    )
    runner.note.finished = True
    runner.note.write(spec.folder)
    return trained_head(spec)


def trained_head(spec: HeadSpec) -> TrainedHead:
    """The head in a folder that is to be evaluated, as it is.

    Raises:
        RunError: there is none, or it cannot be read.
    """
    if spec.task is not None and spec.task.best_of_every:
        _note_best_on_test(spec)
    checkpoint = find_head(spec.folder)
    states = read_checkpoint(checkpoint)
    score = dev_score(spec.folder, spec.task)[0] if spec.task else None
    return TrainedHead(spec.folder, checkpoint, head_digest(states), states["Step"], score)


def _note_best_on_test(spec: HeadSpec) -> None:
    """Note which checkpoint counts, where the benchmark takes the best of several on the clean test set (ASV)."""
    note = HeadNote.read(spec.folder) or HeadNote()
    if note.reported and (spec.folder / note.reported).is_file():
        return
    every = spec.task.best_of_every
    candidates = sorted((one for one in spec.folder.glob("states-*.ckpt") if step_of(one) % every == 0), key=step_of)
    if len(candidates) < 2:
        return
    found = {}
    for one in candidates:
        (record,) = evaluate_head(spec, checkpoint=one, records=spec.folder / "candidates")
        found[one.name] = record.main_metric.value
    scored = {name: value for name, value in found.items() if value is not None}
    if not scored:
        return
    note.reported = (max if spec.task.metric.higher_is_better else min)(scored, key=scored.get)
    note.write(spec.folder)
    logger.info("%s: of the checkpoints %s the best on the test set is %s", spec.folder, found, note.reported)


def _training_plan(spec: HeadSpec) -> TrainingPlan | None:
    """What the head is trained under; None for clean audio."""
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
    except FileNotFoundError:
        raise
    except ValueError as error:
        raise RunError(f"--train-condition: {error}") from error
    described = {condition.label: spec.sources.describe(condition, one) for condition, one in corruptors.items()}
    return TrainingPlan(corruptors, described, spec.corruption_seed, spec.task)


def made_of(spec: HeadSpec, training: TrainingPlan | None = None) -> dict[str, Any]:
    """What decides a head's weights, beside the upstream's: plain data with flat keys.

    Args:
        spec: the head.
        training: conditions of its training audio; None for clean audio.
    """
    roots = {root.key.removeprefix("config.") for root in spec.task.roots} if spec.task else set()
    config = dict(_leaves(spec.quick.shorten(spec.config) if spec.quick else spec.config))
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


def _leaves(node: Any, path: str = "") -> Any:
    if isinstance(node, Mapping):
        for key, value in node.items():
            yield from _leaves(value, f"{path}.{key}" if path else str(key))
    else:
        yield path, list(node) if isinstance(node, tuple) else node


def _start(spec: HeadSpec, made: dict[str, Any], resume: bool | Path) -> tuple[Path, dict[str, Any]] | None:
    """The checkpoint that a training goes on from and what it holds; None for one that begins anew."""
    if resume is False:
        return None
    if resume is not True:
        start = Path(resume), read_checkpoint(resume)
        _require_same(spec, made)
        if why := why_not_exact(spec.config, start[1]):
            logger.warning("%s: the head will differ from one that was never stopped: %s", resume, why)
        return start
    start = newest_states(spec.folder)
    if start is None:
        return None
    _require_same(spec, made)
    if _is_done(spec, start[1]):
        return start
    if why := why_not_exact(spec.config, start[1]) or _lost(spec.folder, start[1]["Step"]):
        logger.warning("%s: training begins anew: %s", spec.folder, why)
        return None
    return start


def _require_same(spec: HeadSpec, made: dict[str, Any]) -> None:
    """Refuse a folder with a head that was made differently."""
    note = HeadNote.read(spec.folder)
    if note is None:
        return
    condition = (note.train_condition or {}).get("train_condition", "clean")
    wanted = made["train_condition"]
    if note.train_condition != wanted:
        raise RunError(
            f"the head in {spec.folder} was trained under {condition!r} so far, it cannot go on under "
            f"{wanted['train_condition'] if wanted else 'clean'!r} with these sources and seed; give "
            "--train-condition, --noise, --rir, --speech and --corruption-seed as before"
        )
    differing = [key for key in note.made if note.made[key] != made.get(key)]
    differing += [key for key in made if note.made and key not in note.made]
    if differing:
        key = differing[0]
        raise RunError(
            f"{spec.folder} holds a head with {key} {note.made.get(key)!r}, asked for is {made.get(key)!r}; give "
            "another folder, or remove this one"
        )


def _is_done(spec: HeadSpec, newest: Mapping[str, Any]) -> bool:
    """Whether the training ran to its end and its head can be read."""
    note = HeadNote.read(spec.folder)
    if not (note is not None and note.finished) and newest["Step"] < spec.total_steps:
        return False
    try:
        read_checkpoint(find_head(spec.folder))
    except RunError as error:
        logger.warning("%s", error)
        return False
    return True


def _lost(folder: Path, step: int) -> str:
    """Why a training cannot go on from ``step``: the best checkpoint until then cannot be read; else empty."""
    for path in best_checkpoints(folder):
        try:
            read_checkpoint(path)
        except RunError as error:
            note = HeadNote.read(folder)
            saved = [one["step"] for one in note.dev_scores if path.name in one["saved"]] if note else []
            if not saved or saved[-1] <= step:  # else it is written again
                return str(error)
    return ""
