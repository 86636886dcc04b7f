"""What an installation lacks is said in one sentence, with the command that brings it."""

from __future__ import annotations

import errno
import importlib.metadata
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from robustdistiller.common import installation
from robustdistiller.common.installation import InstallationError, diagnose, extra_of, install_command


def test_every_extra_is_suggested_for_what_only_it_brings():
    wanted = {
        "s3prl": "superb",
        "lightning_fabric": "train",
        "onnxruntime": "export",
        "submitit": "slurm",
        "pesq": "metrics",
    }
    wanted |= {
        "pyroomacoustics": "rooms",
        "pytest": None,
        "yaml": "",
        "huggingface_hub": "",
        "sklearn.cluster": "superb",
    }
    assert {module: extra_of(module) for module in wanted} == wanted


class Origin(importlib.metadata.Distribution):
    """An installation from somewhere."""

    def __init__(self, **origin: object) -> None:
        self.origin = origin

    def read_text(self, filename: str) -> str | None:
        return json.dumps(self.origin) if self.origin and filename == "direct_url.json" else None

    def locate_file(self, path: object) -> Path:
        return Path(str(path))


@pytest.mark.parametrize(
    ("origins", "command"),
    [
        ([Origin()], "pip install 'robustdistiller[train]'"),
        ([], "pip install 'robustdistiller[train]'"),
        ([Origin(url="file:///my%20code", dir_info={})], "pip install '/my code[train]'"),
        ([Origin(), Origin(url="file:///x", dir_info={"editable": True})], "pip install -e '/x[train]'"),
    ],
)
def test_the_command_installs_from_where_it_was_installed(origins, command, monkeypatch):
    monkeypatch.setattr(installation.importlib.metadata, "distributions", lambda name: origins)
    assert install_command("train") == command


def test_only_what_a_user_can_mend_is_said_in_a_sentence():
    assert diagnose(InstallationError("it is broken", "mend it")) == ("it is broken", "mend it")
    assert diagnose(ImportError("cannot import name 'x' from 'torch'")) is None, "a fault, of ours or of theirs"
    assert diagnose(OSError(errno.EROFS, "Read-only file system", "/ro/x")) == (
        "/ro/x: the file system is read-only",
        "",
    )
    assert diagnose(OSError(errno.ENOENT, "No such file", "/x")) is None
    assert diagnose(ValueError("x")) is None


def run(arguments: list[str], hidden: tuple[str, ...], folder: Path) -> subprocess.CompletedProcess:
    """A command where some packages are not installed."""
    (folder / "sitecustomize.py").write_text(f"import sys\nsys.modules.update(dict.fromkeys({hidden}))\n")
    environment = {**os.environ, "PYTHONPATH": str(folder)}
    return subprocess.run([sys.executable, *arguments], env=environment, capture_output=True, text=True)


@pytest.mark.parametrize(
    ("command", "hidden", "extra"),
    [
        (["distill", "--list"], ("lightning_fabric", "lhotse"), "train"),
        (["sweep", "sweep.yaml"], ("librosa",), "superb"),
        (["profile", "fbank"], ("s3prl",), "superb"),
    ],
)
def test_a_command_names_the_extra_it_misses(command, hidden, extra, tmp_path):
    sweep = {"out": str(tmp_path / "out"), "upstreams": ["fbank"]}
    sweep["tasks"] = [{"task": "SID", "data": {"file_path": str(tmp_path), "meta_data": str(tmp_path)}}]
    file = tmp_path / "sweep.yaml"
    file.write_text(json.dumps(sweep))
    command = [str(file) if word == file.name else word for word in command]
    done = run(["-m", "robustdistiller.cli", *command], hidden, tmp_path)
    assert done.returncode == 2 and "Traceback" not in done.stderr, done.stderr
    assert not (tmp_path / "out").exists(), "told before anything begins"
    (line,) = done.stderr.strip().splitlines()
    assert line.startswith("robustdistiller") and "is not installed: pip install" in line and f"[{extra}]'" in line


def test_run_downstream_names_what_it_misses(tmp_path):
    program = "import sys; from robustdistiller.cli.main import run_downstream; sys.argv[1:] = ['-h']; run_downstream()"
    done = run(["-c", program], ("s3prl",), tmp_path)
    assert done.returncode == 2 and done.stderr.count("\n") == 1, done.stderr
    assert done.stderr.startswith("run_downstream.py: s3prl") and "[superb]'" in done.stderr


def test_a_full_disk_is_one_sentence(tmp_path):
    """/dev/full is a device without space."""
    if not Path("/dev/full").exists():
        pytest.skip("no /dev/full here")
    program = "from robustdistiller.common.errors import run_command; import pathlib, sys\n"
    program += "sys.exit(run_command('x', lambda: pathlib.Path('/dev/full').write_text('a' * 10)))"
    done = run(["-c", program], (), tmp_path)
    assert (done.returncode, done.stderr) == (1, "x: no space left on the device\n")


def test_version():
    done = subprocess.run([sys.executable, "-m", "robustdistiller.cli", "--version"], capture_output=True, text=True)
    assert done.stdout == f"robustdistiller {importlib.metadata.version('robustdistiller')}\n"
