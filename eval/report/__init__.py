"""What was found, for people: leaderboards, comparisons, plots and one page, made from records alone.

>>> from robustdistiller.eval import report
>>> report.leaderboard([]).row("DPHuBERT").size
'23.59'
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
