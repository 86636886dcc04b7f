"""Waiting in tests: limits are there to stop a hang, never to pass or fail by the clock of a busy machine."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable

import pytest

HANG_S = 900.0


def wait_until(condition: Callable[[], object], process: subprocess.Popen | None = None) -> object:
    """What ``condition`` returns once that is true; fails when ``process`` ends before, or after fifteen minutes."""
    deadline_s = time.monotonic() + HANG_S
    while not (found := condition()):
        if process is not None and process.poll() is not None and not condition():
            pytest.fail(f"the process ended with status {process.returncode} before that")
        if time.monotonic() > deadline_s:
            pytest.fail(f"waited for {HANG_S:.0f} s")
        time.sleep(0.01)
    return found
