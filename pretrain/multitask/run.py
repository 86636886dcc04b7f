"""A whole multi-task run: check, train or continue, export, test."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping, Sequence
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import torch

from robustdistiller.acoustics import Condition, Corruptor
from robustdistiller.common.files import write_atomically
from robustdistiller.common.settings import SettingsError
from robustdistiller.common.written import flatten
from robustdistiller.pretrain.config.schema import DistillConfig
from robustdistiller.pretrain.data.roots import open_sources, read_named
from robustdistiller.pretrain.multitask.data import PairedBatches, load_tasks
from robustdistiller.pretrain.multitask.evaluation import STAGE, DevEvaluation, best_path, describe_scores, evaluate
from robustdistiller.pretrain.multitask.heads import load_heads, save_heads
from robustdistiller.pretrain.multitask.module import MultitaskTuner, Tuning
from robustdistiller.pretrain.training.checkpoint import Checkpoints, refuse_other_run, write_run
from robustdistiller.pretrain.training.errors import RunInterrupted
from robustdistiller.pretrain.training.launch import launch, versions
from robustdistiller.pretrain.training.log import History, draw_history
from robustdistiller.pretrain.training.stopping import StopRequest
from robustdistiller.upstream import SpeechEncoder, checkpoint_digest, read_checkpoint, save_checkpoint

logger = logging.getLogger(__name__)

#: What a multi-task run heeds; anything else must be left at its default.
USED_KEYS = (
    *("about", "source", "recipe", "out_dir", "seed", "multitask", "corruption", "optim"),
    *("teacher.checkpoint", "student.checkpoint", "student.feature_grad_mult"),
    *("student.dropout", "student.attention_dropout", "student.activation_dropout"),
    *("data.noise", "data.noise_exclude", "data.rir", "data.babble"),
    *("data.max_samples", "data.min_samples", "data.num_workers", "data.manifest_dir"),
    *("trainer.max_steps", "trainer.num_buckets", "trainer.accelerator", "trainer.precision", "trainer.deterministic"),
    *("trainer.log_every_steps", "trainer.save_every_steps", "trainer.keep_checkpoints", "trainer.max_hours"),
    "trainer.progress",
)


def run_multitask(config: DistillConfig, out_dir: Path, stop: StopRequest, callbacks: Sequence[object] = ()) -> Path:
    """Fine-tune for the tasks of `config.multitask`, or go on with the run found in `out_dir`, export and test.

    `out_dir` then holds `student.ckpt` (the encoder), `heads.ckpt`, `results.json` (the test scores), `dev.csv` and
    what every run has. A finished run is only tested under conditions that were not tested before.

    Args:
        config: with precision and length of schedule resolved.
        out_dir: folder of the run.
        stop: what may end it early.
        callbacks: objects with `on_before_optimizer_step(tuner, task, step)` or `on_step_end(tuner, report)`.

    Returns:
        `out_dir/student.ckpt`.

    Raises:
        SettingsError: settings, data or the run found there do not allow it; before the first step.
        NonFiniteLossError: a loss became NaN or infinite.
        RunInterrupted: Ctrl-C, SIGTERM or `trainer.max_hours` stopped it; a checkpoint is saved.
    """
    refuse_unused(config)
    encoder, start = load_start(config)
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
    parameters = count_parameters(tuner)
    checkpoints = Checkpoints(out_dir, STAGE, keep=config.trainer.keep_checkpoints)
    found = checkpoints.latest()
    if found is not None and _is_finished(config, out_dir, found["progress"]["step"]):
        logger.info("%s is finished: %s", out_dir, out_dir / "student.ckpt")
    else:
        for name, count in parameters.items():
            logger.info("%-38s %13s parameters", name, f"{count:,}")
        schedule = {STAGE: config.optim.schedule_steps}
        write_run(out_dir, config, {**identity, "versions": versions(), "schedule_steps": schedule})
        tuning = Tuning(launch(config.trainer, callbacks), tuner, found)
        _fit(tuning, out_dir, training, checkpoints, stop)
        _export(config, out_dir, tuning, start, identity, parameters)
    _test(config, out_dir, tuner, conditions)
    return out_dir / "student.ckpt"


def refuse_unused(config: DistillConfig) -> None:
    """Make sure that nothing is set that a multi-task run does not heed.

    Raises:
        SettingsError: a key that is not in `USED_KEYS` differs from its default.

    >>> refuse_unused(DistillConfig(out_dir="exp/two-tasks"))
    """
    found, default = flatten(config.to_dict()), flatten(DistillConfig().to_dict())
    unused = [
        key
        for key in sorted({*found, *default})
        if found.get(key) != default.get(key) and not key.startswith(USED_KEYS)
    ]
    if unused:
        raise SettingsError(f"multi-task fine-tuning does not use {', '.join(unused)}; leave out what it does not use")


def load_start(config: DistillConfig) -> tuple[SpeechEncoder, dict[str, Any]]:
    """The encoder to begin with, and what identifies it: file name, format, SHA-256 and its own metadata.

    Prediction heads that nothing uses are left out, unless the encoder is frozen and so stays the file's.

    Raises:
        SettingsError: none is given, or both a student and a teacher.
        FileNotFoundError: it does not exist.
        ValueError: it cannot be read as an encoder.
    """
    paths = [path for path in (config.student.checkpoint, config.teacher.checkpoint) if path]
    if len(paths) != 1:
        raise SettingsError(
            f"found {len(paths)} models to fine-tune, expected one: give student.checkpoint=NAME for a distilled "
            "student, or teacher.checkpoint=NAME for a whole teacher"
        )
    options = config.student
    checkpoint, start = read_named(
        paths[0],
        feature_grad_mult=options.feature_grad_mult,
        dropout=options.dropout,
        attention_dropout=options.attention_dropout,
        activation_dropout=options.activation_dropout,
    )
    logger.info("start    %s (%s, sha256 %s...)", paths[0], checkpoint.format, start["sha256"][:12])
    encoder = checkpoint.build()
    if config.multitask.features != "predictions" and config.multitask.encoder == "trainable":
        encoder.heads = None
        encoder.config = encoder.config.replace(prediction_layers=())
    return encoder, start


def count_parameters(module: MultitaskTuner) -> dict[str, int]:
    """Parameters of encoder and heads, and how many are trained."""
    counts = {"encoder": module.encoder.count_parameters()}
    for task, head in module.heads.items():
        counts[f"{task} head"] = sum(weight.numel() for weight in head.parameters())
    counts["trained"] = sum(weight.numel() for weight in module.parameters() if weight.requires_grad)
    return counts


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
            tests[str(condition)] = Corruptor(condition, **sources, seed=config.seed)
        except (FileNotFoundError, ValueError) as error:
            raise SettingsError(f"multitask.conditions: {condition}: {error}") from error
    return policy and Corruptor(policy, **sources, seed=config.seed), tests


def _fit(
    tuning: Tuning, out_dir: Path, corruptor: Corruptor | None, checkpoints: Checkpoints, stop: StopRequest
) -> None:
    """Train to `max_steps`."""
    tuner, fabric, config = tuning.tuner, tuning.fabric, tuning.tuner.config
    settings, pin = config.trainer, fabric.device.type == "cuda"
    if tuning.progress.step >= settings.max_steps:
        return
    with stop, History(out_dir, STAGE, config, fabric, tuning.progress) as history:
        dev = DevEvaluation(out_dir, tuning, history)
        for report in tuning.steps(PairedBatches(config, tuner.tasks, tuning.positions, corruptor, pin)):
            history.add(report)
            dev.measure(report.step)
            fabric.call("on_step_end", tuner, report)
            finished, stopped = report.step >= settings.max_steps, stop.due(fabric, report.step)
            if finished or stopped or report.step % settings.save_every_steps == 0:
                history.settle_audio()
                checkpoints.save(fabric, tuning.state_dict())
                dev.note_saved()
            if stopped and not finished:
                history.write_line()
                raise RunInterrupted(
                    f"stopped by {stop.reason} at step {report.step} of {settings.max_steps}; everything is saved in "
                    f"{out_dir}: the same command continues",
                    exit_code=0 if stop.reason.startswith("trainer.") else 130,
                )
            if finished:
                return


def _is_finished(config: DistillConfig, out_dir: Path, step: int) -> bool:
    """Whether the run's end is exported already: writing it again would change the digest."""
    student = out_dir / "student.ckpt"
    return (
        step >= config.trainer.max_steps
        and (out_dir / "heads.ckpt").is_file()
        and student.is_file()
        and read_checkpoint(student).metadata.get("trained_steps") == step
    )


