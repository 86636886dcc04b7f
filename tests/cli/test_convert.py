"""`robustdistiller convert` as a user calls it."""

import pytest
import torch
from typer.testing import CliRunner

from robustdistiller.cli.main import app
from robustdistiller.upstream import EncoderConfig, SpeechEncoder, read_checkpoint, save_checkpoint

SHAPE = {"embed_dim": 24, "num_layers": 2, "num_heads": 2, "ffn_dim": 32, "position_kernel": 8, "position_groups": 4}
SHAPE |= {"conv_layers": ((16, 10, 5), (16, 8, 4)), "feature_norm": False, "prediction_layers": (4, 8)}


@pytest.fixture
def student(tmp_path):
    torch.manual_seed(1)
    save_checkpoint(tmp_path / "student.ckpt", SpeechEncoder(EncoderConfig(**SHAPE)), {"recipe": "robustdistiller"})
    return tmp_path / "student.ckpt"


def run(*arguments):
    result = CliRunner().invoke(app, ["convert", *map(str, arguments)])
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result


def test_convert_says_what_reads_the_result_and_what_is_left_out(student, tmp_path):
    result = run(student, tmp_path / "hf", "--to", "huggingface")
    assert result.exit_code == 0
    assert "transformers.HubertModel" in result.output
    assert "note: the prediction heads (teacher layers 4, 8) are left out" in result.output
    weights = read_checkpoint(tmp_path / "hf").state_dict
    assert all(torch.equal(value, read_checkpoint(student).state_dict[name]) for name, value in weights.items())


def test_an_entry_is_a_source(tmp_path):
    result = run("robustdistiller_mini", tmp_path / "mini.pt", "--to", "s3prl", "--license", "apache-2.0")
    assert result.exit_code == 0 and "wav2vec2_local" in result.output


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ["student.ckpt", "out", "--to", "torchaudio"],
            "has no layer norm between the conv extractor and the projection",
        ),
        (["absent.ckpt", "out", "--to", "native"], "absent.ckpt"),
        (["page.ckpt", "out", "--to", "native"], "page.ckpt cannot be read as a checkpoint"),
        (["student.ckpt", "page.ckpt", "--to", "native"], "exists already"),
    ],
)
def test_errors_are_one_sentence(student, tmp_path, monkeypatch, arguments, message):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "page.ckpt").write_text("<html>404</html>")
    result = run(*arguments)
    assert result.exit_code == 2
    assert message in result.output and "Traceback" not in result.output
    assert result.output.count("\n") == 1
    assert not (tmp_path / "out").exists()
