"""The digest of an exported student's weights, of whatever shape they are."""

from __future__ import annotations

import torch

from robustdistiller.pretrain.training.checkpoint import weights_digest
from robustdistiller.upstream import EncoderConfig, SpeechEncoder


def test_a_batch_norm_counts_batches_in_a_number_without_dimensions():
    state = SpeechEncoder(EncoderConfig.tiny(position_batch_norm=True)).state_dict()
    scalars = [name for name, value in state.items() if value.dim() == 0]
    other = {**state, scalars[0]: state[scalars[0]] + 1}
    assert len(scalars) == 1
    assert weights_digest(state) == weights_digest({**state}) != weights_digest(other)


def test_a_digest_does_not_depend_on_how_weights_lie_in_memory():
    weight = torch.arange(6.0).reshape(2, 3)
    assert weights_digest({"w": weight}) == weights_digest({"w": weight.T.contiguous().T})
