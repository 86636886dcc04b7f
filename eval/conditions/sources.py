"""Which noise, room responses and babble speech a condition draws from."""

from __future__ import annotations

import functools
import logging
import re
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from robustdistiller.acoustics import (
    AudioSource,
    Condition,
    Corruptor,
    Piece,
    RIRSource,
    SourceSpec,
    root_weights,
)
from robustdistiller.acoustics.audio.listing import joined_pieces
from robustdistiller.acoustics.condition import SOURCES
from robustdistiller.acoustics.corpora import LAYOUTS, known_layouts

logger = logging.getLogger(__name__)

_SHIPPED = {"noise": "test noise", "rir": "test rir", "speech": "training speech"}
_NAMED = re.compile(r"([A-Za-z0-9_-]+)=(.*)")


@dataclass(frozen=True)
class Sources:
    """What is given for all conditions; a path inside a condition comes first, the shipped data last.

    Attributes:
        noise: folders, files or manifests of noise, as `SourceSpec` or in its one-line form.
        rir: of room impulse responses.
        speech: of voices for babble and other talkers.
        music: of music.
        named: sources that a condition asks for by name (``noise=chime``): kind to name to spec.
        corpora: what is used of a corpus unless its spec says so itself: layout to spec.
    """

    noise: tuple[SourceSpec | str, ...] = ()
    rir: tuple[SourceSpec | str, ...] = ()
    speech: tuple[SourceSpec | str, ...] = ()
    music: tuple[SourceSpec | str, ...] = ()
    named: Mapping[str, Mapping[str, SourceSpec]] = field(default_factory=dict)
    corpora: Mapping[str, SourceSpec] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for kind in SOURCES:
            _refuse_single(kind, getattr(self, kind))
            found = (SourceSpec.parse(one) if isinstance(one, str) else one for one in getattr(self, kind))
            object.__setattr__(self, kind, tuple(self._completed(spec, kind) for spec in found))
        named = {
            kind: {name: self._completed(spec, kind) for name, spec in specs.items()}
            for kind, specs in self.named.items()
        }
        object.__setattr__(self, "named", named)

    def _completed(self, spec: SourceSpec, purpose: str) -> SourceSpec:
        if not spec.path or not self.corpora:
            return spec
        known = {spec.kind} if spec.kind else known_layouts(spec.path)
        serving = sorted(kind for kind in known if purpose in LAYOUTS[kind].serves) if len(known) > 1 else list(known)
        if len(serving) > 1 and not spec.split and self.corpora.keys() & set(serving):
            raise ValueError(
                f"{spec.path} holds {' and '.join(serving)}, of which the suite takes test parts; give the folder "
                f"of each with a --{purpose} of its own, or say which part of all, as in {spec.path},split=test"
            )
        default = self.corpora.get(serving[0] if len(serving) == 1 else "folder")
        return spec.over(default) if default else spec

    def over(self, base: Sources) -> Sources:
        """These sources where they say something, those of `base` where they do not."""
        named = {kind: dict(base.named.get(kind, {})) for kind in SOURCES}
        for kind, specs in self.named.items():
            named[kind] |= {name: spec.over(named[kind].get(name, SourceSpec())) for name, spec in specs.items()}
        unnamed = {kind: getattr(self, kind) or getattr(base, kind) for kind in SOURCES}
        return Sources(**unnamed, named=named, corpora={**base.corpora, **self.corpora})

    def with_given(self, given: Mapping[str, Iterable[str]]) -> Sources:
        """What was typed, over what a suite says.

        Args:
            given: kind to ``PATH[,OPTIONS]`` or, for a source the suite has by name, ``NAME=PATH[,OPTIONS]``.
        """
        for kind, texts in given.items():
            _refuse_single(kind, texts)
        named: dict[str, dict[str, SourceSpec]] = defaultdict(dict)
        unnamed: dict[str, tuple[SourceSpec, ...]] = defaultdict(tuple)
        for kind, text in ((kind, text) for kind, texts in given.items() for text in texts):
            match = _NAMED.fullmatch(text)
            if match and match[1] in self.named.get(kind, {}):
                named[kind][match[1]] = SourceSpec.parse(match[2])
            else:
                unnamed[kind] += (SourceSpec.parse(text),)
        return Sources(**unnamed, named=named).over(self)

    def corruptors(self, conditions: Iterable[Condition], seed: int = 0) -> dict[Condition, Corruptor | None]:
        """One corruptor per condition (None for clean), sources opened once and shared.

        Raises:
            FileNotFoundError: a source does not exist or holds no audio.
            ValueError: no room has the wanted reverberation time; a source of a suite was left to the user, who has
                not given it.
        """
        conditions = list(dict.fromkeys(conditions))
        self._refuse_missing(conditions)

        @functools.cache
        def opened(kind: str, name: str | None) -> AudioSource | RIRSource | None:
            if name and name not in self.named.get(kind, {}):
                return None  # a path, which the corruptor opens itself
            specs = (self.named[kind][name],) if name else getattr(self, kind)
            return _open(kind, specs) if specs else _shipped(kind)

        found: dict[Condition, Corruptor | None] = {}
        for condition in conditions:
            if condition.kind == "clean":
                found[condition] = None
                continue
            sources = {kind: opened(kind, condition.source(kind)) for kind in SOURCES if kind in condition.needs}
            inside = {kind: None for kind in SOURCES if condition.source(kind) in self.named.get(kind, {})}
            found[condition] = Corruptor(condition.replace(side=None, **inside), **sources, seed=seed)
        return found

    def describe(self, condition: Condition, corruptor: Corruptor | None) -> dict[str, dict[str, Any]]:
        """Name, for showing, and digest of the contents of each source that a condition uses, for its record."""
        if corruptor is None:
            return {}
        return {
            kind: {"name": self._name(condition, kind), "digest": corruptor.source(kind).content_digest}
            for kind in SOURCES
            if corruptor.source(kind) is not None
        }

    def _name(self, condition: Condition, kind: str) -> str:
        inside = condition.source(kind)
        if inside in self.named.get(kind, {}):
            return f"{inside}: {self.named[kind][inside].title}"
        specs = [SourceSpec.parse(inside)] if inside else getattr(self, kind)
        return ", ".join(spec.title for spec in specs) or f"shipped {_SHIPPED[kind]}"

    def _refuse_missing(self, conditions: Iterable[Condition]) -> None:
        wanted = {(kind, condition.source(kind)) for condition in conditions for kind in SOURCES}
        missing = [
            f"--{kind} {name}=FOLDER" + (f" ({spec.kind})" if spec.kind else "")
            for kind, specs in self.named.items()
            for name, spec in specs.items()
            if (kind, name) in wanted and not spec.path
        ]
        if missing:
            raise ValueError(f"the suite leaves to you where some of its sources lie; give {', '.join(missing)}")


