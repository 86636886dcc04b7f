"""Files that mean harm, or lie: refused with a sentence, nothing executed, no more memory than the file has."""

import argparse
import datetime
import io
import os
import pickle
import struct
import subprocess
import sys
import textwrap
import zipfile
from collections import Counter, OrderedDict, defaultdict
from pathlib import Path

import numpy as np
import pytest
import torch
from omegaconf import OmegaConf

from robustdistiller.upstream import CheckpointError, EncoderConfig, SpeechEncoder, read_checkpoint, save_checkpoint
from robustdistiller.upstream.checkpoints.builders import Inert
from robustdistiller.upstream.checkpoints.inspection import inspect_checkpoint
from robustdistiller.upstream.checkpoints.plain import plain
from robustdistiller.upstream.checkpoints.safe_load import safe_load
from robustdistiller.upstream.checkpoints.unpickle import HostilePickle, Unpickler


class Call:
    """Pickles as a call of ``function``."""

    def __init__(self, function, *args, state=None):
        self.call = (function, args) if state is None else (function, args, state)

    def __reduce__(self):
        return self.call


class Bomb:
    """Unpickled by the default module, its ``__setstate__`` runs a command."""

    def __init__(self, mark):
        self.mark = mark

    def __getstate__(self):
        return {"mark": self.mark}

    def __setstate__(self, state):
        Path(state["mark"]).mkdir()


def hostile(mark):
    """Name to an object whose pickle would make the folder ``mark``, or a file there."""
    write = f"open({mark!r}, 'w').close()"
    return {
        "os.system": Call(os.system, f"touch {mark}"),
        "os.mkdir": Call(os.mkdir, mark),
        "builtins.eval": Call(eval, write),
        "builtins.exec": Call(exec, write),
        "builtins.__import__": Call(__import__, "this"),
        "subprocess.Popen": Call(subprocess.Popen, ["touch", mark]),
        "torch.load": Call(torch.load, mark),
        "nested reduce": Call(Call, Call(list, (Call(os.mkdir, mark),))),
        "state of a reduce": Call(OrderedDict, state={"hook": Call(os.mkdir, mark)}),
        "getattr chain": Call(getattr, Call(__import__, "os"), "mkdir"),
    }


NAMES = sorted(hostile(""))


@pytest.mark.parametrize("legacy", [False, True], ids=["zip", "legacy"])
@pytest.mark.parametrize("name", NAMES)
def test_hostile_pickles_are_refused_and_execute_nothing(name, legacy, tmp_path, capsys):
    mark, path = tmp_path / "executed", tmp_path / "states.ckpt"
    _save({"Args": hostile(str(mark))[name], "model": {"a": torch.ones(3)}}, path, legacy)
    with pytest.raises(
        ValueError, match=r"states.ckpt is not safe and was not read: it names .* Nothing in it was run"
    ):
        safe_load(path)
    assert not mark.exists() and capsys.readouterr().out == ""


def test_the_same_pickle_works_with_the_default_module(tmp_path):
    """The test above can fail."""
    mark, path = tmp_path / "executed", tmp_path / "states.ckpt"
    torch.save({"Args": hostile(str(mark))["os.mkdir"]}, path)
    torch.load(path, weights_only=False)
    assert mark.exists()


@pytest.mark.parametrize("legacy", [False, True], ids=["zip", "legacy"])
def test_a_setstate_bomb_stays_inert(legacy, tmp_path):
    mark, path = tmp_path / "executed", tmp_path / "states.ckpt"
    _save({"Args": Bomb(str(mark)), "model": torch.ones(3)}, path, legacy)
    content, named = safe_load(path)
    assert isinstance(content["Args"], Inert) and content["Args"].state == {"mark": str(mark)}
    assert any(name.endswith(".Bomb") for name in named) and not mark.exists()
    if not legacy:
        with pytest.raises(FileNotFoundError):  # the bomb is live: the default module sets it off
            torch.load(_save({"Args": Bomb(str(mark / "a" / "b"))}, path, legacy), weights_only=False)


