"""Arrays by key on disk, written by any number of processes at once and read through memory maps.

FOLDER/about.json     what the arrays are of: a folder keeps one kind
FOLDER/NAME.data      the numbers that one process has appended, one array after the other
FOLDER/NAME.index     for each array of NAME.data one line of fixed size: key, place, length, checksum

Nothing is ever locked, on network file systems either, as every process appends to files of its own: first the numbers,
then the line. A process killed between the two leaves bytes that nobody refers to; a line whose numbers never reached
the disk does not fit its checksum and counts as absent. Readers look for what others have added when they miss a key.
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
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from io import FileIO
from math import prod
from pathlib import Path
from typing import Any

import numpy as np

from robustdistiller.common.array_index import KEY_BYTES, ArrayIndex, index_line
from robustdistiller.common.files import write_text

logger = logging.getLogger(__name__)

_FORMAT = 1
_LOOK_AGAIN_S = 5.0
_TOUCH_AGAIN_S = 60.0
_SHARDS = 16  # pieces that a store which evicts is made of, at least


class StoreError(ValueError):
    """A folder cannot be used as asked."""


@dataclass
class _Own:
    """The files that this process appends to."""

    pid: int
    shard: int
    numbers: FileIO
    index: FileIO
    written: int = 0


class ArrayStore:
    """Arrays of one type and, but for one dimension, one shape, by keys of 16 bytes; given to other processes, it is
    opened there anew.

    Args:
        folder: made if it is not there.
        shape: of every array, None for the dimension that differs.
        dtype: as stored.
        about: what the arrays are of, JSON-able.
        max_bytes: of all arrays; None is no limit.
        evict: at the limit, forget what was not read for longest, in pieces of a 16th, instead of keeping nothing more.
        keep_free_bytes: of the disk, for everything else that is written there.

    Attributes:
        full: why nothing more is kept; empty as long as there is room.

    Raises:
        StoreError: the folder holds arrays of another kind.

    Example:
        >>> import tempfile
        >>> store = ArrayStore(tempfile.mkdtemp(), shape=(2, None, 3))
        >>> store.put(b"0123456789abcdef", np.ones((2, 4, 3), np.float32))
        True
        >>> store.get(b"0123456789abcdef").shape, store.get(b"another key 1234") is None
        ((2, 4, 3), True)
    """

    def __init__(
        self,
        folder: str | Path,
        shape: tuple[int | None, ...],
        dtype: str = "float32",
        about: Mapping[str, Any] | None = None,
        max_bytes: int | None = None,
        evict: bool = False,
        keep_free_bytes: int = 1_000_000_000,
    ) -> None:
        self.folder, self.shape, self.dtype = Path(folder), tuple(shape), np.dtype(dtype)
        self.about, self.max_bytes, self.evict, self.keep_free_bytes = about, max_bytes, evict, keep_free_bytes
        self.full = ""
        self._maps: dict[int, np.memmap] = {}
        self._touched: dict[int, float] = {}
        self._damaged: set[tuple[int, int]] = set()
        self._own: _Own | None = None
        self._until_check = 0
        self.folder.mkdir(parents=True, exist_ok=True)
        self._index = ArrayIndex(self.folder)
        self._check({"format": _FORMAT, "dtype": self.dtype.name, **(about or {})})
        self.refresh()

    def __reduce__(self) -> tuple:
        options = (self.about, self.max_bytes, self.evict, self.keep_free_bytes)
        return type(self), (self.folder, self.shape, self.dtype.name, *options)

    def __len__(self) -> int:
        return len(self._index)

    @property
    def row_bytes(self) -> int:
        """Bytes of one step along the dimension that differs."""
        return prod(size for size in self.shape if size is not None) * self.dtype.itemsize

    @property
    def size_bytes(self) -> int:
        """Bytes of all known arrays."""
        return self._index.total_length * self.row_bytes

    def room_bytes(self) -> int:
        """Bytes that may still be added without anything being forgotten."""
        free = max(0, shutil.disk_usage(self.folder).free - self.keep_free_bytes)
        return free if self.max_bytes is None else min(free, max(0, self.max_bytes - self.size_bytes))

    def get(self, key: bytes) -> np.ndarray | None:
        """The array of a key, not to be written to; None if there is none. Damaged ones count as missing."""
        found = self._find(key)
        if found is None and time.monotonic() - self._looked >= _LOOK_AGAIN_S:
            self.refresh()
            found = self._find(key)
        return found

    def put(self, key: bytes, array: np.ndarray) -> bool:
        """Keep an array.

        Returns:
            False where there is no room (see `full`), or the key is known: arrays are not replaced.

        Raises:
            StoreError: the shape of the array or the length of the key is not the store's.
        """
        shape = tuple(size if wanted is not None else None for wanted, size in zip(self.shape, array.shape))
        if len(key) != KEY_BYTES or array.ndim != len(self.shape) or shape != self.shape:
            raise StoreError(
                f"an array of shape {array.shape} under a key of {len(key)} bytes; expected {self.shape}, None being "
                f"any, and {KEY_BYTES} bytes"
            )
        if self.full or any(True for _ in self._entries(key)):
            return False
        data = np.ascontiguousarray(array, self.dtype)
        try:
            if not self._make_room(data.nbytes):
                logger.warning("%s: %s; nothing more is kept", self.folder, self.full)
                return False
            own = self._own_files()
            length = array.shape[self.shape.index(None)]
            line = index_line(key, own.written, length, zlib.crc32(data))
            _write(own.numbers, data.data.cast("B"))
            _write(own.index, memoryview(line.tobytes()))
        except OSError as error:
            self.full = str(error)
            logger.warning("%s: %s; nothing more is kept", self.folder, error)
            return False
        own.written += data.nbytes
        self._until_check -= data.nbytes
        self._index.add(line, own.shard)
        return True

    def refresh(self) -> None:
        """Learn what other processes have added and removed."""
        self._looked = time.monotonic()
        self._index.refresh()

    def _entries(self, key: bytes) -> Iterator[np.void]:
        for entry in self._index.entries(key):
            if (int(entry["shard"]), int(entry["offset"])) not in self._damaged:
                yield entry

    def _find(self, key: bytes) -> np.ndarray | None:
        for entry in self._entries(key):
            raw = self._bytes(int(entry["shard"]), int(entry["offset"]), int(entry["length"]) * self.row_bytes)
            if raw is not None and zlib.crc32(raw) == entry["crc"]:
                return raw.view(self.dtype).reshape([-1 if size is None else size for size in self.shape])
            shard = self._index.shards[int(entry["shard"])]
            if shard.exists():  # not forgotten by another process
                logger.warning("%s: what is at byte %d is damaged; made anew", shard, entry["offset"])
            self._damaged.add((int(entry["shard"]), int(entry["offset"])))
        return None

    def _bytes(self, shard: int, offset: int, size: int) -> np.ndarray | None:
        known, path = self._maps.get(shard), self._index.shards[shard]
        try:
            if known is None or offset + size > len(known):  # it has grown since
                known = self._maps[shard] = np.memmap(path, np.uint8, "r")
            if self.evict and time.monotonic() - self._touched.get(shard, -_TOUCH_AGAIN_S) >= _TOUCH_AGAIN_S:
                self._touched[shard] = time.monotonic()
                os.utime(path)  # when it was last read; access times are switched off on many machines
        except (OSError, ValueError):  # gone, or empty
            return None
        return known[offset : offset + size] if offset + size <= len(known) else None

    def _own_files(self) -> _Own:
        own, most = self._own, (self.max_bytes or 0) // _SHARDS
        if own is None or own.pid != os.getpid() or (self.evict and own.written >= most):
            name = f"{socket.gethostname()}-{os.getpid()}-{secrets.token_hex(4)}"
            path = self.folder / f"{name}.data"
            index = FileIO(path.with_suffix(".index"), "x")  # first, so that there are no data that nobody counts
            numbers = FileIO(path, "x")
            own = self._own = _Own(os.getpid(), self._index.number_of(path), numbers, index)
        return own

    def _make_room(self, size: int) -> bool:
        if self.max_bytes is not None and self.size_bytes + size > self.max_bytes:
            if self.evict:
                self._forget(size)
            if self.size_bytes + size > self.max_bytes:
                self.full = f"its limit of {self.max_bytes / 1e9:.3g} GB is reached"
        elif self.keep_free_bytes and self._until_check <= 0:
            if shutil.disk_usage(self.folder).free < self.keep_free_bytes:
                self.full = f"less than {self.keep_free_bytes / 1e9:.0f} GB is left on its disk"
            self._until_check = self.keep_free_bytes // 10
        return not self.full

    def _forget(self, size: int) -> None:
        """Remove the files that were not read for longest until there is room."""
        self.refresh()
        self._own = None  # what this process wrote longest ago may be among them
        found = [(_changed_ns(path), path) for path in self._index.shards]
        for _, path in sorted((changed, path) for changed, path in found if changed is not None):
            if self.size_bytes + size <= self.max_bytes:
                return
            path.unlink(missing_ok=True)
            path.with_suffix(".index").unlink(missing_ok=True)
            self._maps.pop(self._index.number_of(path), None)
            self.refresh()

    def _check(self, about: Mapping[str, Any]) -> None:
        path = self.folder / "about.json"
        if not path.is_file():
            write_text(path, json.dumps(dict(about), indent=1, sort_keys=True) + "\n")
        found = json.loads(path.read_text(encoding="utf-8"))
        for name in sorted({*found, *about}):
            if found.get(name) != about.get(name):
                raise StoreError(
                    f"{self.folder} holds {name} {found.get(name)!r}; expected {about.get(name)!r}: "
                    "give another folder, or remove this one"
                )


def _changed_ns(path: Path) -> int | None:
    """When a file was last changed; None where it is gone, as other processes forget, too."""
    try:
        return path.stat().st_mtime_ns
    except FileNotFoundError:
        return None


def _write(file: FileIO, content: memoryview) -> None:
    while content:
        content = content[file.write(content) :]
