"""Numbers of one corpus are not taken for those of another."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from robustdistiller.eval.sweep import Sweep, SweepError, TaskEntry
from robustdistiller.eval.tasks import csv_task

from .conftest import change, why


def corpus(folder: Path, names: str = "abc", content: str = "0000") -> str:
    folder.mkdir(parents=True)
    for name in names:
        (folder / f"{name}.wav").write_text(content)
    return str(folder)


@pytest.fixture
def of(one):
    """The sweep of the data in a folder."""
    override = one.tasks[0].override
    return lambda folder: change(one, tasks=[TaskEntry("IC", data={"file_path": folder}, override=override)])


@pytest.mark.parametrize("other", [{"names": "ab"}, {"content": "00000"}, {"content": "1111"}])
def test_other_data_are_refused_before_anything_is_reused(of, go, engine, tmp_path, other):
    go(of(corpus(tmp_path / "first")))
    with pytest.raises(SweepError, match=r"task IC: the numbers in .* are of the file_path .*first, found other data"):
        go(of(corpus(tmp_path / "second", **other)))
    assert engine.done == []
    assert go(replace(of(tmp_path / "second"), out=str(tmp_path / "new"))).result.failures == []


def test_a_corpus_may_be_copied_and_moved(of, go, tmp_path):
    go(of(corpus(tmp_path / "first")))
    shutil.copytree(tmp_path / "first", tmp_path / "copy")
    assert why(of(tmp_path / "copy"))[0].startswith("reused")
    shutil.rmtree(tmp_path / "first")
    moved = of(tmp_path / "copy")
    assert go(moved).result.failures == [] and why(moved)[0].startswith("reused")
    with pytest.raises(SweepError, match=r"are of the file_path .*copy, found other"):
        go(of(corpus(tmp_path / "first", content="1111")))


def test_lists_are_known_by_their_contents(one, go, engine, tmp_path):
    data = {name: corpus(tmp_path / name) for name in ("file_path", "dev")}
    for name in ("dev_meta_data", "test_meta_data"):
        data[name] = str(tmp_path / name)
        Path(data[name]).write_text("1 a b\n")
    trials = change(one, tasks=[TaskEntry("ASV", data={k: v for k, v in data.items() if k != "dev"})])
    engine.dev[1e-4] = 50.0
    go(trials)
    Path(data["test_meta_data"]).write_text("0 a b\n")
    with pytest.raises(SweepError, match="are of the test_meta_data"):
        Sweep(trials)


def test_one_sweep_has_one_corpus_for_a_task(of, tmp_path):
    first, second = (of(corpus(tmp_path / name, content=name)).tasks[0] for name in ("first", "other"))
    with pytest.raises(SweepError, match="the numbers in this sweep are of"):
        Sweep(change(of(tmp_path / "first"), tasks=[first, replace(second, name="another")]))
    assert len(Sweep(change(of(tmp_path / "first"), tasks=[first, replace(first, name="again")])).plans) == 2


def test_a_table_that_is_changed_is_another_task(one, go, tmp_path):
    for name in ("a", "b", "c"):
        (tmp_path / f"{name}.wav").touch()
    table, lines = tmp_path / "t.csv", ["path,label,split", "a.wav,x,train", "b.wav,x,dev", "c.wav,x,test"]
    table.write_text("\n".join(lines))
    (before,) = go(change(one, tasks=[TaskEntry(csv_task(table))])).plans
    table.write_text("\n".join([*lines[:2], "b.wav,x,test", "c.wav,x,dev"]))
    (after,) = Sweep(change(one, tasks=[TaskEntry(csv_task(table))])).plans
    assert after.place != before.place and not after.rules & before.rules


def test_a_table_of_the_same_names_may_be_of_other_recordings(one, go, tmp_path):
    def table(name: str, sound: str) -> TaskEntry:
        (tmp_path / name).mkdir()
        lines = ["path,label,split", "a.wav,x,train", "b.wav,x,dev", "c.wav,x,test"]
        for line in lines[1:]:
            (tmp_path / name / line[:5]).write_text(sound)
        (tmp_path / name / "labels.csv").write_text("\n".join(lines))
        return TaskEntry(csv_task(tmp_path / name / "labels.csv"))

    go(change(one, tasks=[table("clean", "clean")]))
    assert Sweep(change(one, tasks=[table("copy", "clean")])).plans
    with pytest.raises(SweepError, match=r"task labels: the numbers in .* are of the csv@\w{8} .*clean/labels\.csv"):
        Sweep(change(one, tasks=[table("noisy", "noisy")]))


def test_a_damaged_note_is_said(of, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "data.json").write_text("{")
    with pytest.raises(SweepError, match=r"data\.json is not what a sweep writes"):
        Sweep(of(corpus(tmp_path / "first")))
