"""What s3prl sees: one speech encoder, the checkpoints it is read from, and the upstream entries made of it.

Importing this package does not import s3prl.
"""

from .checkpoints import (
    Checkpoint,
    CheckpointError,
    checkpoint_digest,
    export_checkpoint,
    load_encoder,
    read_checkpoint,
    save_checkpoint,
)
from .chunks import ChunkedEncoder, ChunkOptions
from .config import EncoderConfig
from .encoder import EncoderOutput, SpeechEncoder
from .expert import UpstreamExpert
from .hub import ENTRIES, register
from .released import mini_teacher, resolve_released
from .streaming import Stream

__all__ = [
    "ENTRIES",
    "Checkpoint",
    "CheckpointError",
    "ChunkOptions",
    "ChunkedEncoder",
    "EncoderConfig",
    "EncoderOutput",
    "SpeechEncoder",
    "Stream",
    "UpstreamExpert",
    "checkpoint_digest",
    "export_checkpoint",
    "load_encoder",
    "mini_teacher",
    "read_checkpoint",
    "register",
    "resolve_released",
    "save_checkpoint",
]
