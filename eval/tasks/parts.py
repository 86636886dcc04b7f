"""What a task is made of: metrics, data, rules, its part of an archive, and how names and settings are read."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePath
from typing import Any

from robustdistiller.common.files import read_text


class ScoringError(ValueError):
    """A benchmark's score cannot be computed; the message is one sentence."""


@dataclass(frozen=True)
class Metric:
    """One number a task reports.

    Attributes:
        name: in records and tables.
        key: how s3prl names it, in the scalar ``.../{split}-{key}`` that is handed to the logger; None where s3prl
            computes no score itself.
        higher_is_better: direction.
        unit: ``%``, ``dB`` or empty.
        scale: turns s3prl's value into the reported one (accuracies and error rates become per cent).
        short: name where space is short, as in published tables; empty for `name`.
        points: the values that count 0 and 1000 points in SUPERB's ``superb_s``; None for a metric it does not score.
    """

    name: str
    key: str | None
    higher_is_better: bool
    unit: str = "%"
    scale: float = 100.0
    short: str = ""
    points: tuple[float, float] | None = None


@dataclass(frozen=True)
class DataRoot:
    """A path the user must give.

    Attributes:
        key: of s3prl's ``-o``, e.g. ``config.downstream_expert.datarc.file_path``.
        what: what has to be there.
        is_list: several paths may be given.
    """

    key: str
    what: str
    is_list: bool = False


def split_folders(what: str) -> tuple[DataRoot, ...]:
    """The roots of a task that reads a folder for each split."""
    return tuple(DataRoot(f"config.downstream_expert.loaderrc.{name}_dir", what) for name in ("train", "dev", "test"))


@dataclass(frozen=True)
class Rules:
    """On what a head is trained, chosen and scored, and what a standard run may choose.

    A run is standard when its configuration is the task's own, apart from what `eval.tasks.rules` calls free.

    Attributes:
        train, dev, test: what heads are trained on, chosen on and scored on.
        score: what the number is.
        chosen: of which checkpoint it is.
        files: names that the files given at a setting have in a standard run.
        not_superb: why the numbers must not stand beside SUPERB's; empty where they may.
    """

    train: str = "the training set"
    dev: str = "the development set"
    test: str = "the test set"
    score: str = ""
    chosen: str = "the checkpoint that is best on dev, scored once on test"
    files: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    not_superb: str = ""


@dataclass(frozen=True)
class Submission:
    """A task's part of the archive that SUPERB's website reads.

    Attributes:
        folder: below ``predict/``; ``{fold}`` stands for the test fold.
        files: file in the experiment's folder to file in `folder`; a name that ends in ``/`` is a folder of files.
        truth: file of the experiment's folder with the right answers, where s3prl writes one.
        metrics: what the website computes.
    """

    folder: str
    files: Mapping[str, str]
    truth: str = ""
    metrics: tuple[str, ...] = ("accuracy",)


@dataclass(frozen=True)
class OfficialScore:
    """A benchmark's number that s3prl does not compute.

    Attributes:
        metric: name of the metric.
        value: as reported (rates in per cent); None where it cannot be had, then `reason` says why.
        reason: why there is no value.
        settings: how it was computed, plain data for the record's field `scoring`.
        ids: names of the scored items, where there are results of single items.
        items: their results, in the order of `ids`: numerators and denominators.
    """

    metric: str
    value: float | None
    reason: str = ""
    settings: Mapping[str, Any] | None = None
    ids: tuple[str, ...] = ()
    items: tuple[Sequence[float], Sequence[float]] | None = field(default=None, compare=False)


def text_of(path: Path | str) -> str:
    """The text of a file that a score is made of.

    Raises:
        ScoringError: it is no text.
    """
    try:
        return read_text(path)
    except ValueError as error:
        raise ScoringError(str(error)) from error


def last_parts(path: str) -> str:
    """The last three parts of a path without its suffix: the same wherever the corpus lies."""
    return "-".join(PurePath(path).with_suffix("").parts[-3:])


def lookup(config: Mapping[str, Any], key: str) -> Any:
    """The value at a dotted key, with or without s3prl's ``config.`` before it; None where there is none."""
    node: Any = config
    for part in key.removeprefix("config.").split("."):
        node = node.get(part) if isinstance(node, Mapping) else None
    return node


def edit_errors(sides: Iterable[tuple[Sequence[str], Sequence[str]]]) -> tuple[list[int], list[int]]:
    """Edit distances and reference lengths of pairs ``(said, meant)`` of sequences, or of words as characters."""
    import editdistance  # an s3prl dependency of the transcription tasks only

    counts = [(editdistance.eval(list(said), list(meant)), len(meant)) for said, meant in sides]
    return [errors for errors, _ in counts], [length for _, length in counts]
