"""A whole multi-task run: check, train or continue, export, test."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Mapping, Sequence
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import torch

from robustdistiller.acoustics import Condition, Corruptor
from robustdistiller.common.files import write_text
from robustdistiller.common.settings import SettingsError
from robustdistiller.pretrain.config.schema import DistillConfig
from robustdistiller.pretrain.data.roots import open_corruptor, open_sources, read_named
from robustdistiller.pretrain.data.unreadable import UnreadableAudio
from robustdistiller.pretrain.multitask.data import load_tasks, paired_batches
from robustdistiller.pretrain.multitask.evaluation import describe_scores, evaluate, named_scores
from robustdistiller.pretrain.multitask.heads import load_heads, save_heads
from robustdistiller.pretrain.multitask.tuning import MultitaskTuner, Tuning
from robustdistiller.pretrain.training.checkpoint import Checkpoints, read_training, refuse_other_run, write_run
from robustdistiller.pretrain.training.launch import launch, versions
from robustdistiller.pretrain.training.log import History, append_line, forget_after
from robustdistiller.pretrain.training.stopping import StopRequest
from robustdistiller.upstream import SpeechEncoder, checkpoint_digest, read_checkpoint, save_checkpoint

logger = logging.getLogger(__name__)

STAGE = "tune"  # a run of this kind has one


def run_multitask(config: DistillConfig, out_dir: Path, stop: StopRequest, callbacks: Sequence[object] = ()) -> Path:
    """Fine-tune for the tasks of `config.multitask`, or go on with the run found in `out_dir`, export and test.

    `out_dir` then holds `student.ckpt` (the encoder), `heads.ckpt`, `results.json` (the test scores), `dev.csv` and
    what every run has. A finished run is only tested under conditions that were not tested before. Callbacks are those
    of `training.launch.launch`, of which `on_before_optimizer_step(tuner, task, step)` comes for each task.

    Raises:
        SettingsError: settings, data or the run found there do not allow it; before the first step.
        NonFiniteLossError: a loss became NaN or infinite.
        RunInterrupted: a signal or `trainer.max_hours` stopped it; a checkpoint is saved.
    """
    encoder, start = _load_start(config)
    tasks = load_tasks(config, out_dir)
    training, conditions = _open_corruptors(config)
    identity = {
        "start": start["sha256"],
        "speech": {task: data.digest() for task, data in tasks.items()},
        "corruption": training and training.describe(),
    }
    refuse_other_run(out_dir, config, identity)
    torch.manual_seed(config.seed)
    tuner = MultitaskTuner(config, encoder, tasks)
    checkpoints = Checkpoints(out_dir, STAGE, keep=config.trainer.keep_checkpoints)
    found = checkpoints.latest()
    if found is not None and _is_finished(config, out_dir, found["progress"]["step"]):
        logger.info("%s is finished: %s", out_dir, out_dir / "student.ckpt")
    else:
        for name, count in tuner.count_parameters().items():
            logger.info("%-38s %13s parameters", name, f"{count:,}")
        schedule = {STAGE: config.optim.schedule_steps}
        write_run(out_dir, config, {**identity, "versions": versions(), "schedule_steps": schedule})
        tuning = Tuning(launch(config.trainer, callbacks), tuner, found)
        if tuning.progress.step < config.trainer.max_steps:
            _fit(tuning, found, out_dir, training, checkpoints, stop)
        _export(tuning, out_dir, checkpoints, {"start": start, "identity": identity})
    _test(tuner, out_dir, conditions)
    return out_dir / "student.ckpt"


def _load_start(config: DistillConfig) -> tuple[SpeechEncoder, dict[str, Any]]:
    """The encoder to begin with, and what identifies it.

    Prediction heads that nothing uses are left out, unless the encoder is frozen and so stays the file's.
    """
    options = config.student
    paths = [path for path in (options.checkpoint, config.teacher.checkpoint) if path]
    if len(paths) != 1:
        raise SettingsError(
            f"found {len(paths)} models to fine-tune, expected one: give student.checkpoint=NAME for a distilled "
            "student, or teacher.checkpoint=NAME for a whole teacher"
        )
    names = ("feature_grad_mult", "dropout", "attention_dropout", "activation_dropout")
    checkpoint, start = read_named(paths[0], **{name: getattr(options, name) for name in names})
    logger.info("start    %s (%s, sha256 %s...)", paths[0], checkpoint.format, start["sha256"][:12])
    encoder = checkpoint.build()
    if config.multitask.features != "predictions" and config.multitask.encoder == "trainable":
        encoder.heads = None
        encoder.config = encoder.config.replace(prediction_layers=())
    return encoder, start


def _open_corruptors(config: DistillConfig) -> tuple[Corruptor | None, dict[str, Corruptor | None]]:
    """What corrupts the training audio, and the test audio per condition."""
    policy, conditions = config.corruption, [Condition.parse(text) for text in config.multitask.conditions]
    needed = set(policy.needs if policy else ())
    for condition in conditions:
        needed |= {kind for kind in condition.needs if not condition.source(kind)}
    sources, reports = open_sources(config, needed)
    for report in reports:
        logger.info("%s", report)
    tests: dict[str, Corruptor | None] = {"clean": None}
    for condition in conditions:
        if condition.kind == "clean":
            continue
        try:
            tests[condition.label] = Corruptor(condition, **sources, seed=config.seed)
        except (FileNotFoundError, ValueError) as error:
            raise SettingsError(f"multitask.conditions: {condition}: {error}") from error
    return open_corruptor(config, sources), tests


def _fit(
    tuning: Tuning, found: Mapping[str, Any] | None, out_dir: Path, corruptor: Corruptor | None,
    checkpoints: Checkpoints, stop: StopRequest,
) -> None:  # fmt: skip
    """Train to `max_steps`; the checkpoint of the best step on dev is kept beside the latest."""
    tuner, fabric = tuning.distiller, tuning.fabric
    config, every_steps = tuner.config, tuner.config.multitask.dev_every_steps
    forget_after(out_dir / "dev.csv", STAGE, tuning.progress.step)
    unreadable = UnreadableAudio(config.data.unreadable_budget, out_dir / "unreadable.txt")
    unreadable.load_state_dict((found or {}).get("unreadable", {}))
    on_gpu = fabric.device.type == "cuda"
    batches = paired_batches(config, tuner.tasks, tuning.positions, corruptor, on_gpu, unreadable)
    with stop, History(out_dir, STAGE, config, fabric, tuning.progress) as history:

        def save(best: bool = False) -> None:
            history.settle_audio()
            checkpoints.save(fabric, {**tuning.state_dict(), "unreadable": unreadable.state_dict()}, best)

        def is_best(step: int) -> bool:
            due = step % every_steps == 0 or step >= config.trainer.max_steps
            return due and _is_best(tuning, out_dir / "dev.csv", history)

        tuning.run(batches, history, stop, is_best, save, out_dir)


def _is_best(tuning: Tuning, table: Path, history: History) -> bool:
    """Measure on dev, note the scores in the table and the logs, and whether they are the best so far."""
    tuning.distiller.watch.settle()  # a loss that is not finite is told as such
    started_s, step = time.monotonic(), tuning.progress.step
    scores = evaluate(tuning.distiller, "dev", num_workers=tuning.distiller.config.data.num_workers)
    measured = named_scores(scores)
    append_line(table, {"stage": STAGE, "step": step, **measured})
    history.add_scalars({f"dev_{name}": value for name, value in measured.items()}, step)
    history.pause(time.monotonic() - started_s)
    logger.info("dev at step %d: %s", step, describe_scores(scores))
    if measured["mean_error"] >= tuning.best.get("mean_error", float("inf")):
        return False
    tuning.best = {"step": step, "mean_error": measured["mean_error"]}
    return True


def _is_finished(config: DistillConfig, out_dir: Path, step: int) -> bool:
    """Whether the run's end is exported already: writing it again would change the digest."""
    student = out_dir / "student.ckpt"
    if step < config.trainer.max_steps or not student.is_file() or not (out_dir / "heads.ckpt").is_file():
        return False
    return read_checkpoint(student).metadata.get("trained_steps") == step


