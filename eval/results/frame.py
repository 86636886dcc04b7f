"""Records as one tidy table: what every leaderboard, plot and comparison is made of. No mixture of records stops it."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import pandas as pd
import yaml

from robustdistiller.eval import tasks
from robustdistiller.eval.results.files import read_record, record_files
from robustdistiller.eval.results.identity import cell_id, made_digest
from robustdistiller.eval.results.record import Metric, Record, RecordError
from robustdistiller.eval.tasks.rules import test_set_deviations

MEAN = "mean"
UNREADABLE = "unreadable"
#: In a folder of records, to rename systems: ``{label, or digest of a system or of its weights: new label}``.
LABELS_FILE = "labels.yaml"
_DIGITS = 12  # shown of a digest
_COLUMNS = (
    *("system", "label", "upstream", "checkpoint", "weights", "options", "parameters", "macs"),
    *("task", "split", "fold", "seed", "condition", "condition_id", "draws", "train_condition", "quick"),
    *("metric", "main", "value", "unit", "higher_is_better", "status", "reason", "items", "official", "non_standard"),
    *("rules", "head", "step", "learning_rate", "start_utc", "duration_s", "superseded", "schema_unknown", "path"),
)
_WHOLE_NUMBERS = ("parameters", "macs", "seed", "items", "step")
# Records that agree in these, and whose test sets have as many items, are attempts at one number: one of them counts.
_NUMBER = ("system", "task", "split", "fold", "seed", "condition_id", "rules")


def read_frame(folders: Iterable[Path | str]) -> pd.DataFrame:
    """Read all records below some folders: one row for each record and metric.

    The columns are fields of `Record`, and beside them:

    - ``system``, ``condition_id``, ``rules``, ``head``: the first digits of digests, equal where the thing is the same.
      A record whose writer did not know its rules, or the contents of its sources, goes by those of a record that says
      the same about them, where there is one.
    - ``label``: the newest record's of the system, or what ``labels.yaml`` in one of the folders says instead.
    - ``parameters``, ``macs``: of the system, from its newest record that knows them.
    - ``weights``, ``options``, ``draws``: `checkpoint_digest`, `upstream_options`, `manifest_digest`.
    - ``metric``, ``value``, ``unit``, ``higher_is_better``, and ``main`` for the metric that tables show; ``value`` is
      NaN where there is none.
    - ``status``, ``reason``: of the record; ``unreadable`` and why for a file that is none.
    - ``items``: scored; ``official``: whether they are as many as the official test set has, None where not known.
    - ``non_standard``: tuple of phrases, None where not known.
    - ``superseded``: another record of this number counts: the newest finished one, else the newest.
    - ``schema_unknown``: fields that the record's writer did not have; ``path``: its file.

    Args:
        folders: of records, or of experiments or sweeps with ``records/`` in them. A record that lies in two of them
            counts once.

    Raises:
        FileNotFoundError: no such folder.
        RecordError: a ``labels.yaml`` that does not give names for names.

    Example:
        >>> import tempfile
        >>> from robustdistiller.eval.results.files import write_record
        >>> from robustdistiller.eval.results.record import example_record
        >>> folder = tempfile.mkdtemp()
        >>> _ = write_record(folder, example_record())
        >>> read_frame([folder])[["label", "task", "condition", "metric", "value"]].values.tolist()
        [['fbank', 'IC', 'clean', 'accuracy', 75.0]]
    """
    folders = [Path(folder) for folder in folders]
    lines: dict[Any, dict[str, Any]] = {}
    broken = []
    for path in dict.fromkeys(path for folder in folders for path in record_files(folder)):
        try:
            record = read_record(path)
        except (RecordError, FileNotFoundError) as error:
            broken.append({"status": UNREADABLE, "reason": str(error), "path": str(path)})
            continue
        lines.setdefault((cell_id(record), record.start_utc), _line(record, path))
    found = sorted(lines.values(), key=lambda line: line["start_utc"])
    _adopt(found, "rules", "rules_digest", ("task", "non_standard"))
    _adopt(found, "condition_id", "sources", ("condition", "draws"))
    _name_systems(found, _renamed(folders))
    _supersede(found)
    found.sort(key=lambda line: line["path"])
    rows = [{**line, **metric} for line in found for metric in line["metrics"]]
    return _frame([*rows, *broken])


def mean_over_folds(frame: pd.DataFrame) -> pd.DataFrame:
    """Add what the benchmark reports of a task with cross-validation: the plain mean over its folds, as fold ``mean``.

    Only where a seed has all folds. The row's ``path`` is the tuple of theirs, ``items`` their sum.

    Args:
        frame: of :func:`read_frame`.
    """
    counted = frame[(frame.status == "ok") & ~frame.superseded & (frame.fold != "")]
    keys = [name for name in _NUMBER if name != "fold"]
    means = []
    for _, folds in counted.groupby([*keys, "metric"], sort=False):
        first = folds.iloc[0]
        if set(folds.fold) != set(folds_of(first.task)):
            continue
        items = int(folds["items"].sum())
        draws = folds.sort_values("fold").draws.tolist()
        means.append(
            {
                **first.to_dict(),
                "fold": MEAN,
                "value": folds.value.mean(skipna=False),
                "items": items,
                "official": _is_official(first.task, first.split, "", items),
                "non_standard": _together(first.task, first.split, items, folds.non_standard),
                "draws": "none" if set(draws) == {"none"} else made_digest(folds=draws),
                "head": made_digest(folds=folds["head"].tolist())[:_DIGITS],
                "step": None,
                "learning_rate": first.learning_rate if folds.learning_rate.nunique() == 1 else None,
                "start_utc": folds.start_utc.max(),
                "duration_s": folds.duration_s.sum(),
                "path": tuple(folds.path),
            }
        )
    return pd.concat([frame, _frame(means)], ignore_index=True) if means else frame


def folds_of(task: str) -> tuple[str, ...]:
    """The folds whose mean is the benchmark's number of a task; empty for other tasks and those not known here."""
    return tasks.TASKS[task].folds if task in tasks.TASKS else ()


