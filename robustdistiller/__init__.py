"""Small speech encoders that survive noise and reverberation: use them, distil them, measure them on SUPERB.

>>> import robustdistiller
>>> encoder = robustdistiller.load("robustdistiller_mini")

What is below is imported when it is first used; importing this package imports neither PyTorch nor s3prl.
"""

import lazy_loader

__version__ = "0.1.0"

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={"pretrain.run": ["distill"], "upstream.pretrained.resolve": ["load"]},
)