@pytest.mark.parametrize("legacy", [False, True], ids=["zip", "legacy"])
def test_plain_data_of_both_containers(legacy, tmp_path):
    shared = torch.arange(12.0).reshape(3, 4)
    content = {
        "float": shared,
        "view": shared[1:, ::2],
        "transposed": shared.T,
        "half": torch.ones(3, dtype=torch.float16),
        "long": torch.arange(5),
        "bool": torch.tensor([True, False]),
        "empty": torch.empty(0, 7),
        "scalar": torch.tensor(2.5),
        "parameter": torch.nn.Parameter(torch.ones(2, 2)),
        "ordered": torch.nn.Linear(2, 3).state_dict(),
        "numpy scalar": np.float64(1.5),
        "array": np.arange(6).reshape(2, 3),
        "fortran": np.asfortranarray(np.arange(6.0).reshape(2, 3)),
        "default": defaultdict(list, a=[1]),
        "counter": Counter("aab"),
        "set": {1, 2},
        "size": torch.Size([2, 3]),
        "text": "ä",
        "bytes": b"\xff",
        "nested": [(1, None), {"a": -(2**70)}],
    }
    read, named = safe_load(_save(content, tmp_path / "a.pt", legacy))
    assert named == set()
    for name, value in content.items():
        found = read[name]
        if isinstance(value, torch.Tensor):
            assert torch.equal(found, value.detach()) and found.dtype == value.dtype, name
        elif isinstance(value, np.ndarray):
            assert np.array_equal(found, value), name
        elif name == "ordered":
            assert all(torch.equal(found[key], value[key]) for key in value)
        else:
            assert found == value, name


@pytest.mark.parametrize("legacy", [False, True], ids=["zip", "legacy"])
def test_other_classes_hold_what_the_file_gave_them(legacy, tmp_path):
    content = {"Args": argparse.Namespace(lr=0.1, deep={"a": [1]}), "when": datetime.timedelta(3)}
    read, named = safe_load(_save(content, tmp_path / "a.pt", legacy))
    assert read["Args"].state == {"lr": 0.1, "deep": {"a": [1]}} and read["Args"].name == "argparse.Namespace"
    assert read["when"].args == (3, 0, 0)
    assert named == {"argparse.Namespace", "datetime.timedelta"}


def test_archives_without_checksums(tmp_path):
    """torch writes them so where ``set_crc32_options`` tells it to; others are compared."""
    torch.serialization.set_crc32_options(False)
    try:
        _save({"a": torch.arange(3.0), "b": [1, "x"]}, tmp_path / "a.pt", False)
    finally:
        torch.serialization.set_crc32_options(True)
    read, _ = safe_load(tmp_path / "a.pt")
    assert torch.equal(read["a"], torch.arange(3.0)) and read["b"] == [1, "x"]
    content = _save({"a": "harmless"}, tmp_path / "b.pt", False).read_bytes()
    (tmp_path / "b.pt").write_bytes(content.replace(b"harmless", b"Harmless"))
    with pytest.raises(ValueError, match=r"member 'b/data.pkl' has another checksum than the archive says"):
        safe_load(tmp_path / "b.pt")


@pytest.mark.parametrize("legacy", [False, True], ids=["zip", "legacy"])
def test_types_are_data_also_by_the_names_of_python_2(legacy, tmp_path):
    content = {"type": int, "types": [str, range, type(None)], "span": range(3), "rest": ..., "w": torch.ones(2)}
    read, _ = safe_load(_save(content, tmp_path / "a.pt", legacy))
    assert torch.equal(read["w"], torch.ones(2)) and repr(read["type"]) == "<builtins.long, not built>"
    # omegaconf says of each list that its keys are of the type int
    read, _ = safe_load(_save({"cfg": OmegaConf.create({"lr": [0.1], "span": {"a": 1}})}, tmp_path / "b.pt", legacy))
    assert plain(read["cfg"]) == {"lr": [0.1], "span": {"a": 1}}


def _save(content, path, legacy):
    torch.save(content, path, _use_new_zipfile_serialization=not legacy)
    return path


def _rewrite(source, target, change):
    """Copy a zip archive, letting ``change(name, data)`` replace members; several pairs may come back."""
    with zipfile.ZipFile(source) as old, zipfile.ZipFile(target, "w") as new:
        for name in old.namelist():
            for item in change(name, old.read(name)):
                new.writestr(*item)
    return target


def test_member_names_that_leave_the_archive(tmp_path):
    path = _save({"a": torch.ones(2)}, tmp_path / "a.pt", False)
    for evil in ("../../evil", "/etc/evil", "a/../../evil", "..\\evil"):
        bad = _rewrite(
            path,
            tmp_path / "b.pt",
            lambda name, data, evil=evil: [(name, data)] + [(evil, b"x")] * name.endswith("data.pkl"),
        )
        with pytest.raises(ValueError, match=r"b.pt cannot be read .* points outside of the archive"):
            safe_load(bad)
    assert {file.name for file in tmp_path.iterdir()} == {"a.pt", "b.pt"}


@pytest.mark.parametrize("legacy", [False, True], ids=["zip", "legacy"])
@pytest.mark.parametrize("keep", [0.1, 0.5, 0.9, 0.999])
def test_truncated_files(legacy, keep, tmp_path):
    path = _save({"a": torch.ones(3000), "args": argparse.Namespace(b=2)}, tmp_path / "a.pt", legacy)
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * keep)])
    with pytest.raises(ValueError, match=r"a.pt cannot be read as a checkpoint.*is the download complete"):
        safe_load(path)


