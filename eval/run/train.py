"""Train one head on a frozen upstream, with s3prl's own runner; a training that was stopped goes on exactly."""

from __future__ import annotations

import contextlib
import dataclasses
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from robustdistiller.common.files import remove_leftovers
from robustdistiller.common.locks import Busy, sole_user
from robustdistiller.eval.conditions.train_condition import TrainingPlan
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
from robustdistiller.eval.run.making import made_of, require_own, training_plan
from robustdistiller.eval.run.resumption import why_not_exact
from robustdistiller.eval.run.s3prl_main import run_s3prl
from robustdistiller.eval.run.specs import HeadSpec, TrainedHead
from robustdistiller.upstream.s3prl.entries import register

logger = logging.getLogger(__name__)


def train_head(spec: HeadSpec, resume: bool | Path = True) -> TrainedHead:
    """Train a head, or take the one that stands in its folder.

    What is finished is not trained again. A training that was stopped goes on from its newest checkpoint, and ends with
    the head of a training that was never stopped, to the bit; where that cannot be, it begins anew and says why. What
    another process is training in the same folder is waited for, and taken.

    Args:
        spec: the head.
        resume: a checkpoint to go on from, whether or not that is exact; or False, to begin anew and remove what stands
            in the folder.

    Raises:
        InstallationError: a package or tool of the task is missing.
        FileNotFoundError, ValueError: data or upstream are not there, the folder holds another head, or another process
            trains in it while this one is not to take what stands there.
    """
    register()
    spec = spec.with_own_vocabularies()
    spec.check()
    training = training_plan(spec)
    made = made_of(spec, training)
    with contextlib.ExitStack() as stack:
        try:
            stack.enter_context(sole_user(spec.folder, logger.warning))
        except Busy as error:
            if resume is not True:
                raise RunError(f"{spec.folder}: another process trains a head here; wait for it or stop it") from error
            logger.warning("%s: waiting for another process that trains a head here", spec.folder)
            stack.enter_context(sole_user(spec.folder, logger.warning, wait=True))
        return _train(spec, resume, made, training)


def _train(spec: HeadSpec, resume: bool | Path, made: dict[str, Any], training: TrainingPlan | None) -> TrainedHead:
    start = _start(spec, made, resume)
    if start is not None and resume is True and _is_done(spec, start[1]):
        return trained_head(spec)
    spec.fetch_upstream()  # only what follows it writes
    remove_leftovers(spec.folder)  # of a training that was killed
    threads = spec.threads or torch.get_num_threads()
    if start is None:
        clear(spec.folder)
        note = HeadNote(made=made, quick=spec.quick.label if spec.quick else "", threads=threads)
        note.train_condition = training.note() if training else None
    else:
        note = HeadNote.read(spec.folder) or HeadNote()
        note.finished, note.threads = False, note.threads or threads
        logger.info("Going on from step %d of %d (%s)", start[1]["Step"], spec.total_steps, start[0].name)
    path = None if start is None else str(start[0])
    spec = dataclasses.replace(spec, threads=note.threads)  # a training that goes on keeps its own
    run_s3prl(spec, "train", training=training, note=note, past_exp=path, init_ckpt=path)
    note.finished = True
    note.write(spec.folder)
    return trained_head(spec)


def trained_head(spec: HeadSpec) -> TrainedHead:
    """The head in a folder that is to be evaluated, as it is."""
    if spec.task is not None and spec.task.best_of_every:
        _note_best_on_test(spec)
    checkpoint = find_head(spec.folder)
    states = read_checkpoint(checkpoint)
    note = HeadNote.read(spec.folder)
    score = note.dev_score(spec.task) if note and spec.task else None
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


def _start(spec: HeadSpec, made: dict[str, Any], resume: bool | Path) -> tuple[Path, dict[str, Any]] | None:
    """The checkpoint that a training goes on from and what it holds; None for one that begins anew."""
    if resume is False:
        return None
    if resume is not True:
        start = Path(resume), read_checkpoint(resume)
        require_own(spec, made)
        if why := why_not_exact(spec.config, start[1]):
            logger.warning("%s: the head will differ from one that was never stopped: %s", resume, why)
        return start
    start = newest_states(spec.folder)
    if start is None:
        return None
    require_own(spec, made)
    if _is_done(spec, start[1]):
        return start
    if why := why_not_exact(spec.config, start[1]) or _lost(spec.folder, start[1]["Step"]):
        logger.warning("%s: training begins anew: %s", spec.folder, why)
        return None
    return start


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
