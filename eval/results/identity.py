"""Which number a record is: what makes two records the same cell, and two cells comparable. The only place for it.

A cell is system x head x task x test set (split, fold, number of items) x seed x condition x rules. Only contents
count: digests of files and of samples, never the names of folders, labels or machines.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from robustdistiller.common.files import slug
from robustdistiller.eval.results.record import Record

CLEAN = "clean"


@dataclass(frozen=True)
class SystemId:
    """What is evaluated.

    Attributes:
        upstream: name of the upstream entry.
        weights: digest of its weights; ``none`` without any, empty when they are not known.
        options: contents of its options file.
        code: digest of its source files, where they are the user's.
        layer: the one hidden state that heads read; None where they read the weighted sum of all.
    """

    upstream: str
    weights: str
    options: str = ""
    code: str = ""
    layer: int | None = None

    def digest(self) -> str:
        """SHA-256 of all fields."""
        return made_digest(**_known_fields(self))


@dataclass(frozen=True)
class CellId:
    """One number to measure. Two records are of the same cell exactly when their identities are equal.

    Attributes:
        system: what is evaluated; a single layer is among the rules, and not told here again.
        task, split, fold, seed: on what; the seed is of the head's training.
        condition: of :func:`condition_digest`.
        head: digest of the evaluated head, see `Record.head_digest`.
        rules: digest of what the task's rules fix, as the run has it.
        items: of the test set; None where that is not known.
    """

    system: SystemId
    task: str
    split: str
    fold: str
    seed: int
    condition: str
    head: str
    rules: str
    items: int | None

    def digest(self) -> str:
        """SHA-256 of all fields."""
        return made_digest(**_known_fields(self))

    def path(self, root: Path | str, condition: str) -> Path:
        """A record's file: ``root/upstream/weights[@options]/task/condition[@digest]/split[-fold]-seedN-cell.json``"""
        options = f"@{made_digest(options=self.system.options)[:8]}" if self.system.options else ""
        place = "" if condition == CLEAN else f"@{self.condition[:8]}"
        part = slug(self.split) + (f"-{slug(self.fold)}" if self.fold else "")
        folder = Path(root) / slug(self.system.upstream) / ((self.system.weights[:12] or "unknown") + options)
        return folder / slug(self.task) / (slug(condition) + place) / f"{part}-seed{self.seed}-{self.digest()[:8]}.json"


def _known_fields(identity: SystemId | CellId) -> dict[str, Any]:
    return dataclasses.asdict(identity, dict_factory=lambda pairs: {k: v for k, v in pairs if v is not None})


def system_id(record: Record) -> SystemId:
    """The system that a record is of."""
    options = record.upstream_options.strip()
    # To read a single layer is a deviation from the rules, and is told as one.
    told = re.search(r"upstream_layer_selection is (-?\d+)", "; ".join(record.non_standard or []))
    layer = int(told[1]) if told else None
    return SystemId(record.upstream, record.checkpoint_digest, options, record.upstream_code, layer)


def cell_id(record: Record) -> CellId:
    """The cell that a record is of; where an old record does not know a digest, what it does know stands in for it."""
    return CellId(
        system=dataclasses.replace(system_id(record), layer=None),
        task=record.task,
        split=record.split,
        fold=record.fold,
        seed=record.seed,
        condition=condition_digest(record.condition, record.sources, record.corruption_seed),
        head=record.head_digest or made_digest(settings=record.settings, step=record.step),
        rules=record.rules_digest or _rules_told(record),
        items=record.items_expected,
    )


def condition_digest(condition: str, sources: Mapping[str, Mapping[str, Any]], corruption_seed: int) -> str:
    """Digest of what decides how test audio sounds; of clean audio nothing else. Only digests of sources count."""
    if condition == CLEAN:
        return made_digest(condition=CLEAN)
    digests = {kind: one["digest"] for kind, one in sources.items()}
    return made_digest(condition=readable_condition(condition, sources), sources=digests, seed=corruption_seed)


def readable_condition(condition: str, sources: Mapping[str, Any]) -> str:
    """The one-line form without the names of folders, whose digests are known."""
    effects, _, options = condition.partition(":")
    parts = re.findall(r'[^,="]+=(?:"[^"]*"|[^,"]*)', options)
    kept = ",".join(part for part in parts if part.partition("=")[0].strip() not in sources)
    return f"{effects}:{kept}" if kept else effects


def made_digest(**how: Any) -> str:
    """SHA-256 of how something was made, from JSON-able values whose order does not matter."""
    return hashlib.sha256(json.dumps(how, sort_keys=True).encode()).hexdigest()


def differences(a: Record, b: Record) -> list[str]:
    """Why two numbers cannot be compared, one phrase each; empty when they can.

    Seeds, labels, learning rates, heads, names of folders, devices and dates may differ.
    """
    one, other = ({
        "the task": record.task,
        "the split": record.split,
        "the fold": record.fold,
        "the metric": f"{record.main_metric.name} {record.main_metric.unit}".strip() if record.metrics else "",
        "the number of items": record.items_scored,
    } for record in (a, b))  # fmt: skip
    found = [f"{what}: {one[what] or 'none'} and {other[what] or 'none'}" for what in one if one[what] != other[what]]
    if not found and not _is_same_audio(a, b):  # other items have other audio in any case
        found.append(f"the audio under {a.condition}")
    return [*found, *_rule_differences(a, b)]


def _is_same_audio(a: Record, b: Record) -> bool:
    if readable_condition(a.condition, a.sources) != readable_condition(b.condition, b.sources):
        return True  # two conditions may be compared: that is what they are for
    # Equal audio is equal however it was drawn; unequal audio may be the rounding of another machine.
    if a.audio_digest and a.audio_digest == b.audio_digest:
        return True
    old = "sources" in (*a.unknown, *b.unknown)  # digests of another kind
    digests = {condition_digest(r.condition, r.sources, r.corruption_seed) for r in (a, b)}
    return a.manifest_digest == b.manifest_digest and (old or len(digests) == 1)


def _rule_differences(a: Record, b: Record) -> list[str]:
    if a.rules_digest and a.rules_digest == b.rules_digest:
        return []
    found = []
    if a.non_standard is not None and b.non_standard is not None:
        both = (*a.non_standard, *b.non_standard)
        found = [f"the rules: of one only, {phrase}" for phrase in dict.fromkeys(both) if both.count(phrase) == 1]
    if not found and ((a.rules_digest and b.rules_digest) or _rules_told(a) != _rules_told(b)):
        found.append("the settings that the task's rules fix")
    return found


def _rules_told(record: Record) -> str:
    """Stands in for the digest of the rules: what a record says about them."""
    if record.non_standard is None:
        half = "float16" in " ".join(record.feature_cache.values())
        return made_digest(settings=record.settings, train_condition=record.train_condition, half_precision=half)
    return made_digest(deviations=sorted(record.non_standard))
