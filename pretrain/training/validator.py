"""Runs validation during training: the measuring, `validation.csv`, and the best checkpoint."""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import lightning.pytorch as pl
import torch
from torch import Tensor

from robustdistiller.pretrain.data.dataset import Batch, Heard
from robustdistiller.pretrain.objectives import Step, valid_frames
from robustdistiller.pretrain.objectives.spectra import si_snr_db
from robustdistiller.pretrain.training.callbacks import History, append_line, forget_after
from robustdistiller.pretrain.training.validation import ValidationConfig, feature_distances
from robustdistiller.pretrain.training.validation_speech import ValidationSpeech

if TYPE_CHECKING:
    from robustdistiller.pretrain.training.step import Distiller

logger = logging.getLogger(__name__)

_MEASURES = ("l1", "cosine")
_ENHANCED = ("si_snr_db", "si_snr_improvement_db")


class Validator(pl.Callback):
    """Validates every so many steps and after the last one; keeps the best checkpoint as `checkpoints/best.ckpt`.

    `validation.csv` has one line per step and condition: feature distances (`l1`, `cosine`, and both per target), and
    with an enhancement head the SI-SNR of its estimate (`si_snr_db`) and what it gained over its input
    (`si_snr_improvement_db`, of corrupted speech only). With several processes each measures some of the batches.

    The callback must come before the one that saves checkpoints, so that a resumed run knows the best value so far.

    Args:
        out_dir: folder of the run.
        settings: interval and criterion.
        speech: what to validate on.
        history: has the TensorBoard log.

    Attributes:
        best: value of the criterion at the best step, smaller is better; and that step.
    """

    def __init__(self, out_dir: Path, settings: ValidationConfig, speech: ValidationSpeech, history: History):
        self.path, self.best_path = out_dir / "validation.csv", out_dir / "checkpoints" / "best.ckpt"
        self.settings, self.speech, self.history = settings, speech, history
        self.best: tuple[float, int] | None = None

    def state_dict(self) -> dict:
        """Goes into the checkpoints."""
        return {"best": None if self.best is None else list(self.best)}

    def load_state_dict(self, state: dict) -> None:
        """Take up the best value of a checkpoint."""
        self.best = None if state["best"] is None else tuple(state["best"])

    def on_train_start(self, trainer: pl.Trainer, pl_module: Distiller) -> None:
        """Open the table where it was left."""
        if trainer.is_global_zero:
            forget_after(self.path, trainer.global_step)

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx) -> None:
        """Validate where it is due; only between optimizer steps."""
        step = trainer.global_step
        if (batch_idx + 1) % trainer.accumulate_grad_batches:
            return
        if step % self.settings.every_steps == 0 or step >= trainer.max_steps:
            started_s = time.monotonic()
            lines = self._measure(trainer, pl_module)
            self._write(trainer, lines)
            self._keep_best(trainer, pl_module, lines)
            self.history.pause(time.monotonic() - started_s)

    @torch.no_grad()
    def _measure(self, trainer: pl.Trainer, module: Distiller) -> list[dict]:
        names = module.targets.names
        columns = 2 * len(names) + len(_ENHANCED) + 2
        # Sums of one batch and condition: distances per target, enhancement, frames, utterances.
        sums = torch.zeros(len(self.speech), len(self.speech.corruptors), columns, dtype=torch.float64)
        with _evaluating(module):
            for index in range(trainer.global_rank, len(self.speech), trainer.world_size):
                sums[index] = _measure_batch(module, *self.speech.read(index))
        if trainer.world_size > 1:
            sums = trainer.strategy.reduce(sums.to(module.device), reduce_op="sum").cpu()
        lines = []
        for condition, total in zip(self.speech.corruptors, sums.sum(0)):
            distances = (total[:-4] / total[-2]).reshape(2, len(names))
            line = {"step": trainer.global_step, "condition": condition}
            line |= {measure: float(values.mean()) for measure, values in zip(_MEASURES, distances)}
            for measure, values in zip(_MEASURES, distances.tolist()):
                line |= {f"{measure}_layer{name}": value for name, value in zip(names, values)}
            if "enhancement" in module.objectives:
                line |= dict(zip(_ENHANCED, (total[-4:-2] / total[-1]).tolist()))
                if condition == "clean":
                    line[_ENHANCED[1]] = None  # nothing to gain: the input is the target
            lines.append(line)
        return lines

    def _write(self, trainer: pl.Trainer, lines: list[dict]) -> None:
        if not trainer.is_global_zero:
            return
        for line in lines:
            append_line(self.path, line)
            scalars = {f"validation/{name}/{line['condition']}": value for name, value in line.items()}
            self.history.add_scalars({name: v for name, v in scalars.items() if isinstance(v, float)}, line["step"])

    def _keep_best(self, trainer: pl.Trainer, module: Distiller, lines: list[dict]) -> None:
        name = self.settings.criterion
        value, step = sum(line[name] for line in lines) / len(lines), trainer.global_step
        found = ", ".join(f"{line['condition']} {line[name]:.4f}" for line in lines)
        counts = module.can_be_best
        better = counts and (self.best is None or value < self.best[0])
        logger.info("validation at step %d: %s %.4f (%s)%s", step, name, value, found, ", the best" * better)
        if trainer.is_global_zero:
            self.history.add_scalars({f"validation/{name}": value}, step)
        if better:
            self.best = (value, step)
            trainer.save_checkpoint(self.best_path)


