"""A small Whisper of transformers with random weights in which every parameter has a say, and files of it."""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import WhisperConfig as TheirConfig
from transformers import WhisperModel

SHAPE = {"d_model": 24, "encoder_layers": 3, "encoder_attention_heads": 4, "encoder_ffn_dim": 96}
SHAPE |= {
    "decoder_layers": 1,
    "decoder_attention_heads": 2,
    "decoder_ffn_dim": 32,
    "vocab_size": 51,
    "num_mel_bins": 80,
}
SPECIAL = dict.fromkeys(("pad_token_id", "bos_token_id", "eos_token_id", "decoder_start_token_id"), 1)


def make_model(**options) -> WhisperModel:
    """In eval mode."""
    with torch.random.fork_rng():
        torch.manual_seed(3)
        model = WhisperModel(TheirConfig(**{**SHAPE, **SPECIAL, **options})).eval()
        with torch.no_grad():
            for name, value in model.encoder.named_parameters():
                if value.dim() == 1:
                    value.add_(torch.randn(value.shape) * 0.3)
                elif "embed_positions" not in name:
                    value.mul_(1.5 / (value.std() * value[0].numel() ** 0.5))
    return model


@pytest.fixture(scope="session")
def model() -> WhisperModel:
    return make_model()


@pytest.fixture(scope="session")
def folder(model, tmp_path_factory) -> Path:
    """As transformers saves it."""
    path = tmp_path_factory.mktemp("whisper") / "huggingface"
    model.save_pretrained(path)
    return path


@pytest.fixture(scope="session")
def openai_file(model, tmp_path_factory) -> Path:
    """As OpenAI publishes it: half precision, names of its own."""
    names = {"self_attn.q_proj": "attn.query", "self_attn.k_proj": "attn.key", "self_attn.v_proj": "attn.value"}
    names |= {"self_attn.out_proj": "attn.out", "self_attn_layer_norm": "attn_ln", "final_layer_norm": "mlp_ln"}
    names |= {"fc1": "mlp.0", "fc2": "mlp.2", "layers": "blocks", "layer_norm": "ln_post"}
    names |= {"embed_positions.weight": "positional_embedding"}
    weights = {"decoder.token_embedding.weight": torch.zeros(51, 24)}
    for name, value in model.encoder.state_dict().items():
        for theirs, openai in names.items():
            name = name.replace(theirs, openai)
        weights[f"encoder.{name}"] = value
    dims = {"n_mels": 80, "n_audio_ctx": 1500, "n_audio_state": 24, "n_audio_head": 4, "n_audio_layer": 3}
    path = tmp_path_factory.mktemp("whisper") / "small.pt"
    torch.save({"dims": {**dims, "n_vocab": 51}, "model_state_dict": weights}, path)
    return path


def text(value: str) -> bytes:
    return struct.pack("<H", len(value) + 1) + value.encode() + b"\0"


def variable(name: str, value: np.ndarray, code: int | None = None) -> bytes:
    code = {"float32": 0, "int8": 1, "int16": 2, "int32": 3, "float16": 4}[value.dtype.name] if code is None else code
    sizes = struct.pack(f"<{value.ndim}I", *value.shape)
    return text(name) + bytes([value.ndim]) + sizes + bytes([code]) + struct.pack("<I", value.nbytes) + value.tobytes()


def ctranslate2_variables(model: WhisperModel) -> dict[str, np.ndarray]:
    """What ctranslate2's converter makes of a model's encoder, and a bit of a decoder."""
    weights = {name: value.numpy() for name, value in model.encoder.state_dict().items()}
    found = {"decoder/embeddings/weight": np.zeros((51, 24), np.int8), "encoder/num_heads": np.array(4, np.int16)}
    found["encoder/position_encodings/encodings"] = weights["embed_positions.weight"]
    for conv in ("conv1", "conv2"):
        found |= {f"encoder/{conv}/{which}": weights[f"{conv}.{which}"] for which in ("weight", "bias")}
    norms, linears = {"layer_norm": "encoder/layer_norm"}, {}
    for layer in range(model.config.encoder_layers):
        ours, here = f"layers.{layer}", f"encoder/layer_{layer}"
        norms[f"{ours}.self_attn_layer_norm"] = f"{here}/self_attention/layer_norm"
        norms[f"{ours}.final_layer_norm"] = f"{here}/ffn/layer_norm"
        linears[f"{ours}.self_attn.out_proj"] = f"{here}/self_attention/linear_1"
        linears |= {f"{ours}.fc1": f"{here}/ffn/linear_0", f"{ours}.fc2": f"{here}/ffn/linear_1"}
        stacked = [weights[f"{ours}.self_attn.{part}_proj.weight"] for part in "qkv"]
        biases = [weights[f"{ours}.self_attn.{part}_proj.bias"] for part in "qv"]
        found[f"{here}/self_attention/linear_0/weight"] = np.concatenate(stacked)
        found[f"{here}/self_attention/linear_0/bias"] = np.concatenate([biases[0], 0 * biases[0], biases[1]])
    for theirs, name in norms.items():
        found |= {f"{name}/gamma": weights[f"{theirs}.weight"], f"{name}/beta": weights[f"{theirs}.bias"]}
    for theirs, name in linears.items():
        found |= {f"{name}/weight": weights[f"{theirs}.weight"], f"{name}/bias": weights[f"{theirs}.bias"]}
    return found


def ctranslate2_bytes(variables: dict[str, np.ndarray], version: int = 6, kind: str = "WhisperSpec") -> bytes:
    """The file with these variables, and an alias of one of the decoder's."""
    head = struct.pack("<I", version) + text(kind) + struct.pack("<II", 3, len(variables))
    body = b"".join(variable(name, value) for name, value in variables.items())
    aliases = struct.pack("<I", 1) + text("decoder/projection/weight") + text("decoder/embeddings/weight")
    return head + body + aliases


@pytest.fixture(scope="session")
def ctranslate2_folder(model, tmp_path_factory) -> Path:
    """With a configuration beside it that says nothing of the shape."""
    path = tmp_path_factory.mktemp("whisper") / "ctranslate2"
    path.mkdir()
    (path / "config.json").write_text('{"lang_ids": [50259]}')
    (path / "model.bin").write_bytes(ctranslate2_bytes(ctranslate2_variables(model)))
    return path
