"""Speech, noise and rooms that corruption is measured on, made from the shipped recordings."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import soundfile

from robustdistiller.acoustics import AudioSource, RIRSource, resample
from robustdistiller.mini.corpus import MiniCorpus, build

RATE_HZ = 16_000
MUSAN_S, URBANSOUND_S = 24.0, 4.0  # length of a recording: the mean of the one, the most of the other


@dataclass(frozen=True)
class Library:
    """Files for the released way, and the same as sources of ours."""

    noise_files: list[Path]
    rir_files: list[Path]
    noise: AudioSource
    rir: RIRSource


def mini_corpus(work: Path) -> MiniCorpus:
    """The shipped recordings as files."""
    return build(work / "mini")


def utterances(corpus: MiniCorpus, count: int, seed: int) -> list[np.ndarray]:
    """Real speech in stretches of 4 to 15.6 s, as in LibriSpeech: recordings in random order, put together."""
    rng = np.random.default_rng(seed)
    files = sorted(corpus.pool.rglob("*.flac"))
    lengths = rng.integers(4 * RATE_HZ, 250_001, count)
    parts, total = [], 0
    while total < lengths.sum():
        parts.append(soundfile.read(files[rng.integers(len(files))], dtype="float32")[0])
        total += len(parts[-1])
    return np.split(np.concatenate(parts)[: lengths.sum()], np.cumsum(lengths)[:-1])


def plain_library(corpus: MiniCorpus, folder: Path) -> Library:
    """All at 16 kHz: noises of 24 s, mono, as in MUSAN, and responses."""
    noise = _files(folder / "noise", _noises(corpus, MUSAN_S))
    return _library(folder, noise, _files(folder / "rir", _rirs(corpus)))


def released_library(corpus: MiniCorpus, folder: Path) -> Library:
    """As the released recipe's: noises of 4 s at 44.1 kHz in stereo (UrbanSound8K), responses at 48 kHz (DNS)."""
    noise = _files(folder / "noise", _noises(corpus, URBANSOUND_S), 44_100, channels=2)
    return _library(folder, noise, _files(folder / "rir", _rirs(corpus), 48_000))


def linked_noises(files: list[Path], folder: Path, count: int) -> list[Path]:
    """A folder of so many noise files, a hundred to a subfolder: hard links to the given ones."""
    shutil.rmtree(folder, ignore_errors=True)
    made = []
    for index in range(count):
        path = folder / f"{index // 100:04d}" / f"{index:06d}.wav"
        if index % 100 == 0:
            path.parent.mkdir(parents=True)
        path.hardlink_to(files[index % len(files)])
        made.append(path)
    return made


def _library(folder: Path, noise: list[Path], rir: list[Path]) -> Library:
    return Library(noise, rir, AudioSource.from_path(folder / "noise"), RIRSource.from_path(folder / "rir"))


def _noises(corpus: MiniCorpus, duration_s: float) -> Iterable[tuple[str, np.ndarray]]:
    for path in sorted(corpus.noise_train.rglob("*.flac")):
        samples, _ = soundfile.read(path, dtype="float32")
        yield path.stem, np.resize(samples, round(duration_s * RATE_HZ))


def _rirs(corpus: MiniCorpus) -> Iterable[tuple[str, np.ndarray]]:
    for path in sorted(corpus.rir_train.glob("*.flac")):
        yield path.stem, soundfile.read(path, dtype="float32")[0]


def _files(
    folder: Path, recordings: Iterable[tuple[str, np.ndarray]], rate_hz: int = RATE_HZ, channels: int = 1
) -> list[Path]:
    """16-bit WAV files; what is there is used again."""

    def write(partial: Path) -> None:
        for name, samples in recordings:
            samples = np.clip(resample(samples, RATE_HZ, rate_hz), -1, 1)
            soundfile.write(partial / f"{name}.wav", np.stack([samples] * channels, 1), rate_hz)

    return _once(folder, write)


def _once(folder: Path, write: Callable[[Path], None]) -> list[Path]:
    if not folder.is_dir():
        partial = folder.with_name(f".{folder.name}.partial")
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
        write(partial)
        partial.replace(folder)
    return sorted(folder.iterdir())
