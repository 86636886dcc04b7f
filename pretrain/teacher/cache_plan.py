"""Whether a run's targets can be kept, what that takes, and the folder to keep them in."""

from __future__ import annotations

import hashlib
import json
import logging
import shutil
from collections.abc import Mapping, Sequence
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import torch

from robustdistiller.common.audio import SAMPLE_RATE_HZ
from robustdistiller.common.files import write_text
from robustdistiller.common.settings import SettingsError
from robustdistiller.pretrain.config.schema import DistillConfig, TargetCacheConfig
from robustdistiller.pretrain.data.speech import SpeechCuts
from robustdistiller.pretrain.teacher.cache import TargetCache, TargetCodec
from robustdistiller.pretrain.teacher.protocol import Teacher
from robustdistiller.pretrain.teacher.targets import as_groups

logger = logging.getLogger(__name__)

_FORMAT = 3
_PROBE_TOLERANCE = 1e-4  # of the largest value; machines and numbers of threads differ by 1e-5


def make_target_cache(
    config: DistillConfig, out_dir: Path, teacher: Teacher, teacher_sha256: str, cuts: SpeechCuts,
    units: str | None = None,
) -> TargetCache | None:  # fmt: skip
    """The cache of a run, after its size has been said and found acceptable; `None` if the run has none.

    What is in a folder depends on the teacher and on what is kept of its answers, not on speech, seed or stage: all
    stages of a run and all runs may share one. The teacher is the same where its file is the same *and* it says the
    same of a second of noise, so that an encoder that computes something else is another teacher. `units` is the digest
    of the units that are kept beside the targets.

    Raises:
        SettingsError: the targets are more than `max_gb` or do not fit on the disk.
    """
    settings = config.targets.cache
    if settings is None:
        return None
    groups = as_groups(config.targets.layers, teacher.num_layers, "targets.layers", "teacher")
    codec = TargetCodec(settings.dtype, len(groups) * (teacher.width,), units is not None)
    lengths = cuts.lengths()
    longer = lengths > config.data.max_samples
    frames = teacher.num_frames(torch.from_numpy(np.minimum(lengths, config.data.max_samples).astype(np.int64)))
    needed = int((frames.numpy() * np.where(longer, settings.crops, 1)).sum()) * codec.frame_bytes
    about = {
        "format": _FORMAT,
        "teacher": teacher_sha256,
        "precision": config.trainer.precision if config.teacher.autocast else "fp32",
        "layers": [list(group) for group in groups],
        "normalize": config.targets.normalize,
        "dtype": settings.dtype,
        "units": units,
    }
    parent = Path(settings.folder).expanduser() if settings.folder else out_dir / "targets"
    _check_size(settings, needed, codec, parent)
    folder = _folder(
        parent, about, _probe(teacher, sorted({layer for group in groups for layer in group if layer != "projected"}))
    )
    cache = TargetCache(folder, about, codec)
    free = shutil.disk_usage(folder).free
    if needed - cache.store.size_bytes > free:
        raise SettingsError(
            f"targets.cache: {_amount(needed)} are to be written in {folder}, and the disk has {_amount(free)} free: "
            "free some space or give targets.cache.folder on another one"
        )
    logger.info(
        "targets  %s: %s, %d target%s of %d values%s for %d utterances, %s; %d stretches there",
        folder, settings.dtype, len(groups), "s" * (len(groups) > 1), teacher.width,
        " and units" * codec.units, len(cuts), _amount(needed), len(cache.store),
    )  # fmt: skip
    if longer.any():
        logger.info(
            "targets.cache: %d recordings longer than %.1f s are heard in %s, not in a new one each epoch",
            longer.sum(), config.data.max_samples / SAMPLE_RATE_HZ,
            "one stretch" if settings.crops == 1 else f"{settings.crops} stretches in turn",
        )  # fmt: skip
    return cache


@torch.no_grad()
def _probe(teacher: Teacher, layers: Sequence[int]) -> list[float]:
    """A few of the values that the teacher's layers have for a second of noise, from -1 to 1."""
    noise = torch.from_numpy(np.random.default_rng(0).normal(0, 0.1, (1, SAMPLE_RATE_HZ)).astype(np.float32))
    states = teacher.eval()(noise, torch.tensor([SAMPLE_RATE_HZ]), layers=layers or (0,)).hidden_states
    some = [states[layer][0, ::10, :: states[layer].shape[-1] // 8 or 1].float().flatten() for layer in layers or (0,)]
    return [round(value, 6) for one in some for value in (one / one.abs().max()).tolist()]


def _folder(parent: Path, about: Mapping[str, Any], probe: list[float]) -> Path:
    """The folder of a cache: that of a teacher which said the same, or a new one, and why it is new."""
    others = _others(parent, about)
    digest = hashlib.sha256(json.dumps(about, sort_keys=True).encode()).hexdigest()[:12]
    for number in count():
        folder = parent / f"targets-{digest}{f'-{number}' * (number > 0)}"
        said = folder / "probe.json"
        if not said.is_file():
            break
        known = json.loads(said.read_text(encoding="utf-8"))
        if len(known) == len(probe) and np.allclose(known, probe, rtol=0, atol=_PROBE_TOLERANCE):
            return folder
        others = f"{folder.name} is not used: the same teacher computed something else there"
    if others:
        logger.warning(
            "targets.cache: in %s, %s; the teacher's answers go to %s beside it", parent, others, folder.name
        )
    write_text(said, json.dumps(probe))
    return folder


def _others(parent: Path, about: Mapping[str, Any]) -> str:
    """What keeps the cache in `parent` that comes nearest from being the one of `about`; empty if there is none."""
    found = []
    for path in sorted(parent.glob("targets-*/about.json")):
        old = json.loads(path.read_text(encoding="utf-8"))
        differing = [key for key in about if old.get(key) != about[key]]
        changes = [f"{key} is {_short(old.get(key))} there, {_short(about[key])} now" for key in differing]
        found += [(len(changes), f"{path.parent.name} is not used: {'; '.join(changes)}")] if changes else []
    return min(found)[1] if found else ""


def _short(value: Any) -> str:
    return value[:12] if isinstance(value, str) else json.dumps(value)


def _check_size(settings: TargetCacheConfig, needed: int, codec: TargetCodec, parent: Path) -> None:
    if needed <= settings.max_gb * 1e9:
        return
    smaller = needed // codec.frame_bytes * TargetCodec("int8", codec.widths, codec.units).frame_bytes
    advice = "" if settings.dtype == "int8" else f"give targets.cache.dtype=int8 ({_amount(smaller)}), "
    raise SettingsError(
        f"targets.cache: the targets are {_amount(needed)} in {parent}, more than "
        f"targets.cache.max_gb={settings.max_gb:g}: {advice}raise max_gb, or use fewer targets, crops or hours"
    )


def _amount(number: float) -> str:
    return f"{number / 1e9:.1f} GB" if number >= 1e8 else f"{number / 1e6:.1f} MB"
