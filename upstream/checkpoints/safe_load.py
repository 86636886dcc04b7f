"""Reading checkpoint files without running code found in them: safetensors, and the containers of ``torch.save``.

Those are a zip archive since PyTorch 1.6, a row of pickles before.
"""

from __future__ import annotations

import io
import json
import mmap
import pickle
import struct
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO

import torch

from robustdistiller.upstream.checkpoints.builders import kind_of
from robustdistiller.upstream.checkpoints.unpickle import HostilePickle, Unpickler

_MAGIC, _PROTOCOL = 0x1950A86A20F9469CFC6C, 1001
_LOCAL_HEADER = struct.Struct("<4s22xHH")
_MAX_PICKLE_BYTES = 1 << 28
#: Bytes of memory that reading a pickle may take, for each byte of the file.
_MEMORY_PER_BYTE = 16
#: Under this name the metadata of a safetensors file hold the notes of our own format, as JSON.
NATIVE_KEY = "robustdistiller"
_SPEAKING = (ValueError, OSError, pickle.UnpicklingError, zipfile.BadZipFile, RuntimeError, EOFError)
_DAMAGED = (*_SPEAKING, LookupError, TypeError, AttributeError, ArithmeticError, MemoryError, struct.error)


def safe_load(path: str | Path) -> tuple[dict[str, Any], set[str]]:
    """What a ``torch.save`` or safetensors file holds, without running anything it says.

    Objects of classes other than tensors, plain containers and numpy arrays become
    :class:`~robustdistiller.upstream.checkpoints.builders.Inert`. Tensors are views of the file, mapped into memory, in
    its dtypes: what is not used stays on the disk, and no length that the file claims is allocated.

    Returns:
        The dictionary it holds, and the names of the classes in it that were not built.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is of another kind, is damaged, asks for code to be run, or does not hold a dictionary.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     torch.save({"weight": torch.ones(2), "expdir": Path("exp")}, f"{folder}/a.pt")
    ...     safe_load(f"{folder}/a.pt")
    ({'weight': tensor([1., 1.]), 'expdir': <pathlib.PosixPath, not built>}, {'pathlib.PosixPath'})
    """
    path = Path(path)
    try:
        if has_safetensors(path):
            return _load_safetensors(path), set()
        content, named = _read_zip(path) if zipfile.is_zipfile(path) else _read_legacy(path)
    except HostilePickle as error:
        raise ValueError(f"{path} is not safe and was not read: {error}. Nothing in it was run.") from error
    except FileNotFoundError:
        raise
    except _DAMAGED as error:
        said = str(error) if isinstance(error, _SPEAKING) else f"its pickle is damaged ({type(error).__name__})"
        raise ValueError(
            f"{path} cannot be read as a checkpoint: expected a file written by torch.save with tensors and plain "
            f"containers, or safetensors; is the download complete? ({said[:1000] or 'it ends too early'})"
        ) from error
    if not isinstance(content, dict):
        raise ValueError(f"{path} holds a {kind_of(content)}; expected a checkpoint, which is a dictionary")
    return content, named


def has_safetensors(path: Path) -> bool:
    """Whether a file begins as safetensors do: the length of a header, and the header, a JSON object."""
    with path.open("rb") as file:
        start = file.read(9)
    return len(start) == 9 and start[8:] == b"{" and not start.startswith(b"PK")


def _load_safetensors(path: Path) -> dict[str, Any]:
    from safetensors import SafetensorError, safe_open
    from safetensors.torch import load_file

    try:
        with safe_open(path, "pt") as file:
            metadata = file.metadata() or {}
        weights = load_file(path)
    except (SafetensorError, OSError, ValueError, RecursionError) as error:
        said = str(error)[:1000]
        raise ValueError(f"{path} cannot be read as safetensors; is the download complete? ({said})") from error
    notes = metadata.get(NATIVE_KEY)
    if notes is None:
        return weights
    try:
        notes = json.loads(notes)
    except (TypeError, ValueError, RecursionError) as error:
        raise ValueError(f"{path} has damaged metadata under {NATIVE_KEY!r}") from error
    return {**(notes if isinstance(notes, dict) else {}), "format": NATIVE_KEY, "state_dict": weights}


