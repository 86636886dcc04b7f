"""Speech over which the ranges of activations are measured when an encoder is quantised."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import soundfile

from robustdistiller.acoustics.audio.files import read_audio
from robustdistiller.acoustics.audio.listing import list_pieces
from robustdistiller.common.audio import SAMPLE_RATE_HZ

from .corpus import data_dir
from .pack import is_speech, read_pack

SHORTEST_S, LONGEST_S = 0.1, 15  # memory grows with the longest


def calibration_speech(folder: Path | None, most: int) -> list[np.ndarray]:
    """Waveforms of a folder, or of the mini corpus' development split, at 16 kHz: at most so many, evenly spread.

    Args:
        folder: of audio; a single file or a manifest will do.
        most: recordings; of each the first seconds.

    Raises:
        FileNotFoundError: there is no such folder, or no audio in it.
        ValueError: a recording cannot be read, or all are too short.

    >>> len(calibration_speech(None, 2))
    2
    """
    speech = []
    if folder is None:
        chosen = spread([utterance for utterance in read_pack(data_dir()) if utterance.split == "dev"], most)
        for utterance in chosen:
            # Seeking in Opus may be off by a sample, which does not matter here and takes a hundredth of the time.
            audio, _ = soundfile.read(utterance.path, utterance.num_samples, utterance.offset_samples, dtype="int16")
            if is_speech(utterance, audio):
                speech.append(audio.astype(np.float32) / 32768)
    else:
        for piece in spread(list_pieces(folder.expanduser()), most):
            speech.append(read_audio(piece.path, SAMPLE_RATE_HZ, piece.frame_offset, piece.num_frames))
    speech = [
        waveform[: LONGEST_S * SAMPLE_RATE_HZ] for waveform in speech if len(waveform) >= SHORTEST_S * SAMPLE_RATE_HZ
    ]
    if not speech:
        raise ValueError(f"{folder}: every recording is shorter than {SHORTEST_S} s; expected speech to calibrate on")
    return speech


def spread(items: list, most: int) -> list:
    """At most so many items at even distances.

    >>> spread([0, 1, 2, 3, 4, 5], 3)
    [0, 2, 4]
    """
    return [items[index * len(items) // most] for index in range(most)] if len(items) > most else items
