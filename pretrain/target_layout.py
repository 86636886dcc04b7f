"""Where in a cache of targets each utterance has its place."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from robustdistiller.common.settings import SettingsError

_SLOT = np.dtype([("place", "<u8"), ("start", "<u8"), ("frames", "<u4"), ("crops", "<u4")])


@dataclass(frozen=True)
class Layout:
    """Where the utterances of a list have their places.

    Attributes:
        ids: (N,) uint64 digests of their ids, sorted.
        slots: (N,) first place, first frame, frames per stretch, stretches.
        longer: utterances of which only stretches are heard.

    >>> layout = Layout.of([("a", 3200), ("b", 9600)], max_samples=6400, crops=2, num_frames=lambda n: n // 320)
    >>> layout.places, layout.frames, layout.longer
    (3, 50, 1)
    """

    ids: np.ndarray
    slots: np.ndarray
    longer: int

    @classmethod
    def of(
        cls, utterances: Iterable[tuple[str, int]], max_samples: int, crops: int, num_frames: Callable[[int], int]
    ) -> Layout:
        """Places for utterances, by id and number of samples.

        Raises:
            SettingsError: two ids are the same.
        """
        ids, frames, stretches, longer = [], [], [], 0
        for name, samples in utterances:
            longer += samples > max_samples
            ids.append(id_digest(name))
            frames.append(num_frames(min(samples, max_samples)))
            stretches.append(crops if samples > max_samples else 1)
        slots = np.zeros(len(ids), _SLOT)
        slots["frames"], slots["crops"] = frames, stretches
        ends = np.cumsum(slots["crops"], dtype=np.uint64)
        slots["place"] = ends - slots["crops"]
        sizes = slots["frames"].astype(np.uint64) * slots["crops"]
        slots["start"] = np.cumsum(sizes, dtype=np.uint64) - sizes
        order = np.argsort(np.array(ids, np.uint64), kind="stable")
        sorted_ids = np.array(ids, np.uint64)[order]
        if (sorted_ids[1:] == sorted_ids[:-1]).any():
            raise SettingsError("targets.cache: two utterances have the same id; give their folders different names")
        return cls(sorted_ids, slots[order], longer)

    @property
    def places(self) -> int:
        """How many stretches there are."""
        return int(self.slots["crops"].sum(dtype=np.uint64))

    @property
    def frames(self) -> int:
        """Frames of all of them."""
        return int((self.slots["frames"].astype(np.uint64) * self.slots["crops"]).sum())


def frames_of(conv_layers: Sequence[tuple[int, int, int]], samples: int) -> int:
    """Frames that (channels, kernel, stride) layers make of so many samples.

    >>> frames_of(((512, 10, 5), (512, 8, 4)), 400)
    18
    """
    for _, kernel, stride in conv_layers:
        samples = max((samples - kernel) // stride + 1, 0)
    return samples


def id_digest(name: str) -> np.uint64:
    """Eight bytes that stand for an utterance's id.

    >>> id_digest("utt-1") in (id_digest("utt-2"), id_digest("utt-3"))
    False
    """
    return np.uint64(int.from_bytes(hashlib.blake2b(name.encode(), digest_size=8).digest(), "little"))
