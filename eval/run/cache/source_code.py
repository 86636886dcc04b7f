"""Which code an upstream runs."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from pathlib import Path

from torch import nn

from robustdistiller.common.files import file_digest

_VERSIONED = ("builtins", "torch", "s3prl", "robustdistiller")  # records and caches name their versions


def upstream_code(upstream: nn.Module) -> str:
    """Digest of the source files that define an upstream's modules, see :func:`source_files`."""
    return code_digest(source_files(upstream))


def source_files(upstream: nn.Module) -> list[str]:
    """The source files that define an upstream's modules, those of torch, s3prl and this project left out.

    Args:
        upstream: with all its submodules.
    """
    classes = {base for module in upstream.modules() for base in type(module).__mro__}
    others = [one for one in classes if one.__module__.partition(".")[0] not in _VERSIONED]
    functions = [value for one in others for value in vars(one).values() if hasattr(value, "__code__")]
    files = {function.__code__.co_filename for function in functions}
    return sorted(file for file in files if Path(file).is_file())


def code_digest(files: Iterable[str]) -> str:
    """SHA-256 of the contents of source files, in hexadecimal; empty where there are none."""
    digests = sorted({file_digest(file) for file in files if Path(file).is_file()})
    return hashlib.sha256("".join(digests).encode()).hexdigest() if digests else ""
