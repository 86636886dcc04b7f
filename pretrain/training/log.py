"""What a run writes while it trains: CSV tables, TensorBoard, Weights & Biases, the progress bar, the loss curves."""

from __future__ import annotations

import csv
import io
import logging
import sys
import time
import uuid
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from lightning_fabric import Fabric
from torch import Tensor
from tqdm import tqdm

from robustdistiller.common.files import write_text
from robustdistiller.common.settings import SettingsError
from robustdistiller.pretrain.config.schema import DistillConfig, LogConfig
from robustdistiller.pretrain.training.loop import Progress, StepReport

logger = logging.getLogger(__name__)


class History:
    """Writes `history.csv`, TensorBoard and Weights & Biases scalars, and the progress bar of one stage, as a context.

    A line holds the means over the batches of all processes since the line before. After a resume the lines past the
    resumed step are removed, so that each step is there once.
    """

    def __init__(self, out_dir: Path, stage: str, config: DistillConfig, fabric: Fabric, progress: Progress):
        self.path, self.stage, self.settings = out_dir / "history.csv", stage, config.trainer
        self.fabric, self.progress = fabric, progress
        self._bar = self._board = self._wandb = None
        self._restart_interval()
        if not fabric.is_global_zero:
            return
        from torch.utils.tensorboard import SummaryWriter  # slow to import

        self._wandb = _start_wandb(config, out_dir, stage)
        forget_after(self.path, stage, progress.step)
        self._board = SummaryWriter(out_dir / "tensorboard" / stage, purge_step=progress.step + 1)
        if self.settings.progress and sys.stderr.isatty():
            total = self.settings.max_steps
            self._bar = tqdm(total=total, initial=progress.step, desc=stage, unit="step", dynamic_ncols=True)

    def __enter__(self) -> History:
        return self

    def __exit__(self, *error: object) -> None:
        if self._bar is not None:
            self._bar.close()
        if self._board is not None:
            self._board.close()
        if self._wandb is not None:
            self._wandb.finish(exit_code=int(error[0] is not None))

    def add(self, report: StepReport) -> None:
        """Collect a step's values; write a line when one is due. `progress.audio_s` then counts all processes."""
        self._sums = {name: self._sums.get(name, 0.0) + value for name, value in report.values.items()}
        self._steps += 1
        self._audio_s += report.audio_s
        self._waited_s += report.waited_s
        if report.step % self.settings.log_every_steps == 0 or report.step >= self.settings.max_steps:
            self.write_line()
        if self._bar is not None and self._bar.update():  # where it is drawn anew: reading the loss waits for a GPU
            rate = self._audio_s * self.fabric.world_size / self._elapsed_s()
            self._bar.set_postfix_str(
                f"loss {float(report.values['loss']):.3f}, {rate:.1f} s of audio per second", refresh=False
            )

    def pause(self, duration_s: float) -> None:
        """Leave a time that did not go into training out of the speed."""
        self._since_s += duration_s

    def settle_audio(self) -> None:
        """Count what all processes have heard since the last line; all processes have to call this."""
        total_s = float(_sum(self.fabric, torch.tensor([self._audio_s], dtype=torch.float64)))
        self.progress.audio_s += total_s - self._counted_audio_s
        self._counted_audio_s = total_s

    def write_line(self) -> None:
        """Write what has been collected, if there is anything; all processes have to call this."""
        if not self._steps:
            return
        elapsed_s = self._elapsed_s()
        self.settle_audio()
        numbers = torch.tensor([float(total) / self._steps for total in self._sums.values()], dtype=torch.float64)
        means = dict(zip(self._sums, (_sum(self.fabric, numbers) / self.fabric.world_size).tolist()))
        line = {
            "stage": self.stage,
            "step": self.progress.step,
            "epoch": self.progress.position.epoch,
            "audio_h": round(self.progress.audio_s / 3600, 4),
            **means,
            "audio_s_per_s": round(self._counted_audio_s / elapsed_s, 1),
            "data_wait": round(self._waited_s / elapsed_s, 3),
        }
        if self.fabric.is_global_zero:
            append_line(self.path, line)
            scalars = {name: value for name, value in line.items() if name not in ("stage", "step")}
            self.add_scalars(scalars, line["step"])
            if self._bar is None:
                terms = [name for name in means if name not in ("grad_norm", "lr") and "_layer" not in name]
                said = ", ".join(f"{name} {means[name]:.4f}" for name in terms)
                speed = f"{line['audio_s_per_s']:.1f} s of audio per second"
                logger.info("%s: step %d of %d: %s; %s", self.stage, line["step"], self.settings.max_steps, said, speed)
        self._restart_interval()

    def add_scalars(self, values: Mapping[str, float], step: int) -> None:
        """Add to the logs beside the table; nothing in processes that keep none."""
        if self._board is not None:
            for name, value in values.items():
                self._board.add_scalar(name, value, step)
        if self._wandb is not None:
            self._wandb.log({f"{self.stage}/{name}": value for name, value in values.items()} | {"step": step})

    def _elapsed_s(self) -> float:
        return max(time.monotonic() - self._since_s, 1e-9)

    def _restart_interval(self) -> None:
        self._sums: dict[str, Tensor | float] = {}
        self._steps, self._audio_s, self._counted_audio_s, self._waited_s = 0, 0.0, 0.0, 0.0
        self._since_s = time.monotonic()


