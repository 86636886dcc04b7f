"""Ratios, slopes, and the page made from reports."""

from __future__ import annotations

import pytest

from research.bench import Comparison, Report, Series, alternate, load_reports, write_report
from research.bench.__main__ import main
from robustdistiller.eval.run.run_info import describe_machine


def test_ways_are_timed_in_turns() -> None:
    order = []
    ways = {"fast": lambda: order.append("f"), "slow": lambda: order.append("slow")}
    times = alternate(ways, 2, 1, clock=lambda: sum(map(len, order)))  # a second passes with each letter
    assert order == ["f", "slow", "f", "slow", "slow", "f"]  # a warm-up, then each order once
    assert times == {"fast": (1, 1), "slow": (4, 4)}


def test_the_ratio_is_taken_within_rounds() -> None:
    # The second round ran on a busy machine: both ways took ten times as long.
    comparison = Comparison("x", "ours", "peer", (1.0, 10.0, 1.0), (3.0, 30.0, 3.0), "same", target=3.5)
    assert comparison.ratio == 3.0
    assert comparison.met is False


def test_a_report_comes_back_and_its_page_says_what_was_measured(tmp_path) -> None:
    report = Report(
        name="toy",
        title="a toy",
        command="python -m research.bench toy",
        seed=7,
        device="cpu",
        comparisons=(Comparison("x", "ours", "peer", (1.0, 2.0), (3.0, 6.0), "bit for bit", 2.0, {"peak_MB": 12.0}),),
        series=(Series("y", "files", "s", (10, 100, 1000), ((1.0,), (1.0,), (1.0,))),),
        text=("It is fast.",),
        machine=describe_machine("cpu"),
    )
    path = write_report(tmp_path, report)
    assert load_reports(tmp_path) == [report]
    page = (tmp_path / "tables.md").read_text(encoding="utf-8")
    assert "3.00 (3.00 to 3.00)" in page and "2: met" in page and "seed 7" in page and "peak_MB 12" in page
    assert "slope in logarithms 0.00" in page and "It is fast." in page
    path.write_text(path.read_text().replace('"schema": 1', '"schema": 0'))
    with pytest.raises(ValueError, match="schema 0; expected 1"):
        load_reports(tmp_path)


def test_pairs_measured_under_several_circumstances_have_a_line_each(tmp_path) -> None:
    def compared(part: str, ours_s: float, peer: str) -> Comparison:
        return Comparison(part, "small", peer, (ours_s,), (10.0,), "", 4.0, {"file_MB": 1.0})

    kinds = (("10 s", 2.0), ("2 s", 5.0))
    pairs = tuple(compared(part, ours_s, peer) for part, ours_s in kinds for peer in ("large", "larger"))
    write_report(tmp_path, Report("toy", "a toy", "python -m research.bench toy", 0, "cpu", pairs))
    lines = [line for line in (tmp_path / "tables.md").read_text(encoding="utf-8").splitlines() if "| small" in line]
    assert [line.split(" | ")[1] for line in lines] == ["large", "larger"]
    assert all("5.00 (5.00 to 5.00) | 2.00 (2.00 to 2.00) | 4: met in 1 of 2 | file_MB 1" in line for line in lines)


@pytest.mark.slow
def test_features_kept_give_the_same_head(tmp_path, monkeypatch) -> None:
    """The benchmark itself, small: both ways run, and end with the same weights."""
    monkeypatch.chdir(tmp_path)
    assert main(["feature_cache", "--quick", "--rounds", "1", "--out", "out", "--work", "work"]) == 0
    (report,) = load_reports(tmp_path / "out")
    assert report.command == "python -m research.bench feature_cache --quick --rounds 1"
    for comparison in report.comparisons[:2]:
        assert float(comparison.equal.rsplit(" ", 1)[1]) < 1e-6
    assert report.comparisons[0].ratio > 1


def test_an_unknown_benchmark_is_refused(capsys) -> None:
    with pytest.raises(SystemExit):
        main(["nonsense"])
    assert "unknown benchmark 'nonsense'" in capsys.readouterr().err
