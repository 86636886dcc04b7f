"""A disk that is full while a checkpoint is written."""

from __future__ import annotations

import errno
from pathlib import Path

import pytest
import torch

from robustdistiller.pretrain import distill
from robustdistiller.pretrain.training import checkpoint as resume

from ..conftest import assert_equal_states, last_checkpoint


@pytest.mark.parametrize(
    "error",
    [
        OSError(errno.ENOSPC, "No space left on device"),
        RuntimeError("[enforce fail at inline_container.cc:664] . PytorchStreamWriter failed writing file data/0"),
    ],
)
def test_a_full_disk_leaves_the_checkpoint_before_it(
    make_config, straight: Path, tmp_path: Path, monkeypatch, error: Exception
) -> None:
    config = make_config(tmp_path, "trainer.save_every_steps=2")
    original = torch.save

    def save(checkpoint: dict, file: Path, *rest: object) -> None:
        original(checkpoint, file, *rest)
        if checkpoint.get("progress", {}).get("step") == 4:
            file.write_bytes(file.read_bytes()[:1000])
            raise error

    monkeypatch.setattr(torch, "save", save)
    usage = resume.shutil.disk_usage(tmp_path)._replace(free=0)
    monkeypatch.setattr(resume.shutil, "disk_usage", lambda folder: usage)
    with pytest.raises(
        resume.DiskFullError, match=r"cannot save .*distil-00000004\.ckpt: the disk is full \(0\.0 MiB free"
    ):
        distill(config)
    assert [file.name for file in (tmp_path / "checkpoints").iterdir()] == ["distil-00000002.ckpt"]
    monkeypatch.undo()
    distill(config)
    for part in ("model", "optimizer", "progress"):
        assert_equal_states(last_checkpoint(tmp_path)[part], last_checkpoint(straight)[part])


def test_other_errors_of_saving_stay_what_they_are(tmp_path: Path) -> None:
    file = tmp_path / "a.tmp"
    file.touch()
    with pytest.raises(Exception, match="pickle") as caught:
        resume._save({"call": lambda: None}, file, tmp_path / "a.ckpt")
    assert not isinstance(caught.value, resume.DiskFullError)
