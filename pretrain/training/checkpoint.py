"""A run's folder: its configuration, what may change when it is continued, and its checkpoints.

out_dir/config.yaml                       merged configuration, itself a recipe
out_dir/run.json                          digests of teachers and data, versions
out_dir/checkpoints/STAGE-00010000.ckpt   training states; STAGE-best.ckpt is the best one by validation
out_dir/history.csv, tensorboard/         loss and its terms
out_dir/validation.csv                    distances to the teacher and probes, if there is validation
out_dir/groups.json, units.npz            found once, before the first step, if the recipe asks for them
out_dir/manifests/, targets/              headers of audio files, the teacher's targets, if they have no other place
out_dir/cost.json                         size and work of teacher and student
out_dir/run.html                          a page of all this, once the run is over
out_dir/student_STAGE.ckpt                the student of a stage that another follows
out_dir/student.ckpt, student_best.ckpt   the student, once the run is over; and at its best checkpoint
"""

from __future__ import annotations

import errno
import hashlib
import json
import logging
import shutil
from collections.abc import Mapping
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch
import yaml
from lightning_fabric import Fabric
from torch import Tensor

from robustdistiller.common.files import write_atomically, write_text
from robustdistiller.common.settings import SettingsError, read
from robustdistiller.common.written import flatten
from robustdistiller.pretrain.config.first_version import as_today
from robustdistiller.pretrain.config.schema import DistillConfig
from robustdistiller.pretrain.data.sampler import Position
from robustdistiller.pretrain.training.errors import DiskFullError
from robustdistiller.pretrain.training.loop import Progress

logger = logging.getLogger(__name__)

FORMAT = 2
_FULL_BYTES = 2**20  # less than this is nothing

#: Keys that do not decide what comes out. Data and teachers may move: their digests are compared instead.
FREE_KEYS = frozenset(
    {
        *("about", "source", "recipe", "out_dir", "teacher.checkpoint", "student.checkpoint"),
        *("data.speech", "data.noise", "data.noise_exclude", "data.rir", "data.babble", "data.music"),
        *("data.num_workers", "data.manifest_dir", "data.unreadable_budget"),
        *("targets.cache.folder", "targets.cache.max_gb"),
        *("multitask.keywords.data", "multitask.speakers.data", "multitask.speakers.trials", "multitask.conditions"),
        *("optim.schedule_steps", "trainer.max_steps", "trainer.accelerator", "trainer.devices", "trainer.num_nodes"),
        *("trainer.accumulate", "trainer.activation_checkpointing", "trainer.strategy", "trainer.deterministic"),
        *("trainer.log_every_steps", "trainer.save_every_steps", "trainer.keep_checkpoints", "trainer.max_hours"),
        *("trainer.progress", "log.wandb", "validation.speech", "validation.noise", "validation.rir", "probe.data"),
    }
)


def is_free(key: str) -> bool:
    """Whether a dotted key may change between two starts of a run, within a stage too."""
    if key.startswith("stages."):
        key = key.split(".", 2)[-1]
    elif key.startswith("teachers."):
        return key.endswith(".checkpoint")
    return key in FREE_KEYS


def differing_keys(old: Mapping[str, Any], new: Mapping[str, Any]) -> dict[str, tuple[Any, Any]]:
    """Dotted keys, other than the free ones, whose values differ, with both values."""
    old, new = flatten(old), flatten(new)
    keys = [key for key in sorted({*old, *new}) if not is_free(key)]
    return {key: (old.get(key), new.get(key)) for key in keys if old.get(key) != new.get(key)}


def has_begun(out_dir: Path) -> bool:
    """Whether there is a run to go on with in a folder: without checkpoints, whatever lies there is of no run."""
    return any((out_dir / "checkpoints").glob("*.ckpt"))


def write_run(out_dir: Path, config: DistillConfig, identity: Mapping[str, Any]) -> None:
    """Save the configuration and the identity of what it runs on."""
    text = yaml.safe_dump(config.to_dict(), sort_keys=False, allow_unicode=True, width=120)
    write_text(out_dir / "config.yaml", text)
    write_text(out_dir / "run.json", json.dumps({"format": FORMAT, **identity}, indent=1))


