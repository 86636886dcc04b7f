"""The teacher's targets, kept on disk: it hears clean speech, so what it says of a stretch of speech stays the same.

`folder/targets-0123456789ab/` is an `ArrayStore` of one teacher, set of targets, way of storing and list of speech; the
key of a stretch is the digest of its waveform, so that changed audio is another stretch. Whichever process first meets
a stretch asks the teacher.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from robustdistiller.common.array_store import KEY_BYTES, ArrayStore
from robustdistiller.pretrain.teacher.codec import TargetCodec
from robustdistiller.pretrain.training.errors import DiskFullError


@dataclass(frozen=True)
class CachedTargets:
    """What the cache holds for the rows of a batch.

    Attributes:
        stored: (B, T, targets, row_bytes) uint8, zero where nothing is known.
        known: whether a row's targets are there.
        keys: of the rows.
        frames: of the rows.

    >>> CachedTargets(torch.zeros(1, 49, 3, 768, dtype=torch.uint8), (False,), (b"",), (49,)).missing
    [0]
    """

    stored: Tensor
    known: tuple[bool, ...]
    keys: tuple[bytes, ...]
    frames: tuple[int, ...]

    @property
    def missing(self) -> list[int]:
        """Rows for which the teacher has to be asked."""
        return [row for row, known in enumerate(self.known) if not known]

    def moved(self, move: Callable[[Tensor], Tensor]) -> CachedTargets:
        """With the stored targets elsewhere."""
        return replace(self, stored=move(self.stored))


class TargetCache:
    """Targets by waveform. Goes to the processes that load data; every process opens the files itself.

    Args:
        folder: of this teacher, these targets and this speech; made if it is not there.
        about: everything that decides what is stored.
        codec: how targets are stored.
        num_frames: frames of so many samples.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     codec = TargetCodec("fp16", targets=1, width=4)
    ...     cache = TargetCache(Path(folder), {"teacher": "..."}, codec, lambda samples: samples // 320)
    ...     speech = np.zeros(3200, np.float32)
    ...     before = cache.read([speech])
    ...     cache.write(before, [0], codec.encode([torch.ones(1, 10, 4)]))
    ...     before.known, cache.read([speech]).known, cache.read([speech + 1]).known
    ((False,), (True,), (False,))
    """

    def __init__(self, folder: Path, about: Mapping[str, Any], codec: TargetCodec, num_frames: Callable[[int], int]):
        shape = (None, codec.targets, codec.row_bytes)
        self.store = ArrayStore(folder, shape, "uint8", about, keep_free_bytes=0)
        self.codec, self.num_frames = codec, num_frames

    def read(self, waveforms: Sequence[np.ndarray]) -> CachedTargets:
        """What is known of some stretches of speech.

        Args:
            waveforms: (samples,) float32 each.
        """
        keys = tuple(_digest(samples) for samples in waveforms)
        frames = tuple(self.num_frames(len(samples)) for samples in waveforms)
        size = (len(keys), max(frames, default=0), self.codec.targets, self.codec.row_bytes)
        stored = torch.zeros(size, dtype=torch.uint8)
        known = tuple(self._read_row(key, row) for key, row in zip(keys, stored.numpy()))
        return CachedTargets(stored, known, keys, frames)

    def complete(self, cached: CachedTargets, ask: Callable[[list[int]], Sequence[Tensor]]) -> list[Tensor]:
        """The targets of a batch: per target (B, T, D) float32, on the device of `cached`.

        What the teacher says now goes through the codec all the same, so that it is the same in every epoch.

        Args:
            cached: from `read`; what others have written since then is looked up once more, so that it does not matter
                how far ahead batches are read.
            ask: the teacher's answer for some rows, per target (rows, T, D); it is kept if it is finite.

        Raises:
            SettingsError: the codec does not reach as far as the teacher's values.
            DiskFullError: there is no space left.
        """
        if not cached.missing:
            return self.codec.decode(cached.stored)
        stored, asked = cached.stored.clone(), []
        for row in cached.missing:
            late = np.zeros((cached.frames[row], *stored.shape[2:]), np.uint8)
            if self._read_row(cached.keys[row], late):
                stored[row, : len(late)] = torch.from_numpy(late).to(stored.device)
            else:
                asked.append(row)
        if asked:
            targets = ask(asked)
            fresh = self.codec.encode(targets)
            if all(bool(torch.isfinite(one).all()) for one in targets):  # otherwise the loss will say so
                self.codec.require_range(targets)
                self.write(cached, asked, fresh)
            stored[asked, : fresh.shape[1]] = fresh
        return self.codec.decode(stored)

    def write(self, cached: CachedTargets, rows: Sequence[int], stored: Tensor) -> None:
        """Keep the targets of some rows.

        Args:
            cached: from `read`.
            rows: numbers of the rows in it.
            stored: (rows, T, targets, row_bytes) from the codec, on any device.

        Raises:
            DiskFullError: there is no space left.
        """
        for row, content in zip(rows, stored.cpu().numpy()):
            if not self.store.put(cached.keys[row], content[: cached.frames[row]]) and self.store.full:
                raise DiskFullError(
                    f"targets.cache: nothing more can be written to {self.store.folder} ({self.store.full}); what is "
                    "in it stays valid: free some space and give the same command again, or another out_dir and "
                    "targets.cache=null for a run without it"
                )

    def _read_row(self, key: bytes, row: np.ndarray) -> bool:
        found = self.store.get(key)
        if found is not None:
            row[: len(found)] = found
        return found is not None


def _digest(samples: np.ndarray) -> bytes:
    return hashlib.blake2b(np.ascontiguousarray(samples, "<f4"), digest_size=KEY_BYTES).digest()


def folder_of(parent: Path, about: Mapping[str, Any]) -> Path:
    """The folder within `parent` of the cache of `about`.

    >>> folder_of(Path("targets"), {"teacher": "5891b5b522d5df08", "crops": 1}).as_posix()
    'targets/targets-4aecdde227d6'
    """
    text = json.dumps(about, indent=1, sort_keys=True)
    return parent / f"targets-{hashlib.sha256(text.encode()).hexdigest()[:12]}"


def why_not_used(parent: Path, about: Mapping[str, Any]) -> str | None:
    """What keeps the cache in `parent` that comes nearest from being the one of `about`; `None` if it is, or none is.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     old = {"teacher": "5891b5b522d5df08", "format": 2, "dtype": "fp16"}
    ...     _ = TargetCache(folder_of(Path(folder), old), old, TargetCodec("fp16", targets=1, width=4), len)
    ...     why_not_used(Path(folder), {**old, "teacher": "7d865e959b246691"})
    'targets-... is not used: teacher is 5891b5b522d5 there, 7d865e959b24 now'
    """
    best: tuple[str, list[str]] | None = None
    for path in sorted(parent.glob("targets-*/about.json")):
        old = json.loads(path.read_text(encoding="utf-8"))
        differing = [key for key in sorted({*old, *about}) if old.get(key) != about.get(key)]
        if not differing:
            return None
        if best is None or len(differing) < len(best[1]):
            changes = [f"{key} is {_short(old.get(key))} there, {_short(about.get(key))} now" for key in differing]
            best = path.parent.name, changes
    return best and f"{best[0]} is not used: {'; '.join(best[1])}"


def _short(value: Any) -> str:
    return value[:12] if isinstance(value, str) else json.dumps(value)
