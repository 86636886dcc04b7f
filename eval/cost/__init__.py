"""What an upstream costs: parameters, MACs on SUPERB's profiling utterances, real-time factor, memory.

Names are imported when they are first used: those who only read results have no PyTorch.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
