"""torchaudio comes in with its C++ library, without it, or not at all and in one sentence."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from robustdistiller.upstream.s3prl.bridge.torchaudio_library import mending_command

#: What torchaudio's own import does, up to 2.10 and since: it looks for its library, and fails if that does not load.
OLD = """
import importlib.util
from .utils import _load_lib
AVAILABLE = importlib.util.find_spec("torchaudio.lib._torchaudio") is not None
if AVAILABLE:
    if not _load_lib("libtorchaudio"):
        raise ImportError("Failed to load libtorchaudio")
    import torchaudio.lib._torchaudio
"""
NEW = """
from .utils import _load_lib
AVAILABLE = _load_lib("_torchaudio")
if AVAILABLE and not _load_lib("libtorchaudio"):
    raise ImportError("Failed to load libtorchaudio")
"""
LOAD = {
    "another torch": "raise OSError('undefined symbol: torch_exception_get_what_without_backtrace\\nmore')",
    "another CUDA": "raise RuntimeError('compiled with different CUDA versions')",
    "fits": "return True",
}
PROBE = """
from robustdistiller.upstream.s3prl.bridge.torchaudio_library import bridge_torchaudio
shim = bridge_torchaudio()
import torchaudio
print(shim.applied, torchaudio._extension.AVAILABLE, shim.reason, sep="|")
"""


def imitation(folder: Path, extension: str, load: str, package: str = "__version__ = '2.11.1'") -> None:
    """A torchaudio of which only the beginning of the import is there."""
    files = {
        "__init__.py": f"from . import _extension\n{package}\n",
        "_extension/__init__.py": extension,
        "_extension/utils.py": f"def _load_lib(lib):\n    {load}\n",
        "lib/__init__.py": "",
        "lib/_torchaudio.py": "",
    }
    for name, text in files.items():
        path = folder / "torchaudio" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


def probe(folder: Path) -> subprocess.CompletedProcess:
    environment = {**os.environ, "PYTHONPATH": str(folder)}
    return subprocess.run([sys.executable, "-c", PROBE], env=environment, capture_output=True, text=True)


@pytest.mark.parametrize("extension", [OLD, NEW], ids=["until 2.10", "since 2.11"])
@pytest.mark.parametrize("load", LOAD)
def test_without_its_library_where_only_that_fails(load: str, extension: str, tmp_path: Path):
    imitation(tmp_path, extension, LOAD[load])
    done = probe(tmp_path)
    assert done.returncode == 0, done.stderr
    applied, available, reason = done.stdout.strip().split("|")
    assert (applied, available) == (str(load != "fits"), str(load == "fits"))
    assert reason.startswith(f"torchaudio 2.11.1 beside torch {torch.__version__}")
    if load == "another torch":
        assert "OSError: undefined symbol: torch_exception_get_what_without_backtrace)" in reason


def test_beyond_use_is_one_sentence_with_both_versions_and_the_command(tmp_path: Path):
    imitation(tmp_path, NEW, LOAD["another torch"], package="raise SyntaxError('half a file')")
    done = probe(tmp_path)
    last = done.stderr.strip().splitlines()[-1]
    assert "InstallationError: torchaudio 2." in last and f"beside torch {torch.__version__}" in last
    assert last.endswith(mending_command()) and "SyntaxError: half a file" in last


def test_absent_is_one_sentence_with_the_command(tmp_path: Path):
    (tmp_path / "sitecustomize.py").write_text("import sys\nsys.modules['torchaudio'] = None\n")
    last = probe(tmp_path).stderr.strip().splitlines()[-1]
    assert "s3prl needs torchaudio, which is not installed beside torch" in last and last.endswith(mending_command())
