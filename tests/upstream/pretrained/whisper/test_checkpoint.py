"""Whisper's files in three formats: one encoder, and what is cut, absurd, quantised or hostile is refused."""

import json
import os
import pickle
import shutil
import subprocess
import sys
import textwrap

import numpy as np
import pytest
import torch

from robustdistiller.upstream import CheckpointError, mini_teacher
from robustdistiller.upstream.pretrained.whisper.checkpoint import read_whisper
from robustdistiller.upstream.pretrained.whisper.recognise import ctranslate2_file
from tests.upstream.pretrained.whisper.conftest import ctranslate2_bytes, ctranslate2_variables


def weights_of(path):
    checkpoint = read_whisper(path)
    return checkpoint.format, checkpoint.config, checkpoint.build().state_dict()


def test_three_formats_one_encoder(folder, openai_file, ctranslate2_folder, model):
    of_huggingface, config, expected = weights_of(folder)
    others = [weights_of(path) for path in (openai_file, ctranslate2_folder, ctranslate2_folder / "model.bin")]
    assert [of_huggingface, *(name for name, *_ in others)] == [
        "whisper_huggingface",
        "whisper_openai",
        *("whisper_ctranslate2",) * 2,
    ]
    for _, other_config, weights in others:
        assert other_config == config and weights.keys() == expected.keys()
        assert all(torch.equal(weights[name], expected[name]) for name in expected)
    theirs = model.encoder.state_dict().values()
    assert sum(value.numel() for value in theirs) == sum(value.numel() for value in expected.values())


def test_other_huggingface_folders(folder, model, tmp_path):
    """A model for recognition, half precision, the old weight file."""
    from transformers import WhisperForConditionalGeneration

    whole = WhisperForConditionalGeneration(model.config).half()
    whole.model.load_state_dict(model.state_dict())
    shutil.copytree(folder, tmp_path / "a", ignore=shutil.ignore_patterns("*.safetensors"))
    torch.save(whole.state_dict(), tmp_path / "a" / "pytorch_model.bin")
    assert "model.encoder.conv1.weight" in whole.state_dict()
    found, expected = weights_of(tmp_path / "a")[2], weights_of(folder)[2]
    for name, value in expected.items():
        assert found[name].dtype == torch.float32
        torch.testing.assert_close(found[name], value.half().float(), rtol=0, atol=0)


def test_half_precision_of_ctranslate2(model, tmp_path, folder):
    variables = {
        name: value.astype(np.float16) if value.dtype == np.float32 else value
        for name, value in ctranslate2_variables(model).items()
    }
    (tmp_path / "model.bin").write_bytes(ctranslate2_bytes(variables, version=5))
    expected = weights_of(folder)[2]
    for name, value in weights_of(tmp_path)[2].items():
        assert torch.equal(value, expected[name].half().float())


def test_what_is_no_whisper_is_left_alone(tmp_path, folder):
    assert read_whisper(mini_teacher()) is None
    torch.save({"dims": {}}, tmp_path / "a.pt")
    assert read_whisper(tmp_path / "a.pt") is None
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "model.bin").write_bytes(ctranslate2_bytes({}, kind="TransformerSpec"))
    assert ctranslate2_file(tmp_path / "b") is None
    (tmp_path / "b" / "model.bin").write_bytes(b"\6\0\0\0\14\0Whis")
    assert ctranslate2_file(tmp_path / "b") is None
    with pytest.raises(FileNotFoundError, match="expected a file"):
        read_whisper(tmp_path / "nowhere.pt")


