"""Which device a network runs on."""

from __future__ import annotations

import re

import torch


def usable_device(name: str = "auto") -> torch.device:
    """The device of that name, tried out.

    Args:
        name: such as ``"cpu"`` or ``"cuda:1"``; ``"auto"`` is the first GPU if there is one, else the CPU.

    Raises:
        ValueError: there is no such device here.

    >>> usable_device("cpu")
    device(type='cpu')
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.zeros(1, device=device).cpu()
    except (RuntimeError, AssertionError, ImportError) as error:
        why = re.split(r"\. |\n", str(error).strip())[0]  # what follows is for PyTorch's developers
        raise ValueError(f"device {name!r} cannot be used ({why}); expected such as cpu, cuda:1 or auto") from error
    return device
