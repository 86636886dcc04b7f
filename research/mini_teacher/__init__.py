"""Trains a small HuBERT-style teacher from the shipped speech and from packs of more.

python -m research.mini_teacher --pool FOLDER --out FOLDER
"""

from research.mini_teacher.make import make_teacher
from research.mini_teacher.recipe import Recipe, Stage

__all__ = ["Recipe", "Stage", "make_teacher"]