def _read_zip(path: Path) -> tuple[Any, set[str]]:
    size = path.stat().st_size
    with zipfile.ZipFile(path) as archive, path.open("rb") as file:
        members = {info.filename: info for info in archive.infolist()}
        for name, info in members.items():
            if name.startswith(("/", "\\")) or ".." in PurePosixPath(name.replace("\\", "/")).parts:
                raise ValueError(f"its member {name[:200]!r} points outside of the archive")
            if info.header_offset + info.compress_size > size:
                raise ValueError(f"its member {name[:200]!r} claims {info.compress_size} bytes, more than the file has")
        roots = [name.removesuffix("data.pkl") for name in members if name.endswith("/data.pkl")]
        if len(roots) != 1:
            raise ValueError("it is a zip archive without a pickle of torch.save")
        root = roots[0]
        if f"{root}constants.pkl" in members:
            raise ValueError("it is a TorchScript program, not a checkpoint: save the model's state_dict instead")
        if any(info.compress_type != zipfile.ZIP_STORED for info in members.values()):
            raise ValueError("its members are compressed, which torch.save never does")
        if f"{root}byteorder" in members and _read_member(file, members[f"{root}byteorder"], size) != b"little":
            raise ValueError("it was written on a machine with another byte order")
        if members[f"{root}data.pkl"].compress_size > _MAX_PICKLE_BYTES:
            raise ValueError("its pickle is larger than any checkpoint's")
        content: Any = torch.UntypedStorage.from_file(str(path), False, size)

        def storage(dtype: torch.dtype, key: str, count: int) -> torch.Tensor:
            info = members.get(f"{root}data/{key}")
            if info is None or count * dtype.itemsize > info.compress_size:
                found = 0 if info is None else info.compress_size
                raise pickle.UnpicklingError(f"storage {key!r} claims {count} values, but has {found} bytes")
            return _view(content, _start_of(file, info, size), dtype, count)

        pickled = _read_member(file, members[f"{root}data.pkl"], size)
        reader = Unpickler(io.BytesIO(pickled), storage, _MEMORY_PER_BYTE * size)
        return reader.load(), reader.named


def _start_of(file: BinaryIO, info: zipfile.ZipInfo, size: int) -> int:
    """Where the content of a member begins in an archive of ``size`` bytes."""
    file.seek(info.header_offset)
    signature, name_bytes, extra_bytes = _LOCAL_HEADER.unpack(file.read(_LOCAL_HEADER.size))
    start = info.header_offset + _LOCAL_HEADER.size + name_bytes + extra_bytes
    if signature != b"PK\x03\x04" or start + info.compress_size > size:
        raise pickle.UnpicklingError(f"its member {info.filename[:200]!r} is not where the archive says")
    return start


def _read_member(file: BinaryIO, info: zipfile.ZipInfo, size: int) -> bytes:
    """The content of a member. Its checksum is 0 where torch was told to leave it out (``set_crc32_options``)."""
    file.seek(_start_of(file, info, size))
    content = file.read(info.compress_size)
    if info.CRC not in (0, zlib.crc32(content)):
        raise zipfile.BadZipFile(f"its member {info.filename[:200]!r} has another checksum than the archive says")
    return content


def _read_legacy(path: Path) -> tuple[Any, set[str]]:
    """Magic number, protocol and platform, the object, the keys of its storages, then the storages one by one.

    The object comes before the place of its tensors is known: it is read twice.
    """
    size = path.stat().st_size
    if size == 0:
        raise ValueError("it is empty")
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as buffer:
        if buffer[:2] not in (b"\x80\x02", b"\x80\x03", b"\x80\x04") or Unpickler(buffer).load() != _MAGIC:
            onnx = "; an ONNX file is run by the upstream robustdistiller_onnx" if path.suffix == ".onnx" else ""
            raise ValueError(f"it does not begin like one{onnx}")
        if Unpickler(buffer).load() != _PROTOCOL or not isinstance(Unpickler(buffer).load(), dict):
            raise ValueError("it has another protocol than torch.save's")
        start, dtypes = buffer.tell(), {}

        def note(dtype: torch.dtype, key: str, count: int) -> None:
            dtypes[key] = dtype

        Unpickler(buffer, note, _MEMORY_PER_BYTE * size).load()
        places = _legacy_places(buffer, dtypes, size)
        buffer.seek(start)
        reader = Unpickler(buffer, _legacy_storage(path, size, places), _MEMORY_PER_BYTE * size)
        return reader.load(), reader.named


def _legacy_places(buffer: mmap.mmap, dtypes: dict[str, torch.dtype], size: int) -> dict[str, tuple[int, int]]:
    keys, places = Unpickler(buffer).load(), {}
    if not isinstance(keys, list) or not all(isinstance(key, str) and key in dtypes for key in keys):
        raise ValueError("its list of storages does not fit what it holds")
    for key in keys:
        (count,) = struct.unpack("<q", buffer.read(8))
        start = buffer.tell()
        if count < 0 or start + count * dtypes[key].itemsize > size:
            raise ValueError(f"storage {key[:200]!r} claims {count} values, more than the file has")
        places[key] = start, count
        buffer.seek(start + count * dtypes[key].itemsize)
    return places


def _legacy_storage(path: Path, size: int, places: dict[str, tuple[int, int]]) -> Callable:
    content: Any = torch.UntypedStorage.from_file(str(path), False, size)

    def storage(dtype: torch.dtype, key: str, count: int) -> torch.Tensor:
        start, found = places.get(key, (0, -1))
        if count > found:
            raise pickle.UnpicklingError(f"storage {key!r} claims {count} values, but has {max(found, 0)}")
        return _view(content, start, dtype, found)

    return storage


def _view(content: torch.UntypedStorage, start: int, dtype: torch.dtype, count: int) -> torch.Tensor:
    part = content[start : start + count * dtype.itemsize]
    return torch.empty(0, dtype=dtype).set_(part, 0, (count,), (1,))
