"""Checkpoints that are whole whenever a training is stopped. s3prl deletes the earlier one, and then writes the next.

A process that is killed in between, or while it writes, would leave half a file, and where that was the best one so
far, days of training would begin anew.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest import mock

import torch

from robustdistiller.common.files import write_atomically


@contextmanager
def whole_checkpoints() -> Iterator[None]:
    """Within the block, s3prl's runner writes checkpoints at once or not at all, and deletes others afterwards.

    It finds those that it is to delete in folders with brackets in their names, too.
    """
    from s3prl.downstream import runner

    stock, to_remove = torch.save, []

    def save(states: Any, path: str) -> None:
        write_atomically(path, lambda file: stock(states, file))
        while to_remove:
            if (old := Path(to_remove.pop())) != Path(path):
                old.unlink(missing_ok=True)

    def find(pattern: str) -> list[str]:
        return [str(path) for path in Path(pattern).parent.glob(Path(pattern).name)]

    later = SimpleNamespace(**{**vars(os), "remove": to_remove.append})
    inside = mock.patch.multiple(runner, os=later, glob=SimpleNamespace(glob=find))
    with mock.patch.object(torch, "save", save), inside:
        yield
