"""A training that is killed and goes on ends with the head of one that was never stopped, to the bit."""

from __future__ import annotations

import random
import zlib
from pathlib import Path

import pytest
import torch

from robustdistiller.eval.run.head_checkpoint import read_checkpoint
from robustdistiller.eval.run.head_note import HeadNote
from robustdistiller.eval.run.s3prl_runner import HeadRunner
from robustdistiller.eval.run.train import train_head
from tests.leftovers import leave_temporary_file

EXPERT = "downstream_expert"
#: What is random in training beside the order of the data: crops, dropout, masks, in this process and in others.
KINDS = {
    "KS": {},
    "IC": {"specaug": {"apply_time_warp": False, "apply_time_mask": True, "time_mask_width_range": [0, 5]}},
    "SID": {f"{EXPERT}.datarc.max_timestep": 3000, f"{EXPERT}.datarc.num_workers": 2},
    "ASV": {f"{EXPERT}.datarc.max_timestep": 6400, f"{EXPERT}.datarc.num_workers": 0},
    "ER": {"runner.gradient_accumulate_steps": 2},
    "ASR": {f"{EXPERT}.modelrc.RNNs.dropout": [0.5, 0.5]},
    "PR": {},
    "SF": {"scheduler": {"name": "linear_schedule_with_warmup", "num_warmup_steps": 3}},
    "SD": {},
    "SE": {},
}


class Killed(BaseException):
    """Stands for a signal: nothing handles it."""


@pytest.fixture
def killed_at(monkeypatch):
    """A function that has the process killed at a step of the optimizer."""

    def kill(step: int) -> None:
        watch = HeadRunner._get_optimizer

        def watched(self, models):
            optimizer = watch(self, models)
            taken = iter(range(self.init_ckpt.get("Step", 0) + 1, 10**6))

            def before(*_):
                if next(taken) == step:
                    raise Killed

            optimizer.register_step_pre_hook(before)
            return optimizer

        monkeypatch.setattr(HeadRunner, "_get_optimizer", watched)

    yield kill


def weights_of(folder: Path) -> dict[str, dict]:
    found = {}
    for path in sorted(folder.glob("*.ckpt")):
        states = read_checkpoint(path)
        found[path.name] = {part: states[part] for part in ("Downstream", "Featurizer", "Step", "Optimizer")}
    return found


def assert_equal(ours, theirs) -> None:
    assert type(ours) is type(theirs)
    if isinstance(ours, dict):
        assert ours.keys() == theirs.keys()
        for key in ours:
            assert_equal(ours[key], theirs[key])
    elif isinstance(ours, torch.Tensor):
        assert torch.equal(ours, theirs)
    else:
        assert ours == theirs


@pytest.mark.parametrize("code", KINDS)
def test_killed_and_continued_is_never_stopped(code, head_spec, killed_at, monkeypatch, tmp_path):
    whole = train_head(head_spec(code, tmp_path / "whole", KINDS[code], seed=3))
    random.seed(len(code))  # generators are elsewhere when a process begins
    torch.manual_seed(5)
    spec = head_spec(code, tmp_path / "killed", KINDS[code], seed=3)
    step = 6 + zlib.crc32(code.encode()) % 7
    with monkeypatch.context(), pytest.raises(Killed):
        killed_at(step)
        train_head(spec)
    monkeypatch.undo()
    assert max(states["Step"] for states in weights_of(tmp_path / "killed").values()) < step
    continued = train_head(spec)
    assert_equal(weights_of(tmp_path / "killed"), weights_of(tmp_path / "whole"))
    assert continued.head_digest == whole.head_digest and continued.dev_score == whole.dev_score
    noted, never_stopped = HeadNote.read(spec.folder), HeadNote.read(tmp_path / "whole")
    assert noted.dev_scores == never_stopped.dev_scores
    assert noted.resumed_at and not never_stopped.resumed_at


def test_killed_while_it_writes_a_checkpoint_it_still_has_the_one_before(head_spec, monkeypatch, tmp_path):
    whole = train_head(head_spec("IC", tmp_path / "whole", seed=3))
    spec = head_spec("IC", tmp_path / "killed [v1]", {"runner.max_keep": 1}, seed=3)
    write = torch.save

    def half(states, path) -> None:
        write(states, path)
        if states["Step"] == 10:
            Path(path).write_bytes(Path(path).read_bytes()[:1000])
            raise Killed

    monkeypatch.setattr("torch.save", half)
    with pytest.raises(Killed):
        train_head(spec)
    monkeypatch.undo()
    assert weights_of(spec.folder)["states-5.ckpt"]["Step"] == 5 and not (spec.folder / "states-10.ckpt").exists()
    left = leave_temporary_file(spec.folder)
    assert train_head(spec).head_digest == whole.head_digest and not left.exists()
    assert [path.name for path in spec.folder.glob("states-*")] == ["states-10.ckpt"]
