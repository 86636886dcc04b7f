"""How the C library treats the memory that tensors on a CPU give back."""

from __future__ import annotations

import ctypes
import platform

# Of mallopt(3), in glibc's malloc.h.
_M_TRIM_THRESHOLD, _M_MMAP_MAX = -1, -4


def keep_freed_memory() -> bool:
    """Let the process keep what its tensors give back, so that the next ones of that size find it mapped.

    By default glibc returns every large block to the system at once. A training step then spends a good part of its
    time on having the same pages mapped and cleared again and again. The process keeps its largest size from now on.

    Returns:
        whether it could be arranged: only with glibc, that is on most Linux systems.

    >>> keep_freed_memory() == (platform.libc_ver()[0] == "glibc")
    True
    """
    if platform.libc_ver()[0] != "glibc":
        return False
    mallopt = ctypes.CDLL(None).mallopt
    return bool(mallopt(_M_MMAP_MAX, 0) and mallopt(_M_TRIM_THRESHOLD, -1))
