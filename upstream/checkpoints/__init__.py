"""Checkpoint files: reading every format of the family, writing our own."""

from .export import export_checkpoint
from .files import CheckpointError, checkpoint_digest
from .formats import Checkpoint, load_encoder, read_checkpoint, save_checkpoint

__all__ = [
    "Checkpoint",
    "CheckpointError",
    "checkpoint_digest",
    "export_checkpoint",
    "load_encoder",
    "read_checkpoint",
    "save_checkpoint",
]
