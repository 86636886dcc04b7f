"""Where the time of a training step goes, measured on a few early steps only."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Mapping
from pathlib import Path

import lightning.pytorch as pl
import torch

from robustdistiller.common.files import write_text
from robustdistiller.pretrain.training.callbacks import History
from robustdistiller.upstream.model.cost import EncoderCost, cost_table

logger = logging.getLogger(__name__)

_WARM_UP_STEPS = 3  # allocator, autotuning
_MEASURED_STEPS = 5


class StepClock:
    """Adds up what the parts of a step take; while it is not running, it does nothing and synchronises nothing.

    Attributes:
        running: whether laps are measured.
        seconds: by part.

    >>> clock = StepClock()
    >>> clock.lap("teacher")  # not running
    >>> clock.start(torch.device("cpu"))
    >>> clock.lap("teacher")
    >>> list(clock.seconds), clock.seconds["teacher"] < 1
    (['teacher'], True)
    """

    def __init__(self):
        self.running = False
        self.seconds: dict[str, float] = {}

    def start(self, device: torch.device) -> None:
        """Begin to measure; `device` is waited for at each lap."""
        self.running, self._device = True, device
        self.skip()

    def stop(self) -> None:
        """End measuring."""
        self.running = False

    def lap(self, part: str) -> None:
        """Count the time since the last lap as that of `part`."""
        if self.running:
            before = self._since_s
            self.skip()
            self.seconds[part] = self.seconds.get(part, 0.0) + self._since_s - before

    def skip(self) -> None:
        """Count the time since the last lap as that of no part."""
        if self.running:
            if self._device.type != "cpu":
                torch.accelerator.synchronize(self._device)
            self._since_s = time.perf_counter()


class CostReport(pl.Callback):
    """Measures a few early steps, then logs and writes what the run costs: `cost.json`, TensorBoard, one table.

    A step that is not measured is not slowed down, and measuring changes no result: it only reads clocks and waits for
    the device. It must be the first of the callbacks, so that theirs are not counted as the optimizer's time. The
    module calls `module.clock.lap(part)` in its training step.

    Args:
        out_dir: folder of the run.
        encoders: what the encoders cost, the teacher first.
        history: has the TensorBoard log.
        warm_up_steps: optimizer steps before the measured ones.
    """

    def __init__(
        self,
        out_dir: Path,
        encoders: Mapping[str, EncoderCost],
        history: History,
        warm_up_steps: int = _WARM_UP_STEPS,
    ):
        self.path, self.encoders, self.history, self.warm_up_steps = (
            out_dir / "cost.json",
            encoders,
            history,
            warm_up_steps,
        )
        self._done = False

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Count steps from here: a resumed run is measured anew, it may be on another machine."""
        self._first_step, self._audio_s = trainer.global_step, 0.0

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx) -> None:
        """What went before was waiting for the batch."""
        pl_module.clock.lap("data wait")
        if pl_module.clock.running:
            self._audio_s += batch.seconds

    def on_before_backward(self, trainer, pl_module, loss) -> None:
        """The objectives are done."""
        pl_module.clock.lap("objectives")

    def on_after_backward(self, trainer, pl_module) -> None:
        """The gradients are there."""
        pl_module.clock.lap("backward")

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx) -> None:
        """Start after the warm-up, stop after the measured steps."""
        clock = pl_module.clock
        clock.lap("optimizer")
        if (batch_idx + 1) % trainer.accumulate_grad_batches or self._done:
            return
        steps = trainer.global_step - self._first_step
        if steps >= self.warm_up_steps + _MEASURED_STEPS:
            self._report(trainer, pl_module, steps - self.warm_up_steps)
        elif steps == self.warm_up_steps:
            if pl_module.device.type == "cuda":
                torch.cuda.reset_peak_memory_stats(pl_module.device)
            clock.start(pl_module.device)

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """A short run is reported with the steps it had."""
        if not self._done:
            measured = trainer.global_step - self._first_step - self.warm_up_steps
            self._report(trainer, pl_module, max(measured, 0))

    def _report(self, trainer: pl.Trainer, pl_module: pl.LightningModule, steps: int) -> None:
        self._done = True
        clock = pl_module.clock
        clock.stop()
        if not trainer.is_global_zero:
            return
        report: dict = {"encoders": {name: cost.to_dict() for name, cost in self.encoders.items()}}
        lines = [cost_table(self.encoders)]
        if steps and clock.seconds:
            parts = {name: seconds / steps for name, seconds in clock.seconds.items()}
            total_s = sum(parts.values())
            report |= {
                "device": _device_name(pl_module.device),
                "measured_steps": steps,
                "step_s": parts,
                "audio_s_per_step": self._audio_s / steps,
            }
            lines.append(step_table(parts, self._audio_s / steps, report["device"]))
            scalars = {f"cost/{name.replace(' ', '_')}_s": seconds for name, seconds in parts.items()}
            scalars["cost/step_s"] = total_s
            if pl_module.device.type == "cuda":
                report["peak_memory_bytes"] = torch.cuda.max_memory_allocated(pl_module.device)
                lines.append(f"peak memory {report['peak_memory_bytes'] / 2**30:.1f} GiB")
            self.history.add_scalars(scalars, trainer.global_step)
        write_text(self.path, json.dumps(report, indent=1))
        for line in "\n".join(lines).splitlines():
            logger.info("%s", line)


def step_table(parts_s: Mapping[str, float], audio_s: float, device: str) -> str:
    """A small text table of what the parts of an optimizer step take.

    Args:
        parts_s: seconds by part.
        audio_s: seconds of audio in such a step.
        device: its name.

    >>> print(step_table({"teacher": 0.3, "student": 0.1}, audio_s=40.0, device="cpu"))
    step              ms      of it
    teacher          300        75%
    student          100        25%
    all              400  on cpu, 40.0 s of audio: 100 times real time
    """
    total_s = sum(parts_s.values())
    lines = [f"{'step':<12} {'ms':>7} {'of it':>10}"]
    lines += [f"{name:<12} {1e3 * part:>7.0f} {part / total_s:>10.0%}" for name, part in parts_s.items()]
    summary = f"on {device}, {audio_s:.1f} s of audio: {audio_s / total_s:.0f} times real time"
    return "\n".join([*lines, f"{'all':<12} {1e3 * total_s:>7.0f}  {summary}"])


def _device_name(device: torch.device) -> str:
    return torch.cuda.get_device_name(device) if device.type == "cuda" else device.type
