"""The teacher's targets, kept on disk: it hears clean speech, so what it says of a stretch of speech stays the same.

A folder is an `ArrayStore` of what one teacher says; the key of a stretch is the digest of its waveform, so that
changed audio is another stretch. Whichever process first meets a stretch asks the teacher.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from robustdistiller.common.array_store import KEY_BYTES, ArrayStore
from robustdistiller.common.settings import SettingsError
from robustdistiller.pretrain.training.errors import DiskFullError

_FLOAT = {"fp32": torch.float32, "fp16": torch.float16}
_MOST_LOST = 0.2  # of the median value


@dataclass(frozen=True)
class TargetCodec:
    """What a teacher says of a frame, to bytes and back.

    `int8` gives every frame of every target the step of a 127th of its largest magnitude, kept in four bytes more.

    Attributes:
        dtype: `fp32`, `fp16` or `int8`, of the targets.
        widths: values per frame of each target.
        units: whether there is a unit of each frame, too, in two bytes.
    """

    dtype: str
    widths: tuple[int, ...]
    units: bool = False

    @property
    def _sizes(self) -> list[int]:
        """Bytes of each part of a frame."""
        sizes = [width + 4 if self.dtype == "int8" else width * _FLOAT[self.dtype].itemsize for width in self.widths]
        return sizes + [2] * self.units

    @property
    def frame_bytes(self) -> int:
        """Bytes of all that is said of one frame."""
        return sum(self._sizes)

    def encode(self, targets: Sequence[Tensor]) -> Tensor:
        """Per target (..., D), then the units (...) if there are any, to (..., frame_bytes) uint8, on their device."""
        parts = [self._bytes(one.detach().float()) for one in targets[: len(self.widths)]]
        if self.units:
            parts.append(torch.stack([targets[-1] % 256, targets[-1] // 256], dim=-1).to(torch.uint8))
        return torch.cat(parts, dim=-1)

    def decode(self, stored: Tensor) -> list[Tensor]:
        """Inverse of `encode`: per target (..., D) float32, then the units (...) int64."""
        parts = [part.clone(memory_format=torch.contiguous_format) for part in stored.split(self._sizes, dim=-1)]
        targets = [self._values(part) for part in parts[: len(self.widths)]]
        return targets + [part[..., 0].long() + 256 * part[..., 1].long() for part in parts[len(self.widths) :]]

    def _bytes(self, values: Tensor) -> Tensor:
        if self.dtype != "int8":
            return values.to(_FLOAT[self.dtype]).contiguous().view(torch.uint8)
        scale = values.abs().amax(-1, keepdim=True) / 127
        whole = torch.round(values / scale.clamp(min=torch.finfo(torch.float32).tiny)).to(torch.int8)
        return torch.cat([whole.view(torch.uint8), scale.contiguous().view(torch.uint8)], dim=-1)

    def _values(self, part: Tensor) -> Tensor:
        if self.dtype != "int8":
            return part.view(_FLOAT[self.dtype]).float()
        whole, scale = (one.clone(memory_format=torch.contiguous_format) for one in part.tensor_split([-4], dim=-1))
        return whole.view(torch.int8).float() * scale.view(torch.float32)

    def require_precision(self, targets: Sequence[Tensor], stored: Tensor) -> None:
        """Make sure that what is `stored` of finite values is near enough to them.

        Raises:
            SettingsError: half precision does not reach as far, or a few large values leave `int8` nothing of the rest.
        """
        targets = targets[: len(self.widths)]
        largest = max((float(one.detach().abs().max()) for one in targets), default=0.0)
        if self.dtype == "fp16" and largest > torch.finfo(torch.float16).max:
            raise SettingsError(
                f"targets.cache.dtype=fp16 holds values up to 65504, and the teacher's go to {largest:.3g}; give fp32"
            )
        for one, kept in zip(targets, self.decode(stored)) if self.dtype == "int8" else ():
            lost = float((kept - one).abs().median() / one.abs().median().clamp(min=1e-30))
            if lost > _MOST_LOST:
                raise SettingsError(
                    f"targets.cache.dtype=int8 changes the teacher's values by {lost:.0%} (median), because some are "
                    f"much larger, up to {largest:.3g}; give fp16 or fp32"
                )


@dataclass(frozen=True)
class CachedTargets:
    """What the cache holds for the rows of a batch.

    Attributes:
        stored: (B, T, frame_bytes) uint8, zero where nothing is known.
        known: whether a row's targets are there.
        keys: of the rows.
    """

    stored: Tensor
    known: tuple[bool, ...]
    keys: tuple[bytes, ...]

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
        folder: of this teacher and these targets; made if it is not there.
        about: everything that decides what is stored.
        codec: how targets are stored.
    """

    def __init__(self, folder: Path, about: Mapping[str, Any], codec: TargetCodec):
        self.store = ArrayStore(folder, (None, codec.frame_bytes), "uint8", about, keep_free_bytes=0)
        self.codec = codec

    def read(self, waveforms: Sequence[np.ndarray]) -> CachedTargets:
        """What is known of some stretches of speech, each (samples,) float32."""
        keys = tuple(_digest(samples) for samples in waveforms)
        rows = [self.store.get(key) for key in keys]
        return CachedTargets(self._stacked(rows), tuple(row is not None for row in rows), keys)

    def complete(
        self, cached: CachedTargets, ask: Callable[[list[int]], Sequence[Tensor]], frames: Sequence[int]
    ) -> list[Tensor]:
        """The targets of a batch: per target (B, T, D) float32, then the units (B, T) if they are kept.

        They are on the device of `cached`. What the teacher says now goes through the codec, too, so that it is the
        same in every epoch.

        Args:
            cached: from `read`; what was written since then is looked up once more, as asking again may differ by
                rounding.
            ask: the teacher's answer for some rows, per target (rows, T, D), then the units; kept if it is finite.
            frames: (B,) the teacher's, of each row.

        Raises:
            SettingsError: the codec does not suit the teacher's values.
            DiskFullError: there is no space left.
        """
        if not cached.missing:
            return self.codec.decode(cached.stored)
        late = {row: found for row in cached.missing if (found := self.store.get(cached.keys[row])) is not None}
        asked = [row for row in cached.missing if row not in late]
        size = (len(frames), max(frames), self.codec.frame_bytes)
        stored = torch.zeros(size, dtype=torch.uint8, device=cached.stored.device)
        stored[:, : cached.stored.shape[1]] = cached.stored
        for row, found in late.items():
            stored[row, : len(found)] = torch.from_numpy(found.copy()).to(stored.device)
        if asked:
            targets = ask(asked)
            fresh = self.codec.encode(targets)
            stored[asked, : fresh.shape[1]] = fresh
            if all(bool(torch.isfinite(one).all()) for one in targets):  # otherwise the loss will say so
                self.codec.require_precision(targets, fresh)
                for row, content in zip(asked, fresh.cpu().numpy()):
                    self._write(cached.keys[row], content[: frames[row]])
        return self.codec.decode(stored)

    def _write(self, key: bytes, content: np.ndarray) -> None:
        if not self.store.put(key, content) and self.store.full:
            raise DiskFullError(
                f"targets.cache: nothing more can be written to {self.store.folder} ({self.store.full}); what is in it "
                "stays valid: free some space and give the same command again, or another out_dir and "
                "targets.cache=null for a run without it"
            )

    def _stacked(self, rows: Sequence[np.ndarray | None]) -> Tensor:
        most = max((len(row) for row in rows if row is not None), default=0)
        stored = np.zeros((len(rows), most, self.codec.frame_bytes), np.uint8)
        for place, row in zip(stored, rows):
            if row is not None:
                place[: len(row)] = row
        return torch.from_numpy(stored)


def _digest(samples: np.ndarray) -> bytes:
    return hashlib.blake2b(np.ascontiguousarray(samples, "<f4"), digest_size=KEY_BYTES).digest()
