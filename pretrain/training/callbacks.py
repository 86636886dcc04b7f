"""What happens around the training steps: checkpoints and stopping, the log, the progress bar."""

from __future__ import annotations

import csv
import logging
import signal
import sys
import threading
import time
from collections.abc import Mapping
from pathlib import Path

import lightning.pytorch as pl
import torch
from torch import Tensor
from tqdm import tqdm

from robustdistiller.common.files import write_text
from robustdistiller.pretrain.config.schema import TrainerConfig
from robustdistiller.pretrain.training.checkpoint import checkpoint_step

logger = logging.getLogger(__name__)


class CheckpointKeeper(pl.Callback):
    """Saves every so many steps, at the end, and when asked to stop by Ctrl-C, SIGTERM or the time limit.

    The first signal lets the current step finish; a second one interrupts at once. Use it as a context around the
    training, so that the signals are given back whatever happens.

    Args:
        out_dir: folder of the run.
        settings: intervals and limits.

    Attributes:
        stopped_by: why training ended before `max_steps`, or an empty string.
    """

    def __init__(self, out_dir: Path, settings: TrainerConfig):
        self.folder, self.settings = out_dir / "checkpoints", settings
        self.stopped_by = ""
        self._saved_step = -1
        self._handlers: dict[int, object] = {}

    def __enter__(self) -> CheckpointKeeper:
        self._handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
        return self

    def __exit__(self, *error: object) -> None:
        if _in_main_thread():
            for number, handler in self._handlers.items():
                signal.signal(number, handler)

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Listen for signals (not earlier: Lightning sets handlers of its own before) and start the clock."""
        self._start_s = time.monotonic()
        self._saved_step = trainer.global_step
        if _in_main_thread():
            for number in self._handlers:
                signal.signal(number, self._on_signal)

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx) -> None:
        """Save and stop where due; only between optimizer steps."""
        if (batch_idx + 1) % trainer.accumulate_grad_batches:
            return
        hours = self.settings.max_hours
        if hours is not None and time.monotonic() - self._start_s > hours * 3600:
            self.stopped_by = self.stopped_by or f"trainer.max_hours={hours:g}"
        stop = bool(self.stopped_by)
        if trainer.world_size > 1:  # all processes stop at the same step
            stop = trainer.strategy.reduce_boolean_decision(stop, all=False)
            self.stopped_by = self.stopped_by or "another process" * stop
        trainer.should_stop = trainer.should_stop or stop
        if stop or trainer.global_step % self.settings.save_every_steps == 0:
            self._save(trainer)

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Save the last step."""
        self._save(trainer)

    def _on_signal(self, number: int, frame: object) -> None:
        if self.stopped_by:
            raise KeyboardInterrupt
        self.stopped_by = signal.Signals(number).name

    def _save(self, trainer: pl.Trainer) -> None:
        step = trainer.global_step
        if step == self._saved_step:
            return
        trainer.save_checkpoint(self.folder / f"step-{step:08d}.ckpt")
        self._saved_step = step
        if trainer.is_global_zero:
            for old in sorted(self.folder.glob("step-*.ckpt"), key=checkpoint_step)[: -self.settings.keep_checkpoints]:
                old.unlink()


