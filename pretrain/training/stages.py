"""A whole distillation run: check, build, train or continue, export."""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import torch
from lightning.pytorch.utilities import rank_zero_only

from robustdistiller.acoustics import Corruptor
from robustdistiller.common.files import remove_leftovers
from robustdistiller.common.settings import SettingsError, read
from robustdistiller.common.written import merge, to_plain
from robustdistiller.pretrain.config.load import DistillConfig
from robustdistiller.pretrain.config.schema import StudentConfig
from robustdistiller.pretrain.data.dataset import BatchStream, SpeechBatches, make_loader
from robustdistiller.pretrain.data.roots import check_data, load_teacher
from robustdistiller.pretrain.data.speech import cuts_digest
from robustdistiller.pretrain.teacher.cache_plan import make_target_cache, refuse_uncacheable
from robustdistiller.pretrain.teacher.groups.find import LayerGroups, find_groups
from robustdistiller.pretrain.training.build import SHAPE_KEYS, build, count_parameters, student_digest
from robustdistiller.pretrain.training.callbacks import CheckpointKeeper, History, read_history
from robustdistiller.pretrain.training.checkpoint import (
    checkpoint_step,
    latest_checkpoint,
    read_run,
    refuse_other_run,
    write_run,
)
from robustdistiller.pretrain.training.launch import check_compiler, check_launcher, compile_layers
from robustdistiller.pretrain.training.loop import RunInterrupted, make_trainer, quiet_lightning, versions
from robustdistiller.pretrain.training.plot import draw_history
from robustdistiller.pretrain.training.step import Distiller
from robustdistiller.pretrain.training.step_time import CostReport
from robustdistiller.pretrain.training.validation_speech import ValidationSpeech, prepare_validation
from robustdistiller.pretrain.training.validator import Validator, best_of, load_best
from robustdistiller.upstream import SpeechEncoder, read_checkpoint, save_checkpoint
from robustdistiller.upstream.model.cost import encoder_cost

logger = logging.getLogger(__name__)


def distill(config: DistillConfig, callbacks: Sequence[pl.Callback] = ()) -> Path:
    """Train a student, or go on with the run found in `config.out_dir`, and export it.

    PyTorch's global generator is left as it was found.

    Args:
        config: from `load_config`.
        callbacks: further Lightning callbacks.

    Returns:
        `out_dir/student.ckpt`, loadable with `robustdistiller.upstream.load_encoder`.

    Raises:
        SettingsError: the configuration, the data or the run found there does not allow it; before the first step.
        NonFiniteLossError: the loss became NaN or infinite.
        RunInterrupted: Ctrl-C, SIGTERM or `trainer.max_hours` stopped it; a checkpoint is saved.

    >>> import numpy as np, soundfile, tempfile
    >>> from robustdistiller.pretrain import load_config
    >>> from robustdistiller.upstream import EncoderConfig
    >>> teacher = SpeechEncoder(EncoderConfig(conv_layers=((8, 10, 5), (8, 8, 8), (8, 8, 8)), embed_dim=16,
    ...                                       num_layers=2, num_heads=2, ffn_dim=32, position_groups=4))
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     save_checkpoint(f"{folder}/teacher.ckpt", teacher, {"name": "untrained"})
    ...     soundfile.write(f"{folder}/noise.wav", np.random.default_rng(0).normal(0, 0.1, 16000), 16000)
    ...     config = load_config("distilhubert", [
    ...         f"teacher.checkpoint={folder}/teacher.ckpt", f"data.speech={folder}/noise.wav", "data.num_workers=0",
    ...         "student.num_layers=1", "targets.layers=[2]", "trainer.max_steps=1",
    ...         "trainer.accelerator=cpu", f"out_dir={folder}/run"])
    ...     distill(config).name
    'student.ckpt'
    """
    if not _is_main_process():
        logging.getLogger("robustdistiller").setLevel(logging.WARNING)
    with torch.random.fork_rng(devices=[]):
        if not config.then:
            return _distill(config, callbacks)
        first = replace(config, then=None, out_dir=str(_out_dir(config) / "first"))
        student = _distill(first, callbacks)
        _wait_for(student)
        return _distill(second_stage(config, student), callbacks)


def second_stage(config: DistillConfig, student: Path) -> DistillConfig:
    """The run that goes on with what the first stage of `config` made: its settings with those of `then` over them.

    The student keeps its shape and is not pruned again.

    >>> from robustdistiller.pretrain import load_config
    >>> second_stage(load_config("dphubert", ["out_dir=exp"]), Path("exp/first/student.ckpt")).optim.lr
    0.0001
    """
    defaults = to_plain(StudentConfig())
    values = {
        **to_plain(replace(config, then=None)),
        "pruning": None,
    }
    values = merge(values, {"student": {key: defaults[key] for key in SHAPE_KEYS} | {"checkpoint": str(student)}})
    return read(DistillConfig, merge(values, config.then))


