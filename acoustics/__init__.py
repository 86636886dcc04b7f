"""Noise, reverberation and test conditions: one corruption library for training and evaluation.

Names are imported when they are first used: those who only read results have no PyTorch.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "apply": ["CorruptionBatch", "corrupt"],
        "audio": ["AudioInfo", "audio_info", "load_audio", "resample"],
        "band": ["band_reject_filter"],
        "condition": ["Condition"],
        "corpora": ["SourceSpec", "corpus_pieces", "detect_layout", "split_of"],
        "corruptor": ["Corruptor", "corrupt_utterance"],
        "parameters": ["CorruptionParameters", "NoiseParameters", "RIRParameters"],
        "pitch": ["pitch_shift"],
        "policy": ["CorruptionPolicy"],
        "rirs": ["RIRSource", "direct_path_index", "measure_rt60_s"],
        "sources": ["AudioSource", "Piece"],
        "synthesis": ["colored_noise"],
    },
)
