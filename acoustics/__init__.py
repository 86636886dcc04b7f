"""Noise, rooms, microphones and lines: one corruption library for training and evaluation.

The main flow is `Corruptor`: a `Condition` or a `CorruptionPolicy` says what may happen, `draw` what happens to one
utterance, `apply` lets it happen, effect by effect (`effects`). Names are imported when they are first used: those who
only read results have no PyTorch.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "audio.files": ["AudioInfo", "audio_info", "load_audio", "resample"],
        "audio.listing": ["Piece"],
        "audio.sources": ["AudioSource"],
        "condition": ["Condition"],
        "corpora": ["SourceSpec", "corpus_pieces", "detect_layout", "root_weights", "split_of"],
        "corruptor": ["Corruptor", "corrupt_utterance"],
        "effects": ["EFFECTS", "Range"],
        "levels": ["active_speech_level"],
        "parameters": ["check_parameters"],
        "policy": ["CorruptionPolicy"],
        "responses": ["direct_path_index", "measure_drr_db", "measure_rt60_s"],
        "rooms": ["RIRSource"],
    },
)
