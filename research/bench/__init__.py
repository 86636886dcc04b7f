"""Benchmarks: every figure is a ratio of two ways measured alternately in one run. May import all rooms.

make bench                                      # all of them, into results/bench
python -m research.bench --list
python -m research.bench corruption --out results/bench
"""

from research.bench.measure import Comparison, Series, alternate
from research.bench.record import Report, load_reports, write_report
from research.bench.settings import Findings, Settings

__all__ = ["Comparison", "Findings", "Report", "Series", "Settings", "alternate", "load_reports", "write_report"]
