"""The embedded default: a small real corpus and a small real teacher, so that everything runs with no download.

Names are imported when they are first used: the teacher needs nothing of what the corpus needs.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
