"""The training step of distillation: the teacher hears clean speech, the student corrupted speech."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Callable, Iterator

import lightning.pytorch as pl
import torch
from torch import Tensor, nn
from torch.optim import AdamW
from torch.optim.lr_scheduler import LambdaLR

from robustdistiller.common.settings import SettingsError
from robustdistiller.pretrain.config.load import DistillConfig
from robustdistiller.pretrain.data.dataset import Batch, Heard, Position
from robustdistiller.pretrain.data.unreadable import UnreadableAudio
from robustdistiller.pretrain.objectives import Shapes, Step, valid_frames
from robustdistiller.pretrain.student.pruning import Gates
from robustdistiller.pretrain.teacher.cache import TargetCache
from robustdistiller.pretrain.teacher.targets import Targets
from robustdistiller.pretrain.training.finite import ADVICE, FiniteWatch, Places
from robustdistiller.pretrain.training.step_time import StepClock
from robustdistiller.upstream import SpeechEncoder
from robustdistiller.upstream.fast import accelerate, accelerate_training


class Distiller(pl.LightningModule):
    """Student, training-only parts, objectives, optimizer and schedule.

    The teacher is no submodule: it is neither trained, nor switched to train mode, nor saved.

    Args:
        config: of the run; `optim.schedule_steps` must be set and `targets.layers` be explicit.
        teacher: frozen model.
        student: trained model, with one prediction head per target if `config.targets.match` is `heads`.

    Raises:
        SettingsError: targets that teacher or student does not have, or an objective that does not fit them.
    """

    def __init__(self, config: DistillConfig, teacher: SpeechEncoder, student: SpeechEncoder):
        super().__init__()
        self.settings = config
        self.student = student
        self.targets = Targets(config.targets, student.config, teacher.config)
        self.objectives = config.objectives.active()
        shapes = Shapes(
            student.config,
            state_widths=(student.config.embed_dim,) * len(self.targets.names),
            target_widths=(teacher.config.embed_dim,) * len(self.targets.names),
            match=config.targets.match,
            corrupted=config.corruption is not None,
        )
        for name, objective in self.objectives.items():
            try:
                objective.check(shapes)
            except ValueError as error:
                raise SettingsError(f"objectives.{name}: {error}") from error
        heads = {name: objective.make_head(shapes) for name, objective in self.objectives.items()}
        self.heads = nn.ModuleDict({name: head for name, head in heads.items() if head is not None})
        self.needs = frozenset().union(*(objective.needs for objective in self.objectives.values()))
        self.gates = Gates(student, config.pruning) if config.pruning else None
        self._teacher = (teacher.eval().requires_grad_(False),)
        self.position = Position()  # of the next batch
        self.audio_s = 0.0  # heard so far
        self.unreadable = UnreadableAudio(config.data.unreadable_budget)
        self.steps_done = 0  # when training is over
        self.values: dict[str, Tensor | float] = {}  # of the latest step, for the log; their mean over all processes
        self.clock = StepClock()
        self.finite = FiniteWatch()
        self.target_cache: TargetCache | None = None

    @property
    def teacher(self) -> SpeechEncoder:
        """The frozen model, on the device of the student."""
        return self._teacher[0]

    @property
    def needs_second_view(self) -> bool:
        """Whether batches must bring a second corruption of each utterance."""
        independent = self.settings.teacher.hears == "independent"
        return independent or "second_view" in self.needs

    def on_fit_start(self) -> None:
        """Put the teacher beside the student, on a CPU both with faster kernels."""
        self.teacher.to(self.device)
        if self.device.type == "cpu":
            if self.settings.teacher.autocast:  # the frozen kernels are for float32 alone
                accelerate_training(self.teacher)
            else:
                self._teacher = (accelerate(self.teacher),)
            if self.gates is None and not self.settings.trainer.compile:  # pruning needs hooks, and compiling modules
                accelerate_training(self.student)

    def transfer_batch_to_device(self, batch: Batch, device: torch.device, dataloader_idx: int) -> Batch:
        """Move the audio; lengths stay on the CPU, where they are read."""
        return batch.to(device, non_blocking=True)

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Loss of one batch.

        Raises:
            NonFiniteLossError: the loss is NaN or infinite.
        """
        self.finite.settle(self.global_step + 1)
        # Dropout and gates depend on the seed and the place in the data only, so that a resumed run repeats them.
        torch.manual_seed(_step_seed(self.settings.seed, batch.position, self.global_rank))
        step = self.step_of(batch)
        heads = dict(self.heads.items())
        terms = {name: objective(step, heads.get(name)) for name, objective in self.objectives.items()}
        share, audio_s = self._share(batch, step.valid)
        terms = {name: share * value for name, value in terms.items()}
        loss = sum(self.weight(name) * value.mean() for name, value in terms.items())
        self.values = self._log_values(terms)
        if self.gates is not None:
            penalty = self.gates.penalty(self.global_step)
            loss = loss + penalty
            self.values |= {
                "sparsity_penalty": penalty.detach(),
                "sparsity": self.gates.sparsity().detach(),
                "target_sparsity": self.gates.target_sparsity(self.global_step),
            }
        self.values = {"loss": loss.detach(), **self.values}
        self.finite.expect(loss, self.global_step + 1, self._failure_of_loss(step))
        self._latest = (batch.ids, batch.position)
        self.position = batch.position.next()
        self.audio_s += audio_s
        return loss

    def step_of(self, batch: Batch) -> Step:
        """Let teacher and student hear a batch: everything that objectives and validation look at."""
        targets = self.teach(batch)
        self.clock.lap("teacher")
        heard = self.hear(batch, batch.corrupted)
        output = self.student(heard, batch.lengths)
        second = None
        clean = None
        if "clean_view" in self.needs:
            with torch.no_grad():
                clean = self.student(batch.waveforms, batch.lengths)
        if "second_view" in self.needs:
            second = self.student(self.hear(batch, batch.second), batch.lengths)
        self.clock.lap("student")
        own = batch.second if self.settings.teacher.hears == "independent" else None
        return Step(
            batch=batch,
            student_input=heard,
            student=output,
            student_states=self.targets.states(output),
            predictions=self.targets.of_student(output),
            targets=targets,
            valid=valid_frames(output.frame_lengths, targets[0].shape[1]),
            snr_db=_snr_db(batch, batch.corrupted),
            teacher_snr_db=_snr_db(batch, own),
            second=second,
            clean=clean,
            global_step=self.global_step,
        )

    @torch.no_grad()
    def teach(self, batch: Batch) -> list[Tensor]:
        """The targets: per target (B, T, D). Teacher layers above the last one needed are not run.

        With a cache, the teacher is asked about what is not in it.
        """
        if batch.cached is not None:
            return self.target_cache.complete(batch.cached, lambda rows: self._ask_about(batch, rows))
        own = batch.second if self.settings.teacher.hears == "independent" else None
        return self._ask_teacher(self.hear(batch, own), batch.lengths)

    def _ask_about(self, batch: Batch, rows: list[int]) -> list[Tensor]:
        lengths = batch.lengths[rows]
        return self._ask_teacher(batch.waveforms[rows, : int(lengths.max())], lengths)

    def _ask_teacher(self, heard: Tensor, lengths: Tensor) -> list[Tensor]:
        device = self.device.type
        autocast = self.settings.teacher.autocast and torch.is_autocast_enabled(device)
        with torch.autocast(device, torch.get_autocast_dtype(device), enabled=autocast):
            output = self.teacher(heard, lengths, layers=self.targets.layers, predict=False)
        return self.targets.of_teacher(output.hidden_states)

    @staticmethod
    def hear(batch: Batch, view: Heard | None) -> Tensor:
        """The speech of a batch in one of its views, clean without one: (B, samples)."""
        return batch.waveforms if view is None else view.waveforms

    def on_train_batch_end(self, outputs: object, batch: Batch, batch_idx: int) -> None:
        """The callbacks are done; what comes now is waiting for the next batch."""
        self.clock.skip()

    @property
    def can_be_best(self) -> bool:
        """Whether the student may be the best one yet: not before a pruned one is as small as it has to be."""
        return self.gates is None or self.global_step >= self.settings.pruning.ramp_steps

    def _share(self, batch: Batch, valid: Tensor) -> tuple[Tensor | float, float]:
        """What the means over this process's valid frames count, and how much audio all processes hear in this step.

        DDP takes the plain mean of the gradients. With this factor it becomes that of the mean over all frames,
        whichever process they are in. The factors' mean is 1.
        """
        if self.trainer.world_size == 1:
            return 1.0, batch.seconds
        own = torch.tensor([float(valid.sum()), batch.seconds], device=self.device)
        mean = self.trainer.strategy.reduce(own.clone(), reduce_op="mean")
        return own[0] / mean[0], float(mean[1]) * self.trainer.world_size

    def weight(self, name: str) -> float:
        """Weight of an objective in the loss."""
        return getattr(self.settings.objectives, name).weight

    def export_student(self) -> SpeechEncoder:
        """What the run is for: the student, dense and small if it was pruned."""
        return self.student if self.gates is None else self.gates.make_dense()

    def _log_values(self, terms: dict[str, Tensor]) -> dict[str, Tensor]:
        values = {name: value.detach().mean() for name, value in terms.items()}
        for name, value in terms.items():
            if value.ndim:
                values |= {f"{name}_layer{which}": one for which, one in zip(self.targets.names, value.detach())}
        return values

    def configure_optimizers(self) -> dict:
        """AdamW, with the schedule stepped after every optimizer step; gates and multipliers have their own groups."""
        settings = self.settings.optim
        named = [(name, weight) for name, weight in self._named_weights() if weight.requires_grad]
        decayed = [weight for name, weight in named if _is_decayed(name, weight)]
        others = [weight for name, weight in named if not _is_decayed(name, weight)]
        groups = [{"params": decayed}, {"params": others, "weight_decay": 0.0}]
        if self.gates is not None:
            groups += self.gates.optimizer_groups()
        # One kernel for all weights. It undoes the loss scaling of fp16 by itself, after the clipping here: too late.
        fused = self.trainer.precision != "16-mixed" and self.device.type == "cuda"
        optimizer = AdamW(groups, settings.lr, tuple(settings.betas), settings.eps, settings.weight_decay, fused=fused)
        scheduler = LambdaLR(optimizer, self._rate)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}

    def _named_weights(self) -> Iterator[tuple[str, Tensor]]:
        return ((name, weight) for name, weight in self.named_parameters() if not name.startswith("gates."))

    def _rate(self, steps_done: int) -> float:
        settings = self.settings.optim
        return learning_rate_factor(
            steps_done + 1, settings.schedule_steps, settings.warmup_fraction, settings.schedule == "linear"
        )

    def configure_gradient_clipping(self, optimizer, gradient_clip_val=None, gradient_clip_algorithm=None) -> None:
        """Clip the norm of all gradients but the gates' together, and refuse to step on NaN.

        Raises:
            NonFiniteLossError: the norm is NaN or infinite (in fp16 the scaler skips such steps instead).
        """
        weights = [weight for _, weight in self._named_weights()]
        norm = torch.nn.utils.clip_grad_norm_(weights, self.settings.optim.clip_norm)
        self.values |= {"grad_norm": norm.detach(), "lr": optimizer.param_groups[0]["lr"]}
        if self.trainer.precision != "16-mixed":
            self.finite.expect(norm, self.global_step + 1, self._failure_of_gradient(*self._latest))

    def on_save_checkpoint(self, checkpoint: dict) -> None:
        """Add the place in the data, and what of it cannot be read.

        Raises:
            NonFiniteLossError: what would be saved is of no use.
        """
        self.finite.settle()
        # Processes pass over different unreadable batches, so that their places may differ.
        states = [(self.position, self.unreadable.state_dict())] * self.trainer.world_size
        if self.trainer.world_size > 1:
            torch.distributed.all_gather_object(states, states[0])
        for _, reasons in states:
            self.unreadable.load_state_dict(reasons)
        checkpoint["progress"] = {
            "position": dataclasses.asdict(self.position),
            "positions": [dataclasses.asdict(position) for position, _ in states],
            "audio_s": self.audio_s,
            "unreadable": self.unreadable.state_dict(),
        }

    def on_load_checkpoint(self, checkpoint: dict) -> None:
        """Take up the place in the data."""
        progress = checkpoint["progress"]
        everywhere = progress.get("positions", [])
        known = len(everywhere) == self.trainer.world_size
        self.position = Position(**(everywhere[self.global_rank] if known else progress["position"]))
        self.audio_s = progress["audio_s"]
        self.unreadable.load_state_dict(progress.get("unreadable", {}))

    def _failure_of_loss(self, step: Step) -> Callable[[], str]:
        on_cpu = step.student_input.device.type == "cpu"  # a GPU's tensors must not be kept until the answer is there
        look = (lambda: Places(step).describe()) if on_cpu else Places(step).describe
        values, number, position = dict(self.values), self.global_step + 1, step.batch.position
        ids = ", ".join(step.batch.ids)

        def describe() -> str:
            terms = ", ".join(f"{name} {float(value):.4g}" for name, value in values.items())
            return (
                f"the loss is not finite at step {number} (epoch {position.epoch}, batch {position.batch_in_epoch}): "
                f"{terms}; {look()}. Utterances of the batch: {ids}. {ADVICE}"
            )

        return describe

    def _failure_of_gradient(self, ids: tuple[str, ...], position: Position) -> Callable[[], str]:
        number = self.global_step + 1
        return lambda: (
            f"the gradient is not finite at step {number} (epoch {position.epoch}, batch {position.batch_in_epoch}) "
            f"although the loss is; utterances: {', '.join(ids)}. {ADVICE}"
        )


