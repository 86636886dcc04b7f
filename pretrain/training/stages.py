"""A whole distillation run: check everything, then stage after stage train or continue, hand on, export."""

from __future__ import annotations

import contextlib
import json
import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import torch
from lightning_fabric import Fabric
from lightning_fabric.utilities.rank_zero import rank_zero_only
from torch import Tensor

from robustdistiller.common.files import remove_leftovers, write_text
from robustdistiller.common.locks import Busy, locked
from robustdistiller.common.settings import SettingsError
from robustdistiller.pretrain.config.schema import DistillConfig
from robustdistiller.pretrain.config.stages import stages_of
from robustdistiller.pretrain.data.dataset import SpeechBatches, make_loader
from robustdistiller.pretrain.data.sampler import BatchStream, Position
from robustdistiller.pretrain.data.unreadable import UnreadableAudio
from robustdistiller.pretrain.student.build import build_student, copied_weights, say_origins, with_training_options
from robustdistiller.pretrain.teacher.cache_plan import make_target_cache
from robustdistiller.pretrain.training.build import count_parameters
from robustdistiller.pretrain.training.checkpoint import (
    Checkpoints,
    exported_weights,
    progress_of,
    read_training,
    refuse_other_run,
    weights_digest,
    write_run,
)
from robustdistiller.pretrain.training.launch import check_compiler, compile_layers, deterministic, launch, versions
from robustdistiller.pretrain.training.log import History, check_logs, read_history
from robustdistiller.pretrain.training.loop import Progress, Training
from robustdistiller.pretrain.training.preparation import (
    Stage,
    groups_and_units,
    load_teachers,
    look_through,
    resolved,
)
from robustdistiller.pretrain.training.step import Distiller
from robustdistiller.pretrain.training.stopping import StopRequest, gathered
from robustdistiller.pretrain.training.trial import try_stages
from robustdistiller.pretrain.training.validate import Validation, criterion_of
from robustdistiller.upstream import SpeechEncoder, checkpoint_digest, read_checkpoint, resolve, save_checkpoint
from robustdistiller.upstream.model.cost import cost_table, encoder_cost

logger = logging.getLogger(__name__)


@dataclass
class Handed:
    """What a stage begins with.

    Attributes:
        student: the model to train.
        state: of maps and heads, from the stage before; empty for the first.
        targets: names of that stage's targets, which its maps are of.
        digest: of both; `None` for the first stage.
        steps: of each stage before.
        audio_s: seconds of audio heard in them.
        epochs: passes over the speech that they began: the next one is heard in another order, with other noise.
    """

    student: SpeechEncoder
    state: Mapping[str, Tensor]
    targets: tuple[str, ...] = ()
    digest: str | None = None
    steps: Mapping[str, int] = field(default_factory=dict)
    audio_s: float = 0.0
    epochs: int = 0


