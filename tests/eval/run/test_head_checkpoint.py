"""Which of the files in a head's folder is the head."""

from __future__ import annotations

import pytest

from robustdistiller.eval.run.errors import RunError
from robustdistiller.eval.run.head_checkpoint import find_head
from robustdistiller.eval.run.head_note import HeadNote


def test_folder_means_best_on_dev(tmp_path, caplog):
    caplog.set_level("INFO")
    with pytest.raises(RunError, match="no checkpoint"):
        find_head(tmp_path)
    for name in ("states-90.ckpt", "states-100.ckpt", "test-best.ckpt"):
        (tmp_path / name).touch()
    assert find_head(tmp_path).name == "states-100.ckpt"
    assert "evaluating the newest" in caplog.text
    (tmp_path / "best-states-dev.ckpt").touch()
    assert find_head(tmp_path).name == "best-states-dev.ckpt"
    (tmp_path / "dev-clean-best.ckpt").touch()
    with pytest.raises(RunError, match="several best checkpoints"):
        find_head(tmp_path)
    assert find_head(tmp_path / "states-90.ckpt").name == "states-90.ckpt"


def test_a_head_whose_training_has_not_ended_says_so(tmp_path, caplog):
    (tmp_path / "dev-best.ckpt").touch()
    for finished in (True, False):
        HeadNote(made={"seed": 1}, finished=finished).write(tmp_path)
        find_head(tmp_path)
        assert ("has not ended" in caplog.text) != finished
