"""Brings in torchaudio, which s3prl imports nearly everywhere and nothing else in this package does.

Its wheels hold a C++ library for the PyTorch they were built with, and its import fails where that library does not
load: beside another release, beside another CUDA, beside a PyTorch without CUDA. What s3prl's downstreams use of it
(resampling, spectra, Kaldi features, filters) is also there in Python, so it is then imported without the library.
"""

from __future__ import annotations

import importlib
import importlib.metadata
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType

import torch

from robustdistiller.common.installation import InstallationError
from robustdistiller.upstream.s3prl.bridge.shim import Shim, patch_after_import

# What torchaudio looks for to know whether it has its library, up to 2.10.
_EXTENSION = "torchaudio.lib._torchaudio"


class _State:
    # why torchaudio was imported without its library; None: it has it, or was not imported here
    library_error: Exception | None = None


def load_torchaudio() -> ModuleType:
    """Import torchaudio, without its C++ library where only that fails.

    Raises:
        InstallationError: it is not installed, or does not import either way; names both versions and the command.

    Example:
        >>> load_torchaudio().__name__
        'torchaudio'
    """
    try:
        return importlib.import_module("torchaudio")
    except ModuleNotFoundError as error:
        if error.name == "torchaudio":
            problem = f"s3prl needs torchaudio, which is not installed beside torch {torch.__version__}"
            raise InstallationError(problem, mending_command()) from error
        reason: Exception = error
    except Exception as error:  # noqa: BLE001 - OSError, RuntimeError or ImportError, whatever the loader meets
        reason = error
    try:
        with _library_hidden():
            found = importlib.import_module("torchaudio")
    except Exception as error:
        problem = (
            f"torchaudio {importlib.metadata.version('torchaudio')} does not import beside torch {torch.__version__}, "
            f"even without its C++ library ({type(error).__name__}: {_first_line(error)})"
        )
        raise InstallationError(problem, mending_command()) from error
    _State.library_error = reason
    return found


def fitting_torchaudio(torch_version: str = torch.__version__) -> str:
    """The requirement for a torchaudio whose library fits a PyTorch.

    Up to 2.11 the two were released together; the last torchaudio, 2.11.1, is for all later PyTorch.

    Example:
        >>> fitting_torchaudio("2.8.0+cpu"), fitting_torchaudio("2.11.0"), fitting_torchaudio("2.15.0")
        ('torchaudio==2.8.*', 'torchaudio==2.11.0', 'torchaudio>=2.11.1')
    """
    major, minor = (int(part) for part in torch_version.split(".")[:2])
    if (major, minor) < (2, 11):
        return f"torchaudio=={major}.{minor}.*"
    return "torchaudio==2.11.0" if (major, minor) == (2, 11) else "torchaudio>=2.11.1"


def mending_command(torch_version: str = torch.__version__) -> str:
    """The command that installs a torchaudio for this PyTorch and leaves PyTorch alone.

    Example:
        >>> mending_command("2.8.0+cpu")
        "pip install --no-deps 'torchaudio==2.8.*'"
    """
    return f"pip install --no-deps '{fitting_torchaudio(torch_version)}'"


def bridge_torchaudio() -> Shim:
    """``import torchaudio`` where its C++ library does not fit PyTorch."""
    found = load_torchaudio()
    versions = f"torchaudio {found.__version__} beside torch {torch.__version__}"
    if _State.library_error is None:
        return Shim("torchaudio", False, f"{versions} imports")
    why = f"{type(_State.library_error).__name__}: {_first_line(_State.library_error)}"
    return Shim("torchaudio", True, f"{versions}, without its C++ library, which does not load ({why})")


@contextmanager
def _library_hidden() -> Iterator[None]:
    """Within the block ``import torchaudio`` starts afresh and finds no C++ library."""
    for name in [name for name in sys.modules if name.partition(".")[0] == "torchaudio"]:
        del sys.modules[name]
    patch_after_import("torchaudio._extension.utils", lambda module: vars(module).update(_load_lib=lambda _lib: False))
    sys.modules[_EXTENSION] = None  # type: ignore[assignment]  # find_spec() then says that there is no such module
    try:
        yield
    finally:
        del sys.modules[_EXTENSION]


def _first_line(error: BaseException) -> str:
    return str(error.__cause__ or error).strip().partition("\n")[0][:200]
