"""SUPERB's submission archive, written from finished experiments and scored again from what was written."""

from robustdistiller.eval.submit.experiments import Experiment, SubmissionError, choose, find_experiments
from robustdistiller.eval.submit.pack import Packed, pack

__all__ = ["Experiment", "Packed", "SubmissionError", "choose", "find_experiments", "pack"]
