"""How features of an upstream are kept, and the opening of what is kept."""

from __future__ import annotations

import hashlib
import io
import json
import logging
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from robustdistiller.common.array_store import ArrayStore, StoreError
from robustdistiller.common.files import write_bytes
from robustdistiller.eval.run.cache.dependence import (
    SAME,
    UTTERANCE,
    NotReproducible,
    difference,
    find_dependence,
    probe_waveforms,
)
from robustdistiller.eval.run.cache.pooling import reads_means_only
from robustdistiller.eval.run.cache.wrapper import CachedUpstream
from robustdistiller.eval.run.errors import RunError
from robustdistiller.eval.run.run_info import upstream_code

logger = logging.getLogger(__name__)

DTYPES = {"fp32": "float32", "fp16": "float16"}
_PROBE = "probe.npy"


@dataclass(frozen=True)
class CachePlan:
    """How features are kept.

    Attributes:
        folder: of all caches, one folder below it for each upstream and kind of features; None keeps nothing.
        dtype: ``fp32``, exact, or ``fp16``, half the size, for frames; means are always ``fp32``.
        max_gb: limit of one cache.
        read_ahead_s: seconds of audio, padding included, that the upstream gets at a time in evaluation; 0 leaves the
            batches as s3prl makes them.
        keep_conditions: also keep the features of corrupted test audio, which are many and seldom read again.

    Raises:
        RunError: a value makes no sense.

    Example:
        >>> CachePlan("cache", dtype="int8")
        Traceback (most recent call last):
        robustdistiller.eval.run.errors.RunError: feature cache: dtype must be fp32 or fp16, found 'int8'
    """

    folder: str | None = None
    dtype: str = "fp32"
    max_gb: float = 50.0
    read_ahead_s: float = 0.0
    keep_conditions: bool = False

    def __post_init__(self) -> None:
        if self.dtype not in DTYPES:
            raise RunError(f"feature cache: dtype must be {' or '.join(DTYPES)}, found {self.dtype!r}")
        if self.max_gb <= 0:
            raise RunError(f"feature cache: the limit must be above 0 GB, found {self.max_gb:g}")
        if self.read_ahead_s < 0:
            raise RunError(f"read ahead: expected 0 or more seconds, found {self.read_ahead_s:g}")

    @property
    def active(self) -> bool:
        """Whether anything is asked for."""
        return self.folder is not None or self.read_ahead_s > 0

    def open(
        self,
        upstream: torch.nn.Module,
        featurizer: Any,
        expert: Any,
        identity: Mapping[str, Any],
        device: str,
        pooled_head: bool = False,
        training: bool = False,
        crops: bool = False,
    ) -> CachedUpstream | None:
        """The upstream with its cache, to be put in its place.

        Args:
            upstream: frozen, in evaluation mode.
            featurizer, expert: s3prl's.
            identity: what decides what the upstream computes, JSON-able: name (``upstream``), weights, options,
                versions. Its code and what it computes of a fixed noise are looked at here.
            device: of the upstream.
            pooled_head: the expert uses an utterance's frames only through its projector and model, so that means will
                do where those two read no more.
            training: batches come in another order each time.
            crops: audio is cut or corrupted at random, so that most of it never comes again.

        Returns:
            None where nothing is asked for, and where features would change with a cache, which is logged.

        Raises:
            RunError: the folder cannot be used.
        """
        if not self.active:
            return None
        name = str(identity.get("upstream"))
        featurizer, expert = (getattr(one, "module", one) for one in (featurizer, expert))  # trained on several GPUs
        plain = CachedUpstream(upstream.eval(), featurizer)
        try:
            depends_on = find_dependence(plain.compute, device)
        except NotReproducible as error:  # scores first
            logger.warning("No feature cache for %s: %s", name, error)
            return None
        on_second = crops or (training and depends_on != UTTERANCE)
        if self.folder is None:
            return CachedUpstream(upstream, featurizer, None, False, depends_on, on_second, self.read_ahead_s)
        probe = plain.compute([wav.to(device) for wav in probe_waveforms()])[-1].cpu()
        layers, _, dim = probe.shape
        means = pooled_head and not getattr(featurizer, "normalize", False) and reads_means_only(expert, dim)
        kind, dtype = ("means", "float32") if means else ("frames", DTYPES[self.dtype])
        about = {
            **identity,
            "kind": kind,
            "layers": layers,
            "dim": dim,
            "depends_on": depends_on,
            "code": upstream_code(upstream),
            "feature_selection": featurizer.feature_selection,
            "layer": featurizer.layer_selection,
            "frame_samples": featurizer.downsample_rate,
        }
        digest = hashlib.sha256(json.dumps(about, sort_keys=True).encode()).hexdigest()[:12]
        base = Path(self.folder) / re.sub(r"[^\w.+-]", "_", f"{name}-{digest}") / f"{kind}-{dtype}"
        try:
            folder = _folder_of(base, probe)
            store = ArrayStore(folder, (layers, None, dim), dtype, about, int(self.max_gb * 1e9))
        except (StoreError, OSError) as error:
            raise RunError(f"feature cache: {error}") from error
        known = f"{len(store)} known, in {folder}"
        logger.info("Feature cache: %s of %d layers, by %s, %s", kind, layers, depends_on, known)
        return CachedUpstream(upstream, featurizer, store, means, depends_on, on_second, self.read_ahead_s)


def _folder_of(base: Path, probe: torch.Tensor) -> Path:
    """Where the features are kept that this upstream computes now; after a change of code, with ``-2`` behind it."""
    folder, number = base, 1
    while (folder / _PROBE).is_file():
        if difference(probe, torch.from_numpy(np.load(folder / _PROBE))) <= SAME:
            return folder
        logger.warning("Feature cache: %s holds features that this upstream does not compute any more", folder)
        number += 1
        folder = base.with_name(f"{base.name}-{number}")
    stream = io.BytesIO()
    np.save(stream, probe.numpy())
    write_bytes(folder / _PROBE, stream.getvalue())
    return folder
