"""Cuts of speech at 16 kHz: whole recordings and parts of them, and which lengths are used."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from lhotse import Recording
from lhotse.audio import AudioSource as RecordingFile
from lhotse.cut import Cut

from robustdistiller.acoustics import AudioInfo, Piece
from robustdistiller.acoustics.audio.sources import frames_of
from robustdistiller.common.audio import SAMPLE_RATE_HZ


class FileCut(NamedTuple):
    """A recording in a file, or a part of one, whose header is known: what waits to become a cut of lhotse.

    Making lhotse's objects for 300,000 recordings takes 15 s and a gigabyte. This has what choosing among them needs.

    Attributes:
        id: of the cut.
        file: absolute path.
        info: header of the file.
        num_samples: length of the cut at 16 kHz.
        first_frame: where it begins, at the file's own rate.
        num_frames: its length at the file's own rate.
    """

    id: str
    file: str
    info: AudioInfo
    num_samples: int
    first_frame: int
    num_frames: int

    @property
    def duration(self) -> float:
        """Length in seconds."""
        return self.num_samples / SAMPLE_RATE_HZ

    @property
    def recording_id(self) -> str:
        """Of the recording."""
        return self.id

    def cut(self) -> Cut:
        """The cut, at 16 kHz."""
        rate_hz, frames = self.info.sample_rate_hz, self.info.num_frames
        source = RecordingFile("file", list(range(self.info.num_channels)), self.file)
        cut = Recording(self.id, [source], rate_hz, frames, frames / rate_hz).to_cut()
        if self.num_frames != frames:
            place = {"offset": self.first_frame / rate_hz, "duration": self.num_frames / rate_hz}
            cut = cut.truncate(**place, preserve_id=True)
        return at_16_khz(cut.with_id(self.id))


def as_cut(cut: Cut | FileCut) -> Cut:
    """The cut itself, made if it is in waiting."""
    return cut.cut() if isinstance(cut, FileCut) else cut


def at_16_khz(cut: Cut) -> Cut:
    """The cut, resampled when it is read if need be."""
    return cut if cut.sampling_rate == SAMPLE_RATE_HZ else cut.resample(SAMPLE_RATE_HZ)


def stretch_of(cut: Cut | FileCut, start: int, num_samples: int) -> Cut:
    """The part of a cut from sample `start` on, under the same id."""
    place = {"offset": start / SAMPLE_RATE_HZ, "duration": num_samples / SAMPLE_RATE_HZ}
    return as_cut(cut).truncate(**place, preserve_id=True)


def file_cuts(name: str, pieces: Sequence[Piece], headers: dict[str, AudioInfo]) -> tuple[list[FileCut], list[str]]:
    """Cuts called `NAME/PIECE` of recordings, and what is wrong with pieces that are none.

    Args:
        name: first part of the ids.
        pieces: the recordings.
        headers: of their files; pieces of other files are left out.
    """
    found, wrong = [], []
    for piece in pieces:
        file, first = str(piece.file), piece.frame_offset
        info = headers.get(file)
        if info is None:
            continue
        try:
            frames = frames_of(piece, info)
        except ValueError as error:
            wrong.append(str(error))
            continue
        samples = (2 * frames * SAMPLE_RATE_HZ // info.sample_rate_hz + 1) // 2  # as lhotse rounds, half up
        path = file if file.startswith(os.sep) else os.path.abspath(file)  # noqa: PTH100
        found.append(FileCut(f"{name}/{piece.name}", path, info, samples, first, frames))
    return found, wrong


@dataclass(frozen=True)
class LengthRule:
    """Which recordings are used, and in which pieces, by their length in samples at 16 kHz.

    Attributes:
        min_samples: shorter recordings are left out, and so are shorter last pieces.
        max_samples: longer recordings are left out; `None` keeps them.
        windows_of: recordings are cut into pieces of at most so many samples; `None` leaves them whole.
    """

    min_samples: int = 1
    max_samples: int | None = None
    windows_of: int | None = None

    def pieces(self, cut: Cut | FileCut) -> Sequence[Cut | FileCut]:
        """What is used of a recording: nothing, itself, or consecutive pieces of it."""
        length, size = cut.num_samples, self.windows_of
        if length < self.min_samples or (self.max_samples is not None and length > self.max_samples):
            return ()
        if size is None or length <= size:
            return (cut,)
        starts = [start for start in range(0, length, size) if min(size, length - start) >= self.min_samples]
        return [stretch_of(cut, start, min(size, length - start)).with_id(f"{cut.id}@{start}") for start in starts]

    def lengths(self, lengths: np.ndarray) -> np.ndarray:
        """Lengths of the `pieces` of recordings of these lengths, in another order."""
        longest = lengths.max(initial=0) if self.max_samples is None else self.max_samples
        lengths = lengths[(lengths >= self.min_samples) & (lengths <= longest)]
        if self.windows_of is None:
            return lengths
        size, rest = self.windows_of, lengths % self.windows_of
        rest = rest[(rest > 0) & ((lengths <= size) | (rest >= self.min_samples))]
        return np.concatenate([np.full((lengths // size).sum(), size, lengths.dtype), rest])

    def left_out(self, lengths: np.ndarray) -> list[str]:
        """How many recordings of these lengths are not used, and why."""
        found, longest = [], self.max_samples
        if short := int((lengths < self.min_samples).sum()):
            found.append(f"{short} shorter than {self.min_samples} samples")
        if longest is not None and (long := int((lengths > longest).sum())):
            seconds = longest / SAMPLE_RATE_HZ
            found.append(f"{long} longer than {seconds:g} s (data.long_files=drop)")
        return found


def choose_by_hash(cuts: Iterable[Cut | FileCut], count: int, salt: str = "") -> list[Cut | FileCut]:
    """The `count` cuts whose ids have the smallest hashes, in any order the same; added cuts change few of them."""
    return sorted(cuts, key=lambda cut: name_hash(salt + cut.id))[:count]


def name_hash(name: str) -> str:
    """SHA-256, in hexadecimal."""
    return hashlib.sha256(name.encode()).hexdigest()


def id_digest(cuts: Iterable[Cut | FileCut]) -> str:
    """SHA-256 of ids and lengths, in hexadecimal."""
    digest = hashlib.sha256()
    for cut in cuts:
        digest.update(f"{cut.id}\t{cut.num_samples}\n".encode())
    return digest.hexdigest()


def num_samples_of(cuts: Iterable[Cut | FileCut]) -> np.ndarray:
    """(N,) int64, at 16 kHz."""
    return np.fromiter((cut.num_samples for cut in cuts), np.int64)
