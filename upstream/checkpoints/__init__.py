"""Checkpoint files: reading every format of the family, writing our own."""

from .files import checkpoint_digest
from .formats import Checkpoint, load_encoder, read_checkpoint, save_checkpoint

__all__ = ["Checkpoint", "checkpoint_digest", "load_encoder", "read_checkpoint", "save_checkpoint"]
