"""The loop: for each batch targets, student, losses, backward; then one step of the optimizer."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from lightning_fabric import Fabric
from torch import Tensor

from robustdistiller.common.seeds import seed_of
from robustdistiller.pretrain.data.dataset import Batch
from robustdistiller.pretrain.data.sampler import Position
from robustdistiller.pretrain.student.ema import StudentAverage
from robustdistiller.pretrain.training.errors import ADVICE, NonFiniteLossError
from robustdistiller.pretrain.training.optim import clip, make_optimizer, make_schedule, restore
from robustdistiller.pretrain.training.step import COUNTED, Distiller, Hidden, Lesson

if TYPE_CHECKING:
    from robustdistiller.pretrain.training.log import History
    from robustdistiller.pretrain.training.stopping import StopRequest

_LEAST_SCALE = 2**-20  # of a loss in fp16, which starts at 2**16 and is halved by each step that is left out


@dataclass
class Progress:
    """How far a stage is: what a checkpoint holds beside weights.

    Attributes:
        step: optimizer steps done.
        position: of the next batch in the stream, the same in all processes.
        audio_s: seconds of audio so far in all processes.
        best: value of the criterion at the best step so far, smaller is better, and that step.
    """

    step: int = 0
    position: Position = field(default_factory=Position)
    audio_s: float = 0.0
    best: tuple[float, int] | None = None


@dataclass
class StepReport:
    """What is known of an optimizer step that was made.

    Attributes:
        step: its number, from 1.
        values: loss and terms, as means over all batches of this process; gradient norm and learning rate.
        audio_s: seconds of audio in it, of this process.
        waited_s: seconds in which it waited for batches.
    """

    step: int
    values: dict[str, Tensor | float]
    audio_s: float
    waited_s: float


class Training:
    """A distiller on its device, its optimizer, its schedule and, if asked for, the running average of its weights."""

    def __init__(self, fabric: Fabric, distiller: Distiller, progress: Progress):
        settings = distiller.config
        self.fabric, self.distiller, self.progress = fabric, distiller, progress
        self.scaled = settings.trainer.precision == "fp16"
        distiller.place(fabric.device)
        # One kernel for all weights. It undoes the loss scaling of fp16 by itself, after the clipping here: too late.
        fused = fabric.device.type == "cuda" and not self.scaled
        self.optimizer = make_optimizer(distiller, settings.optim, fused)
        self.schedule = make_schedule(self.optimizer, settings.optim, progress.step)
        self.model, self._stepper = fabric.setup(distiller, self.optimizer)
        decay = settings.trainer.ema_decay
        self.average = None if decay is None else StudentAverage(distiller, decay)

    def run(
        self,
        batches: Iterable[Any],
        history: History,
        stop: StopRequest,
        is_best: Callable[[int], bool],
        save: Callable[..., None],
        out_dir: Path,
    ) -> None:
        """Train to the last step.

        After each one `is_best` measures, if that is due, and says whether it is the best one so far; `save` writes a
        checkpoint, with `best=True` the best one.

        Raises:
            NonFiniteLossError: a loss or gradient is NaN or infinite.
            RunInterrupted: it was asked to stop; a checkpoint is saved.
        """
        fabric, settings = self.fabric, self.distiller.config.trainer
        fabric.call("on_train_start", self.distiller)
        for report in self.steps(batches):
            history.add(report)
            if is_best(report.step):
                save(best=True)
            fabric.call("on_step_end", self.distiller, report)
            finished, stopped = report.step >= settings.max_steps, stop.due(fabric, report.step)
            if finished or stopped or report.step % settings.save_every_steps == 0:
                save()
            if finished:
                break
            if stopped:
                history.write_line()
                place = f"step {report.step} of {settings.max_steps} of stage {history.stage}"
                raise stop.interruption(place, out_dir)
        fabric.call("on_train_end", self.distiller)

    def steps(self, batches: Iterable[Batch]) -> Iterator[StepReport]:
        """Train, one optimizer step per item, for as long as there are batches and somebody asks.

        Args:
            batches: from the place in the data on where `progress` is.
        """
        fabric, distiller, progress = self.fabric, self.distiller, self.progress
        settings, watch, batches = distiller.config, distiller.watch, iter(batches)
        while True:
            started_s = time.monotonic()
            own = list(islice(batches, settings.trainer.accumulate))  # this process's share of the step
            waited_s = time.monotonic() - started_s
            progress.position = own[-1].resume_at
            own = [batch if batch.ids or fabric.world_size == 1 else batch.stand_in() for batch in own]
            own = [batch for batch in own if batch.ids]
            if not own:  # nothing of it can be read
                continue
            watch.settle(progress.step + 1)
            values: dict[str, Tensor | float] = {}
            for index, lesson in enumerate(self._lessons(own)):
                fabric.call("on_batch_start", distiller, lesson.batch, progress.step + 1)
                batch = lesson.batch = lesson.batch.to(fabric.device, non_blocking=True)
                # Dropout and gates depend on the seed and the place in the data only: a resumed run repeats them, on
                # any number of processes.
                torch.manual_seed(seed_of(settings.seed, batch.position.batches))
                lesson.targets, lesson.units = distiller.teach(batch)
                with fabric.no_backward_sync(self.model, enabled=index + 1 < len(own)):
                    loss, terms = self.model(Hidden((lesson, progress.step)))
                    fabric.backward(loss / len(own))
                values = {name: values.get(name, 0.0) + term / len(own) for name, term in terms.items()}
            values |= {"grad_norm": self._clip(own), "lr": self.optimizer.param_groups[0]["lr"]}
            fabric.call("on_before_optimizer_step", distiller, progress.step + 1)
            self._stepper.step()
            self.schedule.step()
            self.optimizer.zero_grad()
            if self.average is not None:
                self.average.update()
            progress.step += 1
            yield StepReport(progress.step, values, sum(batch.seconds for batch in own), waited_s)

    def state_dict(self) -> dict[str, Any]:
        """All that training goes on from."""
        self.distiller.watch.settle()  # what would be saved is of use
        scaler = self.fabric.strategy.precision.state_dict()
        if scaler and scaler["scale"] < _LEAST_SCALE:
            raise NonFiniteLossError(
                f"the gradient has not been finite in fp16 for many steps before step {self.progress.step}, each of "
                f"which was left out: the loss is scaled by {scaler['scale']:.3g} by now. {ADVICE}"
            )
        return {
            "model": self.distiller.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "scaler": scaler,
            "average": None if self.average is None else self.average.state_dict(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from a `state_dict`."""
        self.distiller.load_state_dict(state["model"])
        restore(self.optimizer, state["optimizer"])
        self.fabric.strategy.precision.load_state_dict(state["scaler"])
        if self.average is not None:
            self.average.load_state_dict(state["average"])

    def _lessons(self, own: list[Batch]) -> list[Lesson]:
        """The batches of this process, each with its shares of what the step's batches have in the mean.

        The mean of the batches' gradients, which DDP and accumulation make, becomes that of the mean over everything
        that is counted in the step, wherever it is. Nobody waits for the sum over the processes.
        """
        lessons = [self.distiller.lesson(batch) for batch in own]
        total = torch.tensor([sum(lesson.counts[name] for lesson in lessons) for name in COUNTED])
        processes = self.fabric.world_size
        if processes > 1:
            total = total.to(self.fabric.device, non_blocking=True)
            torch.distributed.all_reduce(total)
            mean = dict(zip(COUNTED, total / (processes * len(own))))
        else:
            mean = dict(zip(COUNTED, (total / len(own)).tolist()))
        for lesson in lessons:
            counts = lesson.counts
            lesson.shares = {name: counts[name] / mean[name] if counts[name] else 0.0 for name in COUNTED}
        return lessons

    def _clip(self, own: list[Batch], what: str = "the loss is finite, but the gradient") -> Tensor:
        step = self.progress.step + 1
        if self.scaled:
            self.fabric.strategy.precision.unscale_gradients(self.optimizer)
        self.fabric.call("on_after_backward", self.distiller, step)
        norm = clip(self.distiller, self.distiller.config.optim)
        if not self.scaled:  # in fp16 the scaler skips such steps instead
            self._expect_finite(norm, what, own)
        return norm.detach()

    def _expect_finite(self, value: Tensor, what: str, own: list[Batch]) -> None:
        step, place = self.progress.step + 1, own[0].position
        ids = ", ".join(name for batch in own for name in batch.ids)
        where = f"at step {step} (epoch {place.epoch}, batch {place.batch_in_epoch})"
        self.distiller.watch.expect(value, step, lambda: f"{what} is not finite {where}; utterances: {ids}. {ADVICE}")
