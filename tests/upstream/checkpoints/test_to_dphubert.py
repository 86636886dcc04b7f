"""What `convert --to dphubert` writes: what DPHuBERT's own files hold, and what comes back."""

import pytest
import torch
from typer.testing import CliRunner

from robustdistiller.cli.main import app
from robustdistiller.upstream import EncoderConfig, SpeechEncoder, load_encoder, read_checkpoint, save_checkpoint
from robustdistiller.upstream.checkpoints.export import export_checkpoint
from robustdistiller.upstream.checkpoints.formats import TARGETS
from robustdistiller.upstream.checkpoints.formats.base import NotExportable
from robustdistiller.upstream.checkpoints.parameter_names import older_spelling
from tests.upstream.model.test_equal_to_torchaudio import LARGE, error, pruned_hubert, pruned_wavlm

CONV = ((7, 10, 5), (9, 3, 2), (8, 3, 2), (5, 3, 2), (11, 3, 2), (6, 2, 2), (13, 2, 2))
PRUNED = {"conv_layers": CONV, "embed_dim": 36, "num_layers": 3, "position_kernel": 17, "position_groups": 4}
PRUNED |= {"num_heads": (2, 0, 3), "head_dim": 12, "ffn_dim": (10, 5, 0), "feature_scale": True}
RELATIVE = {"relative_position": True, "gated_relative_position": True, "num_buckets": 32, "max_distance": 40}
COLUMNS = {"position_bias_heads": ((2, 0), (), (0, 1, 2))}
WHOLE = {"num_heads": 3, "head_dim": None, "ffn_dim": 50, "feature_scale": False}
CASES = {
    "hubert": {},
    "hubert-large": {"conv_norm": "layer", "conv_bias": True, "norm_first": True, "normalize_waveform": True},
    "wavlm": {**RELATIVE, **COLUMNS},
    "unpruned": WHOLE,
    "unpruned-wavlm": {**WHOLE, **RELATIVE},
    "dropouts": {"dropout": 0.2, "attention_dropout": 0.3, "activation_dropout": 0.4, "feature_dropout": 0.5},
    "layerdrop": {"layerdrop": 0.1},
}


def build(**options):
    """An encoder in eval mode in which every parameter has a say."""
    torch.manual_seed(5)
    encoder = SpeechEncoder(EncoderConfig(**{**PRUNED, "first_state": "projected", **options})).eval()
    with torch.no_grad():
        for name, value in encoder.named_parameters():
            value.add_(torch.randn(value.shape) * (0.3 if value.dim() == 1 or "gate" in name else 0.1))
    return encoder


def write(encoder, folder, **options):
    save_checkpoint(folder / "model.ckpt", encoder, {"teacher": "none"})
    return export_checkpoint(folder / "model.ckpt", folder / "out.pth", "dphubert", overwrite=True, **options)


@pytest.mark.parametrize("name", CASES)
def test_back_bit_for_bit(name, equality, tmp_path):
    encoder = build(**CASES[name])
    exported = write(encoder, tmp_path)
    back = read_checkpoint(exported.path)
    assert back.format == "dphubert" and exported.model == "DPHuBERT's wav2vec2_model"
    shape, found = encoder.config, back.config
    assert found.heads == shape.heads and found.ffn_dims == shape.ffn_dims and found.bias_columns == shape.bias_columns
    free = {"num_heads", "head_dim", "ffn_dim", "projection", "position_bias_heads", "feature_scale"}
    different = {key for key, value in shape.to_dict().items() if found.to_dict()[key] != value}
    assert different <= (free if name.startswith("unpruned") else {"projection"})
    expected = dict(encoder.state_dict())
    added = back.state_dict.keys() - expected.keys()
    assert added == ({"extractor.scale"} if name.startswith("unpruned") else set())
    assert any("factor of 1 per channel" in note for note in exported.notes) == bool(added)
    assert all(torch.equal(back.state_dict[key], value) for key, value in expected.items())
    waveforms, lengths = equality.batch((6000, 4000, 2500)), torch.tensor((6000, 4000, 2500))
    with torch.no_grad():
        ours, theirs = encoder(waveforms, lengths), back.build()(waveforms, lengths)
    assert all(torch.equal(a, b) for a, b in zip(ours.hidden_states, theirs.hidden_states))


