"""The training step: one update for keywords, then one for speakers."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Mapping

import lightning.pytorch as pl
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.optim import AdamW
from torch.optim.lr_scheduler import LambdaLR

from robustdistiller.pretrain.config.load import DistillConfig
from robustdistiller.pretrain.data.dataset import Batch, Position
from robustdistiller.pretrain.multitask.data import TaskData
from robustdistiller.pretrain.multitask.heads import HeadsConfig, TaskHeads
from robustdistiller.pretrain.training.finite import NonFiniteLossError
from robustdistiller.pretrain.training.step import learning_rate_factor
from robustdistiller.upstream import SpeechEncoder


class MultitaskTuner(pl.LightningModule):
    """Encoder and heads, their losses, optimizer and schedule.

    A step is one iteration as in arXiv 2210.16611: for each task in turn, forward, backward and an update of everything
    that this task's loss reaches, by one optimizer. The other task's head, which has no gradient then, is left alone,
    its Adam moments too.

    Args:
        config: of the run; `optim.schedule_steps` must be set.
        encoder: what is fine-tuned, or only used if `config.multitask.encoder` is `frozen`.
        tasks: their data; only labels are used here.
    """

    def __init__(self, config: DistillConfig, encoder: SpeechEncoder, tasks: Mapping[str, TaskData]):
        super().__init__()
        self.settings, self.tasks = config, dict(tasks)
        options = config.multitask
        self.encoder = encoder
        self.frozen = options.encoder == "frozen"
        encoder.requires_grad_(not self.frozen)
        labels = {task: data.labels for task, data in tasks.items()}
        embedding_dim = options.speakers.embedding_dim if options.speakers else None
        self.heads = TaskHeads(HeadsConfig.for_encoder(encoder.config, options.features, labels, embedding_dim))
        self.positions = {task: Position() for task in tasks}  # of each task's next batch
        self.best: dict[str, float] = {}  # step and dev error of the best step so far
        self.audio_s = 0.0  # heard so far
        self.steps_done = 0  # when training is over
        self.values: dict[str, Tensor | float] = {}  # of the latest step, for the log
        self._turn = ""
        self.train()  # Lightning leaves the mode as it is, and an encoder that was read from a file may be in eval mode

    @property
    def position(self) -> Position:
        """Place in the first task's data, for the log."""
        return next(iter(self.positions.values()))

    def train(self, mode: bool = True) -> MultitaskTuner:
        """Switch dropout on or off; a frozen encoder has none."""
        super().train(mode)
        if self.frozen:
            self.encoder.eval()
        return self

    def transfer_batch_to_device(
        self, batch: dict[str, Batch], device: torch.device, dataloader_idx: int
    ) -> dict[str, Batch]:
        """Move the audio; lengths stay on the CPU, where they are read."""
        return {task: one.to(device, non_blocking=True) for task, one in batch.items()}

    def optimizer_step(self, epoch: int, batch_idx: int, optimizer, optimizer_closure=None) -> None:
        """One update per task, in their order; the closure runs `training_step`, the backward pass and the clipping."""
        self.values = {}
        for task in self.tasks:
            self._turn = task
            optimizer.step(closure=optimizer_closure)
        self.values = {"loss": sum(self.values[f"{task}_loss"] for task in self.tasks), **self.values}

    def training_step(self, batch: dict[str, Batch], batch_idx: int) -> Tensor:
        """Loss of the batch of the task whose turn it is.

        Raises:
            NonFiniteLossError: the loss is NaN or infinite.
        """
        task, one = self._turn, batch[self._turn]
        # Dropout depends on the seed and the place in the data only, so that a resumed run repeats it.
        torch.manual_seed(_update_seed(self.settings.seed, one.position, task))
        output = self.heads[task](self.encode(one))
        targets = self.tasks[task].targets(one.ids).to(self.device)
        if task == "keywords":
            loss = F.cross_entropy(output, targets)
            self.values["keywords_accuracy"] = (output.argmax(dim=1) == targets).float().mean()
        else:
            options = self.settings.multitask.speakers
            loss = self.heads[task].loss(output, targets, options.scale, options.margin, options.margin_type)
        self.values[f"{task}_loss"] = loss.detach()
        if not torch.isfinite(loss):
            raise NonFiniteLossError(self._failure(f"the {task} loss", one))
        self._latest = one
        self.positions[task] = one.resume_at
        self.audio_s += one.seconds
        return loss

    def encode(self, batch: Batch):
        """What the heads see of a batch: an `EncoderOutput`, of corrupted audio if any is drawn."""
        heard = batch.waveforms if batch.corrupted is None else batch.corrupted.waveforms
        heard, lengths = at_least(self.encoder.config.receptive_field, heard, batch.lengths)
        with torch.set_grad_enabled(torch.is_grad_enabled() and not self.frozen):
            return self.encoder(heard, lengths)

    def configure_optimizers(self) -> dict:
        """Adam (AdamW, whose decay is 0 in the recipe), with the schedule stepped after every iteration."""
        settings = self.settings.optim
        weights = [weight for weight in self.parameters() if weight.requires_grad]
        decayed = [weight for weight in weights if weight.ndim > 1]
        others = [weight for weight in weights if weight.ndim <= 1]
        groups = [{"params": decayed}, {"params": others, "weight_decay": 0.0}]
        optimizer = AdamW(groups, settings.lr, tuple(settings.betas), settings.eps, settings.weight_decay)
        scheduler = LambdaLR(
            optimizer,
            lambda done: learning_rate_factor(
                done + 1, settings.schedule_steps, settings.warmup_fraction, settings.schedule == "linear"
            ),
        )
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}

    def configure_gradient_clipping(self, optimizer, gradient_clip_val=None, gradient_clip_algorithm=None) -> None:
        """Clip the norm of all gradients of an update together, and refuse to step on NaN.

        Raises:
            NonFiniteLossError: the norm is NaN or infinite (in fp16 the scaler skips such updates instead).
        """
        norm = torch.nn.utils.clip_grad_norm_(self.parameters(), self.settings.optim.clip_norm)
        self.values |= {f"{self._turn}_grad_norm": norm.detach(), "lr": optimizer.param_groups[0]["lr"]}
        if self.trainer.precision != "16-mixed" and not torch.isfinite(norm):
            raise NonFiniteLossError(self._failure(f"the gradient of the {self._turn} loss", self._latest))

    def on_save_checkpoint(self, checkpoint: dict) -> None:
        """Add the places in the data and the best step."""
        checkpoint["progress"] = {
            "positions": {task: dataclasses.asdict(place) for task, place in self.positions.items()},
            "audio_s": self.audio_s,
            "best": dict(self.best),
        }

    def on_load_checkpoint(self, checkpoint: dict) -> None:
        """Take up the places in the data and the best step."""
        progress = checkpoint["progress"]
        self.positions = {task: Position(**place) for task, place in progress["positions"].items()}
        self.audio_s, self.best = progress["audio_s"], dict(progress["best"])

    def _failure(self, what: str, batch: Batch) -> str:
        place = batch.position
        return (
            f"{what} is not finite at step {self.global_step + 1} (epoch {place.epoch}, batch {place.batch_in_epoch}); "
            f"utterances: {', '.join(batch.ids)}. The last checkpoint is untouched: remove the utterances, or change "
            "settings (a smaller optim.lr, trainer.precision=fp32) in a new out_dir."
        )


def at_least(samples: int, waveforms: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
    """Waveforms (B, S) in which every utterance has `samples` or more: shorter ones are continued with silence.

    >>> at_least(4, torch.ones(2, 3), torch.tensor([3, 2]))
    (tensor([[1., 1., 1., 0.],
            [1., 1., 1., 0.]]), tensor([4, 4]))
    """
    missing = samples - waveforms.shape[1]
    return F.pad(waveforms, (0, missing)) if missing > 0 else waveforms, lengths.clamp_min(samples)


def _update_seed(seed: int, position: Position, task: str) -> int:
    key = repr((seed, position.batches, task)).encode()
    return int.from_bytes(hashlib.sha256(key).digest()[:8], "little") % 2**63
