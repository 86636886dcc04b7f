"""The command that makes the shipped models, on tones: what it writes, and that it goes on."""

from __future__ import annotations

import csv

import pytest
import torch

from research.mini_models.__main__ import FOLDER, main
from robustdistiller.pretrain import load_config
from robustdistiller.upstream import EncoderConfig, SpeechEncoder, load_encoder, read_checkpoint, save_checkpoint

SHORT = ("trainer.batch_seconds=2", "trainer.log_every_steps=1", "optim.schedule_steps=3")


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """In Whisper's place a wider encoder of six layers, and what is begun as."""
    folder = tmp_path_factory.mktemp("models")
    with torch.random.fork_rng():
        torch.manual_seed(0)
        wide = SpeechEncoder(EncoderConfig.tiny(num_layers=6, embed_dim=24, num_heads=4))
        save_checkpoint(folder / "wide.ckpt", wide, {"name": "wide"})
        save_checkpoint(folder / "start.ckpt", SpeechEncoder(EncoderConfig.tiny(num_layers=5)), {"name": "start"})
    return folder


def test_a_teacher_is_made_and_made_longer(pool, materials, models, tmp_path):
    (tmp_path / "work").symlink_to(materials.work)
    command = ["teacher", "--from", f"{models}/wide.ckpt", "--pool", f"{pool}", "--out", f"{tmp_path}"]
    command += ["--start", f"{models}/start.ckpt", *SHORT]
    assert main([*command, "trainer.max_steps=2"]) == 0
    start, made = load_encoder(models / "start.ckpt"), read_checkpoint(tmp_path / "teacher.ckpt")
    assert made.config.num_layers == 5 and made.metadata["packs"] == ["mini", pool.name]
    assert str(tmp_path) not in str(made.metadata) and not {"config", "settings"} & made.metadata.keys()
    assert (tmp_path / "teacher.ckpt").stat().st_size < 0.7 * (models / "start.ckpt").stat().st_size  # half precision
    weight = made.state_dict["transformer.layers.4.up.weight"]
    assert not torch.equal(weight, start.state_dict()["transformer.layers.4.up.weight"].half().float())
    assert main([*command, "trainer.max_steps=3"]) == 0
    with (tmp_path / "log.csv").open() as stream:
        assert [row["step"] for row in csv.DictReader(stream)] == ["1", "2", "3"]


def test_what_is_wrong_is_said_before_training(pool, materials, models, tmp_path, capsys):
    (tmp_path / "work").symlink_to(materials.work)
    command = ["student", "--from", f"{models}/start.ckpt", "--out", f"{tmp_path}", "--pool"]
    assert main([*command, f"{pool}", "trainer.max_step=2"]) == 1
    assert "max_steps" in capsys.readouterr().err
    assert main([*command, f"{tmp_path}/nowhere"]) == 1
    assert "expected a pool" in capsys.readouterr().err


@pytest.mark.parametrize("model", ["teacher", "student"])
def test_the_recipes_are_whole_but_for_paths(model):
    config = load_config(FOLDER / f"{model}.yaml", ["teacher.checkpoint=some", "out_dir=made"])
    assert config.corruption is not None and config.trainer.ema_decay and "ours" in config.source
