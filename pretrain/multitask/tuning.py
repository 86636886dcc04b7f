"""Encoder and heads of two tasks, and the loop: one update for keywords, then one for speakers."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import torch
import torch.nn.functional as F
from lightning_fabric import Fabric
from torch import Tensor, nn

from robustdistiller.common.seeds import seed_of
from robustdistiller.pretrain.config.schema import DistillConfig
from robustdistiller.pretrain.data.dataset import Batch
from robustdistiller.pretrain.data.sampler import Position
from robustdistiller.pretrain.multitask.data import TaskData
from robustdistiller.pretrain.multitask.heads import HeadsConfig, TaskHeads
from robustdistiller.pretrain.training.errors import FiniteWatch
from robustdistiller.pretrain.training.loop import Progress, StepReport, Training
from robustdistiller.pretrain.training.step import Hidden
from robustdistiller.upstream import SpeechEncoder


class MultitaskTuner(nn.Module):
    """Encoder, heads and their losses.

    Args:
        config: of the run.
        encoder: what is fine-tuned, or only used if `config.multitask.encoder` is `frozen`.
        tasks: their data; only labels are used here.
    """

    def __init__(self, config: DistillConfig, encoder: SpeechEncoder, tasks: Mapping[str, TaskData]):
        super().__init__()
        options = config.multitask
        self.config, self.tasks, self.encoder = config, dict(tasks), encoder
        self.frozen = options.encoder == "frozen"
        encoder.requires_grad_(not self.frozen)
        labels = {task: data.labels for task, data in tasks.items()}
        embedding_dim = options.speakers.embedding_dim if options.speakers else None
        self.heads = TaskHeads(HeadsConfig.for_encoder(encoder.config, options.features, labels, embedding_dim))
        self.watch = FiniteWatch()

    @property
    def device(self) -> torch.device:
        """Where the encoder is."""
        return next(self.encoder.parameters()).device

    def place(self, device: torch.device) -> None:
        """Go to a device, to be trained there."""
        self.to(device).train()  # an encoder that was read from a file may be in eval mode

    def train(self, mode: bool = True) -> MultitaskTuner:
        """Switch dropout on or off; a frozen encoder has none."""
        super().train(mode)
        if self.frozen:
            self.encoder.eval()
        return self

    def forward(self, task: str, hidden: Hidden) -> tuple[Tensor, dict[str, Tensor]]:
        """Loss of a batch of a task, and its values for the log."""
        batch: Batch = hidden.value
        classes = self.tasks[task].classes(batch.ids).to(self.device)
        options = getattr(self.config.multitask, task)
        loss, values = self.heads[task].loss(self.outputs(task, batch), classes, options)
        return loss, {**values, f"{task}_loss": loss.detach()}

    def outputs(self, task: str, batch: Batch) -> Tensor:
        """Logits or embeddings (B, ...) of a batch, of its corrupted audio if there is any.

        What is shorter than a frame of the encoder is continued with silence.
        """
        waveforms, least = (batch.corrupted or batch.clean).waveforms, self.encoder.config.receptive_field
        waveforms = F.pad(waveforms, (0, max(least - waveforms.shape[1], 0)))
        with torch.set_grad_enabled(torch.is_grad_enabled() and not self.frozen):
            output = self.encoder(waveforms, batch.lengths.clamp_min(least))
        return self.heads[task](output)

    def count_parameters(self) -> dict[str, int]:
        """Parameters of encoder and heads, and how many are trained."""
        counts = {"encoder": self.encoder.count_parameters()}
        counts |= {f"{task} head": sum(x.numel() for x in head.parameters()) for task, head in self.heads.items()}
        return {**counts, "trained": sum(x.numel() for x in self.parameters() if x.requires_grad)}


class Tuning(Training):
    """The training of a tuner.

    A step is one iteration as in arXiv 2210.16611: for each task in turn, forward, backward and an update of everything
    that this task's loss reaches, by one optimizer. The other task's head, which has no gradient then, is left alone,
    its Adam moments too.

    Args:
        fabric: launched, of one process.
        tuner: it goes to the device of `fabric`.
        found: checkpoint to go on from.

    Attributes:
        positions: place in each task's data of its next batch.
        best: step and mean error on dev of the best step so far; empty before the first.
    """

    def __init__(self, fabric: Fabric, tuner: MultitaskTuner, found: Mapping[str, Any] | None = None):
        notes = found["progress"] if found else {}
        self.positions = {task: Position(**notes["positions"][task]) if found else Position() for task in tuner.tasks}
        self.best: dict[str, float] = dict(notes.get("best", {}))
        place = next(iter(self.positions.values()))
        super().__init__(fabric, tuner, Progress(notes.get("step", 0), place, notes.get("audio_s", 0.0)))
        if found:
            self.load_state_dict(found)

    def steps(self, pairs: Iterable[dict[str, Batch]]) -> Iterator[StepReport]:
        """Train, one iteration per item.

        Args:
            pairs: a batch per task, from `positions` on.
        """
        fabric, tuner = self.fabric, self.distiller
        for pair in pairs:
            self.positions = {task: batch.resume_at for task, batch in pair.items()}
            self.progress.position = next(iter(self.positions.values()))
            if not all(batch.ids for batch in pair.values()):  # nothing of one can be read
                continue
            tuner.watch.settle(self.progress.step + 1)
            values: dict[str, Tensor | float] = {}
            for task, batch in pair.items():
                # Dropout depends on the seed and the place in the data only, so that a resumed run repeats it.
                torch.manual_seed(seed_of(tuner.config.seed, batch.position.batches, task))
                loss, terms = self.model(task, Hidden(batch.to(fabric.device, non_blocking=True)))
                self._expect_finite(loss, f"the {task} loss", [batch])
                fabric.backward(loss)
                norm = self._clip([batch], f"the gradient of the {task} loss")
                fabric.call("on_before_optimizer_step", tuner, task, self.progress.step + 1)
                self._stepper.step()
                self.optimizer.zero_grad()
                values |= {**terms, f"{task}_grad_norm": norm}
            values["lr"] = self.optimizer.param_groups[0]["lr"]
            self.schedule.step()
            self.progress.step += 1
            loss = sum(values[f"{task}_loss"] for task in pair)
            yield StepReport(self.progress.step, {"loss": loss, **values}, sum(b.seconds for b in pair.values()), 0.0)

    def state_dict(self) -> dict[str, Any]:
        """All that tuning goes on from."""
        notes = {
            "step": self.progress.step,
            "audio_s": self.progress.audio_s,
            "positions": {task: dataclasses.asdict(place) for task, place in self.positions.items()},
            "best": dict(self.best),
        }
        return {**super().state_dict(), "progress": notes}
