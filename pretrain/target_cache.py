"""The teacher's targets, kept on disk: it hears clean speech, so what it says of a stretch of speech stays the same.

FOLDER/targets-0123456789ab/     one teacher, set of targets, way of storing and list of speech
    about.json                   what that is
    ids.npy, slots.npy           digests of the utterances' ids, sorted, and where each has its place
    marks.bin                    for each place, what is there: digest of the waveform, checksum of the targets
    targets.bin                  the targets, frame by frame; memory-mapped, grows as places are filled

A place is filled when its utterance is first met, by whichever process meets it: first the targets are written, then
the mark. A mark that does not fit the waveform, or targets that do not fit the mark, are as if nothing was there, so
that changed audio, crashes and processes that write at once do no harm.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import shutil
import tempfile
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from .disk import DiskFullError
from .target_codec import TargetCodec
from .target_layout import Layout, id_digest

MARK_BYTES = 20  # 16 of the waveform's digest, 4 of the checksum


@dataclass(frozen=True)
class Slot:
    """Where the targets of one stretch of speech are, or have to go.

    Attributes:
        place: number of the mark.
        start: first frame in the file.
        frames: how many.
        digest: of the waveform.

    >>> Slot(0, 0, 49, b"").frames
    49
    """

    place: int
    start: int
    frames: int
    digest: bytes


@dataclass(frozen=True)
class CachedTargets:
    """What the cache holds for the rows of a batch.

    Attributes:
        stored: (B, T, targets, row_bytes) uint8, zero where nothing is known.
        known: whether a row's targets are there.
        slots: of each row; `None` if it has no place.

    >>> CachedTargets(torch.zeros(1, 49, 3, 768, dtype=torch.uint8), (False,), (None,)).missing
    [0]
    """

    stored: Tensor
    known: tuple[bool, ...]
    slots: tuple[Slot | None, ...]

    @property
    def missing(self) -> list[int]:
        """Rows for which the teacher has to be asked."""
        return [row for row, known in enumerate(self.known) if not known]

    def moved(self, move: Callable[[Tensor], Tensor]) -> CachedTargets:
        """With the stored targets elsewhere."""
        return replace(self, stored=move(self.stored))


class TargetCache:
    """Targets by utterance and stretch. Goes to the processes that load data; every process opens the files itself.

    Args:
        folder: made by `open_cache`.
        codec: how targets are stored.
        num_frames: frames of so many samples.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     codec = TargetCodec("fp16", targets=1, width=4)
    ...     layout = Layout.of([("utt-1", 3200)], max_samples=16000, crops=1, num_frames=lambda samples: samples // 320)
    ...     cache = TargetCache(open_cache(Path(folder), {"teacher": "..."}, layout, codec), codec, lambda s: s // 320)
    ...     speech = np.zeros(3200, np.float32)
    ...     before = cache.read([("utt-1", speech)], epoch=0)
    ...     cache.write(before.slots, codec.encode([torch.ones(1, 10, 4)]))
    ...     before.known, cache.read([("utt-1", speech)], 0).known, cache.read([("utt-1", speech + 1)], 0).known
    ((False,), (True,), (False,))
    """

    def __init__(self, folder: Path, codec: TargetCodec, num_frames: Callable[[int], int]):
        self.folder, self.codec, self.num_frames = folder, codec, num_frames
        self._files: dict[str, Any] = {}

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_files": {}}

    def read(self, rows: Sequence[tuple[str, np.ndarray]], epoch: int) -> CachedTargets:
        """What is known of some utterances.

        Args:
            rows: id and waveform (samples,) float32 each.
            epoch: decides which of several stretches of a long recording this is.
        """
        slots = tuple(self._slot(name, samples, epoch) for name, samples in rows)
        frames = self.num_frames(max((len(samples) for _, samples in rows), default=0))
        stored = torch.zeros(len(rows), frames, self.codec.targets, self.codec.row_bytes, dtype=torch.uint8)
        known = tuple(slot is not None and self._read_slot(slot, row.numpy()) for slot, row in zip(slots, stored))
        return CachedTargets(stored, known, slots)

    def complete(self, cached: CachedTargets, ask: Callable[[list[int]], Sequence[Tensor]]) -> list[Tensor]:
        """The targets of a batch: per target (B, T, D) float32, on the device of `cached`.

        What the teacher says now goes through the codec all the same, so that it is the same in every epoch.

        Args:
            cached: from `read`; what others have written since then is looked up once more, so that it does not matter
                how far ahead batches are read.
            ask: the teacher's answer for some rows, per target (rows, T, D); it is kept if it is finite.

        Raises:
            SettingsError: the codec does not reach as far as the teacher's values.
            DiskFullError: there is no space left.
        """
        if not cached.missing:
            return self.codec.decode(cached.stored)
        stored, asked = cached.stored.clone(), []
        for row in cached.missing:
            slot = cached.slots[row]
            late = np.zeros((slot.frames if slot else 0, *stored.shape[2:]), np.uint8)
            if slot is not None and self._read_slot(slot, late):
                stored[row, : slot.frames] = torch.from_numpy(late).to(stored.device)
            else:
                asked.append(row)
        if asked:
            targets = ask(asked)
            fresh = self.codec.encode(targets)
            if all(bool(torch.isfinite(one).all()) for one in targets):  # otherwise the loss will say so
                self.codec.require_range(targets)
                self.write([cached.slots[row] for row in asked], fresh)
            stored[asked, : fresh.shape[1]] = fresh
        return self.codec.decode(stored)

    def write(self, slots: Sequence[Slot | None], stored: Tensor) -> None:
        """Keep the targets of some rows.

        Args:
            slots: of the rows, from `read`.
            stored: (rows, T, targets, row_bytes) from the codec, on any device.

        Raises:
            DiskFullError: there is no space left.
        """
        for slot, row in zip(slots, stored.cpu().numpy()):
            if slot is None:
                continue
            content = np.ascontiguousarray(row[: slot.frames])
            mark = slot.digest + zlib.crc32(content).to_bytes(4, "little")
            try:
                _write_at(self._open("targets.bin"), content.data.cast("B"), slot.start * self.codec.frame_bytes)
                _write_at(self._open("marks.bin"), memoryview(mark), slot.place * MARK_BYTES)
            except OSError as error:
                if error.errno not in (errno.ENOSPC, errno.EDQUOT):
                    raise
                raise DiskFullError(
                    f"targets.cache: the disk of {self.folder} is full; what is in it stays valid: free some space and "
                    "give the same command again, or another out_dir and targets.cache=null for a run without it"
                ) from error

    def filled(self) -> float:
        """Share of the places that are filled."""
        marks = self._map("marks.bin").reshape(-1, MARK_BYTES)
        return float(marks.any(axis=1).mean()) if len(marks) else 1.0

    def _slot(self, name: str, samples: np.ndarray, epoch: int) -> Slot | None:
        ids, table = self._array("ids"), self._array("slots")
        key = id_digest(name)
        index = int(np.searchsorted(ids, key))
        if index == len(ids) or ids[index] != key:
            return None
        entry = table[index]
        crop, frames = epoch % int(entry["crops"]), int(entry["frames"])
        if frames != self.num_frames(len(samples)):  # not as long as its header said
            return None
        digest = hashlib.blake2b(np.ascontiguousarray(samples, "<f4"), digest_size=16).digest()
        return Slot(int(entry["place"]) + crop, int(entry["start"]) + crop * frames, frames, digest)

    def _read_slot(self, slot: Slot, row: np.ndarray) -> bool:
        mark = self._map("marks.bin")[slot.place * MARK_BYTES :][:MARK_BYTES].tobytes()
        if mark[:16] != slot.digest:
            return False
        size = self.codec.frame_bytes
        content = self._map("targets.bin")[slot.start * size :][: slot.frames * size]
        if zlib.crc32(content).to_bytes(4, "little") != mark[16:]:
            return False
        row[: slot.frames] = content.reshape(slot.frames, *row.shape[1:])
        return True

    def _map(self, name: str) -> np.ndarray:
        return self._once(name, lambda: np.memmap(self.folder / name, np.uint8, "r"))

    def _array(self, name: str) -> np.ndarray:
        return self._once(name, lambda: np.load(self.folder / f"{name}.npy", mmap_mode="r"))

    def _open(self, name: str) -> int:
        return self._once(f"{name} to write", lambda: _Descriptor(self.folder / name)).number

    def _once(self, name: str, make: Callable[[], Any]) -> Any:
        if name not in self._files:
            self._files[name] = make()
        return self._files[name]


class _Descriptor:
    def __init__(self, path: Path):
        self.number = os.open(path, os.O_WRONLY)

    def __del__(self) -> None:
        os.close(self.number)


def open_cache(parent: Path, about: Mapping[str, Any], layout: Layout, codec: TargetCodec) -> Path:
    """The folder of a cache within `parent`: as found, or made, empty, without ever being there by halves.

    Args:
        parent: may hold other caches.
        about: everything that decides what is stored.
        layout: of the speech; part of `about` by its digest.
        codec: how targets are stored.

    Returns:
        the cache's own folder.
    """
    text = json.dumps(about, indent=1, sort_keys=True)
    folder = parent / f"targets-{hashlib.sha256(text.encode()).hexdigest()[:12]}"
    if folder.is_dir():
        return folder
    parent.mkdir(parents=True, exist_ok=True)
    made = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=parent))
    shutil.copymode(parent, made)  # others may read it, as what is beside it
    (made / "about.json").write_text(text, encoding="utf-8")
    np.save(made / "ids.npy", layout.ids)
    np.save(made / "slots.npy", layout.slots)
    for name, size in (("marks.bin", layout.places * MARK_BYTES), ("targets.bin", layout.frames * codec.frame_bytes)):
        with (made / name).open("wb") as file:
            file.truncate(size)
    try:
        made.rename(folder)
    except OSError:  # another process was first
        shutil.rmtree(made)
        if not folder.is_dir():
            raise
    return folder


def why_not_used(parent: Path, about: Mapping[str, Any]) -> str | None:
    """What keeps the cache in `parent` that comes nearest from being the one of `about`; `None` if it is, or none is.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     layout, codec = Layout.of([], 16000, 1, len), TargetCodec("fp16", targets=1, width=4)
    ...     _ = open_cache(Path(folder), {"teacher": "5891b5b522d5df08", "crops": 1}, layout, codec)
    ...     why_not_used(Path(folder), {"teacher": "7d865e959b246691", "crops": 1})
    'targets-4aecdde227d6 is not used: teacher is 5891b5b522d5 there, 7d865e959b24 now'
    """
    best: tuple[str, list[str]] | None = None
    for path in sorted(parent.glob("targets-*/about.json")):
        old = json.loads(path.read_text(encoding="utf-8"))
        differing = [key for key in sorted({*old, *about}) if old.get(key) != about.get(key)]
        if not differing:
            return None
        if best is None or len(differing) < len(best[1]):
            changes = [f"{key} is {_short(old.get(key))} there, {_short(about.get(key))} now" for key in differing]
            best = path.parent.name, changes
    return best and f"{best[0]} is not used: {'; '.join(best[1])}"


def _short(value: Any) -> str:
    return value[:12] if isinstance(value, str) else json.dumps(value)


def _write_at(file: int, content: memoryview, offset: int) -> None:
    while content:
        written = os.pwrite(file, content, offset)
        content, offset = content[written:], offset + written
