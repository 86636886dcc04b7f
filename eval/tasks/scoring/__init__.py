"""Scores as SUPERB computes them, where s3prl's own evaluation stops short of them."""

from robustdistiller.eval.tasks.scoring.official import OfficialScore, ScoringError, official_score

__all__ = ["OfficialScore", "ScoringError", "official_score"]