@pytest.mark.parametrize("legacy", [False, True], ids=["zip", "legacy"])
def test_damaged_bytes_are_an_error_or_harmless(legacy, tmp_path):
    path = _save({"a": torch.ones(4), "args": argparse.Namespace(b=2), "c": [1, "x", {2}]}, tmp_path / "a.pt", legacy)
    whole, generator, refused = path.read_bytes(), np.random.default_rng(0), 0
    for _ in range(300):
        damaged = bytearray(whole)
        damaged[generator.integers(min(len(whole), 600))] = generator.integers(256)
        path.write_bytes(damaged)
        try:
            safe_load(path)
        except ValueError as error:
            refused += "a.pt" in str(error)
    assert refused > 30


def test_compressed_members_are_refused(tmp_path):
    path = _save({"a": torch.ones(2)}, tmp_path / "a.pt", False)
    with zipfile.ZipFile(path) as old, zipfile.ZipFile(tmp_path / "b.pt", "w", zipfile.ZIP_DEFLATED) as new:
        for name in old.namelist():
            new.writestr(name, old.read(name))
    with pytest.raises(ValueError, match=r"b.pt cannot be read .*its members are compressed"):
        safe_load(tmp_path / "b.pt")


def _four_gigabytes():
    """Name to the bytes of a file that claims 4 GB of something."""
    tensor = io.BytesIO()
    torch.save({"a": torch.ones(4)}, tensor, _use_new_zipfile_serialization=False)
    whole, claim = tensor.getvalue(), 1 << 32
    start = whole.rindex(struct.pack("<q", 4))
    return {
        "storage of a legacy file": whole[:start] + struct.pack("<q", claim) + whole[start + 8 :],
        "byte string": b"\x80\x04\x8e" + struct.pack("<Q", claim) + b"abc",
        "byte array": b"\x80\x05\x96" + struct.pack("<Q", claim) + b"abc",
        "text": b"\x80\x04\x8d" + struct.pack("<Q", claim) + b"abc",
        "frame": b"\x80\x04\x95" + struct.pack("<Q", claim) + b"abc",
        "integer": b"\x80\x02\x8b" + struct.pack("<I", (1 << 31) - 1) + b"abc",
        "memo": b"\x80\x02Nr" + struct.pack("<I", (1 << 32) - 1) + b".",
    }


@pytest.fixture
def claims(tmp_path):
    """A folder of files that claim 4 GB: pickles, also inside an archive; archives; safetensors."""
    for name, data in _four_gigabytes().items():
        name = name.replace(" ", "-")
        (tmp_path / f"{name}.pt").write_bytes(data)
        with zipfile.ZipFile(tmp_path / f"{name}.zip.pt", "w") as archive:
            archive.writestr("a/data.pkl", data)
    good = _save({"a": torch.ones(4)}, tmp_path / "good.pt", False)
    with zipfile.ZipFile(good) as archive:
        pkl = archive.read("good/data.pkl")
    wide = pkl.replace(b"K\x04", b"\x8a\x05\x00\x00\x00\x00\x01")
    assert wide.count(b"\x8a\x05") >= 2
    _rewrite(good, tmp_path / "shape.pt", lambda n, data: [(n, wide if n.endswith(".pkl") else data)])
    stretched = pkl.replace(b"K\x04\x85", b"\x8a\x05\x00\x00\x00\x00\x01\x85").replace(b"K\x01\x85", b"K\x00\x85")
    _rewrite(good, tmp_path / "stride.pt", lambda n, data: [(n, stretched if n.endswith(".pkl") else data)])
    directory = bytearray(good.read_bytes())
    entry = directory.index(b"PK\x01\x02")
    directory[entry + 20 : entry + 28] = struct.pack("<II", 0xFFFFFFF0, 0xFFFFFFF0)
    (tmp_path / "directory.pt").write_bytes(directory)
    (tmp_path / "header.safetensors").write_bytes(struct.pack("<Q", 1 << 32) + b"{}")
    good.unlink()
    return tmp_path


def test_claims_of_four_gigabytes_are_refused_in_bounded_memory(claims):
    """Read in a process whose memory is capped 1 GB above what Python and PyTorch take."""
    program = """
        import resource, sys
        from pathlib import Path
        from robustdistiller.upstream.checkpoints.safe_load import safe_load
        import safetensors.torch
        used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (used + (1 << 30),) * 2)
        for path in sorted(Path(sys.argv[1]).iterdir()):
            before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
            try:
                safe_load(path)
                print("READ", path.name)
            except ValueError as error:
                grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
                print("MEMORY" if grown > 50_000 else "refused", path.name, grown, error)
    """
    command = [sys.executable, "-c", textwrap.dedent(program), str(claims)]
    result = subprocess.run(command, capture_output=True, text=True, check=True)
    lines = result.stdout.splitlines()
    assert len(lines) == len(list(claims.iterdir())) == 18
    assert [line for line in lines if not line.startswith("refused")] == []


