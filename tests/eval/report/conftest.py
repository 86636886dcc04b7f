"""Records that the tests of boards begin with."""

from __future__ import annotations

from pathlib import Path

import pytest

from . import boards


@pytest.fixture
def folder(tmp_path) -> Path:
    """A teacher and a student under several conditions, with results of single items."""
    boards.write_answers(tmp_path / "records", "teacher", gain=0.05)
    boards.write_answers(tmp_path / "records", "student")
    return tmp_path / "records"
