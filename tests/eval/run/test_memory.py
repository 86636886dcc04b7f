"""A batch that a GPU's memory does not do for stops a head: s3prl would train on without it."""

from __future__ import annotations

from contextlib import nullcontext

import pytest
import torch
from torch import nn

from robustdistiller.eval.run.errors import RunError
from robustdistiller.eval.run.specs import Upstream
from robustdistiller.eval.run.train import train_head


class Large(nn.Module):
    """A front end that finds no memory for one batch."""

    calls = 0

    def get_downsample_rates(self, key: str) -> int:
        return 320

    def forward(self, waveforms):
        self.calls += 1
        if self.calls == 4:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB.\nGPU 0 has ...")
        padded = nn.utils.rnn.pad_sequence(waveforms, batch_first=True)
        frames = padded[:, : padded.shape[1] // 320 * 320].unflatten(1, (-1, 320))
        return {"hidden_states": [torch.stack([frames.mean(-1), frames.square().mean(-1)], dim=-1)]}


def test_a_training_does_not_go_on_without_the_batch(head_spec, tmp_path, monkeypatch):
    monkeypatch.setattr("torch.cuda.device", lambda device: nullcontext())  # there is no GPU here
    before = torch.cuda.empty_cache
    spec = head_spec("IC", tmp_path / "head", upstream=Upstream("large", module=Large()))
    with pytest.raises(RunError, match=r"does not do for a batch \(CUDA out of memory. Tried to allocate 20.00 GiB.\)"):
        train_head(spec)
    assert torch.cuda.empty_cache is before
    assert train_head(spec).step, "what was trained before goes on, and its last batch fits now"