class History(pl.Callback):
    """Writes `history.csv`, TensorBoard scalars and the progress bar.

    A line holds the means over the batches, of all processes, since the line before. After a resume the lines past the
    resumed step are removed, so that each step is there once. Use it as a context around the training.

    Args:
        out_dir: folder of the run.
        settings: interval and whether to show the bar.
    """

    def __init__(self, out_dir: Path, settings: TrainerConfig):
        self.path, self.settings = out_dir / "history.csv", settings
        self._bar = self._board = None

    def __enter__(self) -> History:
        return self

    def __exit__(self, *error: object) -> None:
        for closable in (self._bar, self._board):
            if closable is not None:
                closable.close()
        self._bar = self._board = None

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Open the log where it was left."""
        self._restart_interval(pl_module)
        if not trainer.is_global_zero:
            return
        from torch.utils.tensorboard import SummaryWriter  # slow to import

        step = trainer.global_step
        forget_after(self.path, step)
        self._board = SummaryWriter(self.path.parent / "tensorboard", purge_step=step + 1)
        if self.settings.progress and sys.stderr.isatty():
            self._bar = tqdm(total=trainer.max_steps, initial=step, desc="distil", unit="step", dynamic_ncols=True)

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx) -> None:
        """Collect the step's values; write a line when one is due."""
        for name, value in pl_module.values.items():
            total, count = self._sums.get(name, (0.0, 0))
            self._sums[name] = (total + value, count + 1)
        if (batch_idx + 1) % trainer.accumulate_grad_batches:
            return
        if trainer.global_step % self.settings.log_every_steps == 0:
            self._write_line(trainer, pl_module)
        if self._bar is not None and self._bar.update():  # where it is drawn anew: reading the loss waits for a GPU
            loss, rate = float(pl_module.values["loss"]), self._audio_rate(pl_module)
            self._bar.set_postfix_str(f"loss {loss:.3f}, {rate:.0f} s audio/s", refresh=False)

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Write what is left."""
        if self._sums:
            self._write_line(trainer, pl_module)

    def pause(self, duration_s: float) -> None:
        """Leave a time that did not go into training out of the speed."""
        self._since_s += duration_s

    def add_scalars(self, values: Mapping[str, float], step: int) -> None:
        """Add to the TensorBoard log; nothing in processes that keep none."""
        if self._board is not None:
            for name, value in values.items():
                self._board.add_scalar(name, value, step)

    def _restart_interval(self, pl_module: pl.LightningModule) -> None:
        self._sums: dict[str, tuple[Tensor | float, int]] = {}
        self._since_s, self._since_audio_s = time.monotonic(), pl_module.audio_s

    def _audio_rate(self, pl_module: pl.LightningModule) -> float:
        return (pl_module.audio_s - self._since_audio_s) / max(time.monotonic() - self._since_s, 1e-9)

    def _write_line(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        means = self._means(trainer, pl_module)
        rate = self._audio_rate(pl_module)
        line = {
            "step": trainer.global_step,
            "epoch": pl_module.position.epoch,
            "audio_h": round(pl_module.audio_s / 3600, 4),
            **means,
            "audio_s_per_s": round(rate, 1),
        }
        if trainer.is_global_zero:
            append_line(self.path, line)
            self.add_scalars({name: value for name, value in line.items() if name != "step"}, trainer.global_step)
            if self._bar is None:
                terms = ", ".join(
                    f"{name} {means[name]:.4f}" for name in means if name != "lr" and "_layer" not in name
                )
                logger.info("step %d of %d: %s; %.0f s audio/s", line["step"], trainer.max_steps, terms, rate)
        self._restart_interval(pl_module)

    def _means(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> dict[str, float]:
        means = {name: float(total) / count for name, (total, count) in self._sums.items()}
        if trainer.world_size > 1:
            values = torch.tensor(list(means.values()), dtype=torch.float32, device=pl_module.device)
            means = dict(zip(means, trainer.strategy.reduce(values, reduce_op="mean").tolist()))
        return means


def _in_main_thread() -> bool:
    """Whether signal handlers may be set here."""
    return threading.current_thread() is threading.main_thread()


def read_history(path: str | Path) -> list[dict[str, float]]:
    """The lines of a `history.csv`, as numbers; none if there is no such file."""
    try:
        with Path(path).open(newline="", encoding="utf-8") as lines:
            return [{name: float(value) for name, value in line.items()} for line in csv.DictReader(lines)]
    except FileNotFoundError:
        return []


def append_line(path: Path, line: Mapping[str, object]) -> None:
    """Add a line to a CSV file, with a header if the file is new; `None` leaves a cell empty."""
    new = not path.is_file()
    with path.open("a", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(line), lineterminator="\n")
        if new:
            writer.writeheader()
        writer.writerow({name: f"{value:.6g}" if isinstance(value, float) else value for name, value in line.items()})


def forget_after(path: Path, step: int) -> None:
    """Remove the lines of a CSV file, whose first column is the step, that are past `step` or cut short."""
    if not step:
        path.unlink(missing_ok=True)
    if not path.is_file():
        return
    header, *lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
    kept = [header, *(line for line in lines if line.endswith("\n") and int(line.partition(",")[0]) <= step)]
    write_text(path, "".join(kept))
