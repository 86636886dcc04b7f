"""Whether a run's targets can be kept, what that takes, and the cache to keep them in."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from lhotse.cut import Cut

from robustdistiller.common.settings import SettingsError
from robustdistiller.pretrain.config.schema import DistillConfig, TargetCacheConfig
from robustdistiller.pretrain.data.cuts import SAMPLE_RATE_HZ
from robustdistiller.pretrain.data.file_cuts import FileCut
from robustdistiller.pretrain.data.shards import StreamedCuts
from robustdistiller.pretrain.data.speech import cuts_digest
from robustdistiller.pretrain.teacher.cache import TargetCache, folder_of, why_not_used
from robustdistiller.pretrain.teacher.cache_size import TargetSize, frames_of
from robustdistiller.pretrain.teacher.codec import TargetCodec
from robustdistiller.pretrain.teacher.protocol import Teacher
from robustdistiller.pretrain.teacher.targets import as_groups
from robustdistiller.upstream import SpeechEncoder

logger = logging.getLogger(__name__)


def refuse_uncacheable(config: DistillConfig) -> None:
    """Make sure that the targets of a recipe can be kept.

    Raises:
        SettingsError: the teacher does not hear the same in every epoch.

    >>> from robustdistiller.pretrain import load_config
    >>> refuse_uncacheable(load_config("correlation", ["targets.cache={}"]))
    Traceback (most recent call last):
    robustdistiller.common.settings.SettingsError: targets.cache: the teacher of this recipe hears a corruption of \
its own, a new one in each epoch, so that nothing it says can be kept; give targets.cache=null or teacher.hears=clean
    """
    if config.targets.cache is not None and config.teacher.hears != "clean":
        raise SettingsError(
            "targets.cache: the teacher of this recipe hears a corruption of its own, a new one in each epoch, so that "
            "nothing it says can be kept; give targets.cache=null or teacher.hears=clean"
        )


def make_target_cache(
    config: DistillConfig,
    out_dir: Path,
    teacher: Teacher,
    teacher_sha256: str,
    cuts: Sequence[Cut | FileCut] | StreamedCuts,
) -> TargetCache | None:
    """The cache of a run, after its size has been said and found acceptable; `None` if the run has none.

    Args:
        config: `targets.layers` and `trainer.precision` must be explicit.
        out_dir: folder of the run.
        teacher: the model.
        teacher_sha256: of its file.
        cuts: the training speech.

    Raises:
        SettingsError: the teacher does not hear clean speech, the targets are more than `max_gb` or do not fit on the
            disk.
    """
    settings = config.targets.cache
    refuse_uncacheable(config)
    if settings is None:
        return None
    groups = as_groups(config.targets.layers, teacher.num_layers, "targets.layers", "teacher")
    is_conv = isinstance(teacher, SpeechEncoder)
    codec = TargetCodec(settings.dtype, len(groups), teacher.width)
    max_samples = config.data.max_samples
    # Loader processes get this, and not the model.
    num_frames = partial(frames_of, teacher.config.conv_layers) if is_conv else teacher.num_frames
    size = TargetSize.of((cut.num_samples for cut in cuts), max_samples, settings.crops, num_frames)
    about = {
        "format": 2,
        "teacher": teacher_sha256,
        "precision": config.trainer.precision if config.teacher.autocast else "fp32",
        "layers": [list(group) for group in groups],
        "normalize": config.targets.normalize,
        "dtype": settings.dtype,
        "speech": cuts_digest(cuts),
        "max_samples": max_samples,
        "crops": settings.crops if size.longer else 1,
        "crop_seed": config.seed if size.longer else None,
    }
    parent = Path(settings.folder).expanduser() if settings.folder else out_dir / "targets"
    _check_size(settings, size, codec, parent)
    other = why_not_used(parent, about)
    folder = folder_of(parent, about)
    if other is not None:
        logger.warning("targets.cache: in %s, %s; the teacher's answers go to %s beside it", parent, other, folder.name)
    cache = TargetCache(folder, about, codec, num_frames)
    _check_disk(size, cache)
    logger.info(
        "targets  %s: %s, %d target%s of %d values for %d utterances, %s; %.0f%% there",
        folder, settings.dtype, codec.targets, "s" * (codec.targets > 1), codec.width, size.utterances,
        _amount(size.frames * codec.frame_bytes), 100 * len(cache.store) / max(size.places, 1),
    )  # fmt: skip
    if size.longer:
        stretches = "one stretch" if settings.crops == 1 else f"{settings.crops} stretches in turn"
        logger.info(
            "targets.cache: %d recordings longer than %.1f s are heard in %s, not in a new one each epoch",
            size.longer, max_samples / SAMPLE_RATE_HZ, stretches,
        )  # fmt: skip
    return cache


def _check_size(settings: TargetCacheConfig, size: TargetSize, codec: TargetCodec, parent: Path) -> None:
    needed = size.frames * codec.frame_bytes
    if needed <= settings.max_gb * 1e9:
        return
    smaller = size.frames * TargetCodec("int8", codec.targets, codec.width).frame_bytes
    advice = "" if settings.dtype == "int8" else f"give targets.cache.dtype=int8 ({_amount(smaller)}), "
    raise SettingsError(
        f"targets.cache: the targets are {_amount(needed)} in {parent}, more than "
        f"targets.cache.max_gb={settings.max_gb:g}: {advice}raise max_gb, or use fewer targets, crops or hours"
    )


def _check_disk(size: TargetSize, cache: TargetCache) -> None:
    folder = cache.store.folder
    needed, free = size.frames * cache.codec.frame_bytes - cache.store.size_bytes, shutil.disk_usage(folder).free
    if needed > free:
        raise SettingsError(
            f"targets.cache: {_amount(needed)} are still to be written in {folder}, and the disk has {_amount(free)} "
            "free: free some space or give targets.cache.folder on another one"
        )


def _amount(number: float) -> str:
    return f"{number / 1e9:.1f} GB" if number >= 1e8 else f"{number / 1e6:.1f} MB"
