"""Checkpoint files: strict reading, hostile content, our own format."""

import argparse
import collections
import os
import zipfile

import pytest
import torch

from robustdistiller.upstream import (
    EncoderConfig,
    SpeechEncoder,
    checkpoint_digest,
    load_encoder,
    read_checkpoint,
    save_checkpoint,
)
from robustdistiller.upstream.checkpoints.formats.fairseq import parse_conv_layers
from robustdistiller.upstream.checkpoints.parameter_names import fairseq_name
from robustdistiller.upstream.checkpoints.safe_load import safe_load

SHAPE = {"embed_dim": 24, "num_layers": 2, "num_heads": 2, "ffn_dim": 32, "position_kernel": 8, "position_groups": 4}
SHAPE |= {"conv_layers": ((16, 10, 5), (16, 8, 4))}
CFG = {"encoder_embed_dim": 24, "encoder_layers": 2, "encoder_attention_heads": 2, "encoder_ffn_embed_dim": 32}
CFG |= {"conv_pos": 8, "conv_pos_groups": 4}
CONV = "[(16,10,5),(16,8,4)]"


def make(**options):
    torch.manual_seed(2)
    return SpeechEncoder(EncoderConfig(**{**SHAPE, **options})).eval()


def fairseq_weights(encoder):
    """The encoder's weights as a file of the fairseq family spells them."""
    return {fairseq_name(name, encoder.config): value.clone() for name, value in encoder.state_dict().items()}


def distiller_content(encoder, **more):
    weights = fairseq_weights(encoder)
    weights["output_layer.2.bias"] = weights["output_layer.2.bias"][None, None]
    layers = list(encoder.config.prediction_layers)
    options = {**CFG, "extractor_conv_feature_layers": CONV, "n_tasks": len(layers), "pred_layer_id": layers}
    return {"Config": {"distiller": {**options, "final_dim": 24}}, "Distiller": weights, **more}


@pytest.fixture
def student():
    return make(feature_norm=False, prediction_layers=(4, 8))


@pytest.fixture
def wavlm_file(tmp_path):
    """A function that writes a WavLM file after changing its content."""

    def write(change=lambda content: None):
        encoder = make(relative_position=True, gated_relative_position=True, num_buckets=32)
        cfg = {**CFG, "conv_feature_layers": CONV, "relative_position_embedding": True, "gru_rel_pos": True}
        content = {"cfg": {**cfg, "num_buckets": 32, "max_distance": 800}, "model": fairseq_weights(encoder)}
        content["model"]["mask_emb"] = torch.zeros(24)
        change(content)
        torch.save(content, tmp_path / "wavlm.pt")
        return tmp_path / "wavlm.pt"

    return write


def same_weights(a, b):
    a, b = a.state_dict(), b.state_dict()
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def test_missing_unknown_and_misshapen_keys_are_listed(wavlm_file):
    read_checkpoint(wavlm_file())

    def damage(content):
        del content["model"]["encoder.layers.1.fc2.bias"], content["model"]["encoder.layers.0.self_attn.grep_a"]
        content["model"]["encoder.layers.2.fc1.weight"] = torch.zeros(3)
        content["model"]["post_extract_proj.weight"] = torch.zeros(24, 15)

    with pytest.raises(ValueError) as error:
        read_checkpoint(wavlm_file(damage))
    text = str(error.value)
    assert "wavlm.pt" in text
    assert "missing: encoder.layers.0.self_attn.grep_a, encoder.layers.1.fc2.bias;" in text
    assert "unknown: encoder.layers.2.fc1.weight;" in text
    assert "post_extract_proj.weight has shape (24, 15), expected (24, 16)" in text


def test_weight_norm_spelling_of_newer_pytorch(wavlm_file):
    def respell(content):
        weights = content["model"]
        for old, new in (("weight_g", "original0"), ("weight_v", "original1")):
            weights[f"encoder.pos_conv.0.parametrizations.weight.{new}"] = weights.pop(f"encoder.pos_conv.0.{old}")

    assert same_weights(load_encoder(wavlm_file()), load_encoder(wavlm_file(respell)))