def learning_rate_factor(step: int, total_steps: int, warmup_fraction: float, decay: bool = True) -> float:
    """Factor on the peak rate in optimizer step `step`, as in s3prl's `warmup_linear` schedule.

    Rises linearly from 0 to 1 over `warmup_fraction` of `total_steps`, then falls linearly to 0 at `total_steps`.

    Args:
        step: from 1.
        total_steps: length of the schedule.
        warmup_fraction: 0 to 1.
        decay: false stays at 1 after the warm-up.

    >>> [round(learning_rate_factor(step, 10, 0.2), 3) for step in (1, 2, 6, 10)]
    [0.5, 1.0, 0.5, 0.0]
    """
    progress = step / total_steps
    if progress < warmup_fraction:
        return progress / warmup_fraction
    return max((1 - progress) / (1 - warmup_fraction), 0.0) if decay and warmup_fraction < 1 else 1.0


def _is_decayed(name: str, weight: Tensor) -> bool:
    return weight.ndim > 1 and not name.endswith("bias")


def _step_seed(seed: int, position: Position, rank: int) -> int:
    key = repr((seed, position.batches, rank)).encode()
    return int.from_bytes(hashlib.sha256(key).digest()[:8], "little") % 2**63


def _snr_db(batch: Batch, view: Heard | None) -> Tensor:
    return batch.waveforms.new_full((len(batch.ids),), torch.inf) if view is None else view.snr_db