def _refuse_single(kind: str, given: Any) -> None:
    if isinstance(given, str | Path | SourceSpec):  # of a text, each letter would be taken for a path
        raise ValueError(f"sources of {kind}: expected a list, found {str(given)!r}")


def _open(kind: str, specs: tuple[SourceSpec, ...]) -> AudioSource | RIRSource:
    """The recordings of all specs, drawn from by their weights."""
    found = [spec.pieces(kind) for spec in specs]
    pieces = joined_pieces([(spec.path, one) for spec, one in zip(specs, found)])
    given = root_weights(specs) if len(specs) > 1 else None
    weights = [weight / len(one) for weight, one in zip(given, found) for _ in one] if given else None
    source = AudioSource(pieces, weights=weights)
    return RIRSource(source) if kind == "rir" else source


def _shipped(kind: str) -> AudioSource | RIRSource:
    """The mini corpus's test noise, test rooms or training speech."""
    # The only use of `mini` in this package, and late: a default for users who have no noise at hand.
    from robustdistiller.mini import data_dir
    from robustdistiller.mini.pack import read_pack

    if kind == "music":
        raise ValueError(
            "the condition needs music, and none is shipped: give music=PATH in it, or --music PATH to evaluate"
        )
    logger.info("No %s given: using the shipped %s (give your own with --%s FOLDER)", kind, _SHIPPED[kind], kind)
    if kind == "noise":
        return AudioSource.from_manifest(data_dir() / "noise.tsv", split="test", kind="noise")
    if kind == "rir":
        return RIRSource.from_manifest(data_dir() / "rir.tsv", split="test")
    # Babble is mixed from training utterances: nobody may talk behind themselves.
    spoken = [utterance for utterance in read_pack(data_dir()) if utterance.split == "train"]
    return AudioSource([Piece(one.utterance_id, one.path, one.offset_samples, one.num_samples) for one in spoken])
