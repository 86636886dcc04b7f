"""The models: one speech encoder, the checkpoints it is read from, where they come from, and what s3prl sees of it.

Names are imported when they are first used; importing this package imports neither PyTorch nor s3prl.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "checkpoints": [
            "Checkpoint",
            "CheckpointError",
            "checkpoint_digest",
            "export_checkpoint",
            "load_encoder",
            "read_checkpoint",
            "save_checkpoint",
        ],
        "fast": ["accelerate"],
        "model.config": ["EncoderConfig"],
        "model.encoder": ["EncoderOutput", "SpeechEncoder"],
        "model.streaming": ["ChunkOptions", "ChunkedEncoder", "Stream"],
        "pretrained.models": ["read_model"],
        "pretrained.names": ["ModelName"],
        "pretrained.resolve": ["find_local", "load", "mini_teacher", "resolve"],
        "publishing.publish": ["publish"],
        "s3prl.entries": ["ENTRIES", "register"],
        "s3prl.expert": ["UpstreamExpert"],
    },
)
