"""Benchmark sweeps: upstreams x tasks x conditions x seeds, the heads' learning rates chosen on development sets.

`config.load` reads the sweep's file, `cells.expand` takes it apart, `plan.make_plan` decides about every cell,
`run.Sweep` does it through an executor. Everything that is measured is a record; nothing else is remembered.
"""

from robustdistiller.eval.sweep.cells import Cell, Group, Head, expand
from robustdistiller.eval.sweep.config import SweepConfig, TaskEntry, UpstreamEntry, load
from robustdistiller.eval.sweep.errors import SweepError
from robustdistiller.eval.sweep.executors import Executor, LocalExecutor, PoolExecutor
from robustdistiller.eval.sweep.heard import heard_of
from robustdistiller.eval.sweep.plan import estimate, make_plan
from robustdistiller.eval.sweep.run import Sweep

__all__ = [
    "Cell",
    "Executor",
    "Group",
    "Head",
    "LocalExecutor",
    "PoolExecutor",
    "Sweep",
    "SweepConfig",
    "SweepError",
    "TaskEntry",
    "UpstreamEntry",
    "estimate",
    "expand",
    "heard_of",
    "load",
    "make_plan",
]
