"""Benchmark sweeps: upstreams x tasks x conditions x seeds, the heads' learning rates chosen on development sets.

`config.load` reads the sweep's file, `cells.expand` takes it apart, `plan` decides about every cell, `run.Sweep` hands
jobs to an `engine`. Everything that is measured is a record; which heads were tried is in `choice.json`.
"""

import lazy_loader

# Imported when first used: a process of the pool is to watch its parent before it imports PyTorch.
__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
