"""What lies in a folder of audio: corpora, what they serve, how much of it, and which files are no use."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path

import numpy as np
from tqdm import tqdm

from ..audio.files import AudioInfo, audio_info, read_audio
from ..audio.listing import Piece, list_pieces
from ..audio.sources import SHORTEST_S, SILENCE, frames_of
from .find import Corpus, find_corpora
from .layout import PARTS, Item

_AT_ONCE = 1000  # files given to the threads together, so that what is known of others needs no memory
_BLOCK_S = 300.0  # so much of a file is in memory when it is listened to


@dataclass(frozen=True)
class Amount:
    """How much there is of something.

    >>> Amount(3, 5400.0).hours
    1.5
    """

    files: int
    seconds: float

    @property
    def hours(self) -> float:
        """The length in hours."""
        return self.seconds / 3600


@dataclass(frozen=True)
class Service:
    """What a corpus has for one purpose.

    Attributes:
        parts: by ``train``, ``dev``, ``test`` and ``training`` (see `corpus_pieces`), those that are not empty.
        labels: files by label, most first.
        on_request: the same for labels that have to be asked for with ``only``.
    """

    parts: Mapping[str, Amount]
    labels: Mapping[str, int] = field(default_factory=dict)
    on_request: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class CorpusSurvey:
    """One corpus in a folder, or the folder itself.

    Attributes:
        kind: a layout, see `corpus_pieces`.
        root: where the corpus lies.
        files, hours: of all its readable audio that lies in the folder, whatever it serves.
        sample_rates_hz: files by sampling rate, most first.
        services: by purpose.
        problem: why nothing can be said about parts and labels; empty where all is well.
    """

    kind: str
    root: str
    files: int
    hours: float
    sample_rates_hz: Mapping[int, int]
    services: Mapping[str, Service]
    problem: str = ""


@dataclass(frozen=True)
class FolderSurvey:
    """What `survey` found.

    Attributes:
        path: as given.
        corpora: that it holds, or that it is a part of.
        troubles: by name of the recording, why it is no use: not readable (such files are counted nowhere), shorter
            than a frame; with ``listen`` silent, cut short or not a number, too.
    """

    path: str
    corpora: tuple[CorpusSurvey, ...]
    troubles: Mapping[str, str]


def survey(
    path: str | Path, pieces: Sequence[Piece] | None = None, listen: bool = False, progress: bool = False
) -> FolderSurvey:
    """Look through a folder of audio, a file or a manifest.

    Headers are read in several threads. Of each recording a name, a length and a rate are kept, nothing else.

    Args:
        path: what to look through.
        pieces: what `list_pieces` found there, where that is known.
        listen: also read all samples, to find silent, damaged and shortened files.
        progress: show a bar, where the output is a terminal.

    Raises:
        FileNotFoundError: `path` does not exist or holds no audio.

    >>> import soundfile, tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     soundfile.write(f"{folder}/rain.wav", np.full(8000, 0.1), 16000)
    ...     Path(folder, "wind.wav").touch()
    ...     found = survey(folder)
    >>> found.corpora[0].kind, found.corpora[0].sample_rates_hz, list(found.troubles)
    ('folder', {16000: 1}, ['wind.wav'])
    """
    path = Path(path)
    pieces = list_pieces(path) if pieces is None else pieces
    seconds, rates_hz = np.full(len(pieces), np.nan), np.zeros(len(pieces), np.int64)
    troubles = {}
    looked_at = enumerate(_looked_at(pieces, listen))
    what = "audio" if listen else "headers"
    for index, (length_s, rate_hz, trouble) in tqdm(
        looked_at, what, len(pieces), unit="file", disable=None if progress else True
    ):
        seconds[index], rates_hz[index] = length_s, rate_hz
        if trouble:
            troubles[pieces[index].name] = trouble
    position = {piece.name: index for index, piece in enumerate(pieces)}
    corpora = (_corpus(one, position, seconds, rates_hz) for one in find_corpora(path, list(position)))
    return FolderSurvey(str(path), tuple(corpora), troubles)


def _looked_at(pieces: Sequence[Piece], listen: bool) -> Iterator[tuple[float, int, str]]:
    header = lru_cache(maxsize=64)(audio_info)  # of a manifest, many recordings lie in one file
    with ThreadPoolExecutor(8) as pool:
        for start in range(0, len(pieces), _AT_ONCE):
            yield from pool.map(lambda piece: _look(piece, header, listen), pieces[start : start + _AT_ONCE])


def _look(piece: Piece, header: Callable[[str], AudioInfo], listen: bool) -> tuple[float, int, str]:
    """Length in s (NaN where it cannot be read), sampling rate, and what is wrong."""
    try:
        info = header(str(piece.file))
        frames = frames_of(piece, info)
    except (OSError, ValueError) as error:
        return np.nan, 0, str(error)
    length_s = frames / info.sample_rate_hz
    if length_s < SHORTEST_S:
        return length_s, info.sample_rate_hz, f"is {length_s * 1000:.3g} ms long, less than a frame of 25 ms"
    return length_s, info.sample_rate_hz, _heard(piece, info, frames) if listen else ""


def _heard(piece: Piece, info: AudioInfo, frames: int) -> str:
    """What is wrong with the samples; long files are read in blocks where any part can be read by itself."""
    block = round(_BLOCK_S * info.sample_rate_hz) if info.exact_seek else frames
    silent = True
    try:
        for start in range(0, frames, block):
            first, count = piece.frame_offset + start, min(block, frames - start)
            part = read_audio(piece.file, info.sample_rate_hz, frame_offset=first, num_frames=count)
            silent = silent and np.abs(part).max() <= SILENCE
    except (OSError, ValueError) as error:
        return str(error)
    return "is silent: no sample is above a third of a step of 16 bits" if silent else ""


def _corpus(corpus: Corpus, position: Mapping[str, int], seconds: np.ndarray, rates_hz: np.ndarray) -> CorpusSurvey:
    readable = {name: seconds[index] for name, index in position.items() if rates_hz[index]}

    def amount(names: Iterable[str]) -> Amount:
        lengths = [readable[name] for name in names]
        return Amount(len(lengths), float(np.sum(lengths)))

    inside = [name for name in corpus.names.values() if name in readable]
    rates = Counter(int(rates_hz[position[name]]) for name in inside)
    services, problem = {}, ""
    try:
        for purpose in corpus.serves:
            items = {name: item for name, item in corpus.items(purpose).items() if name in readable}
            usual = corpus.usual(items, purpose)
            every = {split: [n for n, item in usual.items() if item.is_in(split)] for split in (*PARTS, "training")}
            parts = {split: amount(names) for split, names in every.items() if names}
            others = [item for name, item in items.items() if name not in usual]
            if items:
                services[purpose] = Service(parts, _labels(usual.values()), _labels(others))
    except (OSError, ValueError) as error:
        problem = str(error)
    whole = amount(inside)
    root, rates = str(corpus.root), dict(rates.most_common())
    return CorpusSurvey(corpus.kind, root, whole.files, whole.hours, rates, services, problem)


def _labels(items: Iterable[Item]) -> dict[str, int]:
    return dict(Counter(label for item in items for label in item.labels).most_common())
