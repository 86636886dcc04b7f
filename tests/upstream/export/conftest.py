"""Two small encoders that between them have everything an exporter meets, and their files, each made once."""

import pytest
import torch

from robustdistiller.upstream import EncoderConfig, SpeechEncoder, save_checkpoint
from robustdistiller.upstream.export import export_model

# Four conv layers instead of seven with the same stride and receptive field: exporters take seconds for each.
SHAPE = {"conv_layers": ((24, 10, 5), (24, 3, 2), (24, 7, 4), (24, 9, 8)), "embed_dim": 32, "num_layers": 2}
SHAPE |= {"num_heads": 4, "ffn_dim": 48, "position_kernel": 16, "position_groups": 4}
ENCODERS = {
    # A student: group norm, heads, no norm after the extractor.
    "student": {"feature_norm": False, "prediction_layers": (4, 8), "prediction_dim": 40},
    # Large and pruned: layer norm, normalised waveforms, pre-norm, WavLM's gated bias, layers without a part, scales,
    # a stack of position convolutions, a kernel of several frames more than its stride, attention that is reused.
    "large": {
        "conv_layers": ((24, 10, 5), (20, 7, 4), (24, 19, 16)),
        "conv_norm": "layer",
        "conv_bias": True,
        "norm_first": True,
        "normalize_waveform": True,
        "num_layers": 4,
        "num_heads": (3, 0, 1, 1),
        "head_dim": 8,
        "ffn_dim": (10, 0, 20, 20),
        "attention_reuse": (3,),
        "relative_position": True,
        "gated_relative_position": True,
        "num_buckets": 32,
        "max_distance": 40,
        "position_bias_heads": ((0, 2, 3), (), (1,), (0,)),
        "position_depth": 2,
        "position_kernel": 7,
        "feature_scale": True,
    },
}


def build(seed=1, **options):
    """An encoder whose every parameter has a say."""
    torch.manual_seed(seed)
    encoder = SpeechEncoder(EncoderConfig(**{**SHAPE, **options})).eval()
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for name, value in encoder.named_parameters():
            if value.dim() == 1 or "table" in name or "scale" in name:
                value.add_(torch.randn(value.shape, generator=generator) * 0.3)
            elif "_proj" in name:
                value.mul_(5)
    return encoder


@pytest.fixture(scope="session")
def checkpoints(tmp_path_factory):
    """Checkpoint files by name."""
    folder = tmp_path_factory.mktemp("checkpoints")
    for name, options in ENCODERS.items():
        save_checkpoint(folder / f"{name}.ckpt", build(**options), {"recipe": "none", "license": "cc-by-4.0"})
    return {name: folder / f"{name}.ckpt" for name in ENCODERS}


@pytest.fixture(scope="session")
def exported(checkpoints, tmp_path_factory):
    """What :func:`export_model` returns, by name and kind of file; each is made when it is first asked for."""
    folder, made = tmp_path_factory.mktemp("exported"), {}

    def get(name, to, **options):
        key = (name, to)
        if key not in made:
            made[key] = export_model(checkpoints[name], folder / f"{name}-{to}.bin", to, **options)
        return made[key]

    return get
