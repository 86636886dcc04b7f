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
def test_macs_are_the_products_of_the_formulas(changes: dict) -> None:
    """With T frames, width D, H heads of width d and feed-forward width F, a layer has 4 T D H d MACs in its maps of
    queries, keys, values and output, 2 T^2 H d in its products of them, and 2 T D F in its feed-forward part."""
    config = SMALL.replace(**changes)
    frames, inputs, expected = 8_000, 1, 0
    for channels, kernel, stride in config.conv_layers:
        frames = (frames - kernel) // stride + 1
        expected, inputs = expected + frames * inputs * channels * kernel, channels
    width = config.embed_dim
    expected += frames * inputs * width  # the projection
    expected += frames * config.position_depth * width**2 * config.position_kernel // config.position_groups
    for layer in range(config.num_layers):
        inner, reuses = config.heads[layer] * config.width_per_head, layer in config.attention_reuse
        expected += (2 if reuses else 4) * frames * width * inner + (1 if reuses else 2) * frames**2 * inner
        expected += (
            8 * frames * inner if config.gated_relative_position else 0
        ) + 2 * frames * width * config.ffn_dims[layer]
    inner, outer = config.prediction_inner_dim or width, config.prediction_dim or width
    with_heads = expected + len(config.prediction_layers) * frames * inner * (width + outer)
    assert encoder_macs(config, 0.5) == expected
    assert encoder_macs(config, 0.5, heads=True) == with_heads


def test_macs_up_to_a_layer_and_of_the_encoder_itself() -> None:
    encoder = SpeechEncoder(SMALL).eval()
    counted = counted_macs(encoder, torch.randn(1, 8_000), layers=(1,), predict=False)
    assert encoder_macs(SMALL, 0.5, max_layer=1) == counted < encoder_macs(SMALL, 0.5)
    assert all(weight.requires_grad for weight in encoder.parameters())
    with pytest.raises(ValueError, match="has 10 samples; one frame needs at least"):
        encoder_macs(SMALL, 10 / 16_000)


def test_used_parameters_leave_out_the_heads() -> None:
    encoder = SpeechEncoder(SMALL.replace(prediction_layers=(1, 2)))
    cost = encoder_cost(encoder)
    assert cost.parameters_stored == sum(weight.numel() for weight in encoder.parameters())
    assert cost.parameters_stored - cost.parameters_used == sum(weight.numel() for weight in encoder.heads.parameters())
    assert cost.macs == encoder_macs(encoder.config) and cost.macs_per_s == cost.macs / 10


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
