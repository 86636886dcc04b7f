"""For ``torch.hub.load("OWNER/REPOSITORY", "load", "robustdistiller_wavlm")``."""

from pathlib import Path

import robustdistiller

dependencies = ["torch", "numpy", "safetensors", "huggingface_hub", "filelock", "lazy_loader", "tqdm"]

# A checkout that is not installed: the rooms are folders beside the package.
robustdistiller.__path__.append(str(Path(__file__).parent))


def load(name: str, **options):
    """A model by its name: a speech encoder in eval mode, see :func:`robustdistiller.load`."""
    return robustdistiller.load(name, **options)
