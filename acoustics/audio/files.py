"""Reading audio files: any format of libsndfile, mixed to mono, at one sampling rate."""

from __future__ import annotations

import os
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import soundfile
import soxr

from robustdistiller.common.audio import SAMPLE_RATE_HZ

if TYPE_CHECKING:
    import torch

# Decoders of these carry a state: samples after a seek differ a little from those of a run from the start.
_INEXACT_SEEK = {"OGG", "MP3", "MPEG"}
# Times full scale. Beyond, squares overflow and a level is no number; files scaled as integers stay far below.
_LOUDEST = 1e15


@dataclass(frozen=True)
class AudioInfo:
    """What the header of an audio file says.

    Attributes:
        sample_rate_hz: sampling rate of the file.
        num_frames: samples per channel, at the file's own rate.
        num_channels: channels.
        exact_seek: whether a part can be read without decoding the file from its start.

    >>> AudioInfo(sample_rate_hz=8000, num_frames=12000, num_channels=2, exact_seek=True).duration_s
    1.5
    """

    sample_rate_hz: int
    num_frames: int
    num_channels: int
    exact_seek: bool

    @property
    def duration_s(self) -> float:
        """Length in seconds."""
        return self.num_frames / self.sample_rate_hz


def audio_info(path: str | Path) -> AudioInfo:
    """Reads the header of an audio file.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is empty, holds no samples, or is not audio that libsndfile reads.

    >>> import soundfile, tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     soundfile.write(f"{folder}/a.wav", [0.1] * 800, 8000)
    ...     audio_info(f"{folder}/a.wav").duration_s
    0.1
    """
    try:
        with soundfile.SoundFile(_openable(path)) as file:
            info = AudioInfo(file.samplerate, file.frames, file.channels, file.format not in _INEXACT_SEEK)
    except (soundfile.SoundFileError, TypeError) as error:
        _checked_path(path)
        raise ValueError(_undecodable(path, error)) from error
    if info.num_frames <= 0:
        raise ValueError(f"{path} holds no audio samples (its length is zero); remove it or export it again")
    return info


def audio_infos(paths: Iterable[str | Path]) -> dict[str, AudioInfo]:
    """Reads the headers of many files, several at once; see `audio_info` for what it raises.

    >>> audio_infos([])
    {}
    """
    files = list(dict.fromkeys(map(str, paths)))
    with ThreadPoolExecutor(8) as pool:
        return dict(zip(files, pool.map(audio_info, files)))


def load_audio(
    path: str | Path,
    sample_rate_hz: int = SAMPLE_RATE_HZ,
    frame_offset: int = 0,
    num_frames: int | None = None,
    channel: int | None = None,
) -> torch.Tensor:
    """Loads a file, or a part of it, as one channel at ``sample_rate_hz``.

    A file at another rate is resampled (soxr); one at 8 kHz therefore has nothing above 4 kHz. The samples
    are as stored: no gain, no clipping. A silent file is not an error.

    Args:
        path: any file libsndfile reads: wav, flac, ogg (Vorbis, Opus), mp3, aiff, ...
        sample_rate_hz: rate of the result.
        frame_offset: first sample to read, counted at the file's own rate.
        num_frames: samples to read, counted at the file's own rate; None reads to the end.
        channel: one channel (from 0) instead of the mean of all channels.

    Returns:
        (samples,) float32; nominal range -1..1.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: empty file, no samples, not audio, fewer samples than its header promises, samples that are no
            numbers, a part or a channel that is not there.

    >>> import soundfile, tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     soundfile.write(f"{folder}/a.wav", [[0.1, 0.3]] * 800, 8000, subtype="FLOAT")
    ...     load_audio(f"{folder}/a.wav").shape, round(load_audio(f"{folder}/a.wav")[800].item(), 2)
    (torch.Size([1600]), 0.2)
    """
    import torch

    return torch.from_numpy(read_audio(path, sample_rate_hz, frame_offset, num_frames, channel))


