"""``inspect``: what it says of good, foreign, hostile and unreadable files, as text and as JSON."""

import argparse
import json
import os

import pytest
import torch
from typer.testing import CliRunner

from robustdistiller.cli.main import app
from robustdistiller.upstream import EncoderConfig, SpeechEncoder, save_checkpoint
from robustdistiller.upstream.checkpoints.formats import FORMATS
from robustdistiller.upstream.checkpoints.inspection import inspect_checkpoint
from robustdistiller.upstream.checkpoints.parameter_names import fairseq_name, huggingface_name, torchaudio_name

SHAPE = {"embed_dim": 24, "num_layers": 2, "num_heads": 2, "ffn_dim": 32, "position_kernel": 8, "position_groups": 4}
SHAPE |= {"conv_layers": ((16, 10, 5), (16, 8, 4))}
CFG = {"encoder_embed_dim": 24, "encoder_layers": 2, "encoder_attention_heads": 2, "encoder_ffn_embed_dim": 32}
CFG |= {"conv_pos": 8, "conv_pos_groups": 4, "conv_feature_layers": "[(16,10,5),(16,8,4)]"}


def encoder(**options):
    return SpeechEncoder(EncoderConfig(**{**SHAPE, **options}))


def renamed(model, name):
    return {name(key, model.config): value for key, value in model.state_dict().items()}


def students(path):
    model = encoder(feature_norm=False, prediction_layers=(4, 8))
    weights = renamed(model, fairseq_name)
    weights["output_layer.2.bias"] = weights["output_layer.2.bias"][None, None]
    cfg = {**CFG, "extractor_conv_feature_layers": CFG["conv_feature_layers"], "n_tasks": 2, "pred_layer_id": [4, 8]}
    content = {"Config": {"distiller": {**cfg, "final_dim": 24}}, "Distiller": weights, "Step": 200000}
    content["Args"] = argparse.Namespace(upstream="robust_distiller", seed=1337)
    content["Optimizer"] = torch.optim.AdamW(model.parameters()).state_dict()
    torch.save(content, path)


def converted(path, **more):
    task = {"normalize": True}
    torch.save({"task_cfg": task, "model_cfg": CFG, "model_weight": renamed(encoder(), fairseq_name), **more}, path)


def huggingface(path):
    path.mkdir()
    config = {"model_type": "hubert", "hidden_size": 24, "num_hidden_layers": 2, "num_attention_heads": 2}
    config |= {"intermediate_size": 32, "conv_dim": [16, 16], "conv_kernel": [10, 8], "conv_stride": [5, 4]}
    config |= {"num_conv_pos_embeddings": 8, "num_conv_pos_embedding_groups": 4}
    (path / "config.json").write_text(json.dumps(config))
    torch.save(renamed(encoder(projection=True), huggingface_name), path / "pytorch_model.bin")


WRITERS = {
    "robustdistiller": lambda path: save_checkpoint(path, encoder(), {"teacher": "none", "data": {"hours": 960}}),
    "distiller": students,
    "hubert": lambda path: converted(path, dictionaries_symbols=[["a"]]),
    "wav2vec2": converted,
    "wavlm": lambda path: torch.save({"cfg": CFG, "model": renamed(encoder(), fairseq_name)}, path),
    "fairseq": lambda path: torch.save(
        {"args": argparse.Namespace(arch="hubert", **CFG), "model": renamed(encoder(), fairseq_name)}, path
    ),
    "huggingface": huggingface,
    "torchaudio": lambda path: torch.save(renamed(encoder(projection=True), torchaudio_name), path),
}


@pytest.mark.parametrize("name", WRITERS)
def test_every_kind_is_described(name, tmp_path):
    path = tmp_path / "model"
    WRITERS[name](path)
    found = inspect_checkpoint(path, num_heads=2 if name == "torchaudio" else None)
    assert (found.error, found.format, found.safe) == (None, name, True)
    assert (found.layers, found.hidden_size, found.heads) == (2, 24, (2, 2))
    assert found.normalizes_input == (name in ("hubert", "wav2vec2"))
    assert found.parameters == encoder(**found.config).count_parameters() and found.size_bytes > 4 * found.parameters
    assert EncoderConfig.from_dict(json.loads(json.dumps(found.to_dict()))["config"]).num_layers == 2
    assert any("robustdistiller_local" in command for command in found.commands)
    result = CliRunner().invoke(app, ["inspect", str(path), *(["--num-heads", "2"] if name == "torchaudio" else [])])
    assert result.exit_code == 0 and f"{found.parameters:,}" in result.output and name in result.output


def test_what_a_runner_left_behind(tmp_path):
    students(tmp_path / "states.ckpt")
    found = inspect_checkpoint(tmp_path / "states.ckpt")
    assert found.prediction_layers == (4, 8) and found.head_parameters > 0
    assert "Step: 200000" in found.holds
    assert "Args: an object of argparse.Namespace with 2 entries" in found.holds
    assert any(sentence.startswith("Optimizer: 2 entries") for sentence in found.holds)
    assert found.not_built == ("argparse.Namespace",)
    assert not any("distill " in command for command in found.commands)  # a student is no teacher


def test_json(tmp_path):
    WRITERS["robustdistiller"](tmp_path / "a.ckpt")
    result = CliRunner().invoke(app, ["inspect", str(tmp_path / "a.ckpt"), "--json"])
    found = json.loads(result.output)
    assert (found["readable"], found["format"], found["metadata"]["data"]) == (True, "robustdistiller", {"hours": 960})
    result = CliRunner().invoke(app, ["inspect", str(tmp_path / "b.ckpt"), "--json"])
    assert result.exit_code == 1 and json.loads(result.output)["readable"] is False


class Hostile:
    def __reduce__(self):
        return os.system, ("true",)


def test_a_hostile_file_is_called_unsafe(tmp_path):
    torch.save({"Config": {}, "Distiller": Hostile()}, tmp_path / "a.ckpt")
    result = CliRunner().invoke(app, ["inspect", str(tmp_path / "a.ckpt")])
    assert result.exit_code == 1
    text = " ".join(result.output.split())
    assert "safe NO" in text and "posix.system" in text and "Nothing in it was run" in text


@pytest.mark.parametrize("kind", ["text", "keys", "folder", "absent"])
def test_unknown_things_say_what_was_looked_for(kind, tmp_path):
    path = tmp_path / "thing"
    if kind == "text":
        path.write_text("hello")
    elif kind == "keys":
        torch.save({"net": {"a": torch.ones(2)}, "epoch": 3}, path)
    elif kind == "folder":
        path.mkdir()
    result = CliRunner().invoke(app, ["inspect", str(path)])
    assert result.exit_code == 1 and result.exception.__class__ is SystemExit
    for layout in FORMATS:
        assert f"{layout.name}: " in result.output
    if kind == "keys":
        assert "unknown checkpoint format with the keys net, epoch" in " ".join(result.output.split())


def test_a_known_layout_that_does_not_fit_is_an_error_with_path_and_key(tmp_path):
    torch.save({"cfg": CFG, "model": {"layer_norm.weight": torch.ones(3)}}, tmp_path / "wavlm.pt")
    result = CliRunner().invoke(app, ["inspect", str(tmp_path / "wavlm.pt")])
    text = " ".join(result.output.split())
    assert result.exit_code == 1 and "wavlm.pt: the weights do not fit" in text
    assert "layer_norm.weight has shape (3,), expected (16,)" in text and "Looked for" not in text
