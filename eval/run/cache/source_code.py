"""Which code an upstream runs."""

from __future__ import annotations

import hashlib
from pathlib import Path

from torch import nn

from robustdistiller.common.files import file_digest

_VERSIONED = ("builtins", "torch", "s3prl", "robustdistiller")  # records and caches name their versions


def upstream_code(upstream: nn.Module) -> str:
    """Digest of the source files that define an upstream's modules, of torch, s3prl and this project left out.

    Args:
        upstream: with all its submodules.

    Returns:
        SHA-256 in hexadecimal; empty where no other code is involved, or none that lies in files.
    """
    classes = {base for module in upstream.modules() for base in type(module).__mro__}
    others = [one for one in classes if one.__module__.partition(".")[0] not in _VERSIONED]
    functions = [value for one in others for value in vars(one).values() if hasattr(value, "__code__")]
    files = {function.__code__.co_filename for function in functions}
    digests = sorted({file_digest(file) for file in files if Path(file).is_file()})
    return hashlib.sha256("".join(digests).encode()).hexdigest() if digests else ""
