"""Models made without values and filled: the same models, and no random number is drawn."""

from __future__ import annotations

import pytest
import torch

from robustdistiller.upstream import EncoderConfig, SpeechEncoder
from robustdistiller.upstream.checkpoints.formats.base import Checkpoint
from robustdistiller.upstream.export.graph import exportable
from robustdistiller.upstream.fast import accelerate
from robustdistiller.upstream.model.values import fill, without_values
from robustdistiller.upstream.pretrained.whisper.checkpoint import WhisperCheckpoint
from robustdistiller.upstream.pretrained.whisper.config import WhisperConfig
from robustdistiller.upstream.pretrained.whisper.encoder import WhisperEncoder

SHAPES = {
    "heads": {"feature_norm": False, "prediction_layers": (4, 8)},
    "wavlm": {"relative_position": True, "gated_relative_position": True, "num_buckets": 32, "max_distance": 40},
    "large": {"conv_norm": "layer", "conv_bias": True, "norm_first": True, "normalize_waveform": True},
    "pruned wavlm": {"num_heads": (2, 1), "head_dim": 8, "feature_scale": True, "relative_position": True},
    "log-mel": {"front_end": "log_mel", "conv_layers": ((16, 3, 1), (16, 3, 2)), "conv_norm": "half_group"},
    "data2vec": {"position_depth": 3, "position_kernel": 5},
    "batch norm": {"position_batch_norm": True},
    "25 Hz": {"squeeze": 2, "squeeze_by": "conv", "expand_by": "linear"},
}


def noise() -> torch.Tensor:
    return torch.randn(2, 8000, generator=torch.Generator().manual_seed(1)) * 0.1


@torch.no_grad()
@pytest.mark.parametrize("shape", SHAPES)
def test_a_filled_model_is_the_model(shape):
    torch.manual_seed(0)
    encoder = SpeechEncoder(EncoderConfig.tiny(**SHAPES[shape])).eval()
    before, weights = torch.get_rng_state(), encoder.state_dict()
    built = Checkpoint("example", encoder.config, weights).build()
    copies = [built, exportable(encoder), accelerate(encoder)]
    assert torch.equal(torch.get_rng_state(), before), "what is drawn afterwards does not depend on a model being read"
    states = [model(noise()).hidden_states[-1] for model in (encoder, *copies)]
    assert torch.equal(states[1], states[0])
    for state in states[2:]:
        torch.testing.assert_close(state, states[0], atol=1e-4, rtol=0)
    assert list(built.state_dict()) == list(weights) and not any(v.is_meta for v in [*built.buffers()])
    next(iter(built.parameters())).zero_()
    assert torch.equal(encoder(noise()).hidden_states[-1], states[0]), "no weights are shared"


@torch.no_grad()
def test_a_filled_whisper_is_the_model():
    torch.manual_seed(0)
    encoder = WhisperEncoder(WhisperConfig(embed_dim=16, num_layers=1, num_heads=2, ffn_dim=32)).eval()
    before = torch.get_rng_state()
    built = WhisperCheckpoint("whisper_openai", encoder.config, encoder.state_dict()).build()
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(built(noise()).hidden_states[-1], encoder(noise()).hidden_states[-1])


def test_types_and_training_are_those_of_a_new_model():
    weights = {"weight": torch.ones(3, 2, dtype=torch.float16).T, "bias": torch.zeros(2, dtype=torch.float64)}
    with without_values():
        model = torch.nn.Linear(3, 2)
    fill(model, weights)
    assert {(p.dtype, p.requires_grad, p.is_contiguous()) for p in model.parameters()} == {(torch.float32, True, True)}


@pytest.mark.parametrize(
    ("change", "message"),
    [({"bias": None}, "Missing"), ({"more": torch.ones(1)}, "Unexpected"), ({"bias": torch.ones(3)}, "size mismatch")],
)
def test_what_does_not_fit_is_refused(change, message):
    with without_values():
        model = torch.nn.Linear(3, 2)
    weights = {"weight": torch.ones(2, 3), "bias": torch.zeros(2), **change}
    with pytest.raises(RuntimeError, match=message):
        fill(model, {name: value for name, value in weights.items() if value is not None})
