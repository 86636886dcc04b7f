"""The leaderboard: measured and published systems side by side, as tables and as one page."""

from robustdistiller.eval.leaderboard.board import Board, Cell, Column, Row
from robustdistiller.eval.leaderboard.html import to_html
from robustdistiller.eval.leaderboard.rows import build_board
from robustdistiller.eval.leaderboard.tables import Grid, clean_grid, condition_grids, to_csv

__all__ = [
    "Board",
    "Cell",
    "Column",
    "Grid",
    "Row",
    "build_board",
    "clean_grid",
    "condition_grids",
    "to_csv",
    "to_html",
]