def _line(record: Record, path: Path) -> dict[str, Any]:
    cell = cell_id(record)
    own = (
        *("label", "upstream", "checkpoint", "parameters", "macs", "task", "split", "fold", "seed", "condition"),
        *("train_condition", "quick", "status", "reason", "step", "learning_rate", "start_utc", "duration_s"),
    )
    return {
        **{name: getattr(record, name) for name in own},
        "system": cell.system.digest()[:_DIGITS],
        "weights": record.checkpoint_digest,
        "options": record.upstream_options,
        "condition_id": cell.condition[:_DIGITS],
        "draws": record.manifest_digest,
        "metrics": [_metric(record, one) for one in record.metrics or [_main_metric(record.task)]],
        "items": record.items_scored,
        "items_expected": record.items_expected,
        "official": _is_official(record.task, record.split, record.fold, record.items_scored),
        "non_standard": None if record.non_standard is None else tuple(record.non_standard),
        "rules": cell.rules[:_DIGITS],
        "head": cell.head[:_DIGITS],
        "schema_unknown": tuple(record.unknown),
        "path": str(path),
    }


def _metric(record: Record, one: Metric) -> dict[str, Any]:
    main = not record.metrics or one is record.metrics[0]
    shown = {"metric": one.name, "main": main, "unit": one.unit, "higher_is_better": one.higher_is_better}
    return {**shown, "value": one.value, "reason": record.reason or one.reason}


def _main_metric(task: str) -> Metric:
    if task not in tasks.TASKS:
        return Metric("", None, higher_is_better=True)
    metric = tasks.TASKS[task].metric
    return Metric(metric.name, None, metric.higher_is_better, metric.unit)


