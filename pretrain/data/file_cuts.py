"""Cuts in waiting: what a list of some 100,000 recordings holds in place of lhotse's cuts, which are made when read."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np
from lhotse import Recording
from lhotse.audio import AudioSource as RecordingFile
from lhotse.cut import Cut

from robustdistiller.acoustics import AudioInfo, Piece
from robustdistiller.pretrain.data.cuts import SAMPLE_RATE_HZ, at_16_khz


class FileCut(NamedTuple):
    """A recording in a file, or a part of one, whose header is known.

    Making lhotse's objects for 300,000 recordings takes 15 s and a gigabyte. This has what choosing among them needs.

    Attributes:
        id: of the cut.
        file: absolute path.
        info: header of the file.
        num_samples: length of the cut at 16 kHz.
        first_frame: where it begins, at the file's own rate.
        num_frames: its length at the file's own rate.

    >>> cut = FileCut("a", "/data/a.wav", AudioInfo(8000, 4000, 1, True), 8000, 0, 4000)
    >>> cut.duration, cut.cut().num_samples
    (0.5, 8000)
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
        info = self.info
        recording = Recording(
            id=self.id,
            sources=[RecordingFile("file", list(range(info.num_channels)), self.file)],
            sampling_rate=info.sample_rate_hz,
            num_samples=info.num_frames,
            duration=info.num_frames / info.sample_rate_hz,
        )
        cut = recording.to_cut()
        if self.num_frames != info.num_frames:
            cut = cut.truncate(
                offset=self.first_frame / info.sample_rate_hz,
                duration=self.num_frames / info.sample_rate_hz,
                preserve_id=True,
            )
        return at_16_khz(cut.with_id(self.id))


def as_cut(cut: Cut | FileCut) -> Cut:
    """The cut itself, made if it is in waiting."""
    return cut.cut() if isinstance(cut, FileCut) else cut


def file_cuts(name: str, pieces: Sequence[Piece], headers: dict[str, AudioInfo]) -> tuple[list[FileCut], list[str]]:
    """Cuts called `NAME/PIECE` of recordings, and what is wrong with pieces that are none.

    Args:
        name: first part of the ids.
        pieces: the recordings.
        headers: of their files; pieces of other files are left out.

    >>> headers = {"/a.wav": AudioInfo(16000, 900, 1, True)}
    >>> cuts, wrong = file_cuts("root", [Piece("a", "/a.wav"), Piece("b", "/a.wav", 800, 200)], headers)
    >>> [(cut.id, cut.num_samples) for cut in cuts], wrong
    ([('root/a', 900)], ["'b' should be frames 800 to 1000 of /a.wav, which has 900"])
    """
    found, wrong = [], []
    for piece in pieces:
        file = str(piece.file)
        info = headers.get(file)
        if info is None:
            continue
        first = piece.frame_offset
        frames = info.num_frames - first if piece.num_frames is None else piece.num_frames
        if frames <= 0 or first + frames > info.num_frames:
            wrong.append(
                f"{piece.name!r} should be frames {first} to {first + frames} of {file}, which has {info.num_frames}"
            )
            continue
        # As lhotse rounds, half up.
        samples = (2 * frames * SAMPLE_RATE_HZ // info.sample_rate_hz + 1) // 2
        path = file if file.startswith(os.sep) else os.path.abspath(file)  # noqa: PTH100
        found.append(FileCut(f"{name}/{piece.name}", path, info, samples, first, frames))
    return found, wrong


def num_samples_of(cuts: Iterable[Cut | FileCut]) -> np.ndarray:
    """(N,) int64, at 16 kHz."""
    return np.fromiter((cut.num_samples for cut in cuts), np.int64)
