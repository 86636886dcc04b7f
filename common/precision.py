"""Float32 arithmetic of PyTorch without the shortcuts that GPUs take."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch


@contextmanager
def without_tf32() -> Iterator[None]:
    """Within the block, float32 products on a GPU are not rounded to TF32, whose error depends on the batch.

    Example:
        >>> with without_tf32():
        ...     torch.backends.cudnn.allow_tf32, torch.get_float32_matmul_precision()
        (False, 'highest')
    """
    convolutions, products = torch.backends.cudnn.allow_tf32, torch.get_float32_matmul_precision()
    torch.backends.cudnn.allow_tf32 = False
    torch.set_float32_matmul_precision("highest")
    try:
        yield
    finally:
        torch.backends.cudnn.allow_tf32 = convolutions
        torch.set_float32_matmul_precision(products)
