"""Small speech encoders that survive noise and reverberation: use them, distil them, measure them on SUPERB.

>>> import robustdistiller
>>> encoder = robustdistiller.load("robustdistiller_mini")

The public names are listed in `__init__.pyi`, and imported when they are first used: importing this package imports
neither PyTorch nor s3prl.
"""

import lazy_loader

__version__ = "0.1.0"

_attribute, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)


def __getattr__(name: str) -> object:
    try:
        return _attribute(name)
    except ModuleNotFoundError as error:
        from robustdistiller.common.installation import InstallationError, diagnose

        found = diagnose(error)
        if found is None:
            raise
        raise InstallationError(*found) from error  # an ImportError that says what to type
