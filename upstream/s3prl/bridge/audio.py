"""Audio reading that torchaudio 2.9 gave up: ``set_audio_backend``, ``load`` and ``info``, by soundfile."""

from __future__ import annotations

import os
from typing import Any, BinaryIO, NamedTuple

import soundfile
import torch

from robustdistiller.upstream.s3prl.bridge.shim import Shim, working_import
from robustdistiller.upstream.s3prl.bridge.torchaudio_library import load_torchaudio


class AudioMetaData(NamedTuple):
    """What ``torchaudio.info`` used to return.

    Example:
        >>> AudioMetaData(16000, 1600, 1, 16, "PCM_S").num_frames
        1600
    """

    sample_rate: int
    num_frames: int
    num_channels: int
    bits_per_sample: int
    encoding: str


def load(
    uri: str | os.PathLike | BinaryIO,
    frame_offset: int = 0,
    num_frames: int = -1,
    normalize: bool = True,
    channels_first: bool = True,
    **_ignored: object,
) -> tuple[torch.Tensor, int]:
    """Read audio as ``torchaudio.load`` did.

    Args:
        uri: path or open binary file, any format of libsndfile.
        frame_offset: first sample to read.
        num_frames: number of samples to read, -1 for all.
        normalize: must be True: integers are scaled to [-1, 1).
        channels_first: shape ``(channels, samples)``, else ``(samples, channels)``.

    Returns:
        The float32 waveform and its sample rate in Hz.

    Raises:
        ValueError: ``normalize`` is False.

    Example:
        >>> import io
        >>> file = io.BytesIO()
        >>> soundfile.write(file, [0.0, 0.5, -0.5], 16000, format="WAV")
        >>> _ = file.seek(0)
        >>> load(file)
        (tensor([[ 0.0000,  0.5000, -0.5000]]), 16000)
    """
    if not normalize:
        raise ValueError("torchaudio.load(normalize=False) is not supported: found False, expected True.")
    samples, sample_rate_hz = soundfile.read(
        uri, start=frame_offset, frames=num_frames, dtype="float32", always_2d=True
    )
    waveform = torch.from_numpy(samples)
    return (waveform.t().contiguous() if channels_first else waveform), sample_rate_hz


def info(uri: str | os.PathLike | BinaryIO, **_ignored: object) -> AudioMetaData:
    """Read an audio file's header as ``torchaudio.info`` did; ``bits_per_sample`` is 0 for lossy formats.

    Example:
        >>> import io
        >>> file = io.BytesIO()
        >>> soundfile.write(file, [0.0, 0.5, -0.5], 16000, format="FLAC")
        >>> _ = file.seek(0)
        >>> info(file)
        AudioMetaData(sample_rate=16000, num_frames=3, num_channels=1, bits_per_sample=16, encoding='FLAC')
    """
    header = soundfile.info(uri)
    kind, _, bits = header.subtype.partition("_")
    encodings = {"PCM": "PCM_S", "FLOAT": "PCM_F", "DOUBLE": "PCM_F", "VORBIS": "VORBIS"}
    bits_per_sample = {"FLOAT": 32, "DOUBLE": 64, "ULAW": 8, "ALAW": 8}.get(kind, int(bits) if bits.isdigit() else 0)
    encoding = "FLAC" if header.format == "FLAC" else encodings.get(kind, kind)
    return AudioMetaData(header.samplerate, header.frames, header.channels, bits_per_sample, encoding)


def bridge_audio_backend() -> Shim:
    """``torchaudio.set_audio_backend``: called by s3prl at import and at start, gone in torchaudio 2.9."""
    torchaudio: Any = load_torchaudio()  # it may get a name that this release lacks
    if hasattr(torchaudio, "set_audio_backend"):
        return Shim("torchaudio.set_audio_backend", False, "torchaudio still has it")
    torchaudio.set_audio_backend = lambda *_args, **_kwargs: None
    return Shim("torchaudio.set_audio_backend", True, "gone from torchaudio 2.9 on; nothing is left to choose")


def bridge_audio_load() -> Shim:
    """``torchaudio.load``: from torchaudio 2.9 on it needs TorchCodec and ffmpeg."""
    torchaudio: Any = load_torchaudio()  # it may get a name that this release lacks
    name = "torchaudio.load"
    if hasattr(torchaudio, "info"):  # both left their own implementation in the same release
        return Shim(name, False, "this torchaudio reads audio itself")
    works, reason = working_import("torchcodec.decoders")
    if works:
        return Shim(name, False, "TorchCodec is installed")
    torchaudio.load = load
    return Shim(name, True, f"{reason}; read by soundfile instead")


def bridge_audio_info() -> Shim:
    """``torchaudio.info``: gone in torchaudio 2.9."""
    torchaudio: Any = load_torchaudio()  # it may get a name that this release lacks
    if hasattr(torchaudio, "info"):
        return Shim("torchaudio.info", False, "torchaudio still has it")
    torchaudio.info = info
    return Shim("torchaudio.info", True, "gone from torchaudio 2.9 on; read by soundfile instead")
