"""A run's folder: its configuration, what may change when it is continued, and its checkpoints.

out_dir/config.yaml            merged configuration
out_dir/run.json               digests of teacher and data, versions
out_dir/checkpoints/           step-00010000.ckpt ...
out_dir/checkpoints/best.ckpt  the best one by validation
out_dir/history.csv            loss and its terms
out_dir/validation.csv         distances to the teacher, if there is validation
out_dir/targets/               the teacher's targets, if they are kept (targets.cache) and have no other place
out_dir/cost.json              size, work, and where the time goes
out_dir/tensorboard/
out_dir/student.ckpt           the student, once the run is over
out_dir/student_best.ckpt      the student at the best checkpoint, if there is validation
"""

from __future__ import annotations

import errno
import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
import yaml
from lightning.pytorch.plugins.io import TorchCheckpointIO

from robustdistiller.common.files import write_atomically, write_text
from robustdistiller.common.settings import SettingsError
from robustdistiller.common.written import flatten
from robustdistiller.pretrain.config.load import DistillConfig
from robustdistiller.pretrain.training.errors import DiskFullError

_FULL_BYTES = 2**20  # less than this is nothing

#: Keys that do not decide what comes out. Data and teacher may move: their digests are compared instead.
FREE_KEYS = frozenset(
    {
        "about",
        "source",
        "recipe",
        "out_dir",
        "teacher.checkpoint",
        "data.speech",
        "data.noise",
        "data.noise_exclude",
        "data.rir",
        "data.babble",
        "data.num_workers",
        "data.manifest_dir",
        "data.music",
        "targets.cache.folder",
        "targets.cache.max_gb",
        "multitask.keywords.data",
        "multitask.speakers.data",
        "multitask.speakers.trials",
        "multitask.conditions",
        "data.unreadable_budget",
        "optim.schedule_steps",
        "trainer.max_steps",
        "trainer.accelerator",
        "trainer.activation_checkpointing",
        "trainer.strategy",
        "trainer.deterministic",
        "trainer.log_every_steps",
        "trainer.save_every_steps",
        "trainer.keep_checkpoints",
        "trainer.max_hours",
        "trainer.progress",
        "validation.speech",
        "validation.noise",
        "validation.rir",
    }
)


def differing_keys(old: Mapping[str, Any], new: Mapping[str, Any]) -> dict[str, tuple[Any, Any]]:
    """Dotted keys, other than the free ones, whose values differ, with both values.

    >>> differing_keys({"seed": 0, "optim": {"lr": 1}}, {"seed": 0, "optim": {"lr": 2}})
    {'optim.lr': (1, 2)}
    """
    old, new = flatten(old), flatten(new)
    keys = [key for key in sorted({*old, *new}) if key not in FREE_KEYS]
    return {key: (old.get(key), new.get(key)) for key in keys if old.get(key) != new.get(key)}


def latest_checkpoint(out_dir: Path) -> Path | None:
    """The checkpoint of the highest step, if there is one."""
    return max(out_dir.glob("checkpoints/step-*.ckpt"), default=None, key=checkpoint_step)


def checkpoint_step(path: Path) -> int:
    """The step in a checkpoint's name.

    >>> checkpoint_step(Path("checkpoints/step-00010000.ckpt"))
    10000
    """
    return int(path.stem.removeprefix("step-"))


def write_run(out_dir: Path, config: DistillConfig, identity: Mapping[str, Any]) -> None:
    """Save the configuration and the identity of what it runs on."""
    text = yaml.safe_dump(config.to_dict(), sort_keys=False, allow_unicode=True, width=120)
    write_text(out_dir / "config.yaml", text)
    write_text(out_dir / "run.json", json.dumps(identity, indent=1))


def read_run(out_dir: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """What `write_run` saved, as plain values: configuration and identity.

    Raises:
        SettingsError: the folder holds checkpoints but not these files.
    """
    try:
        config = yaml.safe_load((out_dir / "config.yaml").read_text(encoding="utf-8"))
        return config, json.loads((out_dir / "run.json").read_text())
    except FileNotFoundError as error:
        raise SettingsError(
            f"{out_dir} holds a run without its {Path(error.filename).name}, so it cannot be told whether it is the "
            "same; put the file back or choose another out_dir"
        ) from error


def refuse_other_run(out_dir: Path, config: DistillConfig, identity: Mapping[str, Any]) -> None:
    """Make sure that the run in `out_dir` is the one described.

    Raises:
        SettingsError: something that decides the outcome differs; every such key is named with both values.
    """
    old_config, old_identity = read_run(out_dir)
    changes = differing_keys(old_config, config.to_dict())
    changes |= {
        key: (old_identity.get(key), identity.get(key))
        for key in ("teacher", "speech", "corruption", "validation")
        if old_identity.get(key) != identity.get(key)
    }
    if changes:
        lines = [f"  {key}: {_short(old)} there, {_short(new)} now" for key, (old, new) in changes.items()]
        raise SettingsError(
            f"{out_dir} holds a run with other settings, and a run cannot be continued as a different one:\n"
            + "\n".join(lines)
            + "\nchoose another out_dir, or give these settings as they were"
        )


def _short(value: Any) -> str:
    text = str(value)
    return text if len(text) <= 60 else text[:57] + "..."


def _save(checkpoint: dict[str, Any], file: Path, path: Path) -> None:
    try:
        torch.save(checkpoint, file)
    except (OSError, RuntimeError) as error:  # torch's own writer raises RuntimeError
        free, written = shutil.disk_usage(file.parent).free, file.stat().st_size
        if getattr(error, "errno", None) != errno.ENOSPC and free > _FULL_BYTES:
            raise
        raise DiskFullError(
            f"cannot save {path}: the disk is full ({free / 2**20:.1f} MiB free, with {written / 2**20:.1f} MiB of it "
            "written); the checkpoint before it is untouched: free some space and give the same command again"
        ) from error


class AtomicCheckpointIO(TorchCheckpointIO):
    """Writes a checkpoint beside its place and renames it, so that a full disk leaves the previous one valid.

    Checkpoints hold plain tensors and containers only and are read back as such.
    """

    def save_checkpoint(self, checkpoint: dict[str, Any], path, storage_options=None) -> None:
        """Write `checkpoint` to `path`.

        Raises:
            DiskFullError: there is not enough space.
        """
        write_atomically(path, lambda file: _save(checkpoint, file, Path(path)))

    def load_checkpoint(self, path, map_location=None, weights_only=None) -> dict[str, Any]:
        """Read a checkpoint; anything but tensors and plain containers is refused."""
        return torch.load(path, map_location=map_location or "cpu", weights_only=True)
