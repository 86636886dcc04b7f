"""The distill command: help, lists, and errors in one sentence with a nonzero exit code."""

from __future__ import annotations

import typer
import yaml
from typer.testing import CliRunner

from robustdistiller import pretrain
from robustdistiller.cli.distill import distill
from robustdistiller.pretrain import load_config

APP = typer.Typer()
APP.command()(distill)


def run(*arguments: str):
    return CliRunner().invoke(APP, arguments)


def test_help_teaches_by_example() -> None:
    text = run("--help").stdout
    for part in ("distill robustdistiller out_dir=exp/robust", "data.noise=[UrbanSound8K,musan/noise]", "--list"):
        assert part in text


def test_examples_in_the_help_are_accepted() -> None:
    words = distill.__doc__.replace("\\\n", " ").replace("\\[", "[").split()
    overrides = [word for word in words if "=" in word and word.partition("=")[0].replace(".", "").islower()]
    assert len(overrides) > 10
    assert load_config("robustdistiller", overrides).trainer.max_hours == 11.5


def test_recipes_are_listed_with_their_sources() -> None:
    text = run("--list").stdout
    for part in ("distilhubert\n", "robustdistiller\n", "2110.01900", "2302.09437"):
        assert part in text


def test_show_prints_the_merged_settings() -> None:
    shown = yaml.safe_load(run("robustdistiller", "optim.lr=3e-4", "--show").stdout)
    assert shown == load_config("robustdistiller", ["optim.lr=3e-4"]).to_dict()


def test_what_a_loader_process_raised_is_one_sentence_too(monkeypatch) -> None:
    def fail(config):
        raise ValueError(
            "Caught ValueError in DataLoader worker\nTraceback (...):\n  x\nValueError: cannot read a.wav\n"
        )

    monkeypatch.setattr(pretrain, "distill", fail)
    result = run("distilhubert")
    assert (result.exit_code, result.stderr) == (2, "robustdistiller distill: cannot read a.wav\n")


def test_errors_are_one_sentence_with_an_exit_code() -> None:
    for arguments, message in [
        ((), ": which recipe?"),
        (("robustdistler",), "did you mean 'robustdistiller'?"),
        (("distilhubert", "optm.lr=1"), ": unknown key 'optm'; did you mean 'optim'?"),
        (("distilhubert", "out_dir=x"), ": teacher.checkpoint: which model"),
        (("distilhubert", "out_dir=x", "teacher.checkpoint=/no/such.pt"), "/no/such.pt"),
    ]:
        result = run(*arguments)
        assert result.exit_code == 2 and result.stderr.startswith("robustdistiller distill")
        assert message in result.stderr and "Traceback" not in result.output
