"""Profiles on disk: one JSON file per upstream, checkpoint and machine, beside the records of evaluations."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from robustdistiller.common.files import slug, write_text
from robustdistiller.common.settings import SettingsError, read
from robustdistiller.eval.results.record import NO_CHECKPOINT, RecordError

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

    @property
    def identity(self) -> tuple[str, str, str]:
        """What it is a profile of, as in records of evaluations."""
        return self.upstream, self.checkpoint_digest, self.upstream_options

    @property
    def superb_macs(self) -> int:
        """MACs on SUPERB's 32 utterances."""
        return self.macs["superb"]["macs"]

    @classmethod
    def from_dict(cls, data: Any) -> Profile:
        """Build a profile from plain data.

        Raises:
            RecordError: another version, or keys that do not fit.
        """
        if not isinstance(data, dict) or data.get("version") != PROFILE_VERSION:
            found = data.get("version") if isinstance(data, dict) else type(data).__name__
            raise RecordError(f"a profile of version {found!r}; this release reads {PROFILE_VERSION}: profile again")
        try:
            profile = read(cls, data)
        except SettingsError as error:
            raise RecordError(str(error)) from error
        if not isinstance((profile.macs.get("superb") or {}).get("macs"), int):
            raise RecordError("a profile without the MACs of SUPERB's utterances")
        return profile


def profile_path(root: Path | str, profile: Profile) -> Path:
    """Where a profile belongs: ``root/upstream/digest/profile-machine.json``."""
    where = [profile.machine.get(name) for name in ("processor", "cores")]
    where.append(sorted({str(run["device"]) for run in profile.runs}))
    machine = hashlib.sha256(json.dumps(where).encode()).hexdigest()[:8]
    options = hashlib.sha256(profile.upstream_options.encode()).hexdigest()[:8] if profile.upstream_options else ""
    weights = profile.checkpoint_digest[:12] + (f"@{options}" if options else "")
    return Path(root) / slug(profile.upstream) / weights / f"profile-{machine}.json"


def write_profile(root: Path | str, profile: Profile) -> Path:
    """Write a profile at its place; an older one of this machine is replaced.

    Example:
        >>> import tempfile
        >>> root = tempfile.mkdtemp()
        >>> path = write_profile(root, example_profile())
        >>> read_profiles([root])[path] == example_profile()
        True
    """
    path = profile_path(root, profile)
    text = json.dumps(dataclasses.asdict(profile), indent=1, allow_nan=False) + "\n"
    write_text(path, text)
    return path


def read_profiles(folders: Iterable[Path | str]) -> dict[Path, Profile]:
    """All profiles below some folders, in path order.

    Raises:
        RecordError: with the path of a file that is no profile of this version.

    Example:
        >>> read_profiles(["nowhere"])
        {}
    """
    found = {}
    for folder in folders:
        for path in sorted(Path(folder).rglob("profile-*.json")):
            try:
                found[path] = Profile.from_dict(json.loads(path.read_text(encoding="utf-8")))
            except (json.JSONDecodeError, UnicodeDecodeError, RecordError) as error:
                raise RecordError(f"{path} is not a valid profile: {error}") from error
    return found


def example_profile(**changes: Any) -> Profile:
    """A small valid profile, for examples and tests.

    Example:
        >>> example_profile(label="mine").label
        'mine'
    """
    base = Profile(
        upstream="fbank",
        label="fbank",
        checkpoint="",
        checkpoint_digest=NO_CHECKPOINT,
        checkpoint_digest_of="none",
        upstream_options="",
        parameters={"stored": 0, "used": 0, "used_without_heads": None},
        macs={"superb": {"macs": 1_600_000_000_000}, "lengths": []},
        runs=[],
        machine={"processor": "example", "cores": 2},
        start_utc="2025-01-01T00:00:00+00:00",
    )
    return dataclasses.replace(base, **changes)
