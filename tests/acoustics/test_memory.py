"""Where batches are made."""

from __future__ import annotations

import torch
from torch.utils.data import DataLoader, Dataset

from robustdistiller.acoustics.memory import empty_batch


class _Shared(Dataset):
    def __getitem__(self, rows: int) -> tuple[bool, torch.Tensor]:
        made = empty_batch(rows, 5)
        return made.is_shared(), made.fill_(rows)


def test_loader_processes_make_batches_in_shared_memory() -> None:
    for num_workers, shared in ((0, False), (1, True)):
        loader = DataLoader(_Shared(), batch_size=None, sampler=[3, 1], num_workers=num_workers)
        for rows, (found, batch) in zip((3, 1), loader):
            assert found is shared and torch.equal(batch, torch.full((rows, 5), float(rows)))
    assert empty_batch(0, 5).shape == (0, 5)