def read_run(out_dir: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """What `write_run` saved, as plain values: configuration and identity.

    Raises:
        SettingsError: the folder holds checkpoints but not these files, or those of the first version.
    """
    try:
        config = yaml.safe_load((out_dir / "config.yaml").read_text(encoding="utf-8"))
        identity = json.loads((out_dir / "run.json").read_text())
        if not (isinstance(config, dict) and isinstance(identity, dict)):
            raise ValueError("there are no settings in it")
    except FileNotFoundError as error:
        raise SettingsError(
            f"{out_dir} holds a run without its {Path(error.filename).name}, so it cannot be told whether it is the "
            "same; put the file back or choose another out_dir"
        ) from error
    except (ValueError, yaml.YAMLError) as error:
        raise SettingsError(f"{out_dir} holds a run whose config.yaml or run.json is damaged: {error}") from error
    if identity.get("format") != FORMAT:
        raise SettingsError(
            f"{out_dir} holds a run of an earlier version, whose training state cannot be continued; choose another "
            f"out_dir. Its students stay readable (student.checkpoint={out_dir / 'student.ckpt'}), and so does its "
            "config.yaml, as a recipe"
        )
    return config, identity


def refuse_other_run(out_dir: Path, config: DistillConfig, identity: Mapping[str, Any]) -> None:
    """Make sure that the run in `out_dir`, if there is one, is the one described.

    Raises:
        SettingsError: something that decides the outcome differs; every such key is named with both values.
    """
    if not has_begun(out_dir):
        return
    old_config, old_identity = read_run(out_dir)
    settled = read(DistillConfig, as_today(old_config)).to_dict()  # with what has been added to the settings since
    changes = differing_keys(settled, config.to_dict())
    changes |= {
        key: (old_identity.get(key), identity.get(key))
        for key in sorted({*old_identity, *identity} - {"versions", "format", "schedule_steps"})
        if old_identity.get(key) != identity.get(key)
    }
    if changes:
        lines = [f"  {key}: {_short(old)} there, {_short(new)} now" for key, (old, new) in changes.items()]
        raise SettingsError(
            f"{out_dir} holds a run with other settings, and a run cannot be continued as a different one:\n"
            + "\n".join(lines)
            + "\nchoose another out_dir, or give these settings as they were"
        )


class Checkpoints:
    """The checkpoints of one stage.

    Args:
        out_dir: folder of the run.
        stage: name of the stage.
        begins_with: digest of what the stage begins with; checkpoints of another beginning are not continued.
        keep: how many of the newest to keep, one in any case; `None` keeps all.
    """

    def __init__(self, out_dir: Path, stage: str, begins_with: str | None = None, keep: int | None = 2):
        self.folder, self.stage, self.begins_with, self.keep = out_dir / "checkpoints", stage, begins_with, keep

    @property
    def paths(self) -> list[Path]:
        """All but the best one, by step."""
        return sorted(self.folder.glob(f"{self.stage}-{'[0-9]' * 8}.ckpt"))

    @property
    def best_path(self) -> Path:
        """Where the best one is."""
        return self.folder / f"{self.stage}-best.ckpt"

    def latest(self) -> dict[str, Any] | None:
        """The newest one; `None` if the stage has not begun.

        A stage begins anew, and its checkpoints are removed, when the stage before it now hands on something else.
        """
        if not self.paths:
            return None
        state = read_training(self.paths[-1])
        if state["begins_with"] == self.begins_with:
            logger.info("continuing %s", self.paths[-1])
            return state
        logger.warning(
            "stage %s begins anew: the stage before it has gone on since, and hands on another student", self.stage
        )
        for path in (*self.paths, self.best_path):
            path.unlink(missing_ok=True)
        return None

    def save(self, fabric: Fabric, state: dict[str, Any], best: bool = False) -> None:
        """Write a checkpoint, or with `best` the best one; all processes have to call this.

        Raises:
            DiskFullError: there is not enough space.
        """
        if fabric.is_global_zero:
            state = {**state, "stage": self.stage, "begins_with": self.begins_with, "format": FORMAT}
            path = self.best_path if best else self.folder / f"{self.stage}-{state['progress']['step']:08d}.ckpt"
            write_atomically(path, lambda file: _save(state, file, path))
            for old in [] if self.keep is None or best else self.paths[: -max(self.keep, 1)]:
                old.unlink()
        fabric.barrier()


def read_training(path: Path) -> dict[str, Any]:
    """A checkpoint; anything but tensors and plain containers is refused.

    Raises:
        SettingsError: it cannot be read.
    """
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except (OSError, EOFError, RuntimeError, UnpicklingError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise SettingsError(
            f"{path} cannot be read as a checkpoint ({reason}): if it is damaged, remove it, and the same command goes "
            "on from the one before it"
        ) from error


def exported_weights(state: Mapping[str, Any]) -> dict[str, Any]:
    """The weights that a student is exported with: the averages where there are such, otherwise the latest."""
    return {**state["model"], **(state["average"]["averages"] if state["average"] else {})}


def progress_of(state: Mapping[str, Any]) -> Progress:
    """From a checkpoint, which has it as plain values."""
    values = {**state["progress"], "position": Position(**state["progress"]["position"])}
    return Progress(**{**values, "best": values["best"] and tuple(values["best"])})


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


def weights_digest(state: Mapping[str, Tensor]) -> str:
    """Of names and values of weights."""
    digest = hashlib.sha256()
    for name, value in state.items():
        digest.update(f"{name} {value.dtype} {tuple(value.shape)}".encode())
        digest.update(value.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()
