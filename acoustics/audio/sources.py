"""Where noise, babble speech and impulse responses come from: folders, files, or pieces of long recordings."""

import hashlib
import logging
import math
import os
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cached_property
from itertools import accumulate
from pathlib import Path

import numpy as np

from robustdistiller.common.audio import SAMPLE_RATE_HZ
from robustdistiller.common.digests import content_digests

from .files import AudioInfo, audio_info, audio_infos, read_audio
from .listing import Piece, joined_pieces, list_pieces, read_manifest

logger = logging.getLogger(__name__)

WHOLE_FILE_S = 300.0
"""Files at another rate, or of formats without exact seeking, are decoded whole up to this length, however many."""
_FILTER_FRAMES = 1024  # of the file, to both sides: more than the resampler's filter reaches

SILENCE = 1e-5
"""A third of one step of 16-bit audio: what stays below is silent."""
SHORTEST_S = 0.025
"""Shorter recordings (than a frame) are no sound to repeat."""
_BLOCK_S = 60.0
"""So much of a long recording is in memory when the next sound is looked for."""
_ATTEMPTS = 100
_RECENT = 8

_LOCK = threading.Lock()  # of the recordings in memory


class AudioSource:
    """A fixed, ordered collection of recordings, read piece by piece as mono at one rate.

    Headers are read when first needed and remembered. Ogg and MP3 files, and files at another rate, of up to five
    minutes are decoded whole and kept in a cache of bounded size; so are all where it holds the whole collection. Of
    others only the samples asked for are read.

    Args:
        pieces: the recordings; their names must differ.
        sample_rate_hz: rate of what ``read`` returns.
        cache_bytes: upper bound of the decoded audio kept in memory, per process.
        infos: headers that are known already, by file name.
        weights: how often each recording is drawn, in relation to the others, above 0; None draws all equally often.

    Attributes:
        shares: (N,) float64, of all draws each recording's; None where all are drawn equally often.
        skipped: recordings that `draw` passed over in this process, and why.

    >>> import soundfile, tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     soundfile.write(f"{folder}/rain.wav", np.arange(8) / 8, 16000, subtype="FLOAT")
    ...     source = AudioSource.from_path(folder)
    ...     source.names, source.read("rain.wav", start=6, num_samples=5).tolist()
    (('rain.wav',), [0.75, 0.875, 0.0, 0.125, 0.25])
    """

    def __init__(
        self,
        pieces: Iterable[Piece],
        sample_rate_hz: int = SAMPLE_RATE_HZ,
        cache_bytes: int = 256 * 2**20,
        infos: Mapping[str, AudioInfo] | None = None,
        weights: Sequence[float] | None = None,
    ):
        self.pieces = tuple(pieces)
        self.sample_rate_hz = sample_rate_hz
        self.cache_bytes = cache_bytes
        self.names = tuple(piece.name for piece in self.pieces)
        self._index = {name: index for index, name in enumerate(self.names)}
        if not self.pieces:
            raise ValueError("an audio source needs at least one recording, found none")
        if len(self._index) < len(self.names):
            name = next(name for index, name in enumerate(self.names) if self._index[name] != index)
            raise ValueError(f"{name!r} occurs twice in an audio source; every recording needs a name of its own")
        self._infos = dict(infos or {})
        self.shares = None if weights is None else np.asarray(weights, np.float64) / np.sum(weights)
        if self.shares is not None and (len(self.shares) != len(self.pieces) or not (self.shares > 0).all()):
            raise ValueError(
                f"{len(self.pieces)} recordings need as many weights above 0, found {list(weights)[:3]}..."
            )
        self.skipped: dict[str, str] = {}
        self._decoded: OrderedDict[Path | str, np.ndarray] = OrderedDict()
        self._recent: OrderedDict[tuple, np.ndarray] = OrderedDict()

    @classmethod
    def from_path(cls, path: str | Path | Sequence[str | Path], **options) -> "AudioSource":
        """Lists audio files.

        Args:
            path: a folder (searched to any depth, sorted by relative path), an audio file, a ``.tsv`` manifest
                (see :meth:`from_manifest`), or a sequence of these. Recordings are named relative to the folder, or,
                in a sequence, to the folder that all of it lies in.
            options: ``sample_rate_hz`` and ``cache_bytes`` of the constructor.

        Raises:
            FileNotFoundError: a path does not exist, or a folder holds no audio (it is named).

        >>> AudioSource.from_path("/no/such/folder")
        Traceback (most recent call last):
        FileNotFoundError: /no/such/folder does not exist; expected a folder of audio, an audio file or a .tsv manifest
        """
        paths = [Path(path)] if isinstance(path, (str, Path)) else [Path(one) for one in path]
        return cls(joined_pieces([(one, list_pieces(one)) for one in paths]), **options)

    @classmethod
    def from_manifest(cls, manifest: str | Path, options: dict | None = None, **where: str) -> "AudioSource":
        """Reads a tab-separated list of pieces of long recordings.

        The header names the columns: ``offset_samples`` and ``num_samples`` (at the file's own rate), ``file`` (beside
        the manifest or in the folder called like it; without the column, the audio file called like the manifest),
        ``name`` or ``utterance_id``, and any others.

        Args:
            manifest: the ``.tsv`` file.
            options: ``sample_rate_hz`` and ``cache_bytes`` of the constructor.
            where: keeps the rows whose column has this value, as in ``split="test", kind="noise"``.

        Raises:
            FileNotFoundError: the manifest or a file it names does not exist.
            ValueError: a column that is not there, a broken row, or no row left.

        >>> import soundfile, tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     soundfile.write(f"{folder}/all.wav", np.zeros(900), 16000)
        ...     rows = ["file\\toffset_samples\\tnum_samples\\tname\\tsplit"]
        ...     rows += ["all.wav\\t0\\t400\\train\\ttrain", "all.wav\\t400\\t500\\twind\\ttest"]
        ...     _ = Path(folder, "noise.tsv").write_text("\\n".join(rows))
        ...     source = AudioSource.from_manifest(f"{folder}/noise.tsv", split="test")
        ...     source.names, source.num_samples("wind")
        (('wind',), 500)
        """
        return cls(read_manifest(Path(manifest), where), **(options or {}))

    def __len__(self) -> int:
        return len(self.pieces)

    def __contains__(self, name: str) -> bool:
        return name in self._index

    def __getstate__(self) -> dict:
        return {**self.__dict__, "_decoded": OrderedDict(), "_recent": OrderedDict()}

    def piece(self, name: str) -> Piece:
        """The recording called ``name``; ValueError when there is none."""
        if name not in self._index:
            raise ValueError(f"no recording called {name!r} among {len(self)} ({', '.join(self.names[:3])}, ...)")
        return self.pieces[self._index[name]]

    def info(self, name: str) -> AudioInfo:
        """Header of the file that holds the recording."""
        return self._info(self.piece(name))

    def num_samples(self, name: str) -> int:
        """Length of the recording at ``sample_rate_hz``."""
        piece = self.piece(name)
        info = self._info(piece)
        return -(-frames_of(piece, info) * self.sample_rate_hz // info.sample_rate_hz)

    def duration_s(self) -> float:
        """Length of everything, in seconds. Reads every header, several at once.

        Raises:
            FileNotFoundError, ValueError: a file is not there or is no audio, or a piece lies outside its file; the
                first of these in order is named.
        """
        self._infos |= audio_infos(str(piece.file) for piece in self.pieces if str(piece.file) not in self._infos)
        infos = ((piece, self._info(piece)) for piece in self.pieces)
        return sum(frames_of(piece, info) / info.sample_rate_hz for piece, info in infos)

    def digest(self) -> str:
        """SHA-256 over names, file sizes, positions and shares: equal digests, equal draws (samples are not hashed)."""
        digest = hashlib.sha256()
        for piece in self.pieces:
            facts = (piece.name, os.stat(piece.file).st_size, piece.frame_offset, piece.num_frames)  # noqa: PTH116
            digest.update(repr(facts).encode())
        if self.shares is not None:
            digest.update(self.shares.astype("<f4").tobytes())
        return digest.hexdigest()

    @cached_property
    def content_digest(self) -> str:
        """SHA-256 over the bytes of the files, positions and shares, whatever they are called and wherever they lie.

        Recordings are known by it, so that nothing has one that is not audio: see `duration_s` for what it raises.
        """
        self.duration_s()
        files = list(dict.fromkeys(str(piece.file) for piece in self.pieces))
        contents = dict(zip(files, content_digests(files)))
        digest = hashlib.sha256()
        for piece in self.pieces:
            digest.update(repr((contents[str(piece.file)], piece.frame_offset, piece.num_frames)).encode())
        if self.shares is not None:
            digest.update(self.shares.astype("<f4").tobytes())
        return digest.hexdigest()

    def reads_exactly(self, name: str, channel: int | None = None) -> bool:
        """Whether a part of a recording equals that part of the whole, bit for bit."""
        info = self.info(name)
        same_rate = info.sample_rate_hz == self.sample_rate_hz
        kept_whole = channel is None and (info.duration_s <= WHOLE_FILE_S or self._fits_in_memory)
        return (info.exact_seek and same_rate) or kept_whole

    def read(self, name: str, start: int = 0, num_samples: int | None = None, channel: int | None = None) -> np.ndarray:
        """Reads part of a recording, which is continued from its beginning when it is too short.

        Args:
            name: the recording.
            start: first sample, at ``sample_rate_hz``.
            num_samples: length of the result; None means the whole recording from ``start`` around to ``start``.
            channel: one channel instead of the mean of all.

        Returns:
            (num_samples,) float32. Do not change it in place.
        """
        total = self.num_samples(name)
        if num_samples is None:
            num_samples = total
        if not 0 <= start < total:
            raise ValueError(f"{name!r} has {total} samples, reading from sample {start} was asked for")
        if start + num_samples <= total:
            return self._read_part(name, start, num_samples, channel)
        if num_samples <= total and self.reads_exactly(name, channel):
            parts = (start, total - start), (0, start + num_samples - total)
            return np.concatenate([self._read_part(name, *part, channel) for part in parts])
        whole = self._read_part(name, 0, total, channel)
        return np.resize(np.concatenate([whole[start:], whole[:start]]), num_samples)

    def draw(self, rng: np.random.Generator, num_samples: int, count: int = 1) -> tuple[list[str], list[int]]:
        """Draws parts of recordings in which something is heard.

        A recording that is long enough is cropped; a shorter one is repeated, from anywhere in it. A part that is
        silent, or does not move from one value, is moved to the next sound. Recordings that are so throughout, or
        shorter than 25 ms, are passed over, logged and noted in `skipped`.

        Args:
            rng: where all randomness comes from.
            num_samples: length of the parts.
            count: of recordings; none is drawn twice where there are enough, but for those that take the place of a
                recording that is passed over.

        Returns:
            Names, and the first sample of each part.

        Raises:
            ValueError: a recording cannot be read, or none that is tried can be used.
        """
        chosen = rng.choice(len(self), size=count, replace=count > len(self), p=self.shares)
        names, starts = [], []
        for name in (self.names[index] for index in chosen):
            for _ in range(_ATTEMPTS):
                total = self.num_samples(name)
                start = int(rng.integers(total - num_samples + 1 if total >= num_samples else total))
                found = None if name in self.skipped else self.sounding(name, start, num_samples)
                if found is not None and total >= SHORTEST_S * self.sample_rate_hz:
                    break
                short = total < SHORTEST_S * self.sample_rate_hz
                self._skip(name, f"it has {total} samples, less than 25 ms" if short else "it is silent or constant")
                name = self.pick(rng)
            else:
                raise ValueError(f"of {_ATTEMPTS} recordings drawn none can be used; first: {self._first_skipped()}")
            names.append(name)
            starts.append(found)
        return names, starts

    def pick(self, rng: np.random.Generator, names: Sequence[str] | None = None) -> str:
        """One of some recordings, or of all, each as often as its share says."""
        names = self.names if names is None else names
        if self.shares is None:
            return names[rng.integers(len(names))]
        shares = self.shares if names is self.names else self.shares[[self._index[name] for name in names]]
        return names[rng.choice(len(names), p=shares / shares.sum())]

    def sounding(self, name: str, start: int, num_samples: int) -> int | None:
        """``start``, or where the next sound begins if that part is silent or constant; None if nothing sounds."""
        part = self.read(name, start, num_samples)
        if _sounds(part[:1000]) or _sounds(part):
            return start
        found = self._first_unlike(0.0 if np.abs(part).max() <= SILENCE else part[0], name, start)
        return None if found is None or not _sounds(self.read(name, found, num_samples)) else found

    def _first_unlike(self, level: float, name: str, start: int) -> int | None:
        """Where, from `start` to the end and on from the beginning, a recording first leaves a level."""
        total = self.num_samples(name)
        exact = self.info(name).exact_seek or self.reads_exactly(name)  # what is read in blocks is what the whole is
        block = round(_BLOCK_S * self.sample_rate_hz) if exact else total
        for first, end in ((start, total), (0, start)):
            for begin in range(first, end, block):
                part = self._read_part(name, begin, min(block, end - begin), None)
                unlike = np.flatnonzero(np.abs(part - level) > SILENCE)
                if len(unlike):
                    return begin + int(unlike[0])
        return None

    def _skip(self, name: str, reason: str) -> None:
        if name not in self.skipped:
            self.skipped[name] = reason
            logger.warning("recording %r (%s) is passed over: %s", name, self.piece(name).path, reason)

    def _first_skipped(self) -> str:
        name, reason = next(iter(self.skipped.items()))
        return f"{name!r} ({self.piece(name).path}): {reason}"

    def _info(self, piece: Piece) -> AudioInfo:
        file = str(piece.file)
        if file not in self._infos:
            self._infos[file] = audio_info(file)
        return self._infos[file]

    def _read_part(self, name: str, start: int, num_samples: int, channel: int | None) -> np.ndarray:
        """What was read last is still there: it is looked at when it is drawn, and heard afterwards."""
        key = name, start, num_samples, channel
        part = self._recent.get(key)
        if part is None:
            try:
                part = self._read_from_file(*key)
            except (OSError, ValueError) as error:
                error.file = str(self.piece(name).file)  # for those who count files: messages may differ by the part
                raise
            with _LOCK:
                self._recent[key] = part
                while len(self._recent) > _RECENT:
                    self._recent.popitem(last=False)
        return part

    def _read_from_file(self, name: str, start: int, num_samples: int, channel: int | None) -> np.ndarray:
        piece = self.piece(name)
        info = self._info(piece)
        num_frames = frames_of(piece, info)
        if not info.exact_seek and self.reads_exactly(name, channel):
            first = -(-piece.frame_offset * self.sample_rate_hz // info.sample_rate_hz) + start
            part = self._kept(piece.path, lambda: read_audio(piece.path, self.sample_rate_hz))[first:][:num_samples]
            return np.pad(part, (0, num_samples - len(part)))
        same_rate = info.sample_rate_hz == self.sample_rate_hz
        if channel is None and self.reads_exactly(name) and (not same_rate or self._fits_in_memory):
            place = piece.file, self.sample_rate_hz, piece.frame_offset, num_frames, None, None, info
            return self._kept(name, lambda: read_audio(*place))[start:][:num_samples]
        # Resampling turns every `frames` of the file into `samples`. Starting at a multiple of that, with a margin for
        # the filter on both sides, gives the samples that resampling the whole recording would give, within rounding.
        divisor = math.gcd(info.sample_rate_hz, self.sample_rate_hz)
        frames, samples = info.sample_rate_hz // divisor, self.sample_rate_hz // divisor
        margin = 0 if frames == samples else _FILTER_FRAMES
        block = max(start // samples - -(-margin // frames), 0)
        first = block * frames
        stop = min(-(-(start + num_samples) * frames // samples) + margin, num_frames)
        part = read_audio(piece.file, self.sample_rate_hz, piece.frame_offset + first, stop - first, channel, 1.0, info)
        return part[start - block * samples :][:num_samples]

    @cached_property
    def _fits_in_memory(self) -> bool:
        """Whether the cache holds all files. Headers are read only until it is known that it does not."""
        room = self.cache_bytes // np.dtype(np.float32).itemsize
        files = {str(piece.file): piece for piece in self.pieces}
        try:
            lengths = (self._info(piece).duration_s * self.sample_rate_hz for piece in files.values())
            return all(total <= room for total in accumulate(lengths))
        except (OSError, ValueError):  # of a recording that nobody may ask for
            return False

    def _kept(self, key: Path | str, read: Callable[[], np.ndarray]) -> np.ndarray:
        samples = self._decoded.get(key)
        if samples is None:
            samples = read()
        with _LOCK:
            self._decoded[key] = samples
            self._decoded.move_to_end(key)
            while len(self._decoded) > 1 and sum(kept.nbytes for kept in self._decoded.values()) > self.cache_bytes:
                self._decoded.popitem(last=False)
        return samples


def _sounds(part: np.ndarray) -> bool:
    """Whether anything is heard: samples that are neither silent nor all of one value (a direct current)."""
    return bool(np.abs(part).max() > SILENCE and (len(part) == 1 or np.ptp(part) > SILENCE))


def frames_of(piece: Piece, info: AudioInfo) -> int:
    """Length of a recording at its file's own rate; ValueError where it is no part of the file."""
    num_frames = info.num_frames - piece.frame_offset if piece.num_frames is None else piece.num_frames
    if piece.frame_offset < 0 or num_frames <= 0 or piece.frame_offset + num_frames > info.num_frames:
        raise ValueError(
            f"{piece.name!r} should be frames {piece.frame_offset} to {piece.frame_offset + num_frames} of "
            f"{piece.file}, which has {info.num_frames}"
        )
    return num_frames
