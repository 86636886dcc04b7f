"""Locks between processes."""

from __future__ import annotations

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