def _export(tuning: Tuning, out_dir: Path, checkpoints: Checkpoints, origin: Mapping[str, Any]) -> None:
    """Write encoder and heads of the chosen step."""
    tuner, progress, config = tuning.distiller, tuning.progress, tuning.distiller.config
    step = progress.step
    if config.multitask.export == "best":
        best = read_training(checkpoints.best_path)
        step = best["progress"]["step"]
        tuner.load_state_dict(best["model"])
    metadata = {
        "start": origin["start"],
        "recipe": config.recipe,
        "corruption": config.corruption and config.corruption.to_dict(),
        "config": config.to_dict(),
        "identity": {key: origin["identity"][key] for key in ("speech", "corruption")},
        "step": step,
        "trained_steps": progress.step,
        "best": tuning.best,
        "audio_hours": progress.audio_s / 3600,
        "parameters": tuner.count_parameters(),
        "versions": versions(),
        "date": datetime.now(timezone.utc).isoformat(timespec="seconds"),
    }
    save_heads(out_dir / "heads.ckpt", tuner.heads, metadata)
    save_checkpoint(out_dir / "student.ckpt", tuner.encoder, metadata)
    from robustdistiller.pretrain.page.run import write_run_page  # matplotlib takes long to import

    write_run_page(out_dir)
    logger.info("student  %s, heads %s (step %d)", out_dir / "student.ckpt", out_dir / "heads.ckpt", step)


def _test(tuner: MultitaskTuner, out_dir: Path, conditions: Mapping[str, Corruptor | None]) -> None:
    """Add to `results.json` the test scores of what was exported, under every condition that is not there yet."""
    path, student = out_dir / "results.json", out_dir / "student.ckpt"
    results = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    exported, digest = read_checkpoint(student), checkpoint_digest(student)
    if results.get("student") != digest:
        notes = {name: exported.metadata[name] for name in ("step", "recipe", "parameters")}
        data = {task: data.summary() for task, data in tuner.tasks.items()}
        results = {"student": digest, **notes, "data": data, "tests": []}
    tuner.encoder.load_state_dict(exported.state_dict)
    tuner.heads.load_state_dict(load_heads(out_dir / "heads.ckpt").state_dict())
    for name, corruptor in conditions.items():
        # As JSON has it: what is compared with what was read.
        corruption = json.loads(json.dumps(corruptor and corruptor.describe()))
        if corruption in [test["corruption"] for test in results["tests"]]:
            continue
        scores = evaluate(tuner, "test", corruptor, tuner.config.data.num_workers)
        results["tests"].append({"condition": name, "corruption": corruption, **scores})
        write_text(path, json.dumps(results, indent=1))
        logger.info("test     %s: %s", name, describe_scores(scores))
