"""Which s3prl is installed: the original, or ESPnet's maintained fork, which has the same import name."""

from __future__ import annotations

import importlib.metadata

DISTRIBUTIONS = ("s3prl", "espnet-s3prl")


def s3prl_version() -> str | None:
    """The version of s3prl, after its distribution's name unless that is ``s3prl`` alone; None where there is none.

    Where both are installed, the later one has overwritten files of the other, and both are named.

    Example:
        >>> s3prl_version() is not None
        True
    """
    found = {}
    for name in DISTRIBUTIONS:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    if list(found) == ["s3prl"]:
        return found["s3prl"]
    return " and ".join(f"{name} {version}" for name, version in found.items()) or None
