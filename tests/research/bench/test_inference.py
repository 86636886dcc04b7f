"""The benchmarks of inference run, and what they compare computes the same."""

from __future__ import annotations

import pytest

from research.bench import load_reports
from research.bench.__main__ import main


@pytest.mark.slow
def test_streams_equal_the_masked_whole(tmp_path) -> None:
    assert main(["streaming", "--quick", "--rounds", "1", "--out", str(tmp_path), "--work", str(tmp_path)]) == 0
    (report,) = load_reports(tmp_path)
    assert len(report.series) == 3
    streams, exported = report.comparisons[: 3 * 3], report.comparisons[3 * 3 :]
    assert [comparison.ours for comparison in exported] == 2 * 2 * ["float32", "int8 dynamic"]
    for comparison in exported:
        most = 1e-4 if comparison.ours == "float32" else 0.2
        assert (
            0 < float(comparison.equal.split(" to ")[2].split()[0]) < most and comparison.notes["real_time_factor"] > 0
        )
    for comparison in streams:
        assert float(comparison.equal.split(" to ")[1].split()[0]) < 1e-5
        assert comparison.notes["latency_ms"] > comparison.notes["waits_for_audio_ms"] >= 165


def test_kernels_compute_what_the_modules_compute(tmp_path) -> None:
    assert main(["kernels", "--quick", "--rounds", "1", "--out", str(tmp_path), "--work", str(tmp_path)]) == 0
    (report,) = load_reports(tmp_path)
    assert len(report.comparisons) == 6  # inference, training, a teacher
    for comparison in report.comparisons:
        rounding = 0.05 if "bfloat16" in comparison.part else 1e-4
        assert float(comparison.equal.split(" to ")[1].split()[0]) < rounding


@pytest.mark.slow
def test_every_way_to_encode_is_measured(tmp_path) -> None:
    work = tmp_path / "work"
    assert main(["inference", "--quick", "--rounds", "1", "--out", str(tmp_path), "--work", str(work)]) == 0
    (report,) = load_reports(tmp_path)
    for comparison in report.comparisons:
        assert comparison.notes["file_MB_ours"] > 0 and comparison.notes["peak_memory_MB_ours"] > 50
        if "int8" not in comparison.ours and comparison.equal != "other models":
            assert float(comparison.equal.rsplit(" ", 1)[1]) < 1e-4
