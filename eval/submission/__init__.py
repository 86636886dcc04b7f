"""SUPERB's submission archive, written from finished experiments and scored again from what was written."""

from robustdistiller.eval.submission.experiments import Experiment, SubmissionError, choose, find_experiments
from robustdistiller.eval.submission.pack import Packed, pack

__all__ = ["Experiment", "Packed", "SubmissionError", "choose", "find_experiments", "pack"]
