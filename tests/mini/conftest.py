"""One build of the mini corpus for all tests of this room."""

from __future__ import annotations

import pytest

from robustdistiller.mini import MiniCorpus, build


@pytest.fixture(scope="session")
def corpus(tmp_path_factory) -> MiniCorpus:
    """The corpus, built once."""
    return build(tmp_path_factory.mktemp("mini") / "corpus")
