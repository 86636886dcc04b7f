"""The training step of distillation: teachers hear clean speech, the student corrupted speech, objectives compare."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor, nn

from robustdistiller.common.settings import SettingsError
from robustdistiller.pretrain.config.schema import DistillConfig
from robustdistiller.pretrain.data.dataset import Batch, Heard
from robustdistiller.pretrain.data.sampler import Position
from robustdistiller.pretrain.objectives import Shapes, Step, valid_frames
from robustdistiller.pretrain.objectives.enhancement import num_spectra
from robustdistiller.pretrain.student.masking import draw_mask, masked_forward
from robustdistiller.pretrain.student.pruning import Gates
from robustdistiller.pretrain.teacher.cache import TargetCache
from robustdistiller.pretrain.teacher.protocol import Teacher, frame_shift, shifted
from robustdistiller.pretrain.teacher.targets import Targets
from robustdistiller.pretrain.teacher.units import TeacherUnits
from robustdistiller.pretrain.training.errors import ADVICE, FiniteWatch, Places
from robustdistiller.upstream import SpeechEncoder
from robustdistiller.upstream.fast import accelerate, accelerate_training

#: What the value of an objective can be a mean over.
COUNTED = ("frames", "masked_frames", "utterances", "spectra", "batches")


@dataclass
class Lesson:
    """One batch on its way through a step.

    Attributes:
        batch: clean speech, and what it sounds like corrupted.
        mask: (B, T) bool, frames hidden from the student; `None` hides nothing.
        counts: how much of everything that objectives are means over is in the batch.
        shares: by the same names, the factor that makes the mean over all batches of the step, in all processes, of the
            values of single batches; their mean is 1.
        targets: per target (B, T, D), of the teachers, once they were asked.
        units: (B, T) int64, of the first teacher, if there are such.
    """

    batch: Batch
    mask: Tensor | None
    counts: Mapping[str, float]
    shares: Mapping[str, Tensor | float] = field(default_factory=dict)
    targets: list[Tensor] = field(default_factory=list)
    units: Tensor | None = None


class Hidden:
    """Hides a value from what would convert all tensors in it."""

    def __init__(self, value: object):
        self.value = value


@dataclass
class Teaching:
    """One teacher, and how its answer is made into targets.

    Attributes:
        model: frozen.
        targets: of it; their maps are trained with the student.
        hears_own_corruption: whether it hears a corruption of its own instead of clean speech.
        autocast: whether it runs in the precision of the training.
        shift: its frame ``k`` lies at the student's frame ``k - shift``.
    """

    model: Teacher
    targets: Targets
    hears_own_corruption: bool
    autocast: bool
    shift: int


class Distiller(nn.Module):
    """Student, training-only parts and objectives. The teachers are no submodules: neither trained nor saved.

    Args:
        config: of the stage; `targets.layers` must be explicit.
        teachers: frozen models; the first, `""`, is that of `config.teacher`, others are those of `config.teachers`.
        student: trained model, with one prediction head per target if `config.targets.match` is `heads`.
        units: of the first teacher, if an objective predicts them.

    Raises:
        SettingsError: targets that teacher or student does not have, frames that do not lie side by side, or an
            objective that does not fit.
    """

    def __init__(
        self,
        config: DistillConfig,
        teachers: Mapping[str, Teacher],
        student: SpeechEncoder,
        units: TeacherUnits | None = None,
    ):
        super().__init__()
        self.config, self.student = config, student
        self.layers = (0,) if config.student.trains == "front_end" else None  # of the student, that are run
        self.units = units if self.layers is None else None
        self.teachings = [_teaching(config, name, model, student) for name, model in teachers.items()]
        self.targets = nn.ModuleList(teaching.targets for teaching in self.teachings)
        self.target_names = tuple(
            f"{name}:{target}" if name else target
            for name, teaching in zip(teachers, self.teachings)
            for target in teaching.targets.names
        )
        self.objectives = config.objectives.active()
        shapes = self._shapes()
        for name, objective in self.objectives.items():
            if "corruption" in objective.needs and config.corruption is None:
                raise SettingsError(
                    f"objectives.{name}: the student hears no corruption, which the term needs as it is set; give "
                    "a corruption, or weight 0"
                )
            try:
                objective.check(shapes)
            except ValueError as error:
                raise SettingsError(f"objectives.{name}: {error}") from error
        heads = {name: objective.make_head(shapes) for name, objective in self.objectives.items()}
        self.heads = nn.ModuleDict({name: head for name, head in heads.items() if head is not None})
        self.gates = Gates(student, config.pruning) if config.pruning else None
        # What the student gets in place of hidden frames: trained with it, and not kept.
        self.mask_embedding = nn.Parameter(torch.rand(student.width)) if config.student.mask else None
        self.reads_predictions = any(objective.reads_predictions for objective in self.objectives.values())
        # A front end alone is to give what the teacher's does, not what a map can make into that.
        as_wide = all(part.width == student.width for part in self.targets)
        if not self.reads_predictions or (self.layers is not None and as_wide):
            self.targets.requires_grad_(False)  # DDP would wait for gradients that never come
        self.needs = frozenset().union(*(objective.needs for objective in self.objectives.values()))
        self.target_cache: TargetCache | None = None  # of the first teacher
        self.autocast_dtype: torch.dtype | None = None  # of the training, which teachers do not run within
        self.watch = FiniteWatch()

    @property
    def device(self) -> torch.device:
        """Where the student is."""
        return next(self.student.parameters()).device

    @property
    def needs_second_view(self) -> bool:
        """Whether batches must bring a second corruption of each utterance."""
        return "second_view" in self.needs or any(teaching.hears_own_corruption for teaching in self.teachings)

    def place(self, device: torch.device) -> None:
        """Go to a device, to be trained there, with the teachers; on a CPU, all get faster kernels."""
        self.autocast_dtype = {"fp16": torch.float16, "bf16": torch.bfloat16}.get(self.config.trainer.precision)
        for teaching in self.teachings:
            teaching.model.to(device)
            if device.type != "cpu" or not isinstance(teaching.model, SpeechEncoder):
                continue
            if teaching.autocast:  # the frozen kernels are for float32 alone
                accelerate_training(teaching.model)
            else:
                teaching.model = accelerate(teaching.model)
        if device.type == "cpu" and not self.config.trainer.compile:
            accelerate_training(self.student, extractor=self.gates is None)  # whose layers pruning has hooks on
        self.to(device).train()

    def unreached(self) -> list[str]:
        """Names of weights that are to be trained and that the loss does not reach; gradients are left behind."""
        lesson = self.lesson(Batch(Position(), (), torch.zeros(0), torch.zeros(0)).stand_in())
        lesson.shares = dict.fromkeys(COUNTED, 1.0)
        lesson.targets, lesson.units = self.teach(lesson.batch)
        loss, _ = self(Hidden((lesson, 0)))
        loss.backward()
        return [name for name, weight in self.named_parameters() if weight.requires_grad and weight.grad is None]

    def lesson(self, batch: Batch) -> Lesson:
        """A batch, with what is known of it before anybody has heard it: masks, and how much there is of everything."""
        frames, mask = self.frame_lengths(batch.lengths), None
        if self.mask_embedding is not None:
            num_frames = int(self.student.num_frames(batch.waveforms.shape[1]))
            options, number = self.config.student.mask, batch.position.batches
            mask = draw_mask(options, batch.ids, frames, self.config.seed, number, num_frames)
        counts = {
            "frames": frames.sum().item(),
            "masked_frames": (frames if mask is None else mask).sum().item(),
            "utterances": len(batch.ids),
            "spectra": num_spectra(batch.lengths).sum().item(),
            "batches": 1.0,
        }
        return Lesson(batch, mask, counts if batch.counts else dict.fromkeys(COUNTED, 0.0))

    def frame_lengths(self, lengths: Tensor) -> Tensor:
        """(B,) frames that student and teachers have in common, of utterances of so many samples."""
        frames = self.student.num_frames(lengths)
        for teaching in self.teachings:
            frames = torch.minimum(frames, teaching.model.num_frames(lengths) - teaching.shift)
        return frames.clamp_min(0)

    @torch.no_grad()
    def teach(self, batch: Batch) -> tuple[list[Tensor], Tensor | None]:
        """The targets, frame by frame beside the student's, per target (B, T, D); and the units (B, T), if any.

        Teacher layers above the last one needed are not run. With a cache, the teacher is asked about what is not in
        it.
        """
        num_frames = int(self.student.num_frames(batch.waveforms.shape[1]))
        targets: list[Tensor] = []
        units = None
        for index, teaching in enumerate(self.teachings):
            if index == 0 and batch.cached is not None:
                frames = teaching.model.num_frames(batch.lengths).tolist()
                answer = self.target_cache.complete(batch.cached, lambda rows: self._ask_about(batch, rows), frames)
            else:
                own = batch.second if teaching.hears_own_corruption else None
                answer = self._ask(teaching, (own or batch.clean).waveforms, batch.lengths)
            if index == 0 and self.units is not None:
                *answer, units = answer
                units = shifted(units.unsqueeze(-1), teaching.shift, num_frames).squeeze(-1).long()
            targets += [shifted(one, teaching.shift, num_frames) for one in answer]
        return targets, units

    def forward(self, hidden: Hidden) -> tuple[Tensor, dict[str, Tensor]]:
        """Let the student hear a batch.

        Args:
            hidden: a `Lesson` whose teachers were asked, and the number of optimizer steps done before.

        Returns:
            The loss, and the terms that it consists of, detached, for the log.

        Raises:
            NonFiniteLossError: the loss is NaN or infinite.
        """
        lesson, global_step = hidden.value
        step = self.hear(lesson, lesson.batch.corrupted, global_step)
        loss, values = 0.0, {}
        for name, value in self.terms(step).items():
            objective = self.objectives[name]
            value = lesson.shares[objective.mean_over] * value
            loss = loss + objective.weight * value.mean()
            values[name] = value.detach().mean()
            if value.ndim:
                values |= {f"{name}_layer{which}": one for which, one in zip(self.target_names, value.detach())}
        if self.gates is not None:
            penalty = self.gates.penalty(global_step)
            loss = loss + penalty
            values |= {
                "sparsity_penalty": penalty.detach(),
                "sparsity": self.gates.sparsity().detach(),
                "target_sparsity": torch.tensor(self.gates.target_sparsity(global_step)),
            }
        values = {"loss": loss.detach(), **values}
        self.watch.expect(loss, global_step + 1, _failure(step, values))
        return loss, values

    def hear(self, lesson: Lesson, view: Heard | None, global_step: int = 0) -> Step:
        """What the student makes of a batch in one of its views, beside the targets: all that objectives look at."""
        batch, view = lesson.batch, view or lesson.batch.clean
        student_input = view.waveforms
        mask = None if lesson.mask is None else lesson.mask.to(student_input.device, non_blocking=True)
        if mask is None:
            output = self.student(student_input, batch.lengths, layers=self.layers)
        else:
            output = masked_forward(self.student, student_input, batch.lengths, mask, self.mask_embedding)
        second = clean = None
        if "second_view" in self.needs and batch.second is not None:
            second = self.student(batch.second.waveforms, batch.lengths)
        if "clean_view" in self.needs:
            with torch.no_grad():
                clean = self.student(batch.waveforms, batch.lengths)
        own = batch.second if self.teachings[0].hears_own_corruption else None
        frame_lengths = self.frame_lengths(batch.lengths).to(student_input.device, non_blocking=True)
        return Step(
            batch=batch,
            student_input=student_input,
            student=output,
            student_states=[state for part in self.targets for state in part.student_states(output)],
            predictions=[prediction for part in self.targets for prediction in part.of_student(output)],
            targets=lesson.targets,
            valid=valid_frames(frame_lengths, output.projected.shape[1]),
            snr_db=view.snr_db,
            teacher_snr_db=(own or batch.clean).snr_db,
            second=second,
            clean=clean,
            mask=mask,
            units=lesson.units,
            global_step=global_step,
        )

    def terms(self, step: Step) -> dict[str, Tensor]:
        """The unweighted terms of the loss, each a scalar or one value per target; none of a view that is not there."""
        heads, missing = dict(self.heads.items()), {"second_view"} if step.second is None else set()
        computed = {name: one for name, one in self.objectives.items() if not one.needs & missing}
        return {name: objective(step, heads.get(name)) for name, objective in computed.items()}

    def can_be_best(self) -> bool:
        """Whether the student may be the best one yet: not before a pruned one is as small as it has to be."""
        return self.gates is None or self.gates.reached()

    def export_student(self) -> SpeechEncoder:
        """What the run is for: the student, dense and small if it was pruned."""
        return self.student if self.gates is None else self.gates.make_dense()

    def handed_on(self) -> dict[str, Tensor]:
        """What a later stage goes on with, beside the student: the state of maps and heads."""
        return {name: x for name, x in self.state_dict().items() if not name.startswith(("student.", "gates."))}

    def take_over(self, state: Mapping[str, Tensor], targets: Sequence[str]) -> list[str]:
        """Begin with the maps and heads that `handed_on` gave; returns the parts that are new here, and so random.

        Args:
            state: of the stage before.
            targets: names of that stage's targets, which its maps are of.
        """
        own, same_maps = self.state_dict(), self.target_names[: len(targets)] == tuple(targets)
        fits = {
            name: value
            for name, value in state.items()
            if name in own and own[name].shape == value.shape and (same_maps or not name.startswith("targets."))
        }
        self.load_state_dict(fits, strict=False)
        new = (name.removeprefix("heads.") for name in self.handed_on() if name not in fits)
        return sorted({name.split(".")[0] for name in new})

    def _shapes(self) -> Shapes:
        parts = list(self.targets)
        return Shapes(
            student=self.student.config,
            state_widths=tuple(self.student.config.embed_dim for part in parts for _ in part.names),
            target_widths=tuple(part.width for part in parts for _ in part.names),
            match=self.config.targets.match,
            num_teachers=len(parts),
            num_units=None if self.units is None else self.units.count,
        )

    def _ask_about(self, batch: Batch, rows: list[int]) -> list[Tensor]:
        lengths = batch.lengths[rows]
        return self._ask(self.teachings[0], batch.waveforms[rows, : int(lengths.max())], lengths)

    def _ask(self, teaching: Teaching, waveforms: Tensor, lengths: Tensor) -> list[Tensor]:
        layers = set(teaching.targets.layers)
        units = self.units if teaching is self.teachings[0] else None
        if units is not None:
            layers.add(units.layer)
        low = teaching.autocast and self.autocast_dtype is not None
        with torch.autocast(waveforms.device.type, self.autocast_dtype, enabled=low):
            output = teaching.model(waveforms, lengths, layers=sorted(layers) or (0,))
        targets = teaching.targets.of_teacher(output)
        return targets if units is None else [*targets, units.assign(output.hidden_states[units.layer])]


def _teaching(config: DistillConfig, name: str, model: Teacher, student: SpeechEncoder) -> Teaching:
    options = config.teachers[name] if name else config.teacher
    targets = config.targets
    if name:
        own = {key: getattr(options, key) for key in ("layers", "student_layers", "share_maps", "normalize")}
        targets = replace(targets, **own)
    return Teaching(
        model.eval().requires_grad_(False),
        Targets(targets, student.config, model, f"teachers.{name}" if name else "targets"),
        options.hears == "independent",
        options.autocast,
        frame_shift(student, model),
    )


def _failure(step: Step, values: Mapping[str, Tensor]) -> Callable[[], str]:
    on_cpu = step.student_input.device.type == "cpu"  # a GPU's tensors must not be kept until the answer is there
    look = (lambda: Places(step).describe()) if on_cpu else Places(step).describe
    number, position, ids = step.global_step + 1, step.batch.position, ", ".join(step.batch.ids)

    def describe() -> str:
        shown = [name for name in values if "_layer" not in name]
        terms = ", ".join(f"{name} {float(values[name]):.4g}" for name in shown)
        return (
            f"the loss is not finite at step {number} (epoch {position.epoch}, batch {position.batch_in_epoch}): "
            f"{terms}; {look()}. Utterances of the batch: {ids}. {ADVICE}"
        )

    return describe
