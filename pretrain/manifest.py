"""Lists of audio: plain folders become lhotse cuts, kept on disk, and every data root is checked before training."""

from __future__ import annotations

import gzip
import hashlib
import json
import logging
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from lhotse import CutSet, Recording
from lhotse.audio import AudioSource as RecordingFile
from lhotse.cut import Cut

from robustdistiller.acoustics import AudioSource, Piece, audio_info
from robustdistiller.upstream.checkpoints.files import write_atomically

from .settings import SettingsError

logger = logging.getLogger(__name__)

SAMPLE_RATE_HZ = 16_000
_UNREADABLE_LIMIT = 0.01  # beyond this share a folder is broken, not a file


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
        units = ((self.hours, "h"), (self.hours * 60, "min"), (self.hours * 3600, "s"))
        amount, unit = next((one for one in units if one[0] >= 1), units[-1])
        found = f"{self.kind:<8} {self.path}: {self.files:,} file{'s' * (self.files != 1)}, {amount:.1f} {unit}"
        if not self.left_out:
            return found
        return f"{found} ({len(self.left_out)} left out: {self.left_out[0]}{', ...' * (len(self.left_out) > 1)})"


def speech_cuts(
    roots: Sequence[str], manifest_dir: Path, min_samples: int = 1, windows_of: int | None = None
) -> tuple[list[Cut], list[RootReport]]:
    """All speech of some roots as cuts at 16 kHz.

    Headers are read once: the list is kept in `manifest_dir` and made anew when a file's name, size or time changes.
    A cut's id is the root's name and the path below it, so that it survives moving the data.

    Args:
        roots: folders (searched recursively), audio files, `.tsv` manifests of pieces, or lhotse cut manifests.
        manifest_dir: where the lists are kept.
        min_samples: shorter recordings are left out, at 16 kHz.
        windows_of: cut longer recordings into pieces of so many samples; `None` leaves them whole.

    Raises:
        SettingsError: a root is missing, empty, or holds more than 1 % of unreadable files; the root is named.
    """
    cuts, reports = [], []
    for index, root in enumerate(roots):
        name = Path(root).expanduser().resolve().name
        if any(Path(other).expanduser().resolve().name == name for other in roots[:index]):
            name = f"{name}-{index}"
        found, left_out = _root_cuts(root, name, manifest_dir)
        kept = [cut for cut in found if cut.num_samples >= min_samples]
        left_out += [
            f"{cut.id} is shorter than {min_samples} samples" for cut in found if cut.num_samples < min_samples
        ]
        if not kept:
            raise SettingsError(f"data.speech: {root} holds no usable speech: {'; '.join(left_out[:3])}")
        reports.append(RootReport("speech", str(root), len(kept), _hours(kept), tuple(left_out)))
        cuts += kept
    if windows_of:
        cuts = [piece for cut in cuts for piece in _windows(cut, windows_of, min_samples)]
    return cuts, reports


def cuts_digest(cuts: Iterable[Cut]) -> str:
    """SHA-256 of ids and lengths: the same speech in another place has the same digest."""
    digest = hashlib.sha256()
    for cut in cuts:
        digest.update(f"{cut.id}\t{cut.num_samples}\n".encode())
    return digest.hexdigest()


def source_report(kind: str, path: str, source: AudioSource, left_out: tuple[str, ...] = ()) -> RootReport:
    """Counts what a noise, rir or babble root holds, reading every header."""
    return RootReport(kind, path, len(source), source.duration_s() / 3600, left_out)


def _root_cuts(root: str, name: str, manifest_dir: Path) -> tuple[list[Cut], list[str]]:
    path = Path(root).expanduser()
    if path.name.endswith((".jsonl", ".jsonl.gz")):
        if not path.is_file():
            raise SettingsError(f"data.speech: {path} does not exist")
        return [_at_16_khz(cut) for cut in CutSet.from_file(path)], []
    try:
        pieces = AudioSource.from_path(path).pieces
    except (FileNotFoundError, ValueError) as error:
        raise SettingsError(f"data.speech: {error}") from error
    return piece_cuts(pieces, name, path, manifest_dir)