def _measure_batch(module: Distiller, batch: Batch, views: list[Heard]) -> Tensor:
    """(conditions, 2 targets + 4) float64 on the CPU, see `Validator._measure`."""
    batch = batch.to(module.device)
    targets = module.teach(batch)
    rows = []
    for view in views:
        heard = view.waveforms.to(module.device)
        output = module.student(heard, batch.lengths)
        step = Step(
            batch=batch,
            student_input=heard,
            student=output,
            student_states=module.targets.states(output),
            predictions=module.targets.of_student(output),
            targets=targets,
            valid=valid_frames(output.frame_lengths, targets[0].shape[1]),
            snr_db=view.snr_db.to(module.device),
            teacher_snr_db=torch.full((len(batch.ids),), torch.inf, device=module.device),
            global_step=module.global_step,
        )
        distances = feature_distances(step.predictions, targets, step.valid).flatten().double().cpu()
        gained = torch.zeros(2, dtype=torch.float64)
        if "enhancement" in module.objectives:
            estimate = module.objectives["enhancement"].estimate_waveforms(step, module.heads["enhancement"])
            after = si_snr_db(estimate, batch.waveforms, batch.lengths).double()
            before = si_snr_db(heard, batch.waveforms, batch.lengths).double()
            gained = torch.stack([after.sum(), (after - before).sum()]).cpu()
        counts = torch.tensor([int(step.valid.sum()), len(batch.ids)], dtype=torch.float64)
        rows.append(torch.cat([distances, gained, counts]))
    return torch.stack(rows)


def best_of(path: Path) -> dict | None:
    """Step and criterion of the best checkpoint, if there is one."""
    if not path.is_file():
        return None
    value, step = _load(path)["callbacks"][Validator.__qualname__]["best"]
    return {"step": step, "distance": value}


def load_best(module: Distiller, path: Path) -> None:
    """Give a module the weights, and the place in the data, that it had at the best checkpoint."""
    checkpoint = _load(path)
    module.load_state_dict(checkpoint["state_dict"])
    module.on_load_checkpoint(checkpoint)


def _load(path: Path) -> dict:
    return torch.load(path, map_location="cpu", weights_only=True)


@contextlib.contextmanager
def _evaluating(module: torch.nn.Module) -> Iterator[None]:
    """Eval mode in full precision, after which every part is in the mode it was in; random numbers are not used up."""
    modes = {part: part.training for part in module.modules()}
    cuda = [module.device] if module.device.type == "cuda" else []
    module.eval()
    try:
        with torch.random.fork_rng(devices=cuda), torch.autocast(module.device.type, enabled=False):
            yield
    finally:
        for part, training in modes.items():
            part.training = training
