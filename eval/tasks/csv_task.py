"""A task of the user's own from a table: which recording has which label.

A CSV file with the columns ``path`` and ``label``, and if they are known ``speaker`` and ``split`` (train, dev or
test), becomes the classification of utterances: s3prl's linear head on the mean over frames, trained by s3prl's own
runner, with records, results of single items, conditions and the feature cache of every other task.
"""

from __future__ import annotations

import hashlib
import os
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from robustdistiller.acoustics.audio.labelled import SPLITS, Labelled, read_labelled
from robustdistiller.common.written import merge
from robustdistiller.eval.tasks.base import Task
from robustdistiller.eval.tasks.configs import read_config
from robustdistiller.eval.tasks.parts import DataRoot, Metric, Rules, last_parts, lookup

DOWNSTREAM = "robustdistiller_csv"
_DATA = "downstream_expert.datarc"
#: Share of each split where the table has none.
SHARES = {"dev": 0.1, "test": 0.1}


def csv_task(path: str | Path, name: str = "", *, split_seed: int = 0) -> Task:
    """The classification of utterances by a table of recordings and labels.

    Without a column ``split``, a tenth of the items is drawn for development and a tenth for the test: whole speakers
    where the table has a column ``speaker``, else a tenth of each label. The recordings may have any sampling rate.

    Args:
        path: CSV file with the columns ``path`` (relative to the file, or absolute) and ``label``, and if wanted
            ``speaker`` and ``split``; further columns are not read.
        name: the task's code in records and tables; default: the file's name.
        split_seed: of the drawn split.

    Returns:
        The task; `register` it where it shall be known by its name.

    Raises:
        FileNotFoundError: the table or one of its recordings is not there.
        ValueError: a column, a label or a split is missing, or one makes no sense; the line is named.
    """
    path = Path(path).expanduser().resolve()
    code = name or path.stem
    _refuse_known(code, path)
    items, drawn = read_items(path, split_seed)
    digest = digest_of(items)
    counts = {split: sum(item.split == split for item in items) for split in SPLITS}
    speakers = {name: item.speaker for item in items if item.speaker for name in (last_parts(item.name), item.name)}
    how = f", {'speakers' if speakers else 'items of each label'} drawn with seed {split_seed}" if drawn else ""
    # s3prl makes a loader for every epoch, and starting its processes takes longer than the epoch of a small table.
    workers = 4 if counts["train"] > 5000 else 0
    data = {"csv": str(path), "split_seed": split_seed, "digest": digest, "num_workers": workers}
    return Task(
        code=code,
        title=f"{len({item.label for item in items})} labels of {path.name}",
        downstream=DOWNSTREAM,
        metrics=(Metric("accuracy", "acc", higher_is_better=True, short="acc"),),
        config=merge(read_config("csv"), {"downstream_expert": {"datarc": data}}),
        expert="robustdistiller.eval.tasks.csv_expert:DownstreamExpert",
        roots=(DataRoot(f"config.{_DATA}.csv", "CSV of path,label[,speaker,split]"),),
        rules=Rules(*(f"{counts[split]} items{how}" for split in SPLITS)),
        recordings=partial(_recordings, path),
        told_by=(f"{_DATA}.digest", digest),
        speaker=partial(_speaker_in, speakers),
        pooled_head=True,
        item_counts={"test": counts["test"]},
    )


def _refuse_known(code: str, path: Path) -> None:
    """Refuse the code of a task that is no table: its number would stand in that task's column."""
    from robustdistiller.eval.tasks.registry import TASKS  # which imports this file

    for task in TASKS.values():
        if task.code.lower() == code.lower() and task.downstream != DOWNSTREAM:
            raise ValueError(f"{path} would be called {code}, as the task {task.code} ({task.title}); rename the file")


def _recordings(path: Path) -> list[Path]:
    return sorted(item.path for item in read_items(path)[0])


def _speaker_in(speakers: Mapping[str, str], item: str) -> str:
    return speakers.get(item) or speakers.get(last_parts(item), "")


def task_of_config(config: Mapping[str, Any]) -> Task | None:
    """The task of a head that was trained on a table, by its configuration; None where the table has gone."""
    path = Path(str(lookup(config, f"{_DATA}.csv")))
    return csv_task(path, split_seed=lookup(config, f"{_DATA}.split_seed") or 0) if path.is_file() else None


def is_same_table(one: Task, other: Task) -> bool:
    """Whether two tasks are of one CSV file, perhaps before and after it was changed."""
    paths = [lookup(task.config, f"{_DATA}.csv") for task in (one, other) if task.downstream == DOWNSTREAM]
    return len(paths) == 2 and paths[0] == paths[1]


def digest_of(items: Iterable[Labelled]) -> str:
    """SHA-256 of which recording has which label in which split, wherever they lie."""
    lines = sorted(f"{item.name}\t{item.label}\t{item.split}\n" for item in items)
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def read_items(path: Path, split_seed: int = 0) -> tuple[list[Labelled], bool]:
    """The recordings of a table, each in its split, and whether the splits were drawn.

    Their names are paths below the folder that all lie in.
    """
    items = read_labelled(path)
    if not items:
        raise ValueError(f"{path} has no line below its head; expected one for each recording")
    common = Path(os.path.commonpath([item.path.parent for item in items]))
    items = [replace(item, name=item.path.relative_to(common).as_posix()) for item in items]
    drawn = not items[0].split
    items = _drawn(items, split_seed) if drawn else items
    for split in SPLITS:
        if not any(item.split == split for item in items):
            few = "too few speakers or items to draw from" if drawn else "or leave the column out"
            raise ValueError(f"{path} has no item of the split {split}; expected some of train, dev and test ({few})")
    trained = {item.label for item in items if item.split == "train"}
    for item in items:
        if item.label not in trained:
            where, why = f"{path}, line {item.line}", "so no head can learn it"
            raise ValueError(f"{where}: no item of the split train has the label {item.label!r}, {why}")
    return items, drawn


def _drawn(items: Sequence[Labelled], seed: int) -> list[Labelled]:
    """The items with a split: whole speakers where there are any, else the same share of each label."""
    generator = np.random.default_rng(seed)
    strata: dict[str, set[str]] = defaultdict(set)
    for item in items:
        strata["" if item.speaker else item.label].add(item.speaker or item.name)
    split_of: dict[str, str] = {}
    for _, names in sorted(strata.items()):
        shuffled = [sorted(names)[index] for index in generator.permutation(len(names))]
        for split, share in SHARES.items():
            for _ in range(max(1, round(share * len(names))) if len(names) >= len(SPLITS) else 0):
                split_of[shuffled.pop()] = split
    return [replace(item, split=split_of.get(item.speaker or item.name, "train")) for item in items]