def cut(content, variables):
    return content[: len(content) // 2]


def cut_in_a_name(content, variables):
    return content[: content.index(b"encoder/num_heads") + 5]


def another_version(content, variables):
    return ctranslate2_bytes(variables, version=3)


def more_behind(content, variables):
    return content + b"\0" * 9


def absurd_count(content, variables):
    return content[:22] + b"\xff" * 4 + content[26:]


def absurd_name(content, variables):
    return content[:26] + b"\xff\xff" + content[28:]


def absurd_shape(content, variables):
    """A gigabyte of gigabytes, in the four sizes of one variable."""
    start = content.index(b"decoder/embeddings/weight\0") + len("decoder/embeddings/weight\0")
    return content[:start] + bytes([4]) + b"\xff\xff\xff\x3f" * 4 + content[start + 17 :]


def absurd_rank(content, variables):
    start = content.index(b"decoder/embeddings/weight\0") + len("decoder/embeddings/weight\0")
    return content[:start] + b"\xff" + content[start + 1 :]


def name_that_is_no_text(content, variables):
    return content.replace(b"encoder/num_heads", b"encoder/\xff\xfe\xfd_heads")


def twice(content, variables):
    return content.replace(b"encoder/conv2/bias", b"encoder/conv1/bias")


def alias_of_nothing(content, variables):
    return content[:-26] + b"x" + content[-25:]


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (cut, r"bytes are to follow byte \d+ of \d+"),
        (cut_in_a_name, "bytes are to follow byte"),
        (another_version, "its version is 3; this package reads 4, 5, 6"),
        (more_behind, "9 bytes follow the last entry"),
        (absurd_count, "bytes are to follow byte|does not end as names do"),
        (absurd_name, "does not end as names do"),
        (absurd_shape, "decoder/embeddings/weight' of shape .* has|bytes are to follow"),
        (absurd_rank, "has 255 dimensions, expected 8 at most"),
        (name_that_is_no_text, "codec can't decode"),
        (twice, "'encoder/conv1/bias' is there twice"),
        (alias_of_nothing, "which is not there"),
    ],
)
def test_damaged_ctranslate2_files_are_refused(damage, said, model, tmp_path):
    variables = ctranslate2_variables(model)
    (tmp_path / "model.bin").write_bytes(damage(ctranslate2_bytes(variables), variables))
    with pytest.raises(CheckpointError, match=said) as error:
        read_whisper(tmp_path)
    assert str(error.value).startswith(str(tmp_path)) and "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"encoder/layer_1/ffn/linear_0/weight": np.zeros((96, 24), np.int8)}, "holds int8; this package reads float"),
        (
            {"encoder/layer_1/ffn/linear_0/weight_scale": np.zeros(96, np.float32)},
            "unknown: layer_1/ffn/linear_0/weigh",
        ),
        ({"encoder/num_heads": None}, "encoder/num_heads is missing"),
        ({"encoder/num_heads": np.array(5, np.int16)}, "embed_dim 24 is not divisible by num_heads 5"),
        ({"encoder/num_heads": np.array(-1, np.int16)}, "num_heads is -1; expected 1 to 1000"),
        ({"encoder/conv1/weight": np.zeros(3, np.float32)}, "encoder/conv1/weight is missing, or has not 3 dimensions"),
        ({"encoder/layer_2/self_attention/linear_0/weight": np.zeros((71, 24), np.float32)}, "missing: layer_2/"),
        ({"encoder/conv2/bias": np.full(24, np.nan, np.float32)}, "not finite numbers, in conv2/bias"),
        ({"encoder/conv2/bias": None}, "missing: conv2/bias"),
        ({"encoder/conv2/bias": np.zeros(7, np.float32)}, r"conv2/bias has shape \(7,\), expected \(24,\)"),
    ],
)
def test_unfit_ctranslate2_weights_are_named(changes, said, model, tmp_path):
    variables = {**ctranslate2_variables(model), **changes}
    content = ctranslate2_bytes({name: value for name, value in variables.items() if value is not None})
    (tmp_path / "model.bin").write_bytes(content)
    with pytest.raises(CheckpointError, match=said):
        read_whisper(tmp_path)


