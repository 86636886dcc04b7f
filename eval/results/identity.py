"""Which number a record is: what makes two records the same cell, and two cells comparable. The only place for it.

A cell is system x head x task x test set (split, fold, number of items) x seed x condition x rules. Only contents count:
digests of files and of samples, never the names of folders, labels or machines.
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
    """

    upstream: str
    weights: str
    options: str = ""
    code: str = ""

    def digest(self) -> str:
        """SHA-256 of all fields."""
        return made_digest(**dataclasses.asdict(self))


@dataclass(frozen=True)
class CellId:
    """One number to measure. Two records are of the same cell exactly when their identities are equal.

    Attributes:
        system: what is evaluated.
        task, split, fold, seed: on what; the seed is of the head's training.
        condition: of :func:`condition_digest`.
        head: digest of the evaluated head, see `Record.head_digest`.
        rules: digest of what the task's rules fix, as the run has it.
        items: of the test set; None where that is not known.

    Example:
        >>> from robustdistiller.eval.results.record import example_record
        >>> cell = cell_id(example_record(condition="noise:snr_db=5", seed=7))
        >>> cell.path("records", "noise:snr_db=5").as_posix()
        'records/fbank/none/IC/noise~snr_db=5@cfc2f4a4/test-seed7-c548f03f.json'
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
        return made_digest(**dataclasses.asdict(self))

    def path(self, root: Path | str, condition: str) -> Path:
        """The record's file: ``root/upstream/weights[@options]/task/condition[@digest]/split[-fold]-seedN-cell.json``.

        Args:
            root: folder of records.
            condition: a readable form, see :func:`readable_condition`; the digest stands behind it.
        """
        options = f"@{made_digest(options=self.system.options)[:8]}" if self.system.options else ""
        place = "" if condition == CLEAN else f"@{self.condition[:8]}"
        part = slug(self.split) + (f"-{slug(self.fold)}" if self.fold else "")
        folder = Path(root) / slug(self.system.upstream) / ((self.system.weights[:12] or "unknown") + options)
        return folder / slug(self.task) / (slug(condition) + place) / f"{part}-seed{self.seed}-{self.digest()[:8]}.json"


def system_id(record: Record) -> SystemId:
    """The system that a record is of."""
    options = record.upstream_options.strip()
    return SystemId(record.upstream, record.checkpoint_digest, options, record.upstream_code)


def cell_id(record: Record) -> CellId:
    """The cell that a record is of; where an old record does not know a digest, what it does know stands in for it."""
    return CellId(
        system=system_id(record),
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
    """Digest of what decides how test audio sounds; of clean audio nothing but that it is clean.

    Args:
        condition: one-line form.
        sources: kind to ``{"name": ..., "digest": ...}``; only digests count.
        corruption_seed: of the draws.

    Example:
        >>> here = condition_digest("noise:snr_db=5,noise=musan", {"noise": {"name": "musan", "digest": "ab"}}, 0)
        >>> here == condition_digest("noise:snr_db=5", {"noise": {"name": "/data/noise", "digest": "ab"}}, 0)
        True
    """
    if condition == CLEAN:
        return made_digest(condition=CLEAN)
    digests = {kind: one["digest"] for kind, one in sources.items()}
    return made_digest(condition=readable_condition(condition, sources), sources=digests, seed=corruption_seed)


def readable_condition(condition: str, sources: Mapping[str, Any]) -> str:
    """The one-line form without the names of folders, whose digests are known.

    Example:
        >>> readable_condition('noise:noise="my noise, new",snr_db=5', {"noise": {"digest": "ab"}})
        'noise:snr_db=5'
    """
    effects, _, options = condition.partition(":")
    parts = re.findall(r'[^,="]+=(?:"[^"]*"|[^,"]*)', options)
    kept = ",".join(part for part in parts if part.partition("=")[0].strip() not in sources)
    return f"{effects}:{kept}" if kept else effects


def made_digest(**how: Any) -> str:
    """SHA-256 of how something was made.

    Args:
        **how: JSON-able values; their order does not matter.

    Example:
        >>> made_digest(layer=3, features="hidden_states") == made_digest(features="hidden_states", layer=3)
        True
    """
    return hashlib.sha256(json.dumps(how, sort_keys=True).encode()).hexdigest()


def differences(a: Record, b: Record) -> list[str]:
    """Why two numbers cannot be compared, one phrase each; empty when they can.

    Seeds, labels, learning rates, heads, names of folders, devices and dates may differ.

    Example:
        >>> from robustdistiller.eval.results.record import example_record
        >>> differences(example_record(), example_record(seed=1, label="mine", learning_rate=0.1))
        []
        >>> differences(example_record(), example_record(items_expected=5, items_scored=5))
        ['the number of items: 4 and 5']
    """
    pairs = {
        "the task": (a.task, b.task),
        "the split": (a.split, b.split),
        "the fold": (a.fold, b.fold),
        "the metric": tuple(
            " ".join((r.main_metric.name, r.main_metric.unit)) if r.metrics else "none" for r in (a, b)
        ),
        "the number of items": (a.items_scored, b.items_scored),
    }
    found = [
        f"{what}: {mine or 'none'} and {yours or 'none'}" for what, (mine, yours) in pairs.items() if mine != yours
    ]
    # Other items have other audio in any case.
    return [*found, *([] if found else _audio_differences(a, b)), *_rule_differences(a, b)]


def _audio_differences(a: Record, b: Record) -> list[str]:
    if readable_condition(a.condition, a.sources) != readable_condition(b.condition, b.sources):
        return []  # two conditions may be compared: that is what they are for
    # Equal audio is equal however it was drawn; unequal audio may be the rounding of another machine.
    if a.audio_digest and a.audio_digest == b.audio_digest:
        return []
    old = "sources" in (*a.unknown, *b.unknown)  # digests of another kind
    digests = [condition_digest(r.condition, r.sources, r.corruption_seed) for r in (a, b)]
    same = a.manifest_digest == b.manifest_digest and (old or digests[0] == digests[1])
    return [] if same else [f"the audio under {a.condition}"]


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