def check_logs(settings: LogConfig) -> None:
    """Make sure that what keeps the logs is installed; a SettingsError says what is not."""
    try:
        if settings.wandb:
            import wandb  # noqa: F401 - not among the requirements
    except ImportError as error:
        raise SettingsError(
            f"log.wandb={settings.wandb} needs the package wandb, which is not installed: pip install wandb, or give "
            "log.wandb=null"
        ) from error


def _start_wandb(config: DistillConfig, out_dir: Path, stage: str) -> Any:
    """A run of Weights & Biases, if one is asked for; stages of a run are one group, and each goes on after a stop."""
    if not config.log.wandb:
        return None
    import wandb

    known = out_dir / "wandb" / f"{stage}.id"
    if not known.is_file():
        write_text(known, uuid.uuid4().hex[:8])
    return wandb.init(
        id=known.read_text(encoding="utf-8"),
        resume="allow",
        project=config.log.wandb,
        group=out_dir.name,
        name=f"{out_dir.name}-{stage}",
        dir=out_dir,
        config=config.to_dict(),
    )


def _sum(fabric: Fabric, values: Tensor) -> Tensor:
    """The sum over all processes, on the CPU."""
    if fabric.world_size == 1:
        return values
    return fabric.all_reduce(values.float().to(fabric.device), reduce_op="sum").cpu().double()


def read_history(path: str | Path) -> list[dict[str, Any]]:
    """The lines of a table, numbers as such; none if there is no such file.

    Empty cells are left out, and so is a last line that is still being written.
    """
    try:
        text = Path(path).read_text(encoding="utf-8")
    except FileNotFoundError:
        return []
    lines = csv.DictReader(text[: text.rfind("\n") + 1].splitlines())
    return [{name: _value(name, cell) for name, cell in line.items() if cell} for line in lines]


def _value(column: str, cell: str) -> float | str:
    return cell if column in ("stage", "condition") else float(cell)


def append_line(path: Path, line: Mapping[str, object]) -> None:
    """Add a line to a CSV file; `None` leaves a cell empty. New columns are added to the lines before, empty."""
    text = {name: f"{value:.6g}" if isinstance(value, float) else value for name, value in line.items()}
    header: list[str] = []
    if path.is_file():
        with path.open(newline="", encoding="utf-8") as file:
            header = next(csv.reader(file), [])
    if new := [name for name in text if name not in header]:
        rows = list(csv.DictReader(path.open(newline="", encoding="utf-8"))) if header else []
        _write(path, [*header, *new], rows)
        header += new
    with path.open("a", newline="", encoding="utf-8") as file:
        csv.DictWriter(file, header, lineterminator="\n").writerow(text)


def forget_after(path: Path, stage: str, step: int) -> None:
    """Remove from a table the lines of a stage that are past `step`, and one that was cut short."""
    if not path.is_file():
        return
    text = path.read_text(encoding="utf-8")
    header, *rows = [*csv.reader(text[: text.rfind("\n") + 1].splitlines())] or [[]]
    kept = [
        dict(zip(header, row))
        for row in rows
        if len(row) == len(header) and (row[header.index("stage")] != stage or int(row[header.index("step")]) <= step)
    ]
    if header:
        _write(path, header, kept)


def _write(path: Path, header: Sequence[str], rows: Sequence[Mapping[str, str]]) -> None:
    text = io.StringIO()
    writer = csv.DictWriter(text, header, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    write_text(path, text.getvalue())