def test_bfloat16_is_named(model, tmp_path):
    content = ctranslate2_bytes(ctranslate2_variables(model))
    place = content.index(b"encoder/conv1/bias\0") + len("encoder/conv1/bias\0") + 5
    content = (
        content[:place] + b"\5" + (48).to_bytes(4, "little") + content[place + 5 : place + 53] + content[place + 101 :]
    )
    (tmp_path / "model.bin").write_bytes(content)
    with pytest.raises(CheckpointError, match="encoder/conv1/bias holds bfloat16"):
        read_whisper(tmp_path)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"d_model": None}, "the option d_model is missing"),
        ({"d_model": 10**12}, "embed_dim is 1000000000000; expected 1 to 100000"),
        ({"d_model": "24"}, "embed_dim is 24; expected 1 to"),
        ({"encoder_layers": 10**9}, "num_layers is 1000000000; expected 1 to 1000"),
        ({"encoder_layers": 4}, "missing: layers.3.fc1.bias"),
        ({"encoder_layers": 2}, "unknown: layers.2.fc1.bias"),
        ({"max_source_positions": 99_999}, r"embed_positions.weight has shape \(1500, 24\), expected \(99999, 24\)"),
        ({"activation_function": "silu"}, "activation_function is 'silu'; this encoder knows gelu"),
        ({"activation_function": ["gelu"]}, r"activation_function is \"\['gelu'\]\"; this encoder knows gelu"),
        ({"num_mel_bins": 128}, r"conv1.weight has shape \(24, 80, 3\), expected \(24, 128, 3\)"),
    ],
)
def test_unfit_configurations_are_named(changes, said, folder, tmp_path):
    shutil.copytree(folder, tmp_path / "a")
    config = json.loads((folder / "config.json").read_text())
    (tmp_path / "a" / "config.json").write_text(json.dumps({**config, **changes}))
    with pytest.raises(CheckpointError, match=said):
        read_whisper(tmp_path / "a")


class Command:
    """Pickles as a command."""

    def __init__(self, mark):
        self.mark = mark

    def __reduce__(self):
        return os.mkdir, (self.mark,)


@pytest.mark.parametrize("place", ["dims", "model_state_dict"])
def test_nothing_in_a_file_is_run(place, openai_file, tmp_path):
    mark = tmp_path / "mark"
    content = torch.load(openai_file, weights_only=True)
    content[place] = Command(str(mark))
    torch.save(content, tmp_path / "a.pt", pickle_module=pickle)
    with pytest.raises(CheckpointError, match=r"not safe|should"):
        read_whisper(tmp_path / "a.pt")
    assert not mark.exists()


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"dims": 7}, "'dims' should be a dictionary of options"),
        ({"dims": {"n_audio_state": 24}}, "the option n_mels is missing"),
        ({"model_state_dict": {}}, "'model_state_dict' should hold the weights"),
        ({"model_state_dict": {"decoder.a": torch.zeros(1)}}, "the weights hold no encoder"),
    ],
)
def test_unfit_openai_files_are_named(changes, said, openai_file, tmp_path):
    torch.save({**torch.load(openai_file, weights_only=True), **changes}, tmp_path / "a.pt")
    with pytest.raises(CheckpointError, match=said):
        read_whisper(tmp_path / "a.pt")


def test_a_cut_openai_file(openai_file, tmp_path):
    (tmp_path / "a.pt").write_bytes(openai_file.read_bytes()[:-5000])
    with pytest.raises(CheckpointError, match="is the download complete"):
        read_whisper(tmp_path / "a.pt")


def test_memory_is_bounded_by_what_is_used(model, tmp_path):
    """A decoder of 300 MB stays on the disk, and so does what a size merely claims."""
    variables = {"decoder/big": np.zeros(300_000_000, np.int8), **ctranslate2_variables(model)}
    (tmp_path / "model.bin").write_bytes(ctranslate2_bytes(variables))
    program = """
        import resource, sys
        from robustdistiller.upstream.pretrained.whisper.checkpoint import read_whisper
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        read_whisper(sys.argv[1]).build()
        print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
    """
    run = [sys.executable, "-c", textwrap.dedent(program), str(tmp_path)]
    grown_kb = int(subprocess.run(run, capture_output=True, text=True, check=True).stdout)
    assert grown_kb < 100_000
