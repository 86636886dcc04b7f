"""Speaker verification with only the test side of the trials corrupted: enrolment in quiet, test in noise.

s3prl embeds every file of its trial list once, so a file that stands on both sides would be either clean or corrupted
on both. Here each side gets embeddings of its own: the test side's files go by a marked name, in the loader and in the
list of trials.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from unittest import mock

import numpy as np
from torch.utils.data import DataLoader, Dataset

MARK = "#test"  # behind the file's suffix, where s3prl cuts names off


class TrialSides(Dataset):
    """s3prl's ``SpeakerVerifi_test`` with the files of each side apart; trials are of enrolment and marked test."""

    def __init__(self, stock: Any) -> None:
        self.stock = stock
        self.collate_fn = stock.collate_fn
        enrolled = sorted({first for _, first, _ in stock.pair_table})
        tested = sorted({second for _, _, second in stock.pair_table})
        self.names = [*enrolled, *(name + MARK for name in tested)]
        self.pair_table = [[label, first, second + MARK] for label, first, second in stock.pair_table]
        self._place = {path: index for index, path in enumerate(stock.dataset)}

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, index: int) -> tuple[np.ndarray, str]:
        name = self.names[index]
        waveform, _ = self.stock[self._place[name.removesuffix(MARK)]]
        return waveform, name


@contextmanager
def sides_apart(expert: Any, loader: DataLoader) -> Iterator[DataLoader]:
    """Within the block, a loader with the sides of the trials apart, and the expert's list of trials to fit."""
    sides = TrialSides(expert.test_dataset)
    with mock.patch.object(expert.test_dataset, "pair_table", sides.pair_table):
        yield DataLoader(
            sides, batch_size=loader.batch_size, num_workers=loader.num_workers, collate_fn=sides.collate_fn
        )