def _export(
    config: DistillConfig,
    out_dir: Path,
    tuning: Tuning,
    start: Mapping[str, Any],
    identity: Mapping[str, Any],
    parameters: Mapping[str, int],
) -> None:
    """Write encoder and heads of the chosen step."""
    module, trained_steps = tuning.tuner, tuning.progress.step
    step = trained_steps
    if config.multitask.export == "best":
        step = int(tuning.best["step"])
        module.load_state_dict(torch.load(best_path(out_dir / "checkpoints", step), weights_only=True))
    metadata = {
        "start": dict(start),
        "recipe": config.recipe,
        "corruption": config.corruption and config.corruption.to_dict(),
        "config": config.to_dict(),
        "identity": {key: identity[key] for key in ("speech", "corruption")},
        "step": step,
        "trained_steps": trained_steps,
        "best": tuning.best,
        "audio_hours": tuning.progress.audio_s / 3600,
        "parameters": dict(parameters),
        "versions": versions(),
        "date": datetime.now(timezone.utc).isoformat(timespec="seconds"),
    }
    save_heads(out_dir / "heads.ckpt", module.heads, metadata)
    save_checkpoint(out_dir / "student.ckpt", module.encoder, metadata)
    draw_history(out_dir / "history.csv", out_dir / "history.png")
    logger.info("student  %s, heads %s (step %d)", out_dir / "student.ckpt", out_dir / "heads.ckpt", step)


