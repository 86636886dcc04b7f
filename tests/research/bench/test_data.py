"""The benchmark of the training data."""

from __future__ import annotations

import mmap
from pathlib import Path

import numpy as np
import pytest

from research.bench import load_reports
from research.bench.__main__ import main
from research.bench.data import _memory_mb, _Tree


def test_a_tree_of_links_is_speech_with_as_many_files(tmp_path: Path) -> None:
    tree = _Tree(tmp_path / "tree", 230, seed=0)
    cuts = tree.cuts()
    assert len(cuts) == len({cut.id for cut in cuts}) == 230 and len({cut.num_samples for cut in cuts}) == 50
    assert min(tree.start()) > 0


@pytest.mark.skipif(not Path("/proc/self/smaps_rollup").exists(), reason="needs Linux")
def test_memory_is_that_of_the_process() -> None:
    before = _memory_mb()
    with mmap.mmap(-1, 100_000_000) as held:  # an array might get memory that was freed and kept
        np.frombuffer(held, np.uint8)[:] = 1
        assert 90 < _memory_mb() - before < 110


@pytest.mark.slow
def test_the_benchmark_of_the_data(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["data", "--device", "cpu", "--quick", "--out", "out", "--work", "work"]) == 0
    (report,) = load_reports(tmp_path / "out")
    speed, on_the_wall, listed = report.comparisons
    assert speed.equal == on_the_wall.equal == "30 of 30 utterances bit for bit"
    assert listed.equal == "ids and lengths the same"
    start_up, *memory = report.series
    assert start_up.x == (100, 1000)
    assert all(abs(one.exponent) < 0.05 for one in memory)
    assert not (tmp_path / "work" / "data").exists()
