"""Noise, rooms, microphones and lines: one corruption library for training and evaluation.

The main flow is `Corruptor`: a `Condition` or a `CorruptionPolicy` says what may happen, `draw` what happens to one
utterance, `apply` lets it happen, effect by effect (`effects`). Names are imported when they are first used: those who
only read results have no PyTorch.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