def distill(config: DistillConfig, callbacks: Sequence[object] = ()) -> Path:
    """Train a student, or go on with the run found in `config.out_dir`, and export it.

    PyTorch's global generators are left as they were found.

    Args:
        config: from `load_config`.
        callbacks: objects whose methods are called on the way, see `training.launch.launch`.

    Returns:
        `out_dir/student.ckpt`, loadable with `robustdistiller.upstream.load_encoder`.

    Raises:
        SettingsError: the configuration, the data or the run found there does not allow it; before the first step.
        NonFiniteLossError: the loss became NaN or infinite.
        RunInterrupted: Ctrl-C, SIGTERM, SIGUSR1 or `trainer.max_hours` stopped it; a checkpoint is saved.

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
    if not config.out_dir:
        raise SettingsError("out_dir: say where the run goes, for example out_dir=exp/first")
    out_dir = Path(config.out_dir).expanduser()
    is_main = rank_zero_only.rank == 0  # known before training, from the launcher's variables
    if not is_main:
        logging.getLogger("robustdistiller").setLevel(logging.WARNING)
    stop = StopRequest(config.trainer.max_hours)
    alone = _only_run(out_dir) if is_main else contextlib.nullcontext()
    with alone, torch.random.fork_rng(devices=[]), deterministic(config.trainer.deterministic):
        if config.multitask is not None:
            from robustdistiller.pretrain.multitask.run import run_multitask  # imports this room

            (tune,) = stages_of(config)
            return run_multitask(resolved(tune.config, tune.name, out_dir), out_dir, stop, callbacks)
        return _Run(config, out_dir, callbacks).complete(stop)


class _Run:
    """A run after its checks: every stage's settings, data, teacher and run folder fit together."""

    def __init__(self, config: DistillConfig, out_dir: Path, callbacks: Sequence[object]):
        self.out_dir = out_dir
        named = {stage.name: resolved(stage.config, stage.name, out_dir) for stage in stages_of(config)}
        first = next(iter(named.values()))
        self.fabric = launch(first.trainer, callbacks)
        for config_of_stage in named.values():
            check_logs(config_of_stage.log)
        if any(one.trainer.compile for one in named.values()):
            check_compiler(self.fabric.device.type)
        self.teachers, self.teacher_notes = load_teachers(first)
        build_student(first, self.teachers[""])  # a mistake in it is told before data are read and groups are found
        with self.fabric.rank_zero_first():  # the others find the headers read
            self.stages = look_through(named, out_dir)
        self.groups, self.units = groups_and_units(self.stages, out_dir, self.fabric, self.teachers[""])
        for stage in self.stages:
            if stage.config.targets.layers == "auto":
                targets = replace(stage.config.targets, layers=tuple(map(tuple, self.groups)))
                stage.config = replace(stage.config, targets=targets)
        self.student = self._new_student()
        shape = self.student.config
        try_stages(self.stages, self.student, self.teachers, self.units, self.fabric.world_size)
        self.identity = {
            "teachers": {name or "teacher": notes["sha256"] for name, notes in self.teacher_notes.items()},
            "student": checkpoint_digest(resolve(first.student.checkpoint)) if first.student.checkpoint else None,
            "log-mel norm": shape.conv_norm if shape.front_end == "log_mel" else None,  # runs of before had another one
            "groups": self.groups,
            "units": self.units and weights_digest({"centroids": self.units.centroids}),
            **{f"{one.name}.{key}": found for one in self.stages for key, found in one.describe().items()},
        }
        _refuse_differing(self.fabric, self.identity, "teachers, speech, noise or rooms")
        self.config = replace(config, trainer=replace(config.trainer, precision=first.trainer.precision))
        refuse_other_run(out_dir, self.config, self.identity)
        teacher = self.teachers[""], self.teacher_notes[""]["sha256"]
        with self.fabric.rank_zero_first():
            for stage in self.stages:
                units = stage.config.targets.units and self.identity["units"]
                stage.cache = make_target_cache(stage.config, out_dir, *teacher, stage.cuts, units)
        if self.fabric.is_global_zero:
            remove_leftovers(out_dir)  # of a run that was killed
            schedules = {stage.name: stage.config.optim.schedule_steps for stage in self.stages}
            write_run(out_dir, self.config, {**self.identity, "versions": versions(), "schedule_steps": schedules})
        self.fabric.barrier()

    def complete(self, stop: StopRequest) -> Path:
        """Train what is left of every stage, and export."""
        handed = Handed(self.student, {})
        if self.origins:
            say_origins(self.student, self.origins)
        device = self.fabric.device
        with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
            for number, stage in enumerate(self.stages):
                later = self.stages[number + 1 :]
                self._refuse_lost_stage(stage, later)
                handed = self._train(stage, handed, stop, is_last=not later)
        if self.fabric.is_global_zero:
            from robustdistiller.pretrain.page.run import write_run_page  # matplotlib takes long to import

            logger.info("page     %s", write_run_page(self.out_dir))
            logger.info("student  %s", self.out_dir / "student.ckpt")
        self.fabric.barrier()
        return self.out_dir / "student.ckpt"

    def _train(self, stage: Stage, handed: Handed, stop: StopRequest, is_last: bool) -> Handed:
        """One stage, to its end: returns what the next one begins with."""
        config, fabric = stage.config, self.fabric
        checkpoints = Checkpoints(self.out_dir, stage.name, handed.digest, config.trainer.keep_checkpoints)
        with fabric.rank_zero_first():
            found = checkpoints.latest()
        distiller = self._distiller(stage, handed)
        progress = progress_of(found) if found else Progress(position=Position(epoch=handed.epochs))
        _refuse_differing(fabric, progress.step, "checkpoints in out_dir")  # one would go on, another begin
        if found is not None and progress.step >= config.trainer.max_steps:
            distiller.load_state_dict(exported_weights(found))
            return self._finish(stage, distiller, checkpoints, asdict(progress), handed, is_last)
        if config.trainer.compile:
            for model in (distiller.student, *self.teachers.values()):
                if isinstance(model, SpeechEncoder):
                    compile_layers(model)
        distiller.student.transformer.recompute_layers = config.trainer.activation_checkpointing
        training = Training(fabric, distiller, progress)
        batches_per_step = fabric.world_size * config.trainer.accumulate
        if found is not None:
            training.load_state_dict(found)
            if found["batches_per_step"] != batches_per_step:
                logger.warning(
                    "a step is made of %d batches from here on (devices x accumulate), of %d before: "
                    "trainer.accumulate=%g would keep it as it was",
                    batches_per_step, found["batches_per_step"], found["batches_per_step"] / fabric.world_size,
                )  # fmt: skip
        list_path = self.out_dir / "unreadable.txt" if fabric.is_global_zero else None
        unreadable = UnreadableAudio(config.data.unreadable_budget, list_path)
        unreadable.load_state_dict(found["unreadable"] if found else {})
        distiller.target_cache = stage.cache

        def save(best: bool = False) -> None:
            history.settle_audio()
            _share_unreadable(fabric, unreadable)
            notes = {"progress": asdict(progress), "unreadable": unreadable.state_dict()}
            notes["batches_per_step"] = batches_per_step
            checkpoints.save(fabric, {**training.state_dict(), **notes}, best)

        with stop, History(self.out_dir, stage.name, config, fabric, progress) as history:
            validation = Validation(self.out_dir, stage.name, training, stage.validation, stage.probe, history)
            batches = self._loader(stage, training, unreadable)
            training.run(batches, history, stop, validation.measure, save, self.out_dir)
        with contextlib.nullcontext() if training.average is None else training.average.applied():
            return self._finish(stage, distiller, checkpoints, asdict(progress), handed, is_last)

    def _finish(
        self,
        stage: Stage,
        distiller: Distiller,
        checkpoints: Checkpoints,
        progress: dict[str, Any],
        before: Handed,
        is_last: bool,
    ) -> Handed:
        """Export the student of a stage, unless that is done, and make what the next stage begins with."""
        # Copies: what stands in the distiller may be averaged weights for a while only.
        student = with_training_options(distiller.export_student(), stage.config.student).cpu()
        state = {name: value.detach().cpu().clone() for name, value in distiller.handed_on().items()}
        path = self.out_dir / ("student.ckpt" if is_last else f"student_{stage.name}.ckpt")
        digest = weights_digest({**{f"student.{name}": x for name, x in student.state_dict().items()}, **state})
        written = read_checkpoint(path).metadata.get("content") if path.is_file() else None
        if written == digest:  # writing it again would change the file's digest
            logger.info("stage %s of %s is finished: %s", stage.name, self.out_dir, path)
        elif self.fabric.is_global_zero:
            metadata = self._metadata(stage, distiller, student, progress, before) | {"content": digest}
            if is_last and checkpoints.best_path.is_file():  # first, as its absence would not be noticed
                best = read_training(checkpoints.best_path)
                distiller.load_state_dict(exported_weights(best))
                chosen = distiller.export_student()
                notes = metadata | self._metadata(stage, distiller, chosen, best["progress"], before)
                save_checkpoint(self.out_dir / "student_best.ckpt", chosen, notes)
            save_checkpoint(path, student, metadata)
        if distiller.gates is not None:
            if not distiller.can_be_best():
                lost, asked = distiller.gates.sparsity().item(), distiller.gates.config.sparsity
                closed = ", and the units most in doubt were closed for that" if distiller.gates.config.exact else ""
                logger.warning(
                    "stage %s: its gates have learnt to leave out %.1f %% of the student's parameters, %.1f %% were "
                    "asked for%s: it needs more trainer.max_steps, or fewer pruning.ramp_steps",
                    stage.name, 100 * lost, 100 * asked, closed,
                )  # fmt: skip
            distiller.gates.detach()
        self.fabric.barrier()
        steps = {**before.steps, stage.name: progress["step"]}
        heard_s, epochs = before.audio_s + progress["audio_s"], progress["position"]["epoch"] + 1
        return Handed(student, state, distiller.target_names, digest, steps, heard_s, epochs)

    def _metadata(
        self, stage: Stage, distiller: Distiller, student: SpeechEncoder, progress: dict[str, Any], before: Handed
    ) -> dict[str, Any]:
        """Where a student comes from."""
        config = stage.config
        lines = [line for line in read_history(self.out_dir / "history.csv") if line["stage"] == stage.name]
        lines = [line for line in lines if line["step"] <= progress["step"]]
        best = progress["best"] and {"criterion": criterion_of(config), "step": progress["best"][1]}
        return {
            "teacher": self.teacher_notes[""],
            **({"teachers": self.teacher_notes} if len(self.teacher_notes) > 1 else {}),
            "recipe": config.recipe,
            "stage": stage.name,
            "corruption": config.corruption and config.corruption.to_dict(),
            "config": self.config.to_dict(),
            "identity": stage.describe(),
            "step": progress["step"],
            "steps": {**before.steps, stage.name: progress["step"]},
            "audio_hours": (before.audio_s + progress["audio_s"]) / 3600,
            "last_losses": lines[-1] if lines else {},
            **({"best": {**best, "value": abs(progress["best"][0])}} if best else {}),
            "parameters": count_parameters(distiller, student),
            "weights_from_teacher": self.origins,
            "versions": versions(),
            "date": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        }

    def _distiller(self, stage: Stage, handed: Handed) -> Distiller:
        config = stage.config
        torch.manual_seed(config.seed)
        distiller = Distiller(config, self.teachers, with_training_options(handed.student, config.student), self.units)
        if handed.state:
            new = distiller.take_over(handed.state, handed.targets)
            if new:
                logger.info("stage %s begins with new %s", stage.name, ", ".join(new))
        if handed.digest is None and self.fabric.is_global_zero:
            costs = {"teacher": encoder_cost(self.teachers[""]), "student": encoder_cost(distiller.student)}
            write_text(self.out_dir / "cost.json", json.dumps({name: one.to_dict() for name, one in costs.items()}))
            for line in cost_table(costs).splitlines():
                logger.info("%s", line)
        for name, count in count_parameters(distiller).items():
            logger.info("%-38s %13s parameters", name, f"{count:,}")
        return distiller

    def _loader(self, stage: Stage, training: Training, unreadable: UnreadableAudio) -> torch.utils.data.DataLoader:
        config, fabric, distiller = stage.config, self.fabric, training.distiller
        settings = config.trainer
        stream = BatchStream(
            stage.cuts,
            config.data.max_samples,
            settings.batch_size,
            settings.batch_seconds,
            settings.num_buckets,
            config.seed,
            training.progress.position,
            crops=None if config.targets.cache is None else config.targets.cache.crops,
            batches_per_step=fabric.world_size * settings.accumulate,
            rank=fabric.global_rank,
            world_size=fabric.world_size,
        )
        dataset = SpeechBatches(stage.corruptor, distiller.needs_second_view, distiller.target_cache)
        pin = fabric.device.type == "cuda"
        return make_loader(stream, dataset, config.data.num_workers, pin, unreadable)

    def _new_student(self) -> SpeechEncoder:
        """The untrained student: what is random comes from the seed."""
        config = self.stages[0].config
        torch.manual_seed(config.seed)
        student = build_student(config, self.teachers[""])
        self.origins = copied_weights(self.teachers[""], student, config.student)
        return student

    def _refuse_lost_stage(self, stage: Stage, later: Sequence[Stage]) -> None:
        """A stage without checkpoints, whose followers have some, was not trained here."""
        if Checkpoints(self.out_dir, stage.name).paths:
            return
        for follower in later:
            if Checkpoints(self.out_dir, follower.name).paths:
                raise SettingsError(
                    f"{self.out_dir} holds checkpoints of stage {follower.name}, and none of stage {stage.name} before "
                    "it, which it goes on from; put them back or choose another out_dir"
                )


@contextlib.contextmanager
def _only_run(out_dir: Path) -> Iterator[None]:
    """Hold the run's folder; one that a refused run has left empty is taken away."""
    lock = out_dir / ".lock"
    try:
        with locked(lock, wait=False):
            try:
                yield
            finally:
                if list(out_dir.iterdir()) == [lock]:
                    lock.unlink()
                    out_dir.rmdir()
    except Busy as error:
        raise SettingsError(
            f"another run is at work in {out_dir}: wait for it, stop it, or choose another out_dir"
        ) from error


def _share_unreadable(fabric: Fabric, unreadable: UnreadableAudio) -> None:
    """What one process could not read, all know."""
    for state in gathered(fabric, unreadable.state_dict()):
        unreadable.load_state_dict(state)


def _refuse_differing(fabric: Fabric, value: Any, what: str) -> None:
    """Make sure that all processes have found the same: machines may have other folders under the same names."""
    found = gathered(fabric, value)
    if any(one != found[0] for one in found):
        raise SettingsError(
            f"the processes of this run have found different {what}; out_dir and all data have to be the same folders "
            "on all machines"
        )
