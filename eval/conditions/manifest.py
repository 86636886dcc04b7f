"""Manifests: the corruption of a whole test split as data, to be saved, published and replayed.

A manifest is a compressed file of JSON lines (``.jsonl.gz``):

1. a header: format, task, split, condition, seed, names and digests of the sources, the digest of the draws, and the
   versions that made it;
2. a line for each recording that was drawn from: kind, name, position in its file, SHA-256 of the file;
3. a line for each utterance (of diarization: each recording): id, number of samples, the drawn parameters
   (`Corruptor.draw`), and a digest of the corrupted audio (the first 16 digits of the SHA-256 of the samples as
   little-endian float32).

Whoever replays it (`replay`) with the same recordings gets the same noise at the same places and levels, whatever the
version of this library draws by itself. Manifests of the first format have no versions and no digests of audio. Equal
content gives equal bytes.
"""

from __future__ import annotations

import gzip
import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import soundfile

from robustdistiller.acoustics import Condition, Corruptor
from robustdistiller.acoustics.effects import EFFECTS
from robustdistiller.acoustics.parameters import effects_of
from robustdistiller.common.digests import content_digests
from robustdistiller.common.files import write_bytes

FORMATS = (1, 2)
_PACKAGES = ("numpy", "scipy", "soxr", "soundfile", "robustdistiller")
NOT_DRAWN = ("num_samples", "audio")
SUFFIX = ".jsonl.gz"


class ManifestError(ValueError):
    """A manifest that cannot be used here."""


@dataclass
class Manifest:
    """What was drawn for every utterance of a split.

    Attributes:
        task, split: what was evaluated, e.g. ``IC`` and ``test``.
        condition: the condition's form without paths (`Condition.label`).
        seed: of the draw.
        sources: as in a record: kind to name and digest.
        files: ``(kind, recording)`` to its position and the SHA-256 of its file.
        utterances: id to ``{"num_samples": ..., "audio": ..., **Corruptor.draw(...)}``.
        versions: package to version; empty in manifests of the first format.
    """

    task: str
    split: str
    condition: str
    seed: int = 0
    sources: dict[str, dict[str, Any]] = field(default_factory=dict)
    files: dict[tuple[str, str], dict[str, Any]] = field(default_factory=dict)
    utterances: dict[str, dict[str, Any]] = field(default_factory=dict)
    versions: dict[str, str] = field(default_factory=dict)

    @property
    def digest(self) -> str:
        """SHA-256 over the draws of all utterances, as in records."""
        return digest_of(self.utterances)

    def save(self, path: str | Path) -> Path:
        """Write the file, through a temporary one."""
        path = Path(path)
        header = {
            "manifest": FORMATS[-1],
            **{key: getattr(self, key) for key in ("task", "split", "condition", "seed", "sources", "versions")},
            "files": len(self.files),
            "utterances": len(self.utterances),
            "digest": self.digest,
        }
        lines = [header]
        lines += [{"kind": kind, "name": name, **facts} for (kind, name), facts in sorted(self.files.items())]
        lines += [{"utterance_id": name, **drawn} for name, drawn in sorted(self.utterances.items())]
        text = "".join(json.dumps(line, sort_keys=True) + "\n" for line in lines)
        return write_bytes(path, gzip.compress(text.encode(), mtime=0))

    @classmethod
    def load(cls, path: str | Path) -> Manifest:
        """Read and check a manifest.

        Raises:
            FileNotFoundError: there is none.
            ManifestError: not a manifest, of a later format, incomplete, or changed after it was written.
        """
        path = Path(path)
        if not path.is_file():
            raise FileNotFoundError(f"manifest {path} does not exist; --save-manifest writes one")
        try:
            lines = [json.loads(line) for line in gzip.decompress(path.read_bytes()).decode().splitlines()]
            header, number = lines[0], lines[0]["files"]
            if header["manifest"] not in FORMATS:
                known = " and ".join(map(str, FORMATS))
                raise ManifestError(f"manifest {path} has format {header['manifest']!r}, this release reads {known}")
            files = {(line.pop("kind"), line.pop("name")): line for line in lines[1 : 1 + number]}
            utterances = {line.pop("utterance_id"): line for line in lines[1 + number :]}
            known = {key: header[key] for key in ("task", "split", "condition", "seed", "sources")}
            found = cls(**known, files=files, utterances=utterances, versions=header.get("versions", {}))
            complete = (len(files), len(utterances)) == (number, header["utterances"])
        except ManifestError:
            raise
        except (OSError, EOFError, ValueError, LookupError, TypeError, AttributeError) as error:
            raise ManifestError(
                f"{path} is not a manifest of this project ({type(error).__name__}: {error})"
            ) from error
        if not complete or found.digest != header["digest"]:
            raise ManifestError(f"manifest {path} was changed or cut short after it was written; get it again")
        return found


def versions() -> dict[str, str]:
    """What decides the samples, beside the processor: package to version."""
    return {"libsndfile": soundfile.__libsndfile_version__, **{name: version(name) for name in _PACKAGES}}


def audio_digest(samples: np.ndarray, digits: int = 16) -> str:
    """The first digits of the SHA-256 of (samples,) as little-endian float32."""
    return hashlib.sha256(np.ascontiguousarray(samples, "<f4").tobytes()).hexdigest()[:digits]


def digest_of(drawn: Mapping[str, Mapping[str, Any]]) -> str:
    """SHA-256 over drawn parameters in the order of utterance ids; lengths and audio of utterances are left out."""
    digest = hashlib.sha256()
    for name, parameters in sorted(drawn.items()):
        facts = {key: value for key, value in parameters.items() if key not in NOT_DRAWN}
        digest.update((json.dumps({"utterance_id": name, **facts}, sort_keys=True) + "\n").encode())
    return digest.hexdigest()


def files_of(corruptor: Corruptor, recordings: Iterable[tuple[str, str]]) -> dict[tuple[str, str], dict[str, Any]]:
    """Position and checksum of recordings, each given by kind and name, in the sources of a corruptor."""
    pieces = {(kind, name): corruptor.source(kind).piece(name) for kind, name in sorted(recordings)}
    digests = content_digests([piece.file for piece in pieces.values()])
    return {
        key: {"frame_offset": piece.frame_offset, "num_frames": piece.num_frames, "sha256": digest}
        for (key, piece), digest in zip(pieces.items(), digests)
    }


def recordings_of(drawn: Iterable[Mapping[str, Any]]) -> set[tuple[str, str]]:
    """Kind and name of every recording that parameters name."""
    found = set()
    for parameters in drawn:
        for effect in effects_of(parameters):
            found |= set(EFFECTS[effect].recordings(parameters))
    return found


def find_manifests(paths: Iterable[str | Path], task: str, split: str) -> dict[Path, Manifest]:
    """The manifests of a task and split among files and folders.

    Raises:
        FileNotFoundError, ManifestError: a path does not exist, is no manifest, or none is of this task and split.
    """
    listed = []
    for path in map(Path, paths):
        listed += sorted(path.rglob(f"*{SUFFIX}")) if path.is_dir() else [path]
    found = {path: Manifest.load(path) for path in listed}
    chosen = {path: one for path, one in found.items() if (one.task, one.split) == (task, split)}
    if paths and not chosen:
        there = ", ".join(sorted({f"{one.task} {one.split}" for one in found.values()})) or "no manifest"
        raise ManifestError(f"no manifest of {task}, split {split}, at {', '.join(map(str, paths))}; found {there}")
    return chosen


def condition_of(manifest: Manifest) -> Condition:
    """The condition that a manifest is of."""
    return Condition.parse(manifest.condition)