def piece_cuts(
    pieces: Sequence[Piece], name: str, root: Path, manifest_dir: Path, key: str = "data.speech"
) -> tuple[list[Cut], list[str]]:
    """Cuts at 16 kHz of listed recordings, `NAME/PIECE` each, from headers that are read once and kept.

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
    manifest = manifest_dir / f"{name}-{hashlib.sha256(str(root.resolve()).encode()).hexdigest()[:8]}.jsonl.gz"
    notes = manifest.with_suffix(".json")
    fingerprint = _fingerprint(name, pieces)
    known = json.loads(notes.read_text()) if notes.is_file() and manifest.is_file() else {}
    if known.get("fingerprint") != fingerprint:
        logger.info("reading the headers of %d files in %s", len(pieces), root)
        known = {"fingerprint": fingerprint, "left_out": _write_manifest(manifest, name, pieces, root, key)}
        write_atomically(notes, lambda file: file.write_text(json.dumps(known)))
    return [_at_16_khz(cut) for cut in CutSet.from_file(manifest)], known["left_out"]


def _write_manifest(manifest: Path, name: str, pieces: Sequence[Piece], root: Path, key: str) -> list[str]:
    """Read headers and write the cuts; returns what could not be read."""
    with ThreadPoolExecutor(8) as pool:
        results = list(pool.map(lambda piece: _piece_cut(name, piece), pieces))
    cuts = [result for result in results if not isinstance(result, str)]
    unreadable = [result for result in results if isinstance(result, str)]
    if len(unreadable) > max(_UNREADABLE_LIMIT * len(pieces), 1) or not cuts:
        raise SettingsError(
            f"{key}: {len(unreadable)} of {len(pieces)} files in {root} cannot be read; first: {unreadable[0]}"
        )
    write_atomically(manifest, lambda file: _write_cuts(cuts, file))
    return unreadable


def _write_cuts(cuts: list[Cut], file: Path) -> None:
    with gzip.open(file, "wt", encoding="utf-8") as lines:
        lines.writelines(json.dumps(cut.to_dict()) + "\n" for cut in cuts)


def _piece_cut(name: str, piece: Piece) -> Cut | str:
    """A cut, or the reason why there is none."""
    try:
        info = audio_info(piece.path)
    except (ValueError, OSError) as error:
        return str(error)
    recording = Recording(
        id=f"{name}/{piece.name}",
        sources=[RecordingFile("file", list(range(info.num_channels)), str(piece.path.resolve()))],
        sampling_rate=info.sample_rate_hz,
        num_samples=info.num_frames,
        duration=info.num_frames / info.sample_rate_hz,
    )
    cut = recording.to_cut()
    if piece.frame_offset or piece.num_frames is not None:
        num_frames = info.num_frames - piece.frame_offset if piece.num_frames is None else piece.num_frames
        cut = cut.truncate(
            offset=piece.frame_offset / info.sample_rate_hz,
            duration=num_frames / info.sample_rate_hz,
            preserve_id=True,
        )
    return cut.with_id(recording.id)


def _at_16_khz(cut: Cut) -> Cut:
    return cut if cut.sampling_rate == SAMPLE_RATE_HZ else cut.resample(SAMPLE_RATE_HZ)


def _windows(cut: Cut, num_samples: int, min_samples: int) -> list[Cut]:
    """Consecutive pieces of at most `num_samples`, the last one left out if it is too short."""
    starts = range(0, cut.num_samples, num_samples)
    if len(starts) == 1:
        return [cut]
    lengths = [min(num_samples, cut.num_samples - start) for start in starts]
    return [
        cut.truncate(offset=start / SAMPLE_RATE_HZ, duration=length / SAMPLE_RATE_HZ, preserve_id=True).with_id(
            f"{cut.id}@{start}"
        )
        for start, length in zip(starts, lengths)
        if length >= min_samples
    ]


def _fingerprint(name: str, pieces: Sequence[Piece]) -> str:
    digest = hashlib.sha256(name.encode())
    for piece in pieces:
        stat = piece.path.stat()
        facts = (piece.name, str(piece.path), piece.frame_offset, piece.num_frames, stat.st_size, stat.st_mtime_ns)
        digest.update(repr(facts).encode())
    return digest.hexdigest()


def _hours(cuts: Iterable[Cut]) -> float:
    return sum(cut.duration for cut in cuts) / 3600