def read_audio(
    path: str | Path,
    sample_rate_hz: int = SAMPLE_RATE_HZ,
    frame_offset: int = 0,
    num_frames: int | None = None,
    channel: int | None = None,
    pre_roll_s: float | None = None,
    info: AudioInfo | None = None,
) -> np.ndarray:
    """:func:`load_audio` as a NumPy array; ``info``, if the header is known, saves reading it again.

    A part of an Ogg or MP3 file is decoded from the start of the file, so that it equals the slice of the whole. With
    ``pre_roll_s`` it is decoded from that many seconds before: fast in long files, and right in position, but Opus
    samples may be off by some 0.5 % of the peak.

    >>> import soundfile, tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     soundfile.write(f"{folder}/a.wav", [0.5] * 160, 16000)
    ...     read_audio(f"{folder}/a.wav", frame_offset=100).shape
    (60,)
    """
    info = info or audio_info(path)
    stop = info.num_frames if num_frames is None else frame_offset + num_frames
    if not 0 <= frame_offset < stop <= info.num_frames:
        raise ValueError(
            f"{path} has {info.num_frames} frames at {info.sample_rate_hz} Hz; frames {frame_offset} to {stop} were "
            "asked for, which must be a non-empty part of them"
        )
    if channel is not None and not 0 <= channel < info.num_channels:
        raise ValueError(f"{path} has {info.num_channels} channels (from 0), channel {channel} was asked for")
    if info.exact_seek:
        start = frame_offset
    else:
        start = 0 if pre_roll_s is None else max(frame_offset - round(pre_roll_s * info.sample_rate_hz), 0)
    try:
        frames, _ = soundfile.read(_openable(path), start=start, stop=stop, dtype="float32", always_2d=True)
    except (soundfile.SoundFileError, TypeError) as error:
        _checked_path(path)
        raise ValueError(_undecodable(path, error)) from error
    frames = frames[frame_offset - start :]
    if len(frames) < stop - frame_offset:
        raise ValueError(
            f"{path} is cut short: its header promises {info.num_frames} frames, {frame_offset + len(frames)} are "
            "there; get it again or remove it"
        )
    audio = np.abs(frames) < _LOUDEST  # false for NaN
    if not audio.all():
        bad = int(np.count_nonzero(~audio))
        raise ValueError(
            f"{path} has {bad} samples that are NaN, infinite or above {_LOUDEST:g} times full scale; repair it or "
            "remove it"
        )
    one = 0 if channel is None and info.num_channels == 1 else channel
    mono = frames.mean(axis=1) if one is None else np.ascontiguousarray(frames[:, one])
    return resample(mono, info.sample_rate_hz, sample_rate_hz)


def resample(samples: np.ndarray, from_hz: int, to_hz: int) -> np.ndarray:
    """Resamples (samples,) float32 with soxr (HQ); n samples become ``ceil(n * to_hz / from_hz)``.

    From 48 to 16 kHz 7.5 kHz lose 0.4 dB, and nothing from 8.1 kHz up folds back above -130 dB.

    >>> resample(np.zeros(441, np.float32), 44100, 16000).shape
    (160,)
    """
    if from_hz == to_hz:
        return samples
    wanted = -(-len(samples) * to_hz // from_hz)
    # soxr rounds lengths; zeros behind the end give it enough for the last sample.
    found = soxr.resample(np.pad(samples, (0, -(-2 * from_hz // to_hz) + 1)), from_hz, to_hz)
    return found[:wanted]


def _openable(path: str | Path) -> str | bytes:
    """A file as soundfile takes it: a name that is no UTF-8 goes as its bytes."""
    name = str(path)
    return os.fsencode(name) if any("\udc80" <= character <= "\udcff" for character in name) else name


def _checked_path(path: str | Path) -> Path:
    path = Path(path)
    if not path.exists():
        raise FileNotFoundError(f"audio file {path} does not exist")
    if path.is_dir():
        raise ValueError(f"{path} is a folder, an audio file was expected")
    if path.stat().st_size == 0:
        raise ValueError(f"{path} is an empty file (0 bytes); remove it or download it again")
    return path


def _undecodable(path: str | Path, error: Exception) -> str:
    return (
        f"{path} cannot be read as audio ({error}); expected a format of libsndfile such as wav, flac, ogg or mp3: "
        f"convert it (ffmpeg -i {Path(path).name} {Path(path).stem}.flac) or remove it"
    )
