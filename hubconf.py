"""For ``torch.hub.load("OWNER/REPOSITORY", "robustdistiller_wavlm")``; ``torch.hub.list`` names the models."""

import functools as _functools
import pathlib as _pathlib

import robustdistiller as _package

# What is public here is an entry. A checkout that is not installed: the rooms are folders beside the package.
_package.__path__.append(str(_pathlib.Path(__file__).resolve().parent))

from robustdistiller.upstream.pretrained import registry as _registry  # noqa: E402

dependencies = ["torch", "numpy", "yaml", "safetensors", "huggingface_hub", "filelock", "lazy_loader", "tqdm"]


def load(name: str, **options):
    """A model by its name: a speech encoder in eval mode, see :func:`robustdistiller.load`."""
    return _package.load(name, **options)


def _entry(name: str, about: str):
    entry = _functools.partial(load, name)
    entry.__doc__ = f"{about}; a speech encoder in eval mode, see :func:`robustdistiller.load`."
    return entry


globals().update({name: _entry(name, model.about) for name, model in _registry.MODELS.items() if "/" not in name})
