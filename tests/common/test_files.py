"""Files are whole or as they were, whatever happens while they are written."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
import threading
from functools import partial
from pathlib import Path

import pytest
import torch

from robustdistiller.common.files import (
    file_digest,
    remove_leftovers,
    slug,
    write_atomically,
    write_bytes,
    write_text,
)


def test_a_failure_leaves_the_old_file_and_nothing_else(tmp_path: Path):
    path = write_text(tmp_path / "a.txt", "old")

    def fail(file: Path) -> None:
        file.write_text("half")
        raise OSError("no space left")

    with pytest.raises(OSError, match="no space"):
        write_atomically(path, fail)
    assert [file.name for file in tmp_path.iterdir()] == ["a.txt"] and path.read_text() == "old"


def test_new_files_have_the_umask_and_old_ones_keep_their_mode(tmp_path: Path):
    before = os.umask(0o027)
    try:
        assert write_text(tmp_path / "new", "x").stat().st_mode & 0o777 == 0o640
    finally:
        os.umask(before)
    (tmp_path / "new").chmod(0o604)
    assert write_text(tmp_path / "new", "y").stat().st_mode & 0o777 == 0o604


def test_a_writer_that_puts_a_private_file_in_the_place_does_not_decide_its_mode(tmp_path: Path):
    def write(file: Path) -> None:
        file.unlink()
        file.touch(mode=0o600)

    assert write_atomically(tmp_path / "a", write).stat().st_mode == write_text(tmp_path / "b", "").stat().st_mode


def test_the_umask_of_other_threads_is_left_alone(tmp_path: Path):
    stop, wrong = threading.Event(), []

    def watch() -> None:
        number = 0
        while not stop.is_set():
            file = tmp_path / "others" / str(number % 50)
            file.unlink(missing_ok=True)
            file.touch()
            wrong.extend([file] if file.stat().st_mode & 0o022 else [])
            number += 1

    before = os.umask(0o022)
    (tmp_path / "others").mkdir()
    thread = threading.Thread(target=watch)
    try:
        thread.start()
        for _ in range(300):
            write_bytes(tmp_path / "mine", b"x")
    finally:
        stop.set()
        thread.join()
        os.umask(before)
    assert not wrong


def test_a_folder_in_the_place_of_a_file_is_named(tmp_path: Path):
    (tmp_path / "taken").mkdir()
    with pytest.raises(IsADirectoryError) as error:
        write_text(tmp_path / "taken", "x")
    assert error.value.filename == str(tmp_path / "taken") and list(tmp_path.iterdir()) == [tmp_path / "taken"]


def test_a_link_stays_a_link(tmp_path: Path):
    real = write_text(tmp_path / "store" / "real.txt", "old")
    link = tmp_path / "link.txt"
    link.symlink_to(real)
    assert write_text(link, "new") == link
    assert link.is_symlink() and real.read_text() == "new"


def test_names_as_long_as_the_file_system_allows(tmp_path: Path):
    for name in ("n" * 255, "\N{OGHAM LETTER BEITH}" * 85):
        assert write_text(tmp_path / name, "x").read_text() == "x"


def test_what_killed_processes_left_is_removed_and_nothing_else(tmp_path: Path):
    code = (
        "import os, signal, sys; from robustdistiller.common.files import write_atomically\n"
        "write_atomically(sys.argv[1], lambda file: (file.write_text('half'), os.kill(os.getpid(), signal.SIGKILL)))"
    )
    killed = subprocess.run([sys.executable, "-c", code, str(tmp_path / "deep" / "a.ckpt")])
    assert killed.returncode == -signal.SIGKILL
    left = list((tmp_path / "deep").iterdir())
    assert len(left) == 1 and not (tmp_path / "deep" / "a.ckpt").exists()
    host = re.sub(r"\W", "_", socket.gethostname())
    others = [".a.ckpt.tmp-elsewhere-1-00000000", f".a.ckpt.tmp-{host}-{os.getpid()}-00000000", ".mine.tmp-1"]
    for name in others:
        (tmp_path / name).touch()
    assert remove_leftovers(tmp_path) == left
    assert sorted(file.name for file in tmp_path.rglob(".*")) == sorted(others)


def test_equal_checkpoints_have_equal_digests(tmp_path: Path):
    digests = {file_digest(write_atomically(tmp_path / "a.ckpt", partial(torch.save, {"x": 1}))) for _ in range(2)}
    assert len(digests) == 1


def test_slugs_differ_and_are_file_names():
    texts = [
        *("clean", "noise:snr_db=5", "noise_snr_db=5", 'noise:noise="a, b",snr_db=5'),
        *("a/b", "a_b", "a~b", "a:b", "..", ".", "x" * 200),
    ]
    slugs = [slug(text) for text in texts]
    assert len(set(slugs)) == len(texts)
    assert all("/" not in one and not one.startswith(".") and 0 < len(one) < 100 for one in slugs)