@pytest.mark.parametrize("kind", ["hubert", "hubert-large", "wavlm"])
def test_the_files_of_the_original_are_written_again(kind, equality, tmp_path):
    """Names, shapes and values as in files made with torchaudio's modules, and every option that those have."""
    make = pruned_wavlm if kind == "wavlm" else pruned_hubert
    _, content = make(equality, **(LARGE if kind == "hubert-large" else {}))
    torch.save(content, tmp_path / "theirs.pth")
    export_checkpoint(tmp_path / "theirs.pth", tmp_path / "ours.pth", "dphubert")
    ours = torch.load(tmp_path / "ours.pth", weights_only=True)
    theirs = older_spelling(content["state_dict"])
    assert ours["state_dict"].keys() == theirs.keys()
    assert all(torch.equal(ours["state_dict"][name], value) for name, value in theirs.items())
    plain = {key: value for key, value in content["config"].items() if key != "extractor_conv_layer_config"}
    assert {key: ours["config"][key] for key in plain} == plain
    assert [tuple(x) for x in ours["config"]["extractor_conv_layer_config"]] == [
        tuple(x) for x in content["config"]["extractor_conv_layer_config"]
    ]


@pytest.mark.parametrize("options", [{}, LARGE], ids=["base", "large"])
def test_equal_in_the_modules_of_the_original(options, equality, tmp_path):
    """The written weights, loaded strictly into pruned torchaudio modules, compute what our encoder computes."""
    model, content = pruned_hubert(equality, **options)
    torch.save(content, tmp_path / "theirs.pth")
    encoder = equality.randomise(load_encoder(tmp_path / "theirs.pth", padding="reference", normalize_waveform=False))
    assert error(model, encoder, (8000,), equality) > equality.TOLERANCE  # other weights by now
    written = torch.load(write(encoder, tmp_path).path, weights_only=True)["state_dict"]
    names = zip(model.state_dict(), older_spelling(model.state_dict()))
    model.load_state_dict({name: written.pop(older) for name, older in names}, strict=True)
    assert not written
    assert error(model, encoder, (8000,), equality) <= equality.TOLERANCE
    if not options:
        unnoticed = equality.unnoticed_mutations(encoder, lambda: error(model, encoder, (4000,), equality))
        assert unnoticed == []


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"num_layers": 0, "num_heads": (), "ffn_dim": ()}, "has no transformer layer"),
        ({"feature_norm": False}, "has no layer norm between the conv extractor"),
        ({**WHOLE, "embed_dim": 13, "num_heads": 1, "position_groups": 1, "projection": False}, "has no projection"),
        ({"activation": "relu"}, "its activation is relu"),
        ({"position_depth": 2}, "stack of convolutions"),
        ({"num_heads": (2, 2, 0), "attention_reuse": (1,)}, "reuse attention weights"),
        ({**RELATIVE, "gated_relative_position": False, **COLUMNS}, "has no gates"),
        (
            {**RELATIVE, "num_heads": (0, 2, 3), "position_bias_heads": ((), (0, 1), (0, 1, 2))},
            "first layer has no att",
        ),
        ({**RELATIVE, "head_dim": 10, **COLUMNS}, "not a multiple of its heads' width 10"),
    ],
)
def test_what_the_format_cannot_hold_is_refused(options, reason, tmp_path):
    config = EncoderConfig(**{**PRUNED, **options})
    assert reason in TARGETS["dphubert"].obstacle(config)
    with pytest.raises(NotExportable, match=f"cannot be written for DPHuBERT's code: .*{reason}"):
        write(SpeechEncoder(config), tmp_path)
    assert not (tmp_path / "out.pth").exists()


def test_what_is_left_out_is_said(tmp_path):
    options = {"prediction_layers": (4, 8), "feature_grad_mult": 0.1, "first_state": "layer_input"}
    notes = write(build(**options), tmp_path, drop_heads=False).notes
    for part in ("prediction heads (teacher layers 4, 8) are left out", "feature_grad_mult 0.1", "hidden state 0"):
        assert any(part in note for note in notes), notes
    assert read_checkpoint(tmp_path / "out.pth").config.prediction_layers == ()
    for name, told in (("hubert", 0), ("hubert-large", 1)):
        notes = write(build(**CASES[name]), tmp_path).notes
        assert sum("DPHuBERT's extract_features is what enters the final layer norm" in note for note in notes) == told


def test_command(tmp_path):
    save_checkpoint(tmp_path / "model.ckpt", build(), {})
    arguments = ["convert", str(tmp_path / "model.ckpt"), str(tmp_path / "out.pth"), "--to", "dphubert"]
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 0 and "DPHuBERT's wav2vec2_model" in result.output
    found = CliRunner().invoke(app, ["inspect", str(tmp_path / "out.pth")])
    assert "--to dphubert" in found.output.replace("\n", " ")
