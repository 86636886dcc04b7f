"""What s3prl sees: one speech encoder, the checkpoints it is read from, and the upstream entries made of it."""

from .config import EncoderConfig
from .encoder import EncoderOutput, SpeechEncoder

__all__ = ["EncoderConfig", "EncoderOutput", "SpeechEncoder"]
