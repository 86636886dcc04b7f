"""Benchmarks: every figure is a ratio of two ways measured alternately in one run. May import all rooms.

make bench                                      # all of them, into results/bench
python -m robustdistiller.bench --list
python -m robustdistiller.bench corruption --out results/bench
"""

from .measure import Comparison, Series, alternate
from .record import Report, load_reports, write_report
from .settings import Findings, Settings

__all__ = ["Comparison", "Findings", "Report", "Series", "Settings", "alternate", "load_reports", "write_report"]