def test_names_are_refused_wherever_they_stand():
    for module, name in [
        ("os", "system"),
        ("posix", "system"),
        ("__builtin__", "eval"),
        ("importlib.util", "find_spec"),
    ]:
        for code in (f"c{module}\n{name}\n.", f"(S'x'\ni{module}\n{name}\n.", f"(c{module}\n{name}\no."):
            with pytest.raises(HostilePickle, match=name):
                Unpickler(io.BytesIO(code.encode())).load()


def test_calling_data_is_refused():
    for code in (b"]N\x85R.", b"}(K\x01K\x02tR.", b"I1\n)\x81."):
        with pytest.raises(pickle.UnpicklingError, match="which is data, not a class"):
            Unpickler(io.BytesIO(code)).load()


def test_not_a_checkpoint_at_all(tmp_path):
    cases = {
        "empty.pt": b"",
        "page.pt": b"<html>404</html>",
        "sound.pt": b"RIFF\x00\x00\x00\x00WAVE",
        "nul.pt": b"\0" * 99,
    }
    for name, data in cases.items():
        (tmp_path / name).write_bytes(data)
        with pytest.raises(ValueError, match=rf"{name} cannot be read as a checkpoint"):
            safe_load(tmp_path / name)
    torch.jit.script(torch.nn.Linear(2, 2)).save(tmp_path / "program.pt")
    with pytest.raises(ValueError, match="TorchScript program, not a checkpoint"):
        safe_load(tmp_path / "program.pt")


def _laughs(levels=60, width=10):
    """A list that takes a few bytes and, written out, more than any memory."""
    value = ["ha"] * width
    for _ in range(levels):
        value = [value] * width
    return value


OWN = {"format": "robustdistiller", "format_version": 1, "state_dict": {}}


@pytest.mark.parametrize(
    "content",
    [
        {"args": argparse.Namespace(arch="hubert", activation_fn=_laughs()), "model": {"a": torch.ones(1)}},
        {"args": argparse.Namespace(arch="hubert", encoder_layers=_laughs(20)), "model": {"a": torch.ones(1)}},
        {"Config": {"distiller": {"pred_layer_id": _laughs(), "n_tasks": 10}}, "Distiller": {"a": torch.ones(1)}},
        {"Config": {"distiller": {"pred_layer_id": [[1]], "n_tasks": 1}}, "Distiller": {"a": torch.ones(1)}},
        {"config": {"encoder_num_layers": 2, "encoder_embed_dim": _laughs(5)}, "state_dict": {"a": torch.ones(1)}},
        {"cfg": {"encoder_layers": 10**9}, "model": {"a": torch.ones(1)}},
        {"cfg": {"encoder_embed_dim": 10**9, "encoder_attention_heads": 10**9}, "model": {"a": torch.ones(1)}},
        {"cfg": {"encoder_layers": "two"}, "model": {"a": torch.ones(1)}},
        {**OWN, "config": {"num_layers": 10**9}},
        {**OWN, "config": {"num_heads": [10**9] * 12, "head_dim": 1}},
        {**OWN, "config": {"conv_layers": _laughs(3)}},
        {**OWN, "config": {"conv_layers": _laughs()}},
        {**OWN, "config": {"num_layers": "many"}},
        {**OWN, "config": {"dropout": None}},
        {**OWN, "config": [1]},
    ],
)
def test_options_that_would_expand_without_end_or_have_a_wrong_type(content, tmp_path):
    _save(content, tmp_path / "a.pt", False)
    with pytest.raises(CheckpointError, match=r"a\.pt: ") as caught:
        read_checkpoint(tmp_path / "a.pt")
    assert len(str(caught.value)) < 20_000


def test_options_that_contain_themselves(tmp_path):
    options = {"arch": "hubert"}
    options["self"] = options
    _save({"args": options, "model": {"a": torch.ones(1)}}, tmp_path / "a.pt", False)
    with pytest.raises(CheckpointError, match="its options are nested too deeply"):
        read_checkpoint(tmp_path / "a.pt")


def test_what_else_a_file_holds_is_counted_once(tmp_path):
    save_checkpoint(tmp_path / "a.ckpt", SpeechEncoder(EncoderConfig(embed_dim=16, num_layers=0, num_heads=1)), {})
    content = safe_load(tmp_path / "a.ckpt")[0] | {"laughs": _laughs()}
    _save(content, tmp_path / "b.ckpt", False)
    assert "laughs: 10 entries" in inspect_checkpoint(tmp_path / "b.ckpt").holds
