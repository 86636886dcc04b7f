"""Arrays by key on disk, written by any number of processes at once and read through memory maps.

Every process appends to a pair of files of its own, so nothing is ever locked, on network file systems either: first
the numbers to ``NAME.data``, then one fixed-size line to ``NAME.index``. A process killed between the two leaves bytes
that nobody refers to. Readers look for what others have added when they miss a key.
"""

from __future__ import annotations

import json
import logging
import os
import secrets
import shutil
import socket
import time
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from robustdistiller.common.files import write_text

logger = logging.getLogger(__name__)

KEY_BYTES = 16
_LINE = np.dtype([("key", f"V{KEY_BYTES}"), ("offset", "<u8"), ("frames", "<u4"), ("crc", "<u4")])
_FORMAT = 1
_KEPT_FREE_BYTES = 1_000_000_000  # of the disk, for everything else that is written there
_LOOK_AGAIN_S = 5.0


class CacheError(ValueError):
    """A cache cannot be used as asked."""


class DependsOnBatch(CacheError):
    """Features of an upstream depend on what an utterance is batched with: a cache would change scores."""


@dataclass
class _Place:
    """Where the numbers of a key are."""

    shard: Path
    offset: int
    frames: int
    crc: int


class FeatureStore:
    """Features by key, each ``(layers, frames, dim)`` with frames of their own.

    Args:
        folder: made if it is not there.
        layers, dim: of all entries.
        dtype: ``float32`` or ``float16``, as stored.
        max_bytes: entries beyond it are not kept.
        about: what the features are of; a folder keeps one kind.

    Raises:
        CacheError: the folder holds features of another kind.

    Example:
        >>> import tempfile
        >>> store = FeatureStore(tempfile.mkdtemp(), layers=2, dim=3)
        >>> store.put(b"0123456789abcdef", np.ones((2, 4, 3), np.float32))
        True
        >>> store.get(b"0123456789abcdef").shape, store.get(b"another key 1234") is None
        ((2, 4, 3), True)
    """

    def __init__(
        self,
        folder: str | Path,
        layers: int,
        dim: int,
        dtype: str = "float32",
        max_bytes: int | None = None,
        about: Mapping[str, Any] | None = None,
    ) -> None:
        self.folder, self.layers, self.dim, self.dtype = Path(folder), layers, dim, np.dtype(dtype)
        self.max_bytes = max_bytes
        self.full = ""  # why nothing more is kept
        self._places: dict[bytes, _Place] = {}
        self._read_to: dict[Path, int] = {}
        self._maps: dict[Path, np.memmap] = {}
        self._own: tuple[Path, BinaryIO, BinaryIO] | None = None
        self._looked = 0.0
        self.folder.mkdir(parents=True, exist_ok=True)
        self._check({"format": _FORMAT, "layers": layers, "dim": dim, "dtype": self.dtype.name, **(about or {})})
        self.refresh()

    def __len__(self) -> int:
        return len(self._places)

    @property
    def size_bytes(self) -> int:
        """Bytes of all known entries."""
        return sum(place.frames for place in self._places.values()) * self.frame_bytes

    @property
    def frame_bytes(self) -> int:
        """Bytes of one frame of all layers."""
        return self.layers * self.dim * self.dtype.itemsize

    def room_bytes(self) -> int:
        """Bytes that may still be added: up to the limit, and leaving a gigabyte of the disk free."""
        free = max(0, shutil.disk_usage(self.folder).free - _KEPT_FREE_BYTES)
        return free if self.max_bytes is None else min(free, max(0, self.max_bytes - self.size_bytes))

    def get(self, key: bytes) -> np.ndarray | None:
        """The features of a key, ``(layers, frames, dim)``, not to be written to; None if there are none.

        Damaged ones count as missing.
        """
        place = self._places.get(key)
        if place is None:
            if time.monotonic() - self._looked < _LOOK_AGAIN_S:
                return None
            self.refresh()
            place = self._places.get(key)
            if place is None:
                return None
        raw = self._bytes(place)
        if raw is None or zlib.crc32(raw) != place.crc:
            logger.warning("%s: the features at byte %d are damaged; computed anew", place.shard, place.offset)
            del self._places[key]
            return None
        return raw.view(self.dtype).reshape(self.layers, place.frames, self.dim)

    def put(self, key: bytes, features: np.ndarray) -> bool:
        """Keep the features of a key.

        Returns:
            False where there is no room, or the key is known: features are not replaced.

        Raises:
            CacheError: the shape or the length of the key is not the store's.
        """
        if (
            len(key) != KEY_BYTES
            or features.ndim != 3
            or (features.shape[0], features.shape[2])
            != (
                self.layers,
                self.dim,
            )
        ):
            raise CacheError(
                f"features of shape {features.shape} under a key of {len(key)} bytes; "
                f"expected ({self.layers}, frames, {self.dim}) and {KEY_BYTES} bytes"
            )
        if self.full or key in self._places:
            return False
        data = np.ascontiguousarray(features, self.dtype)
        try:
            shard, numbers, index = self._own_files()
            if self.max_bytes is not None and self._kept_bytes + data.nbytes > self.max_bytes:
                self.full = f"its limit of {self.max_bytes / 1e9:.3g} GB is reached"
            elif self._until_check <= 0:
                if shutil.disk_usage(self.folder).free < _KEPT_FREE_BYTES:
                    self.full = f"less than {_KEPT_FREE_BYTES / 1e9:.0f} GB is left on its disk"
                self._until_check = _KEPT_FREE_BYTES // 10
            if self.full:
                logger.warning("%s: %s; further features are computed each time", self.folder, self.full)
                return False
            place = _Place(shard, numbers.tell(), features.shape[1], zlib.crc32(data))
            numbers.write(data.data)
            numbers.flush()
            index.write(np.array((key, place.offset, place.frames, place.crc), _LINE).tobytes())
            index.flush()
        except OSError as error:
            self.full = str(error)
            logger.warning("%s: %s; further features are computed each time", self.folder, error)
            return False
        self._kept_bytes += data.nbytes
        self._until_check -= data.nbytes
        self._places[key] = place
        return True

    def refresh(self) -> None:
        """Learn what other processes have added."""
        self._looked = time.monotonic()
        own = self._own[0] if self._own else None
        for index in sorted(self.folder.glob("*.index")):
            shard = index.with_suffix(".data")
            if shard == own:
                continue
            start = self._read_to.get(index, 0)
            with index.open("rb") as stream:
                stream.seek(start)
                raw = stream.read()
            lines = np.frombuffer(raw[: len(raw) // _LINE.itemsize * _LINE.itemsize], _LINE)
            for line in lines:
                place = _Place(shard, int(line["offset"]), int(line["frames"]), int(line["crc"]))
                self._places.setdefault(line["key"].tobytes(), place)
            self._read_to[index] = start + lines.nbytes
        self._kept_bytes = self.size_bytes

    def close(self) -> None:
        """Close this process' files; the next `put` opens new ones."""
        if self._own:
            for stream in self._own[1:]:
                stream.close()
            self._own = None

    def _own_files(self) -> tuple[Path, BinaryIO, BinaryIO]:
        if self._own is None:
            name = f"{socket.gethostname()}-{os.getpid()}-{secrets.token_hex(4)}"
            shard = self.folder / f"{name}.data"
            self._own = (shard, shard.open("xb"), shard.with_suffix(".index").open("xb"))
            self._until_check = 0
        return self._own

    def _bytes(self, place: _Place) -> np.ndarray | None:
        size = place.frames * self.frame_bytes
        known = self._maps.get(place.shard)
        if known is None or place.offset + size > len(known):  # it has grown since
            try:
                known = self._maps[place.shard] = np.memmap(place.shard, np.uint8, "r")
            except (OSError, ValueError):  # gone, or empty
                return None
        return known[place.offset : place.offset + size] if place.offset + size <= len(known) else None

    def _check(self, about: Mapping[str, Any]) -> None:
        path = self.folder / "about.json"
        if not path.is_file():
            text = json.dumps(dict(about), indent=1, sort_keys=True) + "\n"
            write_text(path, text)
        found = json.loads(path.read_text(encoding="utf-8"))
        for name in sorted({*found, *about}):
            if found.get(name) != about.get(name):
                raise CacheError(
                    f"{self.folder} holds features with {name} {found.get(name)!r}; expected {about.get(name)!r}: "
                    "give another folder, or remove this one"
                )
