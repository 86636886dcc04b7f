"""Small files that would take gigabytes: refused, with memory bounded by a small multiple of the file."""

import io
import pickle
import struct
import subprocess
import sys
import textwrap
import zipfile

import numpy as np
import pytest
import torch

from robustdistiller.upstream import CheckpointError, read_checkpoint
from robustdistiller.upstream.checkpoints.inspection import inspect_checkpoint
from robustdistiller.upstream.checkpoints.safe_load import safe_load
from robustdistiller.upstream.checkpoints.unpickle import Unpickler


def _shared_lists(levels=9, width=10):
    """Opcodes of a list that takes a few bytes and, written out, ten to the ninth."""
    code = b"(" + b"U\x02ha" * width + b"lq\x00"
    for _ in range(levels):
        code += b"0(" + b"h\x00" * width + b"lq\x00"
    return code


def _call(module, name, arguments):
    return f"c{module}\n{name}\n".encode() + arguments + b"R"


def _archive(code):
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("a/data.pkl", b"\x80\x02" + code + b".")
    return file.getvalue()


MEGABYTE = b"X" + struct.pack("<I", 1 << 20) + b"a" * (1 << 20) + b"q\x05"
LAUGHS = _shared_lists()
CODES = {
    "device": b"}U\x01a" + LAUGHS + b"0" + _call("torch", "device", b"h\x00\x85") + b"s",
    "layout": b"}U\x01a" + LAUGHS + b"0" + _call("torch.serialization", "_get_layout", b"h\x00\x85") + b"s",
    "numpy type": b"}U\x01a" + LAUGHS + b"0" + _call("numpy", "dtype", b"h\x00\x85") + b"s",
    "encode": b"}U\x01a" + LAUGHS + b"0" + _call("_codecs", "encode", b"h\x00\x85") + b"s",
    "encoded copies": MEGABYTE + b"](" + b"".join(_call("_codecs", "encode", b"h\x05\x85") for _ in range(3000)) + b"e",
    "copies of a list": b"(" + b"N" * 100_000 + b"lq\x05](" + _call("builtins", "list", b"h\x05\x85") * 5000 + b"e",
    "sets": b"](" + b"\x8f" * 20_000_000 + b"e",
    "dictionaries": b"](" + b"}" * 20_000_000 + b"e",
    "memo": b"\x80\x04N" + b"\x94" * 20_000_000,
    "long names": MEGABYTE + b"](" + b"h\x05h\x05\x93" * 3000 + b"e",
    "keys of repeated text": MEGABYTE + b"}(" + b"h\x05" * 4000 + b"tNs",
    "keys of weights": MEGABYTE + b"}(U\x06config}U\x0astate_dict}(" + b"h\x05" * 4000 + b"tNsu",
}


def test_memory_is_bounded(tmp_path):
    """Inspected in a process of their own: 64 MiB and 16 times a file's size are allowed, and some for reading it."""
    program = """
        import resource, sys
        from pathlib import Path
        from robustdistiller.upstream.checkpoints.inspection import inspect_checkpoint
        resource.setrlimit(resource.RLIMIT_AS, (8 << 30, 8 << 30))
        for path in sorted(Path(sys.argv[1]).iterdir()):
            Path("/proc/self/clear_refs").write_text("5")  # the peak starts anew
            before = int(Path("/proc/self/status").read_text().partition("VmRSS:")[2].split()[0])
            error = inspect_checkpoint(path).error
            peak = int(Path("/proc/self/status").read_text().partition("VmHWM:")[2].split()[0])
            print(path.name, peak - before, len(error), error[-150:].replace("\\n", " "), sep="\t")
    """
    for name, code in CODES.items():
        (tmp_path / name).write_bytes(_archive(code))
    command = [sys.executable, "-c", textwrap.dedent(program), str(tmp_path)]
    result = subprocess.run(command, capture_output=True, text=True, check=True, timeout=120)
    lines = [line.split("\t") for line in result.stdout.splitlines()]
    assert sorted(name for name, *_ in lines) == sorted(CODES)
    for name, kilobytes, letters, error in lines:
        size = (tmp_path / name).stat().st_size
        print(f"{name}: {size / 1e6:.3f} MB, {int(kilobytes) / 1e3:.0f} MB of memory, {error}")
        assert int(kilobytes) * 1024 < (80 << 20) + 20 * size, name
        assert int(letters) < 5000, name


@pytest.mark.parametrize("value", [np.arange(6, dtype=">i4"), np.arange(6, dtype=">f8").reshape(2, 3)])
def test_arrays_of_the_other_byte_order(value, tmp_path):
    torch.save({"a": value}, tmp_path / "a.pt")
    found = safe_load(tmp_path / "a.pt")[0]["a"]
    assert found.dtype == value.dtype and np.array_equal(found, value)


def test_a_described_byte_order_is_one():
    state = (3, "<", None, None, None, -1, -1, 0)
    good = pickle.dumps(np.dtype("<i4"), 2)
    assert Unpickler(io.BytesIO(good)).load() == np.dtype(np.int32) and state[1] == "<"
    with pytest.raises(pickle.UnpicklingError, match="described in an unknown way"):
        Unpickler(io.BytesIO(b"cnumpy\ndtype\n(U\x02i4I00\nI01\ntR]b.")).load()


def test_numbers_too_long_to_print(tmp_path):
    content = {"cfg": {"encoder_layers": 10**6000}, "model": {"a": torch.ones(1)}, "step": 10**6000}
    torch.save(content, tmp_path / "a.pt")
    with pytest.raises(CheckpointError):
        read_checkpoint(tmp_path / "a.pt")
    assert inspect_checkpoint(tmp_path / "a.pt").error
