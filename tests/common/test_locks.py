"""Locks between processes."""

from __future__ import annotations

import errno
import os

import pytest

from robustdistiller.common.locks import Busy, locked


def test_a_killed_holder_frees_its_lock_but_its_child_keeps_it(tmp_path):
    read_end, write_end = os.pipe()
    with locked(tmp_path / "a.lock") as descriptor:
        os.set_inheritable(descriptor, True)
        child = os.posix_spawn(
            "/bin/sh", ["sh", "-c", "read line"], {}, file_actions=[(os.POSIX_SPAWN_DUP2, read_end, 0)]
        )
    os.close(read_end)
    with pytest.raises(Busy), locked(tmp_path / "a.lock", wait=False):
        pass
    os.close(write_end)
    os.waitpid(child, 0)
    with locked(tmp_path / "a.lock", wait=False):
        pass


def test_a_file_system_without_locks_is_named(tmp_path, monkeypatch):
    def no_locks(descriptor, blocking):
        raise OSError(errno.ENOSYS, "Function not implemented")

    monkeypatch.setattr("robustdistiller.common.locks.lock_descriptor", no_locks)
    said = r"its file system does not lock files \(Function not implemented\)"
    with pytest.raises(OSError, match=said) as raised, locked(tmp_path / "a.lock"):
        pass
    assert raised.value.filename == str(tmp_path / "a.lock")
