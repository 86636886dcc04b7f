"""Noise, reverberation and test conditions: one corruption library for training and evaluation."""

from .apply import CorruptionBatch, corrupt
from .audio import AudioInfo, audio_info, load_audio, resample
from .band import band_reject_filter
from .condition import Condition
from .corpora import corpus_pieces, detect_layout, split_of
from .corruptor import Corruptor, corrupt_utterance
from .parameters import CorruptionParameters, NoiseParameters, RIRParameters
from .pitch import pitch_shift
from .policy import CorruptionPolicy
from .rirs import RIRSource, direct_path_index, measure_rt60_s
from .sources import AudioSource, Piece
from .synthesis import colored_noise

__all__ = [
    "AudioInfo",
    "AudioSource",
    "Condition",
    "CorruptionBatch",
    "CorruptionParameters",
    "CorruptionPolicy",
    "Corruptor",
    "NoiseParameters",
    "Piece",
    "RIRParameters",
    "RIRSource",
    "audio_info",
    "band_reject_filter",
    "colored_noise",
    "corpus_pieces",
    "corrupt",
    "corrupt_utterance",
    "detect_layout",
    "direct_path_index",
    "load_audio",
    "measure_rt60_s",
    "pitch_shift",
    "resample",
    "split_of",
]
