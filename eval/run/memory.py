"""A GPU's memory that does not do for a batch stops a head: s3prl leaves such batches out, the longest ones."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from unittest import mock

import torch

from robustdistiller.eval.run.errors import RunError


@contextmanager
def no_batch_left_out() -> Iterator[None]:
    """Within the block, s3prl's training ends where it would go on without a batch.

    It catches the error, empties PyTorch's cache and takes the next batch, forever where none fits.

    Raises:
        RunError: the memory does not do.
    """
    stock = torch.cuda.empty_cache

    def look_and_empty() -> None:
        error = sys.exc_info()[1]  # that is being handled
        if isinstance(error, RuntimeError) and "out of memory" in str(error):
            raise RunError(
                f"the GPU's memory does not do for a batch ({str(error).splitlines()[0]}), which s3prl would leave "
                "out; halve the batch size of the task's configuration and double runner.gradient_accumulate_steps "
                "(the head counts as the same), or have fewer jobs share the GPU"
            ) from error
        stock()

    with mock.patch.object(torch.cuda, "empty_cache", look_and_empty):
        yield
