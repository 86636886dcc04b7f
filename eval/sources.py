"""Which noise, room responses and babble speech a condition draws from."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from robustdistiller.acoustics import AudioSource, Condition, Corruptor, Piece, RIRSource

logger = logging.getLogger(__name__)

_SHIPPED = {"noise": "test noise", "rir": "test rir", "speech": "training speech"}


@dataclass(frozen=True)
class Sources:
    """What the user gave for all conditions; a path inside a condition comes first, the shipped data last.

    Attributes:
        noise: folders, files or manifests of noise.
        rir: of room impulse responses.
        speech: of speech to mix babble from.
    """

    noise: tuple[str, ...] = ()
    rir: tuple[str, ...] = ()
    speech: tuple[str, ...] = ()

    def corruptors(self, conditions: Iterable[Condition], seed: int = 0) -> dict[Condition, Corruptor | None]:
        """One corruptor per condition (None for clean), sources opened once and shared.

        Raises:
            FileNotFoundError: a source does not exist or holds no audio.
            ValueError: no room has the wanted reverberation time.

        Example:
            >>> found = Sources().corruptors([Condition.parse("clean"), Condition.parse("noise:snr_db=5,noise=white")])
            >>> [corruptor is None for corruptor in found.values()]
            [True, False]
        """
        conditions = list(dict.fromkeys(conditions))
        noise = rir = speech = None
        if any(c.needs_noise_files and not c.noise for c in conditions):
            noise = AudioSource.from_path(self.noise) if self.noise else _shipped("noise")
        if any(c.needs_rirs and not c.rir for c in conditions):
            rir = RIRSource.from_path(self.rir) if self.rir else _shipped("rir")
        if any(c.needs_speech and not c.speech for c in conditions):
            speech = AudioSource.from_path(self.speech) if self.speech else _shipped("speech")
        return {
            c: None if c.kind == "clean" else Corruptor(c, noise=noise, rir=rir, speech=speech, seed=seed)
            for c in conditions
        }

    def describe(self, condition: Condition, corruptor: Corruptor | None) -> dict[str, dict[str, Any]]:
        """Name and digest of each source that a condition uses, for its record.

        Example:
            >>> Sources().describe(Condition.parse("clean"), None)
            {}
        """
        if corruptor is None:
            return {}
        return {
            kind: {"name": self._name(condition, kind), "digest": digest}
            for kind, digest in corruptor.describe()["sources"].items()
        }

    def _name(self, condition: Condition, kind: str) -> str:
        inside = getattr(condition, kind)  # describe() names noise only where it is read from files
        paths = [inside] if inside else getattr(self, kind)
        return ", ".join(Path(path).name for path in paths) or f"shipped {_SHIPPED[kind]}"


def _shipped(kind: str) -> AudioSource | RIRSource:
    """The mini corpus's test noise, test rooms or training speech."""
    # The only use of `mini` in this package, and late: a default for users who have no noise at hand.
    from robustdistiller.mini import data_dir
    from robustdistiller.mini.pack import read_pack

    logger.info("No %s given: using the shipped %s (give your own with --%s FOLDER)", kind, _SHIPPED[kind], kind)
    if kind == "noise":
        return AudioSource.from_manifest(data_dir() / "noise.tsv", split="test", kind="noise")
    if kind == "rir":
        return RIRSource.from_manifest(data_dir() / "rir.tsv", split="test")
    # Babble is mixed from training utterances: nobody may be heard behind themselves.
    spoken = [utterance for utterance in read_pack(data_dir()) if utterance.split == "train"]
    return AudioSource([Piece(one.utterance_id, one.path, one.offset_samples, one.num_samples) for one in spoken])
