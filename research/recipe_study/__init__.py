"""The recipe study: which recipe makes the best student of the mini teacher, under which condition, at what cost.

python -m research.recipe_study --pool FOLDER --out results/study
"""

from research.recipe_study.outcomes import Outcome, load_outcome, read_outcomes
from research.recipe_study.plan import QUESTIONS, STUDENTS
from research.recipe_study.significance import crossed_test

__all__ = ["QUESTIONS", "STUDENTS", "Outcome", "crossed_test", "load_outcome", "read_outcomes"]