@pytest.mark.parametrize(
    ("option", "value", "message"),
    [
        ("activation_fn", "glu", "activation_fn is 'glu'; this encoder knows gelu"),
        ("layer_type", "conformer", "layer_type is 'conformer'; this encoder knows only 'transformer'"),
        ("conv_feature_layers", "__import__('os').system('true')", "expected a list of"),
    ],
)
def test_unknown_architectures_are_refused(wavlm_file, option, value, message):
    with pytest.raises(ValueError, match=message):
        read_checkpoint(wavlm_file(lambda content: content["cfg"].update({option: value})))


def test_conv_layers_are_parsed_without_eval():
    assert parse_conv_layers("[(512,10,5)] + [(512,3,2)] * 4 + [(512,2,2)] * 2") == EncoderConfig().conv_layers
    for text in ("[(1,2", "open('x')", "[(1,2,3)] * 10**9", "1 + [(1,2,3)]"):
        with pytest.raises(ValueError, match="expected a list of"):
            parse_conv_layers(text)


def test_distiller_layout_with_a_runners_states(student, tmp_path):
    """What s3prl's pre-training runner adds is neither needed nor instantiated."""
    extra = {
        "Args": argparse.Namespace(seed=1),
        "Optimizer": collections.defaultdict(dict, {0: {"step": 1}}),
        "Step": 7,
    }
    torch.save(distiller_content(student, **extra), tmp_path / "states.ckpt")
    checkpoint = read_checkpoint(tmp_path / "states.ckpt")
    assert checkpoint.format == "distiller"
    assert checkpoint.config.prediction_layers == (4, 8) and not checkpoint.config.feature_norm
    assert same_weights(checkpoint.build(), student)


def test_distiller_student_that_kept_the_relative_positions(tmp_path):
    options = {"relative_position": True, "gated_relative_position": True, "num_buckets": 40}
    student = make(feature_norm=False, prediction_layers=(4, 8), **options)
    torch.save(distiller_content(student), tmp_path / "states.ckpt")
    loaded = load_encoder(tmp_path / "states.ckpt")
    assert (loaded.config.num_buckets, loaded.config.max_distance) == (40, 800)
    assert same_weights(loaded, student)


def test_own_format_round_trip(student, tmp_path):
    path = tmp_path / "new" / "folder" / "student.ckpt"
    save_checkpoint(path, student, {"teacher": "wavlm_base_plus", "recipe": {"layers": [4, 8]}})
    content, _ = safe_load(path)
    assert (content["format"], content["format_version"]) == ("robustdistiller", 2)
    checkpoint = read_checkpoint(path)
    assert checkpoint.config == student.config and same_weights(checkpoint.build(), student)
    assert checkpoint.metadata["teacher"] == "wavlm_base_plus"
    assert checkpoint.metadata["versions"].keys() == {"python", "torch", "robustdistiller"}
    assert list(path.parent.iterdir()) == [path]  # no temporary file stays
    assert path.stat().st_mode & 0o777 == 0o666 & ~_umask()


def test_half_precision_storage(student, tmp_path):
    save_checkpoint(tmp_path / "full.ckpt", student, {})
    save_checkpoint(tmp_path / "half.ckpt", student, {}, dtype=torch.float16)
    assert (tmp_path / "half.ckpt").stat().st_size < 0.75 * (tmp_path / "full.ckpt").stat().st_size
    loaded = load_encoder(tmp_path / "half.ckpt")
    for name, value in student.state_dict().items():
        assert loaded.state_dict()[name].dtype == torch.float32
        assert torch.equal(loaded.state_dict()[name], value.half().float())


