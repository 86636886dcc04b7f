"""Replaying a manifest: the same noise at the same places and levels, whatever would be drawn today."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from robustdistiller.acoustics import Corruptor, check_parameters
from robustdistiller.eval.conditions.manifest import (
    NOT_DRAWN,
    Manifest,
    ManifestError,
    digest_of,
    files_of,
    recordings_of,
    versions,
)


class ReplayedCorruptor(Corruptor):
    """A corruptor whose draws come from a manifest.

    Raises:
        ManifestError: the condition is another one, or a recording is missing here or differs from the one the
            manifest was made with; the first such file is named.
    """

    def __init__(self, manifest: Manifest, live: Corruptor, origin: str | Path = "the manifest") -> None:
        self.__dict__.update(live.__dict__)
        self.seed, self.manifest, self.origin = manifest.seed, manifest, origin
        for name, drawn in manifest.utterances.items():
            try:
                check_parameters({key: value for key, value in drawn.items() if key not in NOT_DRAWN})
            except (AttributeError, TypeError, ValueError) as error:
                raise ManifestError(f"{origin}, utterance {name!r}: {error}") from error
        recordings = sorted(recordings_of(manifest.utterances.values()))
        for kind, name in recordings:
            source = live.source(kind)
            if source is None or name not in source:
                raise ManifestError(
                    f"{origin} draws from the {kind} recording {name!r}, which is not among the "
                    f"{len(source.names) if source else 0} recordings given; give the sources it was made with: "
                    f"{manifest.sources.get(kind, {}).get('name', 'unknown')}"
                )
        for (kind, name), found in files_of(live, recordings).items():
            expected = manifest.files.get((kind, name))
            if found != expected:
                path = live.source(kind).piece(name).path
                raise ManifestError(
                    f"{path} differs from the {kind} recording {name!r} that {origin} was made with (SHA-256 "
                    f"{found['sha256'][:12]} here, {str((expected or {}).get('sha256'))[:12]} there); "
                    "get the original recording"
                )

    def __contains__(self, utterance_id: str) -> bool:
        return utterance_id in self.manifest.utterances

    def draw(
        self, utterance_id: str, num_samples: int, epoch: int = 0, step: int | None = None, view: int = 0
    ) -> dict[str, Any]:
        """What the manifest says of an utterance.

        Raises:
            ManifestError: it says nothing of it, or was made for audio of another length.
        """
        found = self.manifest.utterances.get(utterance_id)
        if found is None:
            raise ManifestError(
                f"{self.origin} ({self.manifest.task}, {self.manifest.split}) has no utterance {utterance_id!r}; "
                "it was made for another corpus or split"
            )
        if found["num_samples"] != num_samples:
            raise ManifestError(
                f"utterance {utterance_id!r} has {num_samples} samples, {self.origin} was made for "
                f"{found['num_samples']}; the corpus differs from the one it was made with"
            )
        return {key: value for key, value in found.items() if key not in NOT_DRAWN}

    def is_drawn_today(self) -> bool:
        """Whether this release draws the same by itself, with the recordings that are given."""
        lengths = {name: one["num_samples"] for name, one in self.manifest.utterances.items()}
        drawn = {name: Corruptor.draw(self, name, num_samples) for name, num_samples in lengths.items()}
        return digest_of(drawn) == self.manifest.digest

    def compare(self, drawn: Mapping[str, Mapping[str, Any]]) -> str:
        """Whether the corrupted audio is that which the manifest was made with, to the bit, in a sentence.

        Other versions of NumPy, SciPy, soxr or libsndfile and other processors may change the last bits.

        Args:
            drawn: utterance id to its ``audio`` digest, among others.
        """
        expected = {name: one["audio"] for name, one in self.manifest.utterances.items() if "audio" in one}
        if not expected:
            return f"{self.origin} has no digests of the audio (it is of the first format): not compared to the bit"
        shared = sorted(set(expected) & set(drawn))
        differ = [name for name in shared if drawn[name].get("audio") != expected[name]]
        if not differ:
            return f"the same samples to the bit as in {self.origin}, all {len(shared)} utterances"
        here = versions()
        others = [
            f"{name} {there} there, {here.get(name)} here"
            for name, there in self.manifest.versions.items()
            if here.get(name) != there
        ]
        return (
            f"the same draws as in {self.origin}, but other samples in {len(differ)} of {len(shared)} utterances "
            f"({', '.join(differ[:3])}, ...); versions: {'; '.join(others) or 'the same; audio or processor differ'}"
        )
