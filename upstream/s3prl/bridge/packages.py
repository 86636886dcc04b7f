"""Stand-ins for packages that s3prl imports but does not need, or that dropped the names it imports."""

from __future__ import annotations

import argparse
import importlib
from collections.abc import Iterator
from typing import Any, cast

import torch
from torch.utils.data import Dataset, DistributedSampler, Sampler

from robustdistiller.upstream.s3prl.bridge.shim import Shim, stand_in, working_import


def bridge_checkpoint_loading() -> Shim:
    """``torch.load`` of s3prl's own checkpoints: they hold the command line as an ``argparse.Namespace``.

    PyTorch refuses unknown classes since 2.6. The namespace is declared harmless; everything else stays refused.
    """
    torch.serialization.add_safe_globals([argparse.Namespace])
    return Shim("torch.load", True, "s3prl checkpoints hold an argparse.Namespace, which is now allowed")


class _GoneFromHub:
    """Takes the place of a class that huggingface_hub 1.0 removed; s3prl uses it only to push models."""

    def __init__(self, name: str) -> None:
        self._name = name

    def __call__(self, *_args: object, **_kwargs: object) -> None:
        raise RuntimeError(
            f"s3prl's --hub huggingface and --push_to_hf_hub need huggingface_hub.{self._name}, which is gone since "
            "huggingface_hub 1.0: pip install 'huggingface_hub<1'."
        )

    get_token = save_token = __call__


def bridge_huggingface_names() -> Shim:
    """``huggingface_hub.HfFolder`` and ``Repository``: imported by s3prl's runner, gone in 1.0."""
    import huggingface_hub

    name = "huggingface_hub"
    missing = [attribute for attribute in ("HfFolder", "Repository") if not hasattr(huggingface_hub, attribute)]
    for attribute in missing:
        setattr(huggingface_hub, attribute, _GoneFromHub(attribute))
    if not missing:
        return Shim(name, False, "it still has the names s3prl imports")
    return Shim(name, True, f"{' and '.join(missing)} gone from 1.0 on; only pushing to the hub used them")


class _LoadedWhenUsed:
    """Takes the place of a class of transformers until something is asked of it, as ``from_pretrained``."""

    def __init__(self, name: str) -> None:
        self._name = name

    def __getattr__(self, attribute: str) -> Any:
        return getattr(getattr(importlib.import_module("transformers"), self._name), attribute)


def bridge_transformers() -> Shim:
    """``transformers``: imported by the upstreams ``hf_hubert`` and ``hf_wav2vec2``, and so by ``s3prl.hub``."""
    importers = ["s3prl.upstream.hf_hubert.expert", "s3prl.upstream.hf_wav2vec2.expert"]
    stand_in("transformers", importers, __getattr__=_LoadedWhenUsed)
    return Shim("transformers", True, "imported when hf_hubert or hf_wav2vec2 loads a model, not at every start: 2 s")


def strtobool(value: str) -> int:
    """1 for y, yes, t, true, on, 1 and 0 for n, no, f, false, off, 0, as ``distutils.util.strtobool`` did.

    Raises:
        ValueError: any other word.

    Example:
        >>> strtobool("True"), strtobool("off")
        (1, 0)
    """
    word = value.lower()
    if word in ("y", "yes", "t", "true", "on", "1"):
        return 1
    if word in ("n", "no", "f", "false", "off", "0"):
        return 0
    raise ValueError(f"Not a truth value: {value!r}; expected one of y yes t true on 1 n no f false off 0.")


def bridge_distutils() -> Shim:
    """``distutils.util.strtobool``: distutils left Python in 3.12, setuptools may bring it back."""
    works, _ = working_import("distutils.util")
    if works:
        return Shim("distutils", False, "Python or setuptools provides it")
    stand_in(
        "distutils.util", ["s3prl.upstream.mockingjay.builder", "s3prl.upstream.distiller.builder"], strtobool=strtobool
    )
    return Shim("distutils", True, "gone from Python 3.12 on and not provided by setuptools")


class _UnusedTransformer:
    def __init__(self) -> None:
        raise RuntimeError("This is a stand-in for pysox, which is not installed: pip install sox.")


def bridge_pysox() -> Shim:
    """``from sox import Transformer``: imported by ASV, never used."""
    works, reason = working_import("sox")
    if works:
        return Shim("sox (pysox)", False, reason)
    stand_in(
        "sox",
        ["s3prl.downstream.sv_voxceleb1.dataset", "s3prl.downstream.voxceleb2_ge2e.dataset"],
        Transformer=_UnusedTransformer,
    )
    return Shim("sox (pysox)", True, f"{reason}; ASV imports it and never uses it")


class DistributedSamplerWrapper(DistributedSampler[int]):
    """Gives each process its share of what another sampler draws, as ``catalyst.data.sampler`` did.

    The wrapped sampler must draw the same indices in every process, which s3prl's seeding ensures.

    Example:
        >>> list(DistributedSamplerWrapper([7, 8, 9, 10], num_replicas=2, rank=1, shuffle=False))
        [8, 10]
    """

    def __init__(
        self, sampler: Sampler[int], num_replicas: int | None = None, rank: int | None = None, shuffle: bool = True
    ) -> None:
        # Nothing but the length of its data set is asked for.
        super().__init__(cast("Dataset[int]", sampler), num_replicas=num_replicas, rank=rank, shuffle=shuffle)
        self.sampler = sampler

    def __iter__(self) -> Iterator[int]:
        drawn = list(self.sampler)
        return iter([drawn[position] for position in super().__iter__()])


def bridge_catalyst() -> Shim:
    """``catalyst.data.sampler.DistributedSamplerWrapper``: imported by KS, used only on several GPUs."""
    works, reason = working_import("catalyst.data.sampler")
    if works:
        return Shim("catalyst", False, reason)
    importer = "s3prl.downstream.speech_commands.expert"
    stand_in("catalyst.data.sampler", [importer], DistributedSamplerWrapper=DistributedSamplerWrapper)
    return Shim("catalyst", True, f"{reason}; KS needs one small class of it")
