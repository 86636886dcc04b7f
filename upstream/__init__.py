"""What s3prl sees: one speech encoder, the checkpoints it is read from, and the upstream entries made of it.

Importing this package does not import s3prl.
"""

from .checkpoints import Checkpoint, checkpoint_digest, load_encoder, read_checkpoint, save_checkpoint
from .config import EncoderConfig
from .encoder import EncoderOutput, SpeechEncoder

__all__ = [
    "Checkpoint",
    "EncoderConfig",
    "EncoderOutput",
    "SpeechEncoder",
    "checkpoint_digest",
    "load_encoder",
    "read_checkpoint",
    "save_checkpoint",
]
