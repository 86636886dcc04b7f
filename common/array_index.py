"""Where in the files of an `ArrayStore` which array is."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from pathlib import Path

import numpy as np

KEY_BYTES = 16
_LINE = np.dtype([("head", "<u8"), ("tail", "<u8"), ("offset", "<u8"), ("length", "<u4"), ("crc", "<u4")])
_ENTRY = np.dtype([*_LINE.descr, ("shard", "<u4")])


class ArrayIndex:
    """The lines of all files ``NAME.index`` beside a ``NAME.data`` in a folder, in one table of 36 bytes a line.

    Args:
        folder: of the files.

    Attributes:
        shards: the files of numbers; entries name them by their place here.
        total_length: of all entries.

    Example:
        >>> index = ArrayIndex(Path("nowhere"))
        >>> index.add(index_line(b"0123456789abcdef", offset=0, length=5, crc=7), index.number_of(Path("a.data")))
        >>> [int(entry["length"]) for entry in index.entries(b"0123456789abcdef")], len(index), index.total_length
        ([5], 1, 5)
    """

    def __init__(self, folder: Path) -> None:
        self.folder, self.shards, self.total_length = folder, [], 0
        self._read_to: dict[Path, int] = {}
        self._table, self._heads = np.zeros(0, _ENTRY), np.zeros(0, np.uint64)  # sorted by head
        self._recent: dict[tuple[int, int], np.void] = {}  # added since the last look at the disk

    def __len__(self) -> int:
        return len({*self._heads.tolist(), *(head for head, _ in self._recent)})

    def number_of(self, shard: Path) -> int:
        """The number that entries name a file by."""
        if shard not in self.shards:
            self.shards.append(shard)
        return self.shards.index(shard)

    def add(self, line: np.ndarray, shard: int) -> None:
        """Know of a line that this process has written to the disk."""
        entry = np.array((*line.tolist(), shard), _ENTRY)[()]
        self._recent[int(entry["head"]), int(entry["tail"])] = entry
        self.total_length += int(entry["length"])

    def entries(self, key: bytes) -> Iterator[np.void]:
        """What may hold the array of a key: more than one where processes wrote it at once, or one was damaged."""
        head, tail = struct.unpack("<QQ", key)
        if (head, tail) in self._recent:
            yield self._recent[head, tail]
        at = int(np.searchsorted(self._heads, np.uint64(head)))
        while at < len(self._heads) and self._heads[at] == head:
            if self._table[at]["tail"] == tail:
                yield self._table[at]
            at += 1

    def refresh(self) -> None:
        """Read the lines that were added to the files, and drop those whose numbers are gone."""
        there = sorted(self.folder.glob("*.data"))
        gone = [number for number, shard in enumerate(self.shards) if shard not in there]
        kept = self._table[~np.isin(self._table["shard"], gone)]
        added = [self._read(shard) for shard in there]
        self._recent = {}  # these lines are among those just read
        if len(kept) < len(self._table) or any(map(len, added)):
            table = np.concatenate([kept, *added])
            self._table = table[np.argsort(table["head"], kind="stable")]
            self._heads = np.ascontiguousarray(self._table["head"])
        self.total_length = int(self._table["length"].sum(dtype=np.uint64))

    def _read(self, shard: Path) -> np.ndarray:
        start = self._read_to.get(shard, 0)
        try:
            with shard.with_suffix(".index").open("rb") as stream:
                stream.seek(start)
                raw = stream.read()
        except FileNotFoundError:
            return np.zeros(0, _ENTRY)
        lines = np.frombuffer(raw[: len(raw) // _LINE.itemsize * _LINE.itemsize], _LINE)
        self._read_to[shard] = start + lines.nbytes
        entries = np.zeros(len(lines), _ENTRY)
        for name in _LINE.names:
            entries[name] = lines[name]
        entries["shard"] = self.number_of(shard)
        return entries


def index_line(key: bytes, offset: int, length: int, crc: int) -> np.ndarray:
    """One line of an index.

    Args:
        key: of the array, 16 bytes.
        offset: of its first byte in the numbers.
        length: in the dimension that differs between arrays.
        crc: checksum of its bytes.

    Example:
        >>> index_line(b"0123456789abcdef", 0, 5, 7).nbytes
        32
    """
    return np.array((*struct.unpack("<QQ", key), offset, length, crc), _LINE)
