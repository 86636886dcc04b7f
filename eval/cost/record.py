"""Profiles on disk: one JSON file per upstream, checkpoint and machine, beside the records of evaluations."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from robustdistiller.common.files import slug, write_text
from robustdistiller.common.settings import read
from robustdistiller.eval.results.identity import made_digest
from robustdistiller.eval.results.record import RecordError

PROFILE_VERSION = 1


@dataclass(frozen=True)
class Profile:
    """What one upstream costs.

    Attributes:
        upstream: entry of s3prl's hub.
        label: name to show.
        checkpoint: file name of its weights.
        checkpoint_digest, checkpoint_digest_of: as in records of evaluations.
        upstream_options: contents of its own options file.
        parameters: ``stored``; ``used``, those that reach any hidden state (None where the upstream keeps no
            gradients); ``used_without_heads``, of students, those that reach the layers, not the predictions.
        macs: ``tool``, ``tool_version``, ``not_counted``; ``superb``, the sum over SUPERB's 32 utterances; ``lengths``,
            one entry per fixed length. Where there are prediction heads, also ``without_heads``.
        runs: times and memory, one entry per device, threads and length: ``seconds`` of each repetition,
            ``real_time_factor`` (median seconds by seconds of audio), ``peak_memory_bytes`` and how it was measured.
        machine: processor, cores, device, versions, commit, date.
        start_utc: ISO 8601.
        version: of this format.
    """

    upstream: str
    label: str
    checkpoint: str
    checkpoint_digest: str
    checkpoint_digest_of: str
    upstream_options: str
    parameters: dict[str, int | None]
    macs: dict[str, Any]
    runs: list[dict[str, Any]]
    machine: dict[str, Any]
    start_utc: str
    version: int = PROFILE_VERSION

    def __post_init__(self) -> None:
        if not isinstance((self.macs.get("superb") or {}).get("macs"), int):
            raise RecordError("a profile without the MACs of SUPERB's utterances")

    @property
    def identity(self) -> tuple[str, str, str]:
        """What it is a profile of, as in records of evaluations."""
        return self.upstream, self.checkpoint_digest, self.upstream_options

    @property
    def superb_macs(self) -> int:
        """MACs on SUPERB's 32 utterances."""
        return self.macs["superb"]["macs"]

    def path(self, root: Path | str) -> Path:
        """Where it belongs: ``root/upstream/digest/profile-machine.json``."""
        devices = sorted({str(run["device"]) for run in self.runs})
        machine = made_digest(machine=[self.machine.get("processor"), self.machine.get("cores"), devices])[:8]
        options = f"@{made_digest(options=self.upstream_options)[:8]}" if self.upstream_options else ""
        return Path(root) / slug(self.upstream) / (self.checkpoint_digest[:12] + options) / f"profile-{machine}.json"


def write_profile(root: Path | str, profile: Profile) -> Path:
    """Write a profile at its place; an older one of this machine is replaced."""
    return write_text(profile.path(root), json.dumps(dataclasses.asdict(profile), indent=1, allow_nan=False) + "\n")


def read_profiles(folders: Iterable[Path | str]) -> dict[Path, Profile]:
    """All profiles below some folders, in path order.

    Raises:
        RecordError: with the path of a file that is no profile of this version.
    """
    found = dict(read_each_profile(folders))
    for one in found.values():
        if isinstance(one, RecordError):
            raise one
    return found


def read_each_profile(folders: Iterable[Path | str]) -> Iterator[tuple[Path, Profile | RecordError]]:
    """The files of profiles below some folders, in path order, each with its profile or the error in reading it."""
    for path in [path for folder in folders for path in sorted(Path(folder).rglob("profile-*.json"))]:
        try:
            data = json.loads(path.read_text(encoding="utf-8"))
            version = data.get("version") if isinstance(data, dict) else type(data).__name__
            if version != PROFILE_VERSION:
                raise RecordError(f"version {version!r}; this release reads {PROFILE_VERSION}: profile again")
            yield path, read(Profile, data)
        except (OSError, ValueError) as error:
            yield path, RecordError(f"{path} is not a valid profile: {error}")
