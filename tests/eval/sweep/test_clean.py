"""What a sweep does not need is listed and deleted, and nothing else."""

from __future__ import annotations

import dataclasses
import json
import shutil
from pathlib import Path

import pytest
from typer.testing import CliRunner

from robustdistiller.cli.main import app
from robustdistiller.common.locks import locked
from robustdistiller.eval.sweep import SweepError
from robustdistiller.eval.sweep.clean import clean, removable


@pytest.fixture
def swept(config, go) -> Path:
    """A finished sweep's folder, with features and a spare checkpoint."""
    go(config)
    root = Path(config.out)
    for head in root.glob("heads/*/*/lr-*"):
        (head / "states-10.ckpt").write_bytes(bytes(1000))
    (root / "features" / "a").mkdir(parents=True)
    (root / "features" / "a" / "0.bin").write_bytes(bytes(5000))
    (root / "notes.txt").write_text("mine")
    return root


def files(root: Path) -> set[str]:
    return {path.relative_to(root).as_posix() for path in root.rglob("*") if path.is_file()}


def test_everything_that_is_not_needed_is_listed_with_its_size(swept):
    before = files(swept)
    found = removable(swept)
    by_kind = {
        kind: [one for one in found if one.kind == kind] for kind in ("heads", "checkpoints", "features", "logs")
    }
    assert sorted(one.path.name for one in by_kind["heads"]) == ["lr-0.001", "lr-0.001", "lr-0.1", "lr-0.1"]
    assert [one.path.name for one in by_kind["checkpoints"]] == ["states-10.ckpt"] * 2
    assert [one.size_bytes for one in by_kind["features"]] == [5000]
    assert files(swept) == before, "nothing is deleted by looking"


def test_after_deleting_everything_a_sweep_goes_on_without_training(swept, config, go, engine):
    kept = {
        name
        for name in files(swept)
        if name.endswith(("choice.json", "outcome.json", "notes.txt")) or "records/" in name
    }
    clean(swept)
    assert kept <= files(swept)
    assert {name.rsplit("/", 1)[1] for name in files(swept) if name.startswith("heads/")} == {
        "choice.json",
        "dev-best.ckpt",
    }
    assert go(config).result.failures == [] and engine.done == []
    go(dataclasses.replace(config, conditions=[*config.conditions, "noise:noise=white,snr_db=0"]))
    assert [title.split(": ")[1] for title in engine.done] == ["evaluating", "evaluating"]


def test_heads_without_a_choice_stay(swept):
    for path in swept.glob("heads/*/*/choice.json"):
        path.unlink()
    assert [one for one in removable(swept) if one.kind in ("heads", "checkpoints")] == []


def test_a_head_that_is_still_trained_or_was_not_to_the_end_stays(swept):
    for path in swept.glob("heads/*/*/choice.json"):
        choice = json.loads(path.read_text())
        kept = [one for one in choice["tried"] if one["learning_rate"] != 0.1]  # stopped in the midst of a search
        failed = [{**one, "trained": one["learning_rate"] != 0.001} for one in kept]
        path.write_text(json.dumps({**choice, "tried": failed}))
    assert [one.path.name for one in removable(swept, ["heads"])] == []


def test_a_damaged_choice_keeps_its_heads(swept):
    first, second = sorted(swept.glob("heads/*/*/choice.json"))
    first.write_text(first.read_text()[:20])
    for one in removable(swept, ["heads", "checkpoints"]):
        assert one.path.is_relative_to(second.parent)


def test_what_lies_behind_a_link_stays(swept, tmp_path):
    disk = tmp_path / "disk"
    shutil.move(swept / "features", disk)
    (swept / "features").symlink_to(disk)
    clean(swept)
    assert (disk / "a" / "0.bin").is_file() and (swept / "features").is_symlink()
    assert not list(swept.glob("heads/*/*/lr-0.1"))


def test_nothing_is_deleted_while_the_sweep_runs(swept):
    before = files(swept)
    with locked(swept / ".lock"), pytest.raises(SweepError, match="in use by another run"):
        clean(swept)
    assert files(swept) == before


def test_other_folders_and_kinds_are_refused(swept, tmp_path):
    with pytest.raises(SweepError, match="is no sweep's folder"):
        removable(tmp_path / "corpus")
    for name in ("jobs/slurm/run.sh", "jobs/log.txt", "features/a.npy"):  # of somebody's own work
        (tmp_path / "project" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "project" / name).write_text("mine")
    before = files(tmp_path / "project")
    with pytest.raises(SweepError, match=r"is no sweep's folder: expected jobs with outcome\.json"):
        clean(tmp_path / "project")
    assert files(tmp_path / "project") == before
    with pytest.raises(SweepError, match="unknown kind 'head'; known: heads, checkpoints, features, logs"):
        removable(swept, ["head"])


def test_the_command_lists_first_and_deletes_when_told(swept):
    before = files(swept)
    listed = CliRunner().invoke(app, ["clean", str(swept), "--what", "features"])
    assert listed.exit_code == 0 and "Nothing was deleted" in listed.output and files(swept) == before
    done = CliRunner().invoke(app, ["clean", str(swept), "--what", "features", "--delete"])
    assert done.exit_code == 0 and before - files(swept) == {"features/a/0.bin"}
    assert CliRunner().invoke(app, ["clean", str(swept / "heads")]).exit_code == 2


def test_a_kind_that_is_named_twice_is_deleted_once(swept):
    found = clean(swept, iter(["heads", "heads"]))
    assert len(found) == 4 and not any(one.path.exists() for one in found)
    done = CliRunner().invoke(app, ["clean", str(swept), *["--what", "features"] * 2, "--delete"])
    assert done.exit_code == 0 and done.output.count("features kept") == 1


def test_what_slurm_has_in_its_queue_stays(swept):
    work = sorted(swept.glob("jobs/**/work.pkl"))
    assert len(work) > 1
    (swept / "jobs" / "slurm").mkdir()
    note = work[0].with_name("slurm.json")
    note.write_text("{}")
    clean(swept, ["logs"])
    assert [path for path in work if path.exists()] == work[:1] and (swept / "jobs" / "slurm").exists()
    note.unlink()
    clean(swept, ["logs"])
    assert not work[0].exists() and not (swept / "jobs" / "slurm").exists()
