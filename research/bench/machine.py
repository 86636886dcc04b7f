"""What this machine can do at most: its matrix rate and its memory bandwidth, measured."""

from __future__ import annotations

from collections.abc import Callable

import torch

from research.bench.measure import alternate, work_clock

_SIZES = ((2000, 768, 3072), (2000, 3072, 768), (8000, 1024, 512))  # as in a Base model


def matrix_rate(device: str = "cpu", dtype: torch.dtype = torch.float32, repeats: int = 5) -> float:
    """Floating-point operations per second of the best of some matrix products (2 per multiplication and addition).

    >>> matrix_rate(repeats=1) > 1e8
    True
    """
    best = 0.0
    for rows, inner, columns in _SIZES:
        a = torch.randn(rows, inner, device=device, dtype=dtype)
        b = torch.randn(inner, columns, device=device, dtype=dtype)
        out = torch.empty(rows, columns, device=device, dtype=dtype)
        seconds = _fastest(lambda a=a, b=b, out=out: torch.mm(a, b, out=out), repeats, device)
        best = max(best, 2 * rows * inner * columns / seconds)
    return best


def bandwidth(device: str = "cpu", rounds: int = 5, elements: int = 1 << 25) -> float:
    """Bytes per second read and written together, when a large array is copied onto another.

    >>> bandwidth(rounds=1, elements=1 << 20) > 1e8
    True
    """
    source, target = torch.ones(elements, device=device), torch.zeros(elements, device=device)
    return 2 * 4 * elements / _fastest(lambda: target.copy_(source), rounds, device)


def _fastest(way: Callable[[], object], rounds: int, device: str) -> float:
    return min(alternate({"way": way}, rounds, device=device, clock=work_clock(device))["way"])
