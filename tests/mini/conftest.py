"""One build of the mini corpus for all tests of this room."""

from __future__ import annotations

import os

import pytest

from robustdistiller.common.locks import locked
from robustdistiller.mini import MiniCorpus, build


@pytest.fixture(scope="session")
def corpus(tmp_path_factory) -> MiniCorpus:
    """The corpus, built once for all processes that share the tests."""
    base = tmp_path_factory.getbasetemp()
    folder = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "mini-corpus"
    with locked(folder.with_suffix(".lock")):
        return build(folder)