def _is_official(task: str, split: str, fold: str, items: int) -> bool | None:
    count = tasks.TASKS[task].item_counts.get(split) if task in tasks.TASKS and not fold else None
    return None if count is None else items == count


def _together(task: str, split: str, items: int, phrases: Iterable[tuple[str, ...] | None]) -> tuple[str, ...] | None:
    """In what any of the folds is not standard, and whether all of them together are the official test set."""
    phrases = list(phrases)
    if any(one is None for one in phrases):
        return None
    own = dict.fromkeys(phrase for one in phrases for phrase in one)
    return (*own, *test_set_deviations(tasks.get(task), split, items))


def _adopt(lines: list[dict[str, Any]], name: str, field: str, alike: tuple[str, ...]) -> None:
    """Where a record's writer did not have `field`, take `name` of a record that agrees in `alike`."""
    known = {tuple(line[key] for key in alike): line[name] for line in lines if field not in line["schema_unknown"]}
    for line in lines:
        told = tuple(line[key] for key in alike)
        if field in line["schema_unknown"] and None not in told and "none" not in told:
            line[name] = known.get(told, line[name])


def _name_systems(lines: list[dict[str, Any]], renamed: Mapping[str, str]) -> None:
    """One label, size and cost for each system, the newest; runs that failed before loading it belong to it too."""
    for line in [line for line in lines if line["parameters"] is None]:  # nothing was loaded
        known = ("upstream", "checkpoint", "options", *(["weights"] if line["weights"] else []))
        told = {name: line[name] for name in known}
        loaded = [one for one in lines if one["parameters"] is not None and told.items() <= one.items()]
        if len({one["system"] for one in loaded}) == 1:
            line |= {name: loaded[0][name] for name in ("system", "weights")}
    shared: dict[str, dict[str, Any]] = defaultdict(dict)
    for line in lines:  # the oldest first
        shared[line["system"]] |= {k: line[k] for k in ("label", "parameters", "macs") if line[k] is not None}
    for line in lines:
        line |= shared[line["system"]]
        names = (line["label"], line["weights"], line["weights"][:_DIGITS], line["system"])
        line["label"] = next((renamed[name] for name in names if name in renamed), line["label"])


def _renamed(folders: Iterable[Path]) -> dict[str, str]:
    found: dict[str, str] = {}
    for path in [place / LABELS_FILE for folder in folders for place in (folder, folder / "records")]:
        if path.is_file():
            names = yaml.safe_load(path.read_text(encoding="utf-8")) or {}
            if not isinstance(names, dict):
                raise RecordError(f"{path} must give names for names (old: new), found {type(names).__name__}")
            found |= {str(old): str(new) for old, new in names.items()}
    return found


def _supersede(lines: list[dict[str, Any]]) -> None:
    numbers = defaultdict(list)
    for line in lines:
        numbers[tuple(line[key] for key in _NUMBER)].append(line)
    for attempts in numbers.values():
        counts = []
        for size in {line["items_expected"] for line in attempts} - {None} or {None}:
            fitting = [line for line in attempts if line["items_expected"] in (size, None)]  # None: it failed before
            counts.append(max(fitting, key=lambda line: (line["status"] == "ok", line["start_utc"])))
        for line in attempts:
            line["superseded"] = not any(line is one for one in counts)


def _frame(rows: list[dict[str, Any]]) -> pd.DataFrame:
    frame = pd.DataFrame(rows, columns=_COLUMNS)
    kinds = dict.fromkeys(_WHOLE_NUMBERS, "Int64") | dict.fromkeys(("value", "learning_rate"), float)
    texts = [name for name in ("fold", "condition", "task", "metric", "label", "system") if name in frame]
    frame[texts] = frame[texts].fillna("")
    for name in ("main", "superseded"):
        frame[name] = frame[name].eq(True)
    return frame.astype(kinds | {"official": object, "non_standard": object})