def _test(
    config: DistillConfig, out_dir: Path, module: MultitaskTuner, conditions: Mapping[str, Corruptor | None]
) -> None:
    """Add to `results.json` the test scores of what was exported, under every condition that is not there yet."""
    path, student = out_dir / "results.json", out_dir / "student.ckpt"
    results = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    digest = checkpoint_digest(student)
    exported = read_checkpoint(student)
    if results.get("student") != digest:
        results = {"student": digest, "step": exported.metadata["step"], "recipe": config.recipe}
        results["data"] = {task: data.summary() for task, data in module.tasks.items()}
        results["parameters"], results["tests"] = exported.metadata["parameters"], []
    known = [json.dumps(test["corruption"], sort_keys=True) for test in results["tests"]]
    missing = {
        name: corruptor
        for name, corruptor in conditions.items()
        if json.dumps(_describe(corruptor), sort_keys=True) not in known
    }
    if not missing:
        return
    module.encoder.load_state_dict(exported.state_dict)
    module.heads.load_state_dict(load_heads(out_dir / "heads.ckpt").state_dict())
    for name, corruptor in missing.items():
        scores = evaluate(module, "test", corruptor, config.data.num_workers)
        test = {"condition": Condition.parse(name).label, "corruption": _describe(corruptor), **scores}
        results["tests"].append(json.loads(json.dumps(test)))
        text = json.dumps(results, indent=1)
        write_atomically(path, lambda file, text=text: file.write_text(text, encoding="utf-8"))
        logger.info("test     %s: %s", test["condition"], describe_scores(scores))


def _describe(corruptor: Corruptor | None) -> dict[str, Any] | None:
    return corruptor and corruptor.describe()
