"""`robustdistiller convert` as a user calls it."""

import dataclasses

import pytest
import torch
from typer.testing import CliRunner

from robustdistiller.cli.main import app
from robustdistiller.eval.results.files import write_record
from robustdistiller.upstream import EncoderConfig, SpeechEncoder, checkpoint_digest, read_checkpoint, save_checkpoint
from tests.records import example_record

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


def test_records_reach_the_model_card(student, tmp_path):
    measured = {"checkpoint_digest": checkpoint_digest(student), "checkpoint_digest_of": "file"}
    mine = dataclasses.replace(example_record(), upstream="u", label="mine", parameters=2_000_000, **measured)
    for record in (mine, example_record()):
        write_record(tmp_path / "records", record)
    result = run(student, tmp_path / "hf", "--to", "huggingface", "--records", tmp_path / "records")
    assert result.exit_code == 0
    card = (tmp_path / "hf" / "README.md").read_text()
    assert "This model is the row mine." in card
    assert "| mine | 2.00 | - | **75.00** |" in card and "| fbank | - | - | **75.00** |" in card


def test_records_of_others_are_no_results(student, tmp_path):
    write_record(tmp_path / "records", example_record())
    result = run(student, tmp_path / "hf", "--to", "huggingface", "--records", tmp_path / "records")
    assert result.exit_code == 2 and "is of this checkpoint" in result.output
    assert not (tmp_path / "hf").exists()


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
        (["student.ckpt", "out", "--to", "native", "--records", "."], "--to native has none"),
        (["student.ckpt", "out", "--to", "huggingface", "--records", "nowhere"], "no folder of records at nowhere"),
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
