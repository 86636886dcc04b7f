"""The recipe study: which recipe makes the best student of the mini teacher, under which condition, at what cost.

python -m robustdistiller.mini.study --pool FOLDER --out results/study
"""

from .outcomes import Outcome, load_outcome, read_outcomes
from .plan import QUESTIONS, STUDENTS
from .significance import crossed_test

__all__ = ["QUESTIONS", "STUDENTS", "Outcome", "crossed_test", "load_outcome", "read_outcomes"]
