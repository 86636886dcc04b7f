"""The training step of distillation: the teacher hears clean speech, the student corrupted speech."""

from __future__ import annotations

import dataclasses
import hashlib

import lightning.pytorch as pl
import torch
from torch import Tensor
from torch.optim import AdamW
from torch.optim.lr_scheduler import LambdaLR

from robustdistiller.acoustics import corrupt
from robustdistiller.upstream import EncoderOutput, SpeechEncoder

from .config import DistillConfig
from .data import Batch, Position
from .objectives.enhancement import EnhancementHead, magnitude_spectrum, num_spectra
from .objectives import feature_penalty, layer_cosine, layer_l1, spectral_distance, valid_frames


class NonFiniteLossError(RuntimeError):
    """The loss or its gradient is NaN or infinite; the message names the step and the utterances."""


class Distiller(pl.LightningModule):
    """Student, training-only heads, objectives, optimizer and schedule.

    The teacher is no submodule: it is neither trained, nor switched to train mode, nor saved.

    Args:
        config: of the run; `optim.schedule_steps` must be set.
        teacher: frozen model.
        student: trained model, with one prediction head per `config.student.prediction_layers`.
    """

    def __init__(self, config: DistillConfig, teacher: SpeechEncoder, student: SpeechEncoder):
        super().__init__()
        self.settings = config
        self.student = student
        self.enhancement = _enhancement_head(config, student)
        self._teacher = (teacher.eval().requires_grad_(False),)
        self.position = Position()  # of the next batch
        self.audio_s = 0.0  # heard so far
        self.steps_done = 0  # when training is over
        self.values: dict[str, Tensor | float] = {}  # of the latest step, for the log

    @property
    def teacher(self) -> SpeechEncoder:
        """The frozen model, on the device of the student."""
        return self._teacher[0]

    def on_fit_start(self) -> None:
        """Put the teacher beside the student."""
        self.teacher.to(self.device)

    def transfer_batch_to_device(self, batch: Batch, device: torch.device, dataloader_idx: int) -> Batch:
        """Move the audio; lengths stay on the CPU, where they are read."""
        return batch.to(device, non_blocking=True)

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Loss of one batch.

        Raises:
            NonFiniteLossError: the loss is NaN or infinite.
        """
        # Dropout depends on the seed and the place in the data only, so that a resumed run repeats it.
        torch.manual_seed(_step_seed(self.settings.seed, batch.position, self.global_rank))
        targets = self.teach(batch)
        heard = self.hear(batch)
        output = self.student(heard, batch.lengths)
        terms = self.terms(batch, heard, output, targets)
        loss = sum(self.weight(name) * value.mean() for name, value in terms.items())
        self.values = {"loss": loss.detach(), **self._log_values(terms)}
        if not torch.isfinite(loss):
            raise NonFiniteLossError(self._describe_failure("the loss", batch, heard, output, targets))
        self._latest = (batch.ids, batch.position)
        self.position = batch.position.next()
        self.audio_s += batch.seconds * self.trainer.world_size
        return loss

    @torch.no_grad()
    def teach(self, batch: Batch) -> list[Tensor]:
        """Teacher layers for the clean speech: per predicted layer (B, T, D). Layers above the last are not run."""
        layers = self.student.config.prediction_layers
        device = self.device.type
        autocast = self.settings.teacher.autocast and torch.is_autocast_enabled(device)
        with torch.autocast(device, torch.get_autocast_dtype(device), enabled=autocast):
            output = self.teacher(batch.waveforms, batch.lengths, max_layer=max(layers), predict=False)
        return [output.hidden_states[layer] for layer in layers]

    @torch.no_grad()
    def hear(self, batch: Batch) -> Tensor:
        """What the student hears: (B, samples), corrupted as drawn."""
        if batch.corruption is None:
            return batch.waveforms
        with torch.autocast(self.device.type, enabled=False):
            return corrupt(batch.waveforms, batch.lengths, batch.corruption)

    def terms(self, batch: Batch, heard: Tensor, output: EncoderOutput, targets: list[Tensor]) -> dict[str, Tensor]:
        """The terms of the loss, unweighted, each a scalar or one value per layer; those of weight 0 are left out."""
        frame_lengths = output.frame_lengths
        valid = valid_frames(frame_lengths, targets[0].shape[1])
        makers = {
            "l1": lambda: layer_l1(output.predictions, targets, valid),
            "cosine": lambda: layer_cosine(output.predictions, targets, valid),
            "feature_penalty": lambda: feature_penalty(output.extractor_features, valid),
            "enhancement": lambda: self._enhancement(batch, heard, output),
        }
        return {name: make() for name, make in makers.items() if self.weight(name) > 0}

    def weight(self, name: str) -> float:
        """Weight of a term in the loss."""
        weight = getattr(self.settings.objectives, name)
        return weight if isinstance(weight, float) else weight.weight

    def _enhancement(self, batch: Batch, heard: Tensor, output: EncoderOutput) -> Tensor:
        settings = self.settings.objectives.enhancement
        features = output.extractor_features if settings.input == "extractor" else output.hidden_states[-1]
        with torch.autocast(self.device.type, enabled=False), torch.no_grad():
            noisy, clean = magnitude_spectrum(heard), magnitude_spectrum(batch.waveforms)
        lengths = num_spectra(batch.lengths.to(self.device))
        estimate = self.enhancement(features, output.frame_lengths, noisy, lengths)
        return spectral_distance(estimate, clean, valid_frames(lengths, clean.shape[1]), settings.loss)

    def _log_values(self, terms: dict[str, Tensor]) -> dict[str, Tensor]:
        values = {name: value.detach().mean() for name, value in terms.items()}
        for name, value in terms.items():
            if value.ndim:
                layers = self.student.config.prediction_layers
                values |= {f"{name}_layer{layer}": one for layer, one in zip(layers, value.detach())}
        return values

    def configure_optimizers(self) -> dict:
        """AdamW, with the schedule stepped after every optimizer step."""
        settings = self.settings.optim
        named = [(name, weight) for name, weight in self.named_parameters() if weight.requires_grad]
        decayed = [weight for name, weight in named if _is_decayed(name, weight)]
        others = [weight for name, weight in named if not _is_decayed(name, weight)]
        groups = [{"params": decayed}, {"params": others, "weight_decay": 0.0}]
        optimizer = AdamW(groups, settings.lr, tuple(settings.betas), settings.eps, settings.weight_decay)
        scheduler = LambdaLR(optimizer, self._rate)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}

    def _rate(self, steps_done: int) -> float:
        settings = self.settings.optim
        return learning_rate_factor(
            steps_done + 1, settings.schedule_steps, settings.warmup_fraction, settings.schedule == "linear"
        )

    def configure_gradient_clipping(self, optimizer, gradient_clip_val=None, gradient_clip_algorithm=None) -> None:
        """Clip the norm of all gradients together, and refuse to step on NaN.

        Raises:
            NonFiniteLossError: the norm is NaN or infinite (in fp16 the scaler skips such steps instead).
        """
        norm = torch.nn.utils.clip_grad_norm_(self.parameters(), self.settings.optim.clip_norm)
        self.values |= {"grad_norm": norm.detach(), "lr": optimizer.param_groups[0]["lr"]}
        if self.trainer.precision != "16-mixed" and not torch.isfinite(norm):
            ids, position = self._latest
            raise NonFiniteLossError(
                f"the gradient is not finite at step {self.global_step + 1} (epoch {position.epoch}, batch "
                f"{position.batch_in_epoch}) although the loss is; utterances: {', '.join(ids)}. {_ADVICE}"
            )

    def on_save_checkpoint(self, checkpoint: dict) -> None:
        """Add the place in the data."""
        checkpoint["progress"] = {"position": dataclasses.asdict(self.position), "audio_s": self.audio_s}

    def on_load_checkpoint(self, checkpoint: dict) -> None:
        """Take up the place in the data."""
        self.position = Position(**checkpoint["progress"]["position"])
        self.audio_s = checkpoint["progress"]["audio_s"]

    def _describe_failure(
        self, what: str, batch: Batch, heard: Tensor, output: EncoderOutput, targets: list[Tensor]
    ) -> str:
        places = {
            "the speech": batch.waveforms,
            "the corrupted speech": heard,
            "the teacher's layers": torch.cat(targets, -1),
            "the student's predictions": torch.cat([*output.predictions, output.hidden_states[-1]], -1),
        }
        where = "only in the loss itself"
        for place, values in places.items():
            bad = [name for name, row in zip(batch.ids, values) if not torch.isfinite(row).all()]
            if bad:
                where = f"first in {place} of {', '.join(bad)}"
                break
        terms = ", ".join(f"{name} {float(value):.4g}" for name, value in self.values.items())
        return (
            f"{what} is not finite at step {self.global_step + 1} (epoch {batch.position.epoch}, batch "
            f"{batch.position.batch_in_epoch}): {terms}; {where}. Utterances of the batch: {', '.join(batch.ids)}. "
            f"{_ADVICE}"
        )


_ADVICE = (
    "The last checkpoint is untouched: remove the utterances, or change settings (a smaller optim.lr, "
    "trainer.precision=fp32) in a new out_dir."
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


def _enhancement_head(config: DistillConfig, student: SpeechEncoder) -> EnhancementHead | None:
    settings = config.objectives.enhancement
    if settings.weight <= 0:
        return None
    shape = student.config
    width = shape.conv_layers[-1][0] if settings.input == "extractor" else shape.embed_dim
    return EnhancementHead(width, settings.hidden_size, settings.num_layers, settings.dropout, shape.downsample_rate)


def _is_decayed(name: str, weight: Tensor) -> bool:
    return weight.ndim > 1 and not name.endswith("bias")


def _step_seed(seed: int, position: Position, rank: int) -> int:
    key = repr((seed, position.batches, rank)).encode()
    return int.from_bytes(hashlib.sha256(key).digest()[:8], "little") % 2**63
