"""Speech in shards (lhotse Shar, WebDataset): what is in them is listed on disk once, never in memory.

A shard's index is an ordinary lhotse manifest of cuts, whose recordings say where in which tar file their bytes are.
Epochs are made from the indexes alone: shuffling, sharing out among processes and resuming read no audio, and which
loader process reads a recording does not matter. The price is that a tar file is read at many places instead of from
its start to its end, so it has to be a plain, uncompressed file.
"""

from __future__ import annotations

import gzip
import json
import random
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from lhotse.cut import Cut
from lhotse.serialization import deserialize_item
from lhotse.utils import fastcopy

from robustdistiller.pretrain.data.cuts import LengthRule

PLACE = "shard_place"  # custom field of a cut: tar file, first byte, number of bytes
_SHUFFLED_LINES = 10_000


@dataclass(frozen=True)
class ShardedSpeech:
    """The speech of one root, by the indexes of its shards.

    Attributes:
        indexes: lhotse manifests, one per shard.
        lengths: (N,) samples at 16 kHz of every cut that `__iter__` gives, in another order.
        digest: of ids and lengths of everything in the shards.
        rule: which recordings are used, and in which pieces.
    """

    indexes: tuple[Path, ...]
    lengths: np.ndarray
    digest: str
    rule: LengthRule

    def __len__(self) -> int:
        return len(self.lengths)

    def __iter__(self) -> Iterator[Cut]:
        return self._cuts(line for index in self.indexes for line in _lines(index))

    def shuffled(self, generator: random.Random) -> Iterator[Cut]:
        """Every cut once: shards in random order, and their cuts through a buffer from which any may come next."""
        order = generator.sample(self.indexes, len(self.indexes))
        return self._cuts(_through_buffer((line for index in order for line in _lines(index)), generator))

    def _cuts(self, lines: Iterable[str]) -> Iterator[Cut]:
        for line in lines:
            yield from self.rule.pieces(deserialize_item(json.loads(line)))


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
    try:
        with gzip.open(index, "rt", encoding="utf-8") as lines:
            yield from lines
    except (OSError, EOFError) as error:
        raise ValueError(f"{index} cannot be read ({error}): remove it, and it is made anew") from error


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
