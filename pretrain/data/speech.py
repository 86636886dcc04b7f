"""The speech of a run: folders, manifests and shards become cuts, and every epoch an order of them."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import count, islice
from pathlib import Path

import numpy as np
from lhotse import CutSet
from lhotse.cut import Cut

from robustdistiller.acoustics import AudioSource, Piece, SourceSpec, root_weights
from robustdistiller.common.audio import SAMPLE_RATE_HZ
from robustdistiller.common.names import hours_in_words
from robustdistiller.common.seeds import seed_of
from robustdistiller.common.settings import SettingsError
from robustdistiller.pretrain.data.cuts import FileCut, LengthRule, at_16_khz, file_cuts, id_digest, num_samples_of
from robustdistiller.pretrain.data.headers import read_headers
from robustdistiller.pretrain.data.shard_index import find_shards, index_shards
from robustdistiller.pretrain.data.shards import ShardedSpeech


@dataclass(frozen=True)
class RootReport:
    """What one data root holds.

    Attributes:
        kind: speech, noise, rir, babble or music.
        path: the root as given.
        files: usable recordings, or pieces of recordings.
        hours: their length.
        left_out: what is not used, with the reason.
    """

    kind: str
    path: str
    files: int
    hours: float
    left_out: tuple[str, ...] = ()

    def __str__(self) -> str:
        found = (
            f"{self.kind:<8} {self.path}: {self.files:,} file{'s' * (self.files != 1)}, {hours_in_words(self.hours)}"
        )
        others = f" and {len(self.left_out) - 1} more" if len(self.left_out) > 1 else ""
        return f"{found} (left out: {self.left_out[0]}{others})" if self.left_out else found


class SpeechCuts:
    """All speech of a run, and the order in which each epoch hears it.

    An epoch has as many cuts as there are. Without weights it is a pass over all of them. With weights, each part is
    heard in passes of its own, each in a new order, and an epoch continues them where the one before stopped, as far
    as the part's share goes: no cut of a part comes again before all of the part have come.

    Args:
        parts: cuts of each root, at 16 kHz.
        weights: of each part, of which it has its share of all cuts; `None` gives every cut the same chance.
    """

    def __init__(
        self, parts: Iterable[Sequence[Cut | FileCut] | ShardedSpeech], weights: Sequence[float] | None = None
    ) -> None:
        parts = list(parts)
        if weights is None:  # lists are one list: where a cut comes from makes no difference
            listed = [cut for part in parts if not isinstance(part, ShardedSpeech) for cut in part]
            parts = [*([listed] if listed else []), *(part for part in parts if isinstance(part, ShardedSpeech))]
        self.parts, self.weights = parts, weights

    def __len__(self) -> int:
        return sum(map(len, self.parts))

    def __iter__(self) -> Iterator[Cut | FileCut]:
        for part in self.parts:
            yield from part

    def epoch(self, seed: int, epoch: int) -> Iterator[tuple[int, Cut | FileCut]]:
        """The cuts of an epoch, the parts evenly mixed, each with the number of passes over its part before this one.

        The order follows from seed and epoch alone. Audio is not read.
        """
        generator, streams, left = random.Random(seed_of(seed, epoch)), [], []
        for number, part in enumerate(self.parts):
            first, last = self._heard_before(number, epoch), self._heard_before(number, epoch + 1)
            streams.append(islice(_passes(part, first, seed, number), last - first))
            left.append(last - first)
        while sum(left):
            chosen = generator.choices(range(len(left)), left)[0] if len(left) > 1 else 0
            left[chosen] -= 1
            yield next(streams[chosen])

    def _heard_before(self, number: int, epoch: int) -> int:
        """How many cuts of a part come before an epoch."""
        if self.weights is None:
            return epoch * len(self.parts[number])
        return int(epoch * len(self) * self.weights[number] / sum(self.weights))

    @property
    def listed(self) -> list[Cut | FileCut]:
        """The cuts that are not in shards."""
        return [cut for part in self.parts if not isinstance(part, ShardedSpeech) for cut in part]

    def where(self, keep: Callable[[Cut | FileCut], bool]) -> SpeechCuts:
        """The speech without some of the cuts that are not in shards."""
        kept = [part if isinstance(part, ShardedSpeech) else list(filter(keep, part)) for part in self.parts]
        if self.weights is None:
            return SpeechCuts(kept)
        return SpeechCuts(filter(len, kept), [weight for part, weight in zip(kept, self.weights) if len(part)])

    def lengths(self) -> np.ndarray:
        """(N,) samples at 16 kHz of every cut, in another order."""
        parts = [part.lengths if isinstance(part, ShardedSpeech) else num_samples_of(part) for part in self.parts]
        return np.concatenate([np.zeros(0, np.int64), *parts])

    def digest(self) -> str:
        """SHA-256 of ids, lengths and shares: the same speech in another place has the same digest."""
        parts = [part.digest if isinstance(part, ShardedSpeech) else id_digest(part) for part in self.parts]
        if self.weights is not None:
            parts += [f"{weight / sum(self.weights):.9g}" for weight in self.weights]
        return parts[0] if len(parts) == 1 else hashlib.sha256("\n".join(parts).encode()).hexdigest()


def _passes(
    part: Sequence[Cut | FileCut] | ShardedSpeech, first: int, seed: int, number: int
) -> Iterator[tuple[int, Cut | FileCut]]:
    """The endless passes over a part, from the cut on before which there were `first`."""
    for passed in count(first // len(part)):
        generator = random.Random(seed_of(seed, passed, number) if number else seed_of(seed, passed))
        skipped = max(first - passed * len(part), 0)
        if isinstance(part, ShardedSpeech):
            yield from ((passed, cut) for cut in islice(part.shuffled(generator), skipped, None))
        else:
            order = generator.sample(range(len(part)), len(part))
            yield from ((passed, part[index]) for index in order[skipped:])


def speech_cuts(
    roots: Sequence[str], manifest_dir: Path, min_samples: int = 1, max_samples: int | None = None,
    windows_of: int | None = None,
) -> tuple[SpeechCuts, list[RootReport]]:  # fmt: skip
    """All speech of some roots as cuts at 16 kHz.

    Headers are read once: they are kept in `manifest_dir`, and read again when a file's name, size or time changes.
    A cut's id is the root's name and the path below it, so that it survives moving the data.

    Args:
        roots: folders (searched recursively), audio files, `.tsv` manifests of pieces, lhotse cut manifests, or shards
            (see `data.shards.find_shards`); all or none of them as `PATH,weight=W`.
        manifest_dir: where the lists are kept.
        min_samples, max_samples, windows_of: see `LengthRule`.

    Returns:
        The speech, and what each root holds.

    Raises:
        SettingsError: a root is missing, empty, or holds more than 1 % of unreadable files; the root is named.
    """
    rule = LengthRule(min_samples, max_samples, windows_of)
    try:
        specs = [SourceSpec.parse(str(root)) for root in roots]
        weights = root_weights(specs)
    except ValueError as error:
        raise SettingsError(f"data.speech: {error}") from error
    parts, reports, names = [], [], []
    for root, spec in zip(roots, specs):
        if spec != SourceSpec(spec.path, weight=spec.weight):
            raise SettingsError(f"data.speech: {root} chooses among recordings; expected PATH or PATH,weight=W")
        name = Path(spec.path.removeprefix("shar:")).expanduser().resolve().name
        names.append(name)
        name += f"-{len(names) - 1}" * (name in names[:-1])
        part, left_out = _root_cuts(spec.path, name, manifest_dir, rule)
        if not len(part):
            raise SettingsError(f"data.speech: {root} holds no usable speech: {'; '.join(left_out[:3])}")
        lengths = part.lengths if isinstance(part, ShardedSpeech) else num_samples_of(part)
        hours = float(lengths.sum(dtype=np.int64)) / SAMPLE_RATE_HZ / 3600
        parts.append(part)
        reports.append(RootReport("speech", str(root), len(part), hours, tuple(left_out)))
    return SpeechCuts(parts, weights), reports


def _root_cuts(
    root: str, name: str, manifest_dir: Path, rule: LengthRule
) -> tuple[list[Cut | FileCut] | ShardedSpeech, list[str]]:
    path = Path(root).expanduser()
    if shards := find_shards(root):
        place = hashlib.sha256(str(shards[0].tar.resolve()).encode()).hexdigest()[:8]
        return index_shards(shards, name, manifest_dir / f"{name}-{place}", rule)
    if path.name.endswith((".jsonl", ".jsonl.gz")):
        found, left_out = _cuts_in(path), []
    else:
        try:
            pieces = AudioSource.from_path(path).pieces
        except (FileNotFoundError, ValueError) as error:
            raise SettingsError(f"data.speech: {error}") from error
        found, left_out = piece_cuts(pieces, name, path, manifest_dir)
    return [piece for cut in found for piece in rule.pieces(cut)], rule.left_out(num_samples_of(found)) + left_out


def _cuts_in(manifest: Path) -> list[Cut]:
    """The cuts of one of lhotse's manifests."""
    if not manifest.is_file():
        raise SettingsError(f"data.speech: {manifest} does not exist")
    try:
        cuts = list(CutSet.from_file(manifest))
    except (OSError, EOFError, TypeError, ValueError, LookupError, AttributeError) as error:
        raise SettingsError(f"data.speech: {manifest} cannot be read as lhotse's cuts: {error}") from error
    if other := next((type(one).__name__ for one in cuts if not isinstance(one, Cut)), None):
        raise SettingsError(f"data.speech: {manifest} holds a {other}, expected cuts: `lhotse cut simple` makes them")
    return [at_16_khz(cut) for cut in cuts]


def piece_cuts(
    pieces: Sequence[Piece], name: str, root: Path, manifest_dir: Path, key: str = "data.speech"
) -> tuple[list[FileCut], list[str]]:
    """Cuts in waiting of listed recordings, `NAME/PIECE` each, and what could not be read; headers are kept.

    Raises:
        SettingsError: more than 1 % of the files are unreadable; `key`, of the settings, is named.
    """
    place = hashlib.sha256(str(root.resolve()).encode()).hexdigest()[:8]
    try:
        headers, unreadable = read_headers(pieces, manifest_dir / f"{name}-{place}.json", f" in {root}")
    except ValueError as error:
        raise SettingsError(f"{key}: {error}") from error
    cuts, wrong = file_cuts(name, pieces, headers)
    return cuts, [*unreadable.values(), *wrong]