def _wait_for(path: Path, seconds: float = 600.0) -> None:
    """Let the other processes of a distributed run wait until the main one has written `path`."""
    end = time.monotonic() + seconds
    while not path.is_file() and time.monotonic() < end:
        time.sleep(0.2)


def _distill(config: DistillConfig, callbacks: Sequence[pl.Callback]) -> Path:
    out_dir = _out_dir(config)
    config = _resolve(config, out_dir)
    if config.multitask is not None:
        from robustdistiller.pretrain.multitask.run import run_multitask  # imports this module

        return run_multitask(config, out_dir, callbacks)
    refuse_uncacheable(config)
    teacher, teacher_notes = load_teacher(config)
    cuts, corruptor = check_data(config, out_dir)
    cuts, validation = prepare_validation(config, out_dir, cuts, corruptor)
    config = _find_groups(config, out_dir, teacher, cuts)
    identity = {
        "teacher": teacher_notes["sha256"],
        "student": student_digest(config),
        "speech": cuts_digest(cuts),
        "corruption": corruptor and corruptor.describe(),
        "validation": validation and validation.describe(),
        "versions": versions(),
    }
    remove_leftovers(out_dir)  # of a run that was killed
    resumed = latest_checkpoint(out_dir)
    if resumed is not None:
        refuse_other_run(out_dir, config, identity)
        if _is_finished(config, out_dir, resumed):
            logger.info("%s is finished: %s", out_dir, out_dir / "student.ckpt")
            return out_dir / "student.ckpt"
        logger.info("continuing %s", resumed)
    cache = make_target_cache(config, out_dir, teacher, teacher_notes["sha256"], cuts)
    if _is_main_process():
        write_run(out_dir, config, identity)

    module = build(config, teacher)
    module.target_cache = cache
    stopped_by = _fit(config, out_dir, module, cuts, corruptor, validation, resumed, callbacks)
    if stopped_by:
        raise RunInterrupted(
            f"stopped by {stopped_by} at step {module.steps_done} of {config.trainer.max_steps}; "
            f"everything is saved in {out_dir}: the same command continues",
            exit_code=0 if stopped_by.startswith("trainer.") else 130,
        )
    if _is_main_process():
        _export(config, out_dir, module, teacher_notes, identity)
    return out_dir / "student.ckpt"


def _is_main_process() -> bool:
    """False in all but one process of a distributed run; known before training, from the launcher's variables."""
    return rank_zero_only.rank == 0


def _is_finished(config: DistillConfig, out_dir: Path, checkpoint: Path) -> bool:
    """Whether the last step's student is already exported: writing it again would change its digest."""
    step, student = checkpoint_step(checkpoint), out_dir / "student.ckpt"
    return (
        step >= config.trainer.max_steps and student.is_file() and read_checkpoint(student).metadata.get("step") == step
    )


def _fit(
    config: DistillConfig,
    out_dir: Path,
    module: Distiller,
    cuts: list,
    corruptor: Corruptor | None,
    validation: ValidationSpeech | None,
    resumed: Path | None,
    callbacks: Sequence[pl.Callback],
) -> str:
    """Train to `max_steps`; returns what stopped it before, or an empty string."""
    settings = config.trainer
    costs = {"teacher": encoder_cost(module.teacher), "student": encoder_cost(module.student)}
    module.student.transformer.recompute_layers = settings.activation_checkpointing
    if settings.compile:
        check_compiler("cuda" if _on_cuda(config) else "cpu")
        compile_layers(module.student)
        compile_layers(module.teacher)
    with quiet_lightning(), CheckpointKeeper(out_dir, settings) as keeper, History(out_dir, settings) as history:
        # The cost comes first, so that it does not measure the others. The history's line of a step and the best
        # value are there before the step's checkpoint.
        own: list[pl.Callback] = [CostReport(out_dir, costs, history), history]
        if validation is not None:
            own.append(Validator(out_dir, config.validation, validation, history))
        own.append(keeper)
        trainer = make_trainer(settings, out_dir, [*own, *callbacks])
        loader = _LoaderFromPosition(config, cuts, corruptor, module)
        trainer.fit(module, datamodule=loader, ckpt_path=resumed)
    module.steps_done = trainer.global_step
    return keeper.stopped_by if trainer.global_step < settings.max_steps else ""


