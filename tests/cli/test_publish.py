"""`robustdistiller publish` as a user calls it; uploads are in tests/upstream/publishing."""

import dataclasses

import pytest
from typer.testing import CliRunner

from robustdistiller.cli.main import app
from robustdistiller.eval.results.files import write_record
from robustdistiller.upstream import EncoderConfig, SpeechEncoder, checkpoint_digest, save_checkpoint
from tests.records import example_record


@pytest.fixture
def student(tmp_path):
    save_checkpoint(tmp_path / "student.ckpt", SpeechEncoder(EncoderConfig.tiny(prediction_layers=(4, 8))), {})
    return tmp_path / "student.ckpt"


def run(*arguments):
    result = CliRunner().invoke(app, ["publish", *map(str, arguments)])
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result


def test_records_reach_the_model_card(student, tmp_path):
    measured = {"checkpoint_digest": checkpoint_digest(student), "checkpoint_digest_of": "file"}
    mine = dataclasses.replace(example_record(), upstream="u", label="mine", parameters=2_000_000, **measured)
    for record in (mine, example_record()):
        write_record(tmp_path / "records", record)
    result = run(student, "--to", tmp_path / "hf", "--records", tmp_path / "records")
    assert result.exit_code == 0
    card = (tmp_path / "hf" / "README.md").read_text()
    assert "This model is the row mine." in card
    assert "| mine | 2.00 | - | **75.00** |" in card and "| fbank | - | - | **75.00** |" in card


def test_records_of_others_are_no_results(student, tmp_path):
    write_record(tmp_path / "records", example_record())
    result = run(student, "--to", tmp_path / "hf", "--records", tmp_path / "records")
    assert result.exit_code == 2 and "is of this checkpoint" in result.output
    assert not (tmp_path / "hf").exists()


def test_a_class_of_transformers_that_cannot_be_it_is_refused(student, tmp_path):
    result = run(student, "--to", tmp_path / "hf", "--stock")
    assert result.exit_code == 2 and "no projection after the conv extractor" in result.output
    assert not (tmp_path / "hf").exists()
