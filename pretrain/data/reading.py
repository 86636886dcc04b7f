"""Reading the audio of cuts."""

from __future__ import annotations

import numpy as np
import soundfile
from lhotse import Recording
from lhotse.audio.utils import AudioLoadingError, DurationMismatchError
from lhotse.cut import Cut, MonoCut
from lhotse.utils import compute_num_samples

from robustdistiller.common.audio import SAMPLE_RATE_HZ
from robustdistiller.pretrain.data.cuts import FileCut, as_cut
from robustdistiller.pretrain.data.shards import shard_place, with_audio

# Formats that can be read from any sample on, and of these the samples that can be NaN.
_SUFFIXES = (".flac", ".wav", ".FLAC", ".WAV")
_FLOATING = frozenset(("FLOAT", "DOUBLE"))


def read_into(cut: Cut, out: np.ndarray) -> None:
    """The audio of a cut, channels averaged, written to `out` (cut.num_samples,) float32.

    A part of a mono WAV or FLAC file at the working rate is decoded to its place; lhotse reads everything else.

    Raises:
        ValueError: as `read_cut`.
    """
    recording = _plain_recording(cut)
    start = compute_num_samples(cut.start, SAMPLE_RATE_HZ) if cut.start else 0
    if recording is not None and _decode(recording, start, out):
        return
    samples = read_cut(cut)
    if len(samples) != len(out):
        raise ValueError(f"utterance {cut.id} should have {len(out)} samples and has {len(samples)}; repair its cut")
    out[:] = samples


def read_cut(cut: Cut | FileCut) -> np.ndarray:
    """The audio of a cut, channels averaged: (samples,) float32.

    Raises:
        ValueError: it cannot be read, or holds NaN or infinite samples; the file and the utterance are named.
    """
    cut = as_cut(cut)
    place, recording = shard_place(cut), getattr(cut, "recording", None)
    if place is not None:
        file = f"{place[0]} (byte {place[1]})"
    else:
        file = recording.sources[0].source if recording is not None and recording.sources else cut.id
    try:
        samples = np.atleast_2d(with_audio(cut).load_audio()).mean(axis=0, dtype=np.float32)
    except (AudioLoadingError, DurationMismatchError, OSError, RuntimeError, ValueError) as error:
        raise ValueError(f"cannot read {file} (utterance {cut.id}): {_reason(error)}; repair or remove it") from error
    if not np.isfinite(samples).all():
        raise ValueError(f"{file} (utterance {cut.id}) has NaN or infinite samples; repair or remove it")
    return samples


def _plain_recording(cut: Cut) -> Recording | None:
    """The recording of a cut whose samples are just a part of those in one file."""
    if type(cut) is not MonoCut or shard_place(cut) is not None:
        return None
    recording = cut.recording
    if recording is None or recording.transforms or len(recording.sources) != 1:
        return None
    (source,) = recording.sources
    plain = (
        source.type == "file"
        and list(source.channels) == [cut.channel]
        and recording.sampling_rate == SAMPLE_RATE_HZ
        and source.source.endswith(_SUFFIXES)
    )
    return recording if plain else None


def _decode(recording: Recording, start: int, out: np.ndarray) -> bool:
    """Whether the file is what the recording says, and has these samples, all of them numbers.

    What is wrong with it, lhotse will say.
    """
    try:
        with soundfile.SoundFile(recording.sources[0].source) as file:
            found = (file.samplerate, file.channels, file.frames)
            if found != (SAMPLE_RATE_HZ, 1, recording.num_samples) or file.frames < start + len(out):
                return False
            if start:
                file.seek(start)
            return len(file.read(dtype="float32", out=out)) == len(out) and (
                file.subtype not in _FLOATING or bool(np.isfinite(out).all())
            )
    except (soundfile.SoundFileError, OSError, RuntimeError, TypeError):
        return False


def _reason(error: Exception) -> str:
    """In one line; lhotse lists what each of its audio libraries says, the first of which is libsndfile."""
    lines = str(error).splitlines() or [type(error).__name__]
    line = next((line for line in lines if line.startswith("Exception #0")), lines[0])
    return line.rpartition("'>: ")[2].rstrip(".")
