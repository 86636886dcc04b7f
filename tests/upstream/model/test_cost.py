"""Parameters and MACs of encoders: from the configuration, as PyTorch counts them, and as SUPERB's profiler did."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from robustdistiller.upstream import EncoderConfig, SpeechEncoder
from robustdistiller.upstream.model.cost import counted_macs, encoder_cost, encoder_macs

SMALL = EncoderConfig(
    conv_layers=((12, 10, 5), (16, 3, 2), (20, 2, 2)),
    embed_dim=24,
    num_layers=2,
    num_heads=4,
    ffn_dim=40,
    position_kernel=8,
    position_groups=4,
)


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"prediction_layers": (1, 2), "prediction_dim": 40, "prediction_inner_dim": 12},
        {"num_heads": (3, 0), "head_dim": 6, "ffn_dim": (0, 17)},
        {"num_layers": 3, "attention_reuse": (1, 2)},
        {"relative_position": True, "gated_relative_position": True, "norm_first": True, "conv_norm": "layer"},
        {"num_heads": (2, 1), "head_dim": 6, "relative_position": True, "gated_relative_position": True,
         "position_bias_heads": ((0, 3), (2,))},
        {"position_depth": 3, "position_kernel": 19, "projection": True, "conv_bias": True},
    ],
)  # fmt: skip
def test_macs_are_those_that_pytorch_counts(changes: dict) -> None:
    encoder = SpeechEncoder(SMALL.replace(**changes)).eval()
    with torch.no_grad():  # where the shortcuts for a CPU, which count otherwise, would be taken
        counted = counted_macs(encoder, torch.randn(1, 8_000))
    assert sum(encoder_macs(encoder.config, 0.5, heads=True).values()) == pytest.approx(counted, rel=0.01)
    without = {**SMALL.replace(**changes).to_dict(), "num_layers": 1}  # the comparison notices a layer
    if not changes:
        assert sum(encoder_macs(EncoderConfig.from_dict(without), 0.5).values()) != pytest.approx(counted, rel=0.01)
    assert all(weight.requires_grad for weight in encoder.parameters())


def test_macs_up_to_a_layer_and_at_other_lengths() -> None:
    encoder = SpeechEncoder(SMALL).eval()
    macs = encoder_macs(SMALL, 0.5, max_layer=1)
    counted = counted_macs(encoder, torch.randn(1, 8_000), layers=(1,), predict=False)
    assert sum(macs.values()) == pytest.approx(counted, rel=0.01)
    twice = encoder_macs(SMALL, 1.0, max_layer=1)
    assert twice["attention_products"] / macs["attention_products"] == pytest.approx(4, rel=0.02)
    assert twice["feed_forward"] / macs["feed_forward"] == pytest.approx(2, rel=0.02)
    with pytest.raises(ValueError, match="10 samples are too few"):
        encoder_macs(SMALL, 10 / 16_000)


def test_used_parameters_leave_out_the_heads() -> None:
    encoder = SpeechEncoder(SMALL.replace(prediction_layers=(1, 2)))
    cost = encoder_cost(encoder)
    assert cost.parameters_stored == sum(weight.numel() for weight in encoder.parameters())
    assert cost.parameters_stored - cost.parameters_used == sum(weight.numel() for weight in encoder.heads.parameters())
    assert cost.macs["heads"] == 0 and cost.macs_per_s == sum(cost.macs.values()) / 10


def test_counts_of_a_layer_by_hand() -> None:
    convolution = nn.Conv1d(3, 8, kernel_size=5, bias=False)  # 96 outputs of 8 channels, 15 products each
    assert counted_macs(convolution, torch.randn(1, 3, 100)) == 96 * 8 * 15
    assert counted_macs(nn.Linear(7, 5), torch.randn(4, 7)) == 4 * 7 * 5
    assert counted_macs(nn.LayerNorm(7), torch.randn(4, 7)) == 0


class Peeking(nn.Module):
    """Looks at its numbers, as some upstreams do: it cannot run on shapes alone."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = SpeechEncoder(SMALL)
        self.heard: list[float] = []

    def forward(self, waveforms: list[torch.Tensor], louder: bool = False):
        self.heard.append(float(waveforms[0].abs().max()))
        return self.encoder(torch.stack(waveforms) * (2 if louder else 1))


def test_upstreams_that_look_at_numbers_are_run_on_numbers() -> None:
    peeking, waveform = Peeking().eval(), torch.ones(8_000)
    expected = counted_macs(peeking.encoder, waveform.unsqueeze(0))
    assert counted_macs(peeking, [waveform]) == counted_macs(peeking, [waveform], louder=True) == expected > 0
    assert peeking.heard == [1.0, 1.0]
