"""Validation during training: the measuring, `validation.csv`, and the best checkpoint."""

from __future__ import annotations

import contextlib
import logging
import math
import time
from pathlib import Path

import torch
from torch import Tensor

from robustdistiller.pretrain.config.schema import DistillConfig
from robustdistiller.pretrain.data.dataset import Batch, Heard
from robustdistiller.pretrain.objectives import layer_cosine, layer_l1
from robustdistiller.pretrain.objectives.spectra import si_snr_db
from robustdistiller.pretrain.training.evaluating import evaluating
from robustdistiller.pretrain.training.log import History, append_line, forget_after
from robustdistiller.pretrain.training.loop import Training
from robustdistiller.pretrain.training.probe import Probe
from robustdistiller.pretrain.training.step import Distiller, Lesson
from robustdistiller.pretrain.training.validation_speech import ValidationSpeech

logger = logging.getLogger(__name__)

_MEASURES = ("l1", "cosine")
_ENHANCED = ("si_snr_db", "si_snr_improvement_db")


class Validation:
    """Validates every so many steps and after the last one, and knows which step is the best.

    `validation.csv` has one line per step and condition: feature distances (`l1`, `cosine`, and both per target), the
    weighted terms of the loss (`loss`, a mean over utterances of those of their batches, nothing masked), with an
    enhancement head the SI-SNR of its estimate (`si_snr_db`) and what it gained over its input
    (`si_snr_improvement_db`, of corrupted speech only), and with a probe its accuracy. With several processes each
    measures some of the batches. What is measured are the averaged weights, if there are such.
    """

    def __init__(
        self,
        out_dir: Path,
        stage: str,
        training: Training,
        speech: ValidationSpeech | None,
        probe: Probe | None,
        history: History,
    ):
        self.path, self.stage, self.training = out_dir / "validation.csv", stage, training
        self.speech, self.probe, self.history = speech, probe, history
        if training.fabric.is_global_zero:
            forget_after(self.path, stage, training.progress.step)

    def measure(self, step: int) -> bool:
        """Measure and write what is due after a step, and say whether the student is the best one so far.

        All processes have to call this.
        """
        config, fabric, progress = self.training.distiller.config, self.training.fabric, self.training.progress
        speech_due, probe_due = (
            what is not None and (step % settings.every_steps == 0 or step >= config.trainer.max_steps)
            for what, settings in ((self.speech, config.validation), (self.probe, config.probe))
        )
        if not (speech_due or probe_due):
            return False
        started_s = time.monotonic()
        average = self.training.average
        with contextlib.nullcontext() if average is None else average.applied():
            lines = measure_distances(self.training, self.speech) if speech_due else {}
            if probe_due:
                found = self.probe.measure(self.training.distiller.export_student()) if fabric.is_global_zero else None
                for condition, accuracy in fabric.broadcast(found).items():
                    lines.setdefault(condition, {})["probe_accuracy"] = accuracy
            can_be_best = self.training.distiller.can_be_best()
        criterion = criterion_of(config)
        values = {condition: line[criterion] for condition, line in lines.items() if criterion in line}
        if fabric.is_global_zero:
            for condition, line in lines.items():
                append_line(self.path, {"stage": self.stage, "step": step, "condition": condition, **line})
                scalars = {f"validation/{name}/{condition}": value for name, value in line.items()}
                self.history.add_scalars({name: v for name, v in scalars.items() if v is not None}, step)
        better = False
        if values:
            value = sum(values.values()) / len(values)
            cost = -value if criterion == "probe_accuracy" else value
            better = math.isfinite(cost) and (progress.best is None or cost < progress.best[0])
            better = better and can_be_best
            said = ", ".join(f"{condition} {found:.4f}" for condition, found in values.items())
            best = ", the best" * better
            logger.info("validation at step %d: %s %.4f (%s)%s", step, criterion, value, said, best)
            if better:
                progress.best = (cost, step)
        self.history.pause(time.monotonic() - started_s)
        return better


def criterion_of(config: DistillConfig) -> str:
    """The column of `validation.csv` that chooses the best checkpoint."""
    return "probe_accuracy" if config.probe.criterion else config.validation.criterion


@torch.no_grad()
def measure_distances(training: Training, speech: ValidationSpeech) -> dict[str, dict[str, float | None]]:
    """Feature distances, loss, and what enhancement gains, by condition: lines of the table."""
    fabric, module = training.fabric, training.distiller
    names = module.target_names
    # Sums of one batch and condition: distances per target, enhancement, loss, frames, utterances.
    sums = torch.zeros(len(speech), len(speech.corruptors), 2 * len(names) + len(_ENHANCED) + 3, dtype=torch.float64)
    with evaluating(module):
        for index in range(fabric.global_rank, len(speech), fabric.world_size):
            sums[index] = _measure_batch(module, *speech.read(index))
    if fabric.world_size > 1:
        sums = fabric.all_reduce(sums.to(fabric.device), reduce_op="sum").cpu()
    lines = {}
    for condition, total in zip(speech.corruptors, sums.sum(0)):
        distances = (total[:-5] / total[-2]).reshape(2, len(names))
        line: dict[str, float | None] = {measure: float(v.mean()) for measure, v in zip(_MEASURES, distances)}
        for measure, values in zip(_MEASURES, distances.tolist()):
            line |= {f"{measure}_layer{name}": value for name, value in zip(names, values)}
        line["loss"] = float(total[-3] / total[-1])
        if "enhancement" in module.objectives:
            line |= dict(zip(_ENHANCED, (total[-5:-3] / total[-1]).tolist()))
            if condition == "clean":
                line[_ENHANCED[1]] = None  # nothing to gain: the input is the target
        lines[condition] = line
    return lines


def _measure_batch(module: Distiller, batch: Batch, views: list[Heard]) -> Tensor:
    """(conditions, 2 targets + 5) float64 on the CPU, see `measure_distances`."""
    batch = batch.to(module.device)
    targets, units = module.teach(batch)
    lesson = Lesson(batch, None, {}, targets=targets, units=units)
    rows = []
    for view in views:
        step = module.hear(lesson, view.to(module.device))
        means = (
            layer_l1(step.predictions, targets, step.valid),
            layer_cosine(step.predictions, targets, step.valid, "raw"),
        )
        distances = (torch.cat(means).double() * step.valid.sum()).cpu()
        gained = torch.zeros(2, dtype=torch.float64)
        if "enhancement" in module.objectives:
            head = module.heads["enhancement"]
            estimate = module.objectives["enhancement"].estimate_waveforms(step, head)
            after = si_snr_db(estimate, batch.waveforms, batch.lengths).double()
            before = si_snr_db(step.student_input, batch.waveforms, batch.lengths).double()
            gained = torch.stack([after.sum(), (after - before).sum()]).cpu()
        loss = sum(module.objectives[name].weight * value.mean().item() for name, value in module.terms(step).items())
        utterances = len(batch.ids)
        others = torch.tensor([loss * utterances, int(step.valid.sum()), utterances], dtype=torch.float64)
        rows.append(torch.cat([distances, gained, others]))
    return torch.stack(rows)
