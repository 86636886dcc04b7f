"""Variables of a model in CTranslate2's format (https://github.com/OpenNMT/CTranslate2), without that library.

The file is little endian: uint32 version, string kind, uint32 revision, uint32 count; then per variable string name,
uint8 rank, uint32 sizes, uint8 type, uint32 bytes, and the values; then uint32 count of aliases, each two strings. A
string is its uint16 length, in which a closing zero byte is counted, and the bytes.
"""

from __future__ import annotations

import math
import struct
from pathlib import Path

import numpy as np

#: Versions of the container that are laid out as above.
VERSIONS = (4, 5, 6)
_MOST_DIMENSIONS = 8
_TYPES = {0: "<f4", 1: "i1", 2: "<i2", 3: "<i4", 4: "<f2", 5: "V2"}  # numpy has no bfloat16


def read_variables(path: Path) -> dict[str, np.ndarray]:
    """The variables of a file by their names.

    They are views of the file, which is mapped into memory: what is not used stays on the disk, and no size that the
    file claims is allocated. Values of bfloat16 are of numpy's type ``V2``, those of unknown types are bytes.

    Raises:
        ValueError: the file is cut short, of another version, or a size in it does not fit the rest; in one sentence.
    """
    try:
        return _Reader(path).variables()
    except ValueError as error:
        raise ValueError(
            f"{path} cannot be read as a CTranslate2 model; is the download complete? ({error})"
        ) from error


class _Reader:
    def __init__(self, path: Path):
        self.content = np.memmap(path, np.uint8, "r")
        self.place = 0

    def variables(self) -> dict[str, np.ndarray]:
        version = self.number("I")
        if version not in VERSIONS:
            raise ValueError(f"its version is {version}; this package reads {', '.join(map(str, VERSIONS))}")
        self.string()
        self.number("I")
        found: dict[str, np.ndarray] = {}
        for _ in range(self.number("I")):
            name = self.string()
            if name in found:
                raise ValueError(f"{name[:200]!r} is there twice")
            found[name] = self.variable(name[:200])
        for _ in range(self.number("I")):
            alias, name = self.string(), self.string()
            if name not in found:
                raise ValueError(f"{alias[:200]!r} stands for {name[:200]!r}, which is not there")
            found[alias] = found[name]
        if self.place != len(self.content):
            raise ValueError(f"{len(self.content) - self.place} bytes follow the last entry")
        return found

    def variable(self, name: str) -> np.ndarray:
        rank = self.number("B")
        if rank > _MOST_DIMENSIONS:
            raise ValueError(f"{name!r} has {rank} dimensions, expected {_MOST_DIMENSIONS} at most")
        shape = tuple(self.number("I") for _ in range(rank))
        kind, size = _TYPES.get(self.number("B")), self.number("I")
        values = self.bytes(size)
        if kind is None:
            return values
        if size != math.prod(shape) * np.dtype(kind).itemsize:
            raise ValueError(f"{name!r} of shape {shape} has {size} bytes")
        return values.view(kind).reshape(shape)

    def string(self) -> str:
        text = self.bytes(self.number("H")).tobytes()
        if not text.endswith(b"\0"):
            raise ValueError("a name in it does not end as names do")
        return text[:-1].decode("utf-8")

    def number(self, kind: str) -> int:
        return struct.unpack(f"<{kind}", self.bytes(struct.calcsize(f"<{kind}")).tobytes())[0]

    def bytes(self, count: int) -> np.ndarray:
        start, self.place = self.place, self.place + count
        if self.place > len(self.content):
            raise ValueError(f"{count} bytes are to follow byte {start} of {len(self.content)}")
        return self.content[start : self.place]
