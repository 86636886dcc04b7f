"""Which noise, room responses and babble speech a condition draws from."""

from __future__ import annotations

import dataclasses
import logging
import os
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from robustdistiller.acoustics import AudioSource, Condition, Corruptor, Piece, RIRSource, corpus_pieces, detect_layout
from robustdistiller.acoustics.condition import SOURCES
from robustdistiller.common.names import refuse_unknown

logger = logging.getLogger(__name__)

KINDS = SOURCES
_SHIPPED = {"noise": "test noise", "rir": "test rir", "speech": "training speech"}
_LISTS = ("only", "without")
# The options at the end of PATH,key=value,key=value; commas in the path itself stay.
_OPTIONS = re.compile(r"^(.*?)((?:,(?:kind|split|only|without)=[^,]*)*)$")
_NAMED = re.compile(r"([A-Za-z0-9_-]+)=(.*)")


@dataclass(frozen=True)
class SourceSpec:
    """One corpus of noise, rooms or speech, and which part of it is used.

    Attributes:
        path: folder, audio file or ``.tsv`` manifest; empty where a suite leaves it to the user.
        kind: a layout (see `acoustics.corpus_pieces`); None looks for itself.
        split: ``all``, ``train``, ``dev`` or ``test``; None is ``all``, unless a suite says otherwise.
        only, without: labels to keep and to leave out.

    Example:
        >>> spec = SourceSpec.parse("/data/UrbanSound8K,split=test,without=siren+drilling")
        >>> spec.split, spec.without, spec.title
        ('test', ('siren', 'drilling'), 'UrbanSound8K (split=test, without=siren+drilling)')
    """

    path: str = ""
    kind: str | None = None
    split: str | None = None
    only: tuple[str, ...] = ()
    without: tuple[str, ...] = ()

    @classmethod
    def parse(cls, text: str) -> SourceSpec:
        """Read ``PATH`` or ``PATH,split=test,kind=musan,only=A+B,without=C``; variables and ``~`` are expanded."""
        path, options = _OPTIONS.match(text).groups()
        values: dict[str, Any] = dict(option.split("=", 1) for option in options.split(",") if option)
        values.update({key: tuple(values[key].split("+")) for key in _LISTS if key in values})
        return cls(path=_expand(path), **values)

    @classmethod
    def from_value(cls, value: Any, where: str) -> SourceSpec:
        """Build a spec from a suite's YAML: a path, or a mapping of this class's attributes.

        Raises:
            ValueError: unknown keys (the nearest known one is named) or another type.

        Example:
            >>> SourceSpec.from_value({"path": "/data/musan", "split": "test"}, "noise").split
            'test'
        """
        if isinstance(value, str):
            return cls.parse(value)
        if not isinstance(value, Mapping):
            raise ValueError(f"{where} must be a path or a mapping with path, kind, split, ..., found {value!r}")
        refuse_unknown(value, [f.name for f in dataclasses.fields(cls)], "key", where)
        values = {key: ([one] if isinstance(one, str) and key in _LISTS else one) for key, one in value.items()}
        values.update({key: tuple(map(str, values[key] or ())) for key in _LISTS if key in values})
        return cls(**{**values, "path": _expand(str(values.get("path") or ""))})

    def over(self, base: SourceSpec) -> SourceSpec:
        """This spec where it says something, `base` where it does not.

        Example:
            >>> SourceSpec("/data/CHiME3").over(SourceSpec(kind="chime")).kind
            'chime'
        """
        changed = {f.name: getattr(self, f.name) for f in dataclasses.fields(self) if getattr(self, f.name)}
        return dataclasses.replace(base, **changed)

    @property
    def title(self) -> str:
        """Name of the folder and what is used of it, the same on every machine."""
        parts = [f"split={self.split}"] if self.split not in (None, "all") else []
        parts += [f"{key}={'+'.join(getattr(self, key))}" for key in _LISTS if getattr(self, key)]
        return Path(self.path).name + (f" ({', '.join(parts)})" if parts else "")

    def pieces(self, purpose: str) -> list[Piece]:
        """The recordings, see `acoustics.corpus_pieces`.

        Raises:
            FileNotFoundError: nothing is there.
            ValueError: unknown layout, part or label, or nothing is left.

        Example:
            >>> SourceSpec("/no/such/folder").pieces("noise")
            Traceback (most recent call last):
            FileNotFoundError: ...
        """
        return corpus_pieces(self.path, purpose, self.kind, self.split or "all", self.only, self.without)


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

    Example:
        >>> Sources(noise=("/data/musan,split=test",)).noise[0].split
        'test'
    """

    noise: tuple[SourceSpec | str, ...] = ()
    rir: tuple[SourceSpec | str, ...] = ()
    speech: tuple[SourceSpec | str, ...] = ()
    music: tuple[SourceSpec | str, ...] = ()
    named: Mapping[str, Mapping[str, SourceSpec]] = field(default_factory=dict)
    corpora: Mapping[str, SourceSpec] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for kind in KINDS:
            found = (SourceSpec.parse(one) if isinstance(one, str) else one for one in getattr(self, kind))
            object.__setattr__(self, kind, tuple(map(self._completed, found)))
        named = {
            kind: {name: self._completed(spec) for name, spec in specs.items()} for kind, specs in self.named.items()
        }
        object.__setattr__(self, "named", named)

    def _completed(self, spec: SourceSpec) -> SourceSpec:
        if not spec.path or not self.corpora:
            return spec
        default = self.corpora.get(spec.kind or detect_layout(spec.path))
        return spec.over(default) if default else spec

    def with_given(self, given: Mapping[str, Iterable[str]]) -> Sources:
        """What was typed, over what a suite says.

        Args:
            given: kind to ``PATH[,OPTIONS]`` or, for a source the suite has by name, ``NAME=PATH[,OPTIONS]``.

        Example:
            >>> sources = Sources(named={"noise": {"chime": SourceSpec(kind="chime")}})
            >>> sources.with_given({"noise": ["chime=/data/backgrounds"]}).named["noise"]["chime"].title
            'backgrounds'
        """
        named = {kind: dict(specs) for kind, specs in self.named.items()}
        unnamed: dict[str, tuple[SourceSpec, ...]] = {}
        for kind, texts in given.items():
            for text in texts:
                match = _NAMED.fullmatch(text)
                if match and match[1] in named.get(kind, {}):
                    named[kind][match[1]] = SourceSpec.parse(match[2]).over(named[kind][match[1]])
                else:
                    unnamed[kind] = (*unnamed.get(kind, ()), SourceSpec.parse(text))
        return dataclasses.replace(self, named=named, **unnamed)

    def corruptors(self, conditions: Iterable[Condition], seed: int = 0) -> dict[Condition, Corruptor | None]:
        """One corruptor per condition (None for clean), sources opened once and shared.

        Raises:
            FileNotFoundError: a source does not exist or holds no audio.
            ValueError: no room has the wanted reverberation time; a source of a suite was left to the user, who has
                not given it.

        Example:
            >>> found = Sources().corruptors([Condition.parse("clean"), Condition.parse("noise:snr_db=5,noise=white")])
            >>> [corruptor is None for corruptor in found.values()]
            [True, False]
        """
        conditions = list(dict.fromkeys(conditions))
        self._refuse_missing(conditions)
        opened: dict[tuple[str, str | None], AudioSource | RIRSource] = {}

        def source(condition: Condition, kind: str) -> AudioSource | RIRSource | None:
            if kind not in condition.needs:
                return None
            name = condition.source(kind)
            if name and name not in self.named.get(kind, {}):
                return None  # a path, which the corruptor opens itself
            if (kind, name) not in opened:
                specs = (self.named[kind][name],) if name else getattr(self, kind)
                opened[kind, name] = _open(kind, specs) if specs else _shipped(kind)
            return opened[kind, name]

        found: dict[Condition, Corruptor | None] = {}
        for condition in conditions:
            if condition.kind == "clean":
                found[condition] = None
                continue
            sources = {kind: source(condition, kind) for kind in KINDS}
            inside = {kind: None for kind in KINDS if condition.source(kind) in self.named.get(kind, {})}
            found[condition] = Corruptor(condition.replace(side=None, **inside), **sources, seed=seed)
        return found

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
        inside = condition.source(kind)
        if inside in self.named.get(kind, {}):
            return f"{inside}: {self.named[kind][inside].title}"
        specs = [SourceSpec(inside)] if inside else getattr(self, kind)
        return ", ".join(spec.title for spec in specs) or f"shipped {_SHIPPED[kind]}"

    def _refuse_missing(self, conditions: Iterable[Condition]) -> None:
        wanted = {(kind, condition.source(kind)) for condition in conditions for kind in KINDS}
        missing = [
            f"--{kind} {name}=FOLDER" + (f" ({spec.kind})" if spec.kind else "")
            for kind, specs in self.named.items()
            for name, spec in specs.items()
            if (kind, name) in wanted and not spec.path
        ]
        if missing:
            raise ValueError(f"the suite leaves to you where some of its sources lie; give {', '.join(missing)}")


def _expand(path: str) -> str:
    return os.path.expandvars(os.path.expanduser(path))  # noqa: PTH111


def _open(kind: str, specs: tuple[SourceSpec, ...]) -> AudioSource | RIRSource:
    """The recordings of all specs; those of several are named relative to the folder that all of them lie in."""
    if len(specs) == 1:
        pieces = specs[0].pieces(kind)
    else:
        pieces = []
        common = os.path.commonpath([Path(spec.path).absolute().parent for spec in specs])
        for spec in specs:
            prefix = Path(spec.path).absolute().relative_to(common).as_posix()
            for piece in spec.pieces(kind):
                whole = Path(piece.file) == Path(spec.path)
                pieces.append(dataclasses.replace(piece, name=prefix if whole else f"{prefix}/{piece.name}"))
    source = AudioSource(pieces)
    return RIRSource(source) if kind == "rir" else source


def _shipped(kind: str) -> AudioSource | RIRSource:
    """The mini corpus's test noise, test rooms or training speech."""
    # The only use of `mini` in this package, and late: a default for users who have no noise at hand.
    from robustdistiller.mini import data_dir
    from robustdistiller.mini.pack import read_pack

    if kind == "music":
        raise ValueError("the condition needs music, and none is shipped: give --music FOLDER, or music=PATH in it")
    logger.info("No %s given: using the shipped %s (give your own with --%s FOLDER)", kind, _SHIPPED[kind], kind)
    if kind == "noise":
        return AudioSource.from_manifest(data_dir() / "noise.tsv", split="test", kind="noise")
    if kind == "rir":
        return RIRSource.from_manifest(data_dir() / "rir.tsv", split="test")
    # Babble is mixed from training utterances: nobody may be heard behind themselves.
    spoken = [utterance for utterance in read_pack(data_dir()) if utterance.split == "train"]
    return AudioSource([Piece(one.utterance_id, one.path, one.offset_samples, one.num_samples) for one in spoken])
