from .eval.api import evaluate as evaluate
from .eval.report.board import leaderboard as leaderboard
from .eval.report.comparison import compare as compare
from .eval.sweep.run import sweep as sweep
from .pretrain.training.stages import distill as distill
from .upstream.pretrained.resolve import load as load

__version__: str
