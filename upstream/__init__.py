"""The models: one speech encoder, the checkpoints it is read from, where they come from, and what s3prl sees of it.

Names are imported when they are first used; importing this package imports neither PyTorch nor s3prl.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
