"""Patches inside s3prl's own modules, applied when a task imports them."""

from __future__ import annotations

import functools
import hashlib
import math
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from unittest import mock

import torch

from robustdistiller.common.installation import InstallationError
from robustdistiller.upstream.s3prl.bridge.shim import Shim, patch_after_import

#: A module of s3prl, in which names are replaced.
Patched = Any


def default_cache_dir() -> Path:
    """Where s3prl's file lists go: ``$XDG_CACHE_HOME/robustdistiller/s3prl``, by default below ``~/.cache``.

    Example:
        >>> default_cache_dir().parts[-2:]
        ('robustdistiller', 's3prl')
    """
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "robustdistiller" / "s3prl"


class Caches:
    """One cache folder per data set, below ``root``."""

    root: Path = Path()

    @classmethod
    def folder(cls, *identity: str) -> Path:
        """The folder for a data set that ``identity`` describes completely.

        Raises:
            InstallationError: it cannot be made.
        """
        digest = hashlib.sha256("\0".join(identity).encode()).hexdigest()[:16]
        folder = cls.root / digest
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            problem = f"s3prl's lists of files cannot be kept in {cls.root} ({error.strerror})"
            raise InstallationError(problem, "export XDG_CACHE_HOME=/a/folder/that/can/be/written") from error
        return folder

    @staticmethod
    @contextmanager
    def writing(place: Path) -> Iterator[Path]:
        """What s3prl makes where it is not there: at ``place`` where it is, else in a folder beside, and renamed after.

        Other processes find all of it or nothing, after a kill too.
        """
        if place.exists():
            yield place
            return
        place.parent.mkdir(parents=True, exist_ok=True)
        with TemporaryDirectory(dir=place.parent) as made:
            yield Path(made) / place.name
            with suppress(OSError):  # another process was faster
                (Path(made) / place.name).replace(place)


def _stamps(folders: Iterable[Path]) -> list[str]:
    return [f"{folder}@{folder.stat().st_mtime_ns}" for folder in sorted(folders)]


def _patch_speaker_identification(module: Patched) -> None:
    """s3prl stores the list of SID files per split name only: another root gets the old root's paths."""
    data_set = module.SpeakerClassifiDataset
    original = data_set.__init__

    @functools.wraps(original)
    def init(self, mode, file_path, meta_data, max_timestep=None):
        listed = hashlib.sha256(Path(meta_data).read_bytes()).hexdigest()
        folder = Caches.folder("sid", str(Path(file_path).resolve()), listed)
        try:
            with Caches.writing(folder / f"{mode}.pkl") as place:
                module.CACHE_PATH = f"{place.parent}{os.sep}"
                original(self, mode, file_path, meta_data, max_timestep)
        except IndexError as error:  # s3prl takes the first match of a search that found none
            raise FileNotFoundError(
                f"SID: a {mode} file listed in {meta_data} was not found as {file_path}/*/wav/idXXXXX/VIDEO/NNNNN.wav."
            ) from error

    data_set.__init__ = init


def _patch_speaker_verification(module: Patched) -> None:
    """s3prl stores the lengths of the ASV training files under one name for any data.

    It also starts twelve processes to measure them; threads do, because the work is done by sox.
    """
    data_set = module.SpeakerVerifi_train
    original = data_set.__init__

    @functools.wraps(original)
    def init(self, vad_config, key_list, file_path, meta_data, max_timestep=None, n_jobs=12):
        import joblib

        roots = [Path(path).resolve() for path in file_path]
        speakers = [speaker for root in roots for speaker in root.iterdir() if speaker.is_dir()]
        folder = Caches.folder("asv", *map(str, roots), *_stamps(speakers))
        with (
            Caches.writing(folder / ".wav_lengths") as place,
            mock.patch.object(module, "__file__", str(place.parent / "dataset.py")),  # s3prl looks beside it
            joblib.parallel_config("threading"),
        ):
            original(self, vad_config, key_list, file_path, meta_data, max_timestep, n_jobs)

    data_set.__init__ = init


def _patch_verification_expert(module: Patched) -> None:
    """ASV moves its mask to the GPU even when everything else is on the CPU."""
    expert = module.DownstreamExpert
    original = expert.forward

    @functools.wraps(original)
    def forward(self, mode, features, *args, **kwargs):
        if features[0].is_cuda:
            return original(self, mode, features, *args, **kwargs)
        with mock.patch.object(torch.Tensor, "cuda", lambda tensor, *_args, **_kwargs: tensor):
            return original(self, mode, features, *args, **kwargs)

    expert.forward = forward


def _patch_ctc_loaders(module: Patched) -> None:
    """PR and SF lose their ``num_workers`` with the first loader; the next ones start twelve processes each."""
    original = module.load_dataset

    @functools.wraps(original)
    def load_dataset(split, tokenizer, corpus):
        return original(split, tokenizer, dict(corpus))

    module.load_dataset = load_dataset


def _patch_recognition_expert(module: Patched) -> None:
    """The stock ASR configuration holds ``unk_weight: -math.inf``, evaluated where ``math`` was never imported."""
    if not hasattr(module, "math"):
        module.math = math


def _patch_helper(module: Patched) -> None:
    """s3prl replaces ``builtins.isinstance`` for the whole process, for a PyTorch older than 1.8."""
    module.hack_isinstance = lambda: None


def bridge_experts() -> list[Shim]:
    """Register the patches; each takes effect only in a run that imports the module."""
    patches = {
        "s3prl.utility.helper": (
            _patch_helper,
            "builtins.isinstance",
            "s3prl replaces it for the whole process; switched off, only PyTorch before 1.8 needed it",
        ),
        "s3prl.downstream.voxceleb1.dataset": (
            _patch_speaker_identification,
            "SID file lists",
            "cached per data set instead of inside the s3prl package under one name",
        ),
        "s3prl.downstream.sv_voxceleb1.dataset": (
            _patch_speaker_verification,
            "ASV file lengths",
            "cached per data set instead of inside the s3prl package under one name",
        ),
        "s3prl.downstream.sv_voxceleb1.expert": (
            _patch_verification_expert,
            "ASV on CPU",
            "its mask stays on the device of the features",
        ),
        "s3prl.downstream.ctc.data": (
            _patch_ctc_loaders,
            "PR and SF num_workers",
            "kept for every data loader; s3prl forgets it after the first and starts twelve processes",
        ),
        "s3prl.downstream.asr.expert": (
            _patch_recognition_expert,
            "ASR unk_weight",
            "the stock configuration's '-math.inf' can be evaluated",
        ),
    }
    shims = []
    for module_name, (patch, name, reason) in patches.items():
        patch_after_import(module_name, patch)
        shims.append(Shim(name, True, reason))
    return shims
