"""Functions in processes of their own."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from robustdistiller.common.process import ProcessDied, call_apart, usable_cores


def test_what_a_function_returns_and_what_it_sees() -> None:
    assert call_apart("os:getpid") != os.getpid()
    assert call_apart("os:getenv", "COLOUR", environment={"COLOUR": "red"}) == "red"
    assert call_apart("json:loads", '[1, {"a": null}]') == [1, {"a": None}]


def test_a_process_that_dies_leaves_its_last_words(tmp_path: Path) -> None:
    for function, arguments, words in (
        ("os:abort", (), "exit status -6"),
        ("sys:exit", ("no such thing",), r"no such thing \(exit status 1\)"),
        ("builtins:open", ("/no/such/file",), "No such file or directory"),
        ("no_such_module:run", (), "No module named 'no_such_module'"),
    ):
        with pytest.raises(ProcessDied, match=words):
            call_apart(function, *arguments, log=tmp_path / "log.txt")
    assert "Traceback" in (tmp_path / "log.txt").read_text(), "the log is kept where it was asked for"


def test_a_process_that_hangs_is_ended() -> None:
    with pytest.raises(ProcessDied, match="no answer after 1 s"):
        call_apart("time:sleep", 60, timeout_s=1)


def test_files_of_the_current_folder_are_no_packages(tmp_path: Path, monkeypatch) -> None:
    (tmp_path / "colorsys.py").write_text("raise SystemExit('a script of the user')")
    monkeypatch.chdir(tmp_path)
    assert call_apart("colorsys:rgb_to_hls", 0, 0, 0) == [0, 0, 0]


def test_the_cores_of_a_container(tmp_path: Path) -> None:
    assert usable_cores(tmp_path) == usable_cores(Path("/no/such/folder")) >= 1
    (tmp_path / "cpu.max").write_text("100000 100000\n")
    assert usable_cores(tmp_path) == 1
    (tmp_path / "cpu.max").write_text("max 100000\n")
    assert usable_cores(tmp_path) >= 1
