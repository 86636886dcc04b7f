"""Maximum term-weighted value: counted by hand, by brute force, and read from files as the corpus has them."""

from __future__ import annotations

import numpy as np
import pytest

from robustdistiller.eval.tasks import ScoringError
from robustdistiller.eval.tasks.scoring import qbe
from robustdistiller.eval.tasks.scoring.qbe import (
    GroundTruth,
    max_term_weighted_value,
    read_ground_truth,
    read_stdlist,
)


def term_weighted_value(scores, truth: GroundTruth, threshold: float, default: float) -> float:
    """By the definition, one query and one recording after the other."""
    losses = []
    for query, targets in truth.targets.items():
        missed = false_alarms = 0
        for recording in truth.recordings:
            found = scores.get(query, {}).get(recording, default) >= threshold
            missed += recording in targets and not found
            false_alarms += recording not in targets and found
        others = len(truth.recordings) - len(targets)
        losses.append(missed / len(targets) + truth.beta * (false_alarms / others if others else 0.0))
    return 1 - sum(losses) / len(losses)


@pytest.mark.parametrize("seed", range(8))
def test_equals_brute_force(seed, monkeypatch):
    rng = np.random.default_rng(seed)
    recordings = [f"d{i}" for i in range(12)]
    targets = {f"q{i}": frozenset(rng.choice(recordings, rng.integers(1, 4), replace=False)) for i in range(5)}
    truth = GroundTruth(frozenset(recordings), targets, beta=(12.49, 0.5)[seed % 2])
    scores = {}
    for query in ("q0", "q1", "q2", "q3", "unknown"):  # q4 is not searched
        searched = recordings[: 12 if seed % 3 else 8]
        hits = targets.get(query, frozenset())
        scores[query] = {d: round(float(rng.normal(2.0 * (d in hits), 1.0)), 1) for d in searched}  # with ties
    default = -10.0 if seed < 6 else 0.5
    tried = {s for one in scores.values() for s in one.values()} | {default, np.inf}
    expected = max(term_weighted_value(scores, truth, threshold, default) for threshold in tried)
    monkeypatch.setattr(qbe, "DEFAULT_SCORE", default)
    found = max_term_weighted_value(scores, truth)
    assert found.value == pytest.approx(expected)
    assert term_weighted_value(scores, truth, found.threshold, default) == pytest.approx(expected)
    assert (found.queries, found.searched) == (5, 4)


def test_counted_by_hand():
    """Four recordings, beta 1: p's false alarm in c costs a third of p, its hit in d is worth half of it."""
    truth = GroundTruth(frozenset("abcd"), {"q": frozenset("a"), "p": frozenset("d")}, beta=1.0)
    scores = {"q": {"a": 5.0, "b": 0.0, "c": 0.0, "d": 0.0}, "p": {"a": 0.0, "b": 0.0, "c": 3.0, "d": 2.0}}
    assert max_term_weighted_value(scores, truth).value == pytest.approx((1 + (1 - 1 / 3)) / 2)
    assert max_term_weighted_value(scores, truth).threshold == 2.0
    # With the benchmark's costs a false alarm costs four hits here: only q is worth finding.
    strict = GroundTruth(truth.recordings, truth.targets)
    assert strict.beta == pytest.approx(12.49)
    found = max_term_weighted_value(scores, strict)
    assert (found.value, found.threshold) == (0.5, 5.0)
    wrong = {"q": {"b": 9.0, "a": 1.0}}
    assert max_term_weighted_value(wrong, strict).value == 0.0, "finding nothing is worth 0"
    assert max_term_weighted_value(wrong, strict).threshold == np.inf


def test_files_of_the_corpus(tmp_path, toy_corpora):
    toy_corpora.quesst14(tmp_path)
    truth = read_ground_truth(tmp_path / "scoring" / "groundtruth_quesst14_eval")
    assert truth.targets == {"quesst14_eval_0": {"quesst14_utterances_1"}, "other": {"other"}}
    assert len(truth.recordings) == 3 and truth.beta == pytest.approx(12.49)
    (tmp_path / "scoring" / "score-TWV-Cnxe.sh").write_text("P_target=0.5\nC_fa=1\nC_miss=10\n")
    assert read_ground_truth(tmp_path / "scoring" / "groundtruth_quesst14_eval").beta == pytest.approx(0.1)
    listed = tmp_path / "benchmark.stdlist.xml"
    term = '<term file="{}" channel="1" tbeg="0.000" dur="0.00" score="{}" decision="NO"/>'
    terms = term.format("quesst14_utterances_1", 2.5) + term.format("quesst14_utterances_0", -0.5)
    listed.write_text(
        f'<stdlist><detected_termlist termid="quesst14_eval_0">{terms}</detected_termlist>'
        '<detected_termlist termid="quesst14_eval_1"/></stdlist>'
    )
    scores = read_stdlist(listed)
    assert scores["quesst14_eval_0"] == {"quesst14_utterances_1": 2.5, "quesst14_utterances_0": -0.5}
    assert max_term_weighted_value(scores, truth).value == 0.5, "the other query was not searched"


def test_what_cannot_be_scored_is_said(tmp_path):
    with pytest.raises(ScoringError, match=r"no ground truth at .*it is part of the corpus"):
        read_ground_truth(tmp_path / "groundtruth_quesst14_eval")
    with pytest.raises(ScoringError, match=r"must hold one file \*\.tlist\.xml, found 0"):
        read_ground_truth(tmp_path)
    truth = GroundTruth(frozenset("ab"), {"q": frozenset("a")})
    with pytest.raises(ScoringError, match="queries like x in recordings like y, expected q in a"):
        max_term_weighted_value({"x": {"y": 1.0}}, truth)
    (tmp_path / "bad.xml").write_text("<stdlist><term")
    with pytest.raises(ScoringError, match=r"bad\.xml cannot be read"):
        read_stdlist(tmp_path / "bad.xml")
    term = '<term file="a" score="x"/>'
    (tmp_path / "bad.xml").write_text(f'<s><detected_termlist termid="q">{term}</detected_termlist></s>')
    with pytest.raises(ScoringError, match="score must be a number, found 'x'"):
        read_stdlist(tmp_path / "bad.xml")
