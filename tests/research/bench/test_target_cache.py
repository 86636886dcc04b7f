"""Whole distillations with the teacher's targets kept and not kept, as the benchmark compares them."""

from __future__ import annotations

import shutil
from dataclasses import replace

import pytest

from research.bench import load_reports, target_cache
from research.bench.__main__ import main


@pytest.mark.slow
def test_kept_targets_make_the_same_run(work) -> None:
    held_out = work.folder / "held-out"
    shutil.copytree(work.folder / "speech", held_out)
    work = replace(work, steps=4, overrides=(f"validation.speech={held_out}",))
    runs = {
        name: target_cache.whole_run(replace(work, overrides=(*work.overrides, option)))
        for name, option in target_cache._OPTIONS.items()
    }
    assert all(len(run["losses"]) == 4 and len(run["seconds"]) == len(run["epochs"]) == 3 for run in runs.values())
    assert runs["fp32"]["losses"] == pytest.approx(runs["asked"]["losses"], rel=1e-5)
    assert runs["int8"]["losses"] == pytest.approx(runs["asked"]["losses"], rel=1e-2)
    assert runs["int8"]["losses"] != runs["fp16"]["losses"]
    assert target_cache._epochs(runs).ratio > 0
    text = "".join(target_cache._effects(runs, steps=4))
    assert "Targets kept in int8: the loss differs by at most" in text and "clean 0." in text


@pytest.mark.slow
def test_the_benchmark_runs(tmp_path) -> None:
    options = ["--quick", "--rounds", "1", "--out", str(tmp_path / "out"), "--work", str(tmp_path / "work")]
    assert main(["target_cache", *options]) == 0
    (report,) = load_reports(tmp_path / "out")
    assert len(report.comparisons) == 3 and "LibriSpeech" in report.text[0]
