"""Checkpoint files: reading every format of the family, writing our own."""

from robustdistiller.upstream.checkpoints.export import export_checkpoint
from robustdistiller.upstream.checkpoints.files import CheckpointError, checkpoint_digest
from robustdistiller.upstream.checkpoints.formats.base import Checkpoint, NotExportable
from robustdistiller.upstream.checkpoints.inspection import inspect_checkpoint
from robustdistiller.upstream.checkpoints.load import load_encoder, read_checkpoint, save_checkpoint

__all__ = [
    "Checkpoint",
    "CheckpointError",
    "NotExportable",
    "checkpoint_digest",
    "export_checkpoint",
    "inspect_checkpoint",
    "load_encoder",
    "read_checkpoint",
    "save_checkpoint",
]