def test_what_cannot_be_stored_is_refused_and_nothing_is_written(student, tmp_path):
    with pytest.raises(ValueError, match="metadata must hold JSON values only"):
        save_checkpoint(tmp_path / "a.ckpt", student, {"when": torch.zeros(1)})
    with torch.no_grad():
        student.transformer.layers[0].up.bias[0] = 1e6
    with pytest.raises(
        ValueError, match=r"transformer.layers.0.up.bias has values that are not finite as torch.float16"
    ):
        save_checkpoint(tmp_path / "a.ckpt", student, {}, dtype=torch.float16)
    assert list(tmp_path.iterdir()) == []


def test_own_format_is_strict(student, tmp_path):
    save_checkpoint(tmp_path / "a.ckpt", student, {})
    content, _ = safe_load(tmp_path / "a.ckpt")
    for change, message in [
        ({"format_version": 3}, "format_version is 3, this package reads 1 to 2"),
        ({"format_version": torch.ones(2)}, "format_version is 'Tensor', this package reads 1 to 2"),
        ({"config": {**content["config"], "num_head": 3}}, "unknown encoder option 'num_head'"),
        ({"state_dict": {"a": torch.ones(1)}}, "missing: extractor.layers.0.conv.weight"),
        ({"state_dict": {}}, "'state_dict' should hold the weights"),
    ]:
        torch.save({**content, **change}, tmp_path / "b.ckpt")
        with pytest.raises(ValueError, match=message):
            read_checkpoint(tmp_path / "b.ckpt")


def test_overrides_reach_the_configuration(student, tmp_path):
    save_checkpoint(tmp_path / "a.ckpt", student, {})
    assert load_encoder(tmp_path / "a.ckpt", dropout=0.0).config.dropout == 0.0
    with pytest.raises(ValueError, match="unknown encoder option 'droput'; did you mean 'dropout'"):
        load_encoder(tmp_path / "a.ckpt", droput=0.0)


def test_unreadable_files(tmp_path):
    with pytest.raises(FileNotFoundError, match="expected a file, found nothing there"):
        read_checkpoint(tmp_path / "absent.pt")
    with pytest.raises(FileNotFoundError, match="expected a file, found a folder there"):
        read_checkpoint(tmp_path)
    (tmp_path / "page.pt").write_text("<html>404</html>")
    with pytest.raises(ValueError, match="is the download complete"):
        read_checkpoint(tmp_path / "page.pt")
    with zipfile.ZipFile(tmp_path / "other.pt", "w") as archive:
        archive.writestr("readme", "not a checkpoint")
    with pytest.raises(ValueError, match="is the download complete"):
        read_checkpoint(tmp_path / "other.pt")
    torch.save([1, 2], tmp_path / "list.pt")
    with pytest.raises(ValueError, match="holds a list; expected a checkpoint"):
        read_checkpoint(tmp_path / "list.pt")
    torch.save({"weights": 1}, tmp_path / "keys.pt")
    with pytest.raises(
        ValueError, match=r"unknown checkpoint format with the keys weights. Looked for: robustdistiller"
    ):
        read_checkpoint(tmp_path / "keys.pt")
    torch.save({"args": None, "model": {}, "optimizer_history": []}, tmp_path / "fairseq.pt")
    with pytest.raises(ValueError, match="'args' should be a dictionary of options, found NoneType"):
        read_checkpoint(tmp_path / "fairseq.pt")


def test_truncated_download(wavlm_file):
    path = wavlm_file()
    path.write_bytes(path.read_bytes()[:-2000])
    with pytest.raises(ValueError, match="is the download complete"):
        read_checkpoint(path)


def test_digest_changes_with_the_file(tmp_path):
    (tmp_path / "a").write_bytes(b"abc")
    assert checkpoint_digest(tmp_path / "a") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    (tmp_path / "a").write_bytes(b"abd")
    assert checkpoint_digest(tmp_path / "a") != "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"


def _umask():
    value = os.umask(0)
    os.umask(value)
    return value
