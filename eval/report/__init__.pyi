from .board import Board as Board
from .board import leaderboard as leaderboard
from .comparison import Comparison as Comparison
from .comparison import compare as compare
