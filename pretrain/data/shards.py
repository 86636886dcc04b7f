"""Speech in shards (lhotse Shar, WebDataset): what is in them is listed on disk once, never in memory.

A shard's index is an ordinary lhotse manifest of cuts, whose recordings say where in which tar file their bytes are.
Epochs are made from the indexes alone: shuffling, sharing out among processes and resuming read no audio, and which
loader process reads a recording does not matter. The price is that a tar file is read at many places instead of from
its start to its end, so it has to be a plain, uncompressed file.
"""

from __future__ import annotations

import gzip
import hashlib
import json
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from lhotse.cut import Cut
from lhotse.serialization import deserialize_item
from lhotse.utils import fastcopy

from robustdistiller.pretrain.data.cuts import id_digest, windows
from robustdistiller.pretrain.data.file_cuts import FileCut, as_cut, num_samples_of

PLACE = "shard_place"  # custom field of a cut: tar file, first byte, number of bytes
_SHUFFLED_LINES = 10_000


@dataclass(frozen=True)
class ShardedSpeech:
    """The speech of one root, by the indexes of its shards.

    Attributes:
        indexes: lhotse manifests, one per shard.
        lengths: (N,) samples at 16 kHz of every cut that `__iter__` gives, in another order.
        digest: of ids and lengths of everything in the shards.
        min_samples: shorter recordings are passed over.
        windows_of: recordings are cut into pieces of so many samples; `None` leaves them whole.
    """

    indexes: tuple[Path, ...]
    lengths: np.ndarray
    digest: str
    min_samples: int
    windows_of: int | None

    def __len__(self) -> int:
        return len(self.lengths)

    def __iter__(self) -> Iterator[Cut]:
        return self._cuts(line for index in self.indexes for line in _lines(index))

    def shuffled(self, generator: random.Random) -> Iterator[Cut]:
        """Every cut once: shards in random order, and their cuts through a buffer from which any may come next."""
        order = generator.sample(self.indexes, len(self.indexes))
        return self._cuts(_through_buffer((line for index in order for line in _lines(index)), generator))

    def _cuts(self, lines: Iterator[str]) -> Iterator[Cut]:
        for line in lines:
            cut = deserialize_item(json.loads(line))
            if cut.num_samples >= self.min_samples:
                yield from windows(cut, self.windows_of, self.min_samples) if self.windows_of else [cut]


class StreamedCuts:
    """Speech that is partly or wholly in shards: lists of cuts and `ShardedSpeech`, taken together.

    Args:
        listed: cuts in memory, or in waiting.
        sharded: speech in shards.

    >>> from lhotse.testing.dummies import dummy_cut
    >>> cuts = StreamedCuts([dummy_cut(index) for index in range(3)])
    >>> len(cuts), sorted(cut.id[-1] for cut in cuts.shuffled(seed=1))
    (3, ['0', '1', '2'])
    """

    def __init__(self, listed: Sequence[Cut | FileCut] = (), sharded: Sequence[ShardedSpeech] = ()):
        self.listed, self.sharded = listed, tuple(sharded)

    def __len__(self) -> int:
        return sum(map(len, (self.listed, *self.sharded)))

    def __iter__(self) -> Iterator[Cut]:
        yield from map(as_cut, self.listed)
        for part in self.sharded:
            yield from part

    def shuffled(self, seed: int) -> Iterator[Cut]:
        """Every cut once, in an order that follows from the seed; the parts are mixed evenly."""
        generator = random.Random(seed)
        order = generator.sample(range(len(self.listed)), len(self.listed))
        streams = [(as_cut(self.listed[index]) for index in order)]
        left = [len(self.listed)]
        for part in self.sharded:
            # Generators of their own: when a stream draws must not depend on which others there are.
            streams.append(part.shuffled(random.Random(generator.getrandbits(64))))
            left.append(len(part))
        while sum(left):
            chosen = generator.choices(range(len(left)), left)[0] if len(left) > 1 else 0
            left[chosen] -= 1
            yield next(streams[chosen])

    def lengths(self) -> np.ndarray:
        """(N,) samples at 16 kHz of every cut, in another order."""
        return np.concatenate([num_samples_of(self.listed), *(part.lengths for part in self.sharded)])

    def digest(self) -> str:
        """SHA-256 of ids and lengths, in hexadecimal."""
        parts = [id_digest(self.listed), *(part.digest for part in self.sharded)]
        return hashlib.sha256("\n".join(parts).encode()).hexdigest()


def with_audio(cut: Cut) -> Cut:
    """A cut from a shard with its encoded audio in memory; any other cut as it is.

    Raises:
        OSError: the tar file is gone.
    """
    place = shard_place(cut)
    if place is None:
        return cut
    with Path(place[0]).open("rb") as tar:
        tar.seek(place[1])
        content = tar.read(place[2])
    (source,) = cut.recording.sources
    return fastcopy(cut, recording=fastcopy(cut.recording, sources=[fastcopy(source, type="memory", source=content)]))


def shard_place(cut: Cut) -> tuple[str, int, int] | None:
    """Tar file, first byte and number of bytes of a cut's recording; `None` if it is not in a shard."""
    place = (getattr(cut, "custom", None) or {}).get(PLACE)
    return place and (place["tar"], place["offset"], place["num_bytes"])


def _lines(index: Path) -> Iterator[str]:
    with gzip.open(index, "rt", encoding="utf-8") as lines:
        yield from lines


def _through_buffer(lines: Iterator[str], generator: random.Random) -> Iterator[str]:
    buffer: list[str] = []
    for line in lines:
        if len(buffer) < _SHUFFLED_LINES:
            buffer.append(line)
            continue
        chosen = generator.randrange(len(buffer))
        line, buffer[chosen] = buffer[chosen], line
        yield line
    generator.shuffle(buffer)
    yield from buffer
