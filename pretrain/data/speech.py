"""Lists of audio: plain folders become cuts, and every data root is checked before training."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from lhotse import CutSet
from lhotse.cut import Cut

from robustdistiller.acoustics import AudioSource, Piece
from robustdistiller.common.names import hours_in_words
from robustdistiller.common.settings import SettingsError
from robustdistiller.pretrain.data.cuts import SAMPLE_RATE_HZ, at_16_khz, id_digest, windows
from robustdistiller.pretrain.data.file_cuts import FileCut, as_cut, file_cuts
from robustdistiller.pretrain.data.headers import read_headers
from robustdistiller.pretrain.data.shard_index import find_shards, index_shards
from robustdistiller.pretrain.data.shards import ShardedSpeech, StreamedCuts


@dataclass(frozen=True)
class RootReport:
    """What one data root holds.

    Attributes:
        kind: speech, noise, rir or babble.
        path: the root as given.
        files: usable recordings.
        hours: their length.
        left_out: recordings that are not used, with the reason.

    >>> str(RootReport("noise", "musan/noise", 930, 6.17))
    'noise    musan/noise: 930 files, 6.2 h'
    """

    kind: str
    path: str
    files: int
    hours: float
    left_out: tuple[str, ...] = ()

    def __str__(self) -> str:
        files = f"{self.files:,} file{'s' * (self.files != 1)}"
        found = f"{self.kind:<8} {self.path}: {files}, {hours_in_words(self.hours)}"
        if not self.left_out:
            return found
        return f"{found} ({len(self.left_out)} left out: {self.left_out[0]}{', ...' * (len(self.left_out) > 1)})"


def speech_cuts(
    roots: Sequence[str], manifest_dir: Path, min_samples: int = 1, windows_of: int | None = None
) -> tuple[list[Cut | FileCut] | StreamedCuts, list[RootReport]]:
    """All speech of some roots as cuts at 16 kHz.

    Headers are read once: they are kept in `manifest_dir`, and read again when a file's name, size or time changes.
    A cut's id is the root's name and the path below it, so that it survives moving the data.

    Args:
        roots: folders (searched recursively), audio files, `.tsv` manifests of pieces, lhotse cut manifests, or shards
            (see `pretrain.shard_index.find_shards`).
        manifest_dir: where the lists are kept.
        min_samples: shorter recordings are left out, at 16 kHz.
        windows_of: cut longer recordings into pieces of so many samples; `None` leaves them whole.

    Returns:
        The cuts, as a list unless some of them are in shards, those of plain files in waiting (`FileCut`); and what
        each root holds.

    Raises:
        SettingsError: a root is missing, empty, or holds more than 1 % of unreadable files; the root is named.
    """
    listed, sharded, reports = [], [], []
    for index, root in enumerate(roots):
        name = _root_name(root)
        if any(_root_name(other) == name for other in roots[:index]):
            name = f"{name}-{index}"
        found, left_out = _root_cuts(root, name, manifest_dir, min_samples, windows_of)
        if not len(found):
            raise SettingsError(f"data.speech: {root} holds no usable speech: {'; '.join(left_out[:3])}")
        if isinstance(found, ShardedSpeech):
            hours = float(found.lengths.sum(dtype=np.int64)) / SAMPLE_RATE_HZ / 3600
            sharded.append(found)
        else:
            hours = _hours(found)
            listed += (
                [piece for cut in found for piece in _windows(cut, windows_of, min_samples)] if windows_of else found
            )
        reports.append(RootReport("speech", str(root), len(found), hours, tuple(left_out)))
    return StreamedCuts(listed, sharded) if sharded else listed, reports


def cuts_digest(cuts: Iterable[Cut | FileCut] | StreamedCuts) -> str:
    """SHA-256 of ids and lengths: the same speech in another place has the same digest."""
    return cuts.digest() if isinstance(cuts, StreamedCuts) else id_digest(cuts)


def source_report(kind: str, path: str, source: AudioSource, left_out: tuple[str, ...] = ()) -> RootReport:
    """Counts what a noise, rir or babble root holds; reads the headers that are not known yet."""
    return RootReport(kind, path, len(source), source.duration_s() / 3600, left_out)


def _root_name(root: str) -> str:
    return Path(str(root).removeprefix("shar:")).expanduser().resolve().name


def _root_cuts(
    root: str, name: str, manifest_dir: Path, min_samples: int, windows_of: int | None
) -> tuple[list[Cut | FileCut] | ShardedSpeech, list[str]]:
    shards = find_shards(root)
    if shards:
        place = hashlib.sha256(str(shards[0].tar.resolve()).encode()).hexdigest()[:8]
        return index_shards(shards, name, manifest_dir / f"{name}-{place}", min_samples, windows_of)
    found, left_out = _listed_cuts(root, name, manifest_dir)
    short = [f"{cut.id} is shorter than {min_samples} samples" for cut in found if cut.num_samples < min_samples]
    return [cut for cut in found if cut.num_samples >= min_samples], left_out + short


def _listed_cuts(root: str, name: str, manifest_dir: Path) -> tuple[list[Cut | FileCut], list[str]]:
    path = Path(root).expanduser()
    if path.name.endswith((".jsonl", ".jsonl.gz")):
        if not path.is_file():
            raise SettingsError(f"data.speech: {path} does not exist")
        return [at_16_khz(cut) for cut in CutSet.from_file(path)], []
    try:
        pieces = AudioSource.from_path(path).pieces
    except (FileNotFoundError, ValueError) as error:
        raise SettingsError(f"data.speech: {error}") from error
    return piece_cuts(pieces, name, path, manifest_dir)


def piece_cuts(
    pieces: Sequence[Piece], name: str, root: Path, manifest_dir: Path, key: str = "data.speech"
) -> tuple[list[FileCut], list[str]]:
    """Cuts in waiting of listed recordings, `NAME/PIECE` each, from headers that are read once and kept.

    Args:
        pieces: what to make cuts of.
        name: first part of the ids.
        root: where the pieces come from.
        manifest_dir: where the list is kept.
        key: of the settings, for messages.

    Returns:
        The cuts, and what could not be read.

    Raises:
        SettingsError: more than 1 % of the files are unreadable.
    """
    place = hashlib.sha256(str(root.resolve()).encode()).hexdigest()[:8]
    try:
        headers, unreadable = read_headers(pieces, manifest_dir / f"{name}-{place}.npz", f" in {root}")
    except ValueError as error:
        raise SettingsError(f"{key}: {error}") from error
    cuts, wrong = file_cuts(name, pieces, headers)
    return cuts, [*unreadable.values(), *wrong]


def _windows(cut: Cut | FileCut, num_samples: int, min_samples: int) -> Sequence[Cut | FileCut]:
    return [cut] if cut.num_samples <= num_samples else windows(as_cut(cut), num_samples, min_samples)


def _hours(cuts: Iterable[Cut | FileCut]) -> float:
    return sum(cut.duration for cut in cuts) / 3600