class _LoaderFromPosition(pl.LightningDataModule):
    """Makes the loader when the module knows its place in the data, that is after a checkpoint has been read."""

    def __init__(self, config: DistillConfig, cuts: list, corruptor: Corruptor | None, module: Distiller):
        super().__init__()
        self.settings, self.cuts, self.corruptor, self.module = config, cuts, corruptor, module

    def train_dataloader(self) -> torch.utils.data.DataLoader:
        """Batches from `module.position` on."""
        config, settings = self.settings, self.settings.trainer
        world_size = self.trainer.world_size
        stream = BatchStream(
            self.cuts,
            config.data.max_samples,
            settings.batch_size,
            settings.batch_seconds,
            settings.num_buckets,
            config.seed,
            self.module.position,
            None if config.targets.cache is None else config.targets.cache.crops,
            world_size * settings.accumulate,
            self.trainer.global_rank,
            world_size,
        )
        pin = self.module.device.type == "cuda"
        dataset = SpeechBatches(self.corruptor, self.module.needs_second_view, self.module.target_cache)
        if self.trainer.is_global_zero:
            self.module.unreadable.list_path = Path(self.trainer.default_root_dir) / "unreadable.txt"
        return make_loader(stream, dataset, config.data.num_workers, pin, self.module.unreadable)


def _out_dir(config: DistillConfig) -> Path:
    if not config.out_dir:
        raise SettingsError("out_dir: say where the run goes, for example out_dir=exp/first")
    if config.trainer.batch_size is None and config.trainer.batch_seconds is None:
        raise SettingsError("trainer: give batch_size (utterances) or batch_seconds, both are null")
    return Path(config.out_dir).expanduser()


def _on_cuda(config: DistillConfig) -> bool:
    return config.trainer.accelerator in ("auto", "gpu", "cuda") and torch.cuda.is_available()


def _resolve(config: DistillConfig, out_dir: Path) -> DistillConfig:
    """Replace what is left open: precision by device, schedule by the run's first start."""
    trainer, optim = config.trainer, config.optim
    check_launcher(trainer.devices, trainer.num_nodes)
    on_cuda = _on_cuda(config)
    if trainer.precision == "auto":
        trainer = replace(trainer, precision="fp16" if on_cuda else "fp32")
    elif trainer.precision == "fp16" and not on_cuda:
        raise SettingsError("trainer.precision=fp16 needs a CUDA device, found none; give fp32 or auto")
    steps = optim.schedule_steps
    if steps is None:
        steps = trainer.max_steps
        if latest_checkpoint(out_dir) is not None:
            steps = read_run(out_dir)[0]["optim"]["schedule_steps"]
    if optim.schedule == "linear" and trainer.max_steps > steps:
        raise SettingsError(
            f"trainer.max_steps={trainer.max_steps} goes beyond optim.schedule_steps={steps}, where the learning rate "
            f"has fallen to 0; give optim.schedule_steps={trainer.max_steps} too, which stretches the schedule"
        )
    return replace(config, trainer=trainer, optim=replace(optim, schedule_steps=steps))


def _find_groups(config: DistillConfig, out_dir: Path, teacher: SpeechEncoder, cuts: list) -> DistillConfig:
    """Replace `targets.layers: auto` by groups of similar teacher layers, found once and kept in the run's folder."""
    if config.targets.layers != "auto":
        return config
    path = out_dir / "groups.json"
    if path.is_file():
        found = LayerGroups.load(path)
    else:
        device = "cuda" if _on_cuda(config) else None
        found = find_groups(teacher, cuts, config.targets.groups, config.seed, device, progress=config.trainer.progress)
        if _is_main_process():
            found.save(path)
    logger.info("teacher layers in groups: %s", ", ".join(map(str, found.groups)))
    layers = tuple(tuple(group) for group in found.groups)
    return replace(config, targets=replace(config.targets, layers=layers))


def _export(
    config: DistillConfig, out_dir: Path, module: Distiller, teacher: dict[str, Any], identity: dict[str, Any]
) -> None:
    """Write the last and the best student with all that says where they come from, and the picture of the losses."""
    path = out_dir / "student.ckpt"
    lines = read_history(out_dir / "history.csv")
    metadata = {
        "teacher": teacher,
        "recipe": config.recipe,
        "corruption": config.corruption and config.corruption.to_dict(),
        "config": config.to_dict(),
        "identity": {key: identity[key] for key in ("speech", "corruption")},
        "step": module.steps_done,
        "audio_hours": module.audio_s / 3600,
        "last_losses": lines[-1] if lines else {},
        "parameters": count_parameters(module),
        "versions": identity["versions"],
        "date": datetime.now(timezone.utc).isoformat(timespec="seconds"),
    }
    best_path = out_dir / "checkpoints" / "best.ckpt"
    best = best_of(best_path) if config.validation.every_steps is not None else None
    if best is not None:
        metadata["best"] = best
    save_checkpoint(path, module.export_student(), metadata)
    if best is not None:
        load_best(module, best_path)
        progress = {"step": best["step"], "audio_hours": module.audio_s / 3600}
        save_checkpoint(out_dir / "student_best.ckpt", module.export_student(), {**metadata, **progress})
    draw_history(out_dir / "history.csv", out_dir / "history.png")
    logger.info("student  %s", path)
