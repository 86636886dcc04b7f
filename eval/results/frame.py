"""Records as one tidy table: what every leaderboard, plot and comparison is made of. No mixture of records stops it."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pandas as pd
import yaml

from robustdistiller.eval import tasks
from robustdistiller.eval.results.files import read_each
from robustdistiller.eval.results.identity import CellId, cell_id, made_digest, system_id
from robustdistiller.eval.results.record import Metric, Record, RecordError
from robustdistiller.eval.tasks.rules import test_set_deviations

MEAN = "mean"
UNREADABLE = "unreadable"
#: In a folder of records, to rename systems: ``{label, or digest of a system or of its weights: new label}``.
LABELS_FILE = "labels.yaml"
_DIGITS = 12  # shown of a digest
_COLUMNS = (
    *("system", "label", "upstream", "checkpoint", "weights", "options", "layer", "parameters", "macs"),
    *("task", "split", "fold", "seed", "condition", "condition_id", "draws", "train_condition", "quick"),
    *("metric", "main", "value", "unit", "higher_is_better", "status", "reason", "items", "official", "non_standard"),
    *("rules", "head", "step", "learning_rate", "start_utc", "duration_s", "superseded", "schema_unknown", "path"),
)
_OF_RECORDS = (
    *("label", "upstream", "checkpoint", "parameters", "macs", "task", "split", "fold", "seed", "condition"),
    *("train_condition", "quick", "status", "step", "learning_rate", "start_utc", "duration_s"),
)
_WHOLE_NUMBERS = ("layer", "parameters", "macs", "seed", "items", "step")
# Records that agree in these, and whose test sets have as many items, are attempts at one number: one of them counts.
_NUMBER = ["system", "task", "split", "fold", "seed", "condition_id", "rules"]


def read_frame(folders: Iterable[Path | str]) -> pd.DataFrame:
    """Read all records below some folders: one row for each record and metric.

    The columns are fields of `Record`, and beside them:

    - ``system``, ``condition_id``, ``rules``, ``head``: the first digits of digests, equal where the thing is the same.
      A record whose writer did not know its rules, or the contents of its sources, goes by those of a record that says
      the same about them, where there is one.
    - ``label``: the newest record's of the system, or what ``labels.yaml`` in one of the folders says instead.
    - ``parameters``, ``macs``: of the system, from its newest record that knows them.
    - ``weights``, ``options``, ``draws``: `checkpoint_digest`, `upstream_options`, `manifest_digest`.
    - ``layer``: of a system whose heads read one hidden state; each layer is a system. A layer that a task's rules
      leave free makes one where the same number was measured with several.
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
        RecordError: a ``labels.yaml`` that cannot be read, or does not give names for names.
    """
    folders = [Path(folder) for folder in folders]
    rows: list[dict[str, Any]] = []
    broken, seen = [], set()
    for path, record in {path: one for folder in folders for path, one in read_each(folder)}.items():
        if isinstance(record, RecordError):
            broken.append({"status": UNREADABLE, "reason": str(record), "path": str(path)})
            continue
        cell = cell_id(record)
        if (cell, record.start_utc) not in seen:
            seen.add((cell, record.start_utc))
            rows += _rows(record, cell, path)
    rows.sort(key=lambda row: row["start_utc"])
    _adopt(rows, "rules", "rules_digest", ("task", "non_standard"))
    _adopt(rows, "condition_id", "sources", ("condition", "draws"))
    _find_systems(rows)
    frame = pd.DataFrame(rows, columns=[*_COLUMNS, "free_layer", "items_expected"])
    _tell_layers_apart(frame)
    # One label, size and cost for each system: the newest that is known.
    shared = ["label", "parameters", "macs"]
    frame[shared] = frame.groupby("system")[shared].transform("last")
    renamed, label = _renamed(folders), frame.label
    for name in (frame.label, frame.system, frame.weights.str[:_DIGITS], frame.weights):  # the last goes first
        label = label.where(~name.isin(renamed), name.map(renamed))
    frame = frame.assign(label=label, superseded=~frame.path.isin(_that_count(frame)))
    return _typed(pd.concat([frame.sort_values("path", kind="stable"), pd.DataFrame(broken)], ignore_index=True))


def mean_over_folds(frame: pd.DataFrame) -> pd.DataFrame:
    """Add what the benchmark reports of a task with cross-validation: the plain mean over its folds, as fold ``mean``.

    Only where a seed has all folds. The row's ``path`` is the tuple of theirs, ``items`` their sum.
    """
    counted = frame[(frame.status == "ok") & ~frame.superseded & (frame.fold != "")]
    keys = [name for name in _NUMBER if name != "fold"]
    means = []
    for _, folds in counted.sort_values("items", kind="stable").groupby([*keys, "metric"], sort=False):
        folds = folds.drop_duplicates("fold", keep="last").sort_index()  # the largest test set of each
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
    return pd.concat([frame, _typed(pd.DataFrame(means))], ignore_index=True) if means else frame


def folds_of(task: str) -> tuple[str, ...]:
    """The folds whose mean is the benchmark's number of a task; empty for other tasks and those not known here."""
    return tasks.TASKS[task].folds if task in tasks.TASKS else ()


def _rows(record: Record, cell: CellId, path: Path) -> list[dict[str, Any]]:
    """One for each metric; one without a value where there are none."""
    system = system_id(record)
    shared = {
        **{name: getattr(record, name) for name in _OF_RECORDS},
        "system": system.digest()[:_DIGITS],
        "layer": system.layer,
        "free_layer": record.settings.get("upstream_layer_selection"),
        "weights": record.checkpoint_digest,
        "options": record.upstream_options,
        "condition_id": cell.condition[:_DIGITS],
        "draws": record.manifest_digest,
        "items": record.items_scored,
        "items_expected": record.items_expected,
        "official": _is_official(record.task, record.split, record.fold, record.items_scored),
        "non_standard": None if record.non_standard is None else tuple(record.non_standard),
        "rules": cell.rules[:_DIGITS],
        "head": cell.head[:_DIGITS],
        "schema_unknown": tuple(record.unknown),
        "path": str(path),
    }
    return [
        {
            **shared,
            "metric": one.name,
            "main": place == 0,
            "unit": one.unit,
            "higher_is_better": one.higher_is_better,
            "value": one.value,
            "reason": record.reason or one.reason,
        }
        for place, one in enumerate(record.metrics or [_main_metric(record.task)])
    ]


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


def _adopt(rows: list[dict[str, Any]], name: str, field: str, alike: tuple[str, ...]) -> None:
    """Where a record's writer did not have `field`, take `name` of a record that agrees in `alike`."""
    known = {tuple(row[key] for key in alike): row[name] for row in rows if field not in row["schema_unknown"]}
    for row in rows:
        told = tuple(row[key] for key in alike)
        if field in row["schema_unknown"] and None not in told and "none" not in told:
            row[name] = known.get(told, row[name])


def _find_systems(rows: list[dict[str, Any]]) -> None:
    """Runs that failed before their upstream was loaded are of the system that agrees in what they know."""
    for row in [row for row in rows if row["parameters"] is None]:
        known = ("upstream", "checkpoint", "options", "layer", *(["weights"] if row["weights"] else []))
        told = {name: row[name] for name in known}
        loaded = [one for one in rows if one["parameters"] is not None and told.items() <= one.items()]
        if len({one["system"] for one in loaded}) == 1:
            row |= {name: loaded[0][name] for name in ("system", "weights")}


def _tell_layers_apart(frame: pd.DataFrame) -> None:
    several = frame.fillna({"free_layer": -1}).groupby(["system", "task", "split"]).free_layer.transform("nunique") > 1
    apart = several & frame.free_layer.notna()
    for row in frame[apart].itertuples():
        layer = int(row.free_layer)
        frame.loc[row.Index, ["system", "layer"]] = made_digest(system=row.system, layer=layer)[:_DIGITS], layer


def _that_count(frame: pd.DataFrame) -> set[str]:
    """Of attempts at one number the newest finished one, else the newest; one for each size of its test set."""
    best: dict[tuple, dict[float | None, str]] = defaultdict(dict)
    finished = set(frame[frame.main & (frame.status == "ok") & frame.value.notna()].path)
    for row in frame.assign(ok=frame.path.isin(finished)).sort_values(["ok", "start_utc"], kind="stable").itertuples():
        number = tuple(getattr(row, name) for name in _NUMBER)
        by_size = best[number]
        if pd.isna(row.items_expected):  # it failed before its test set was read, which may be any of them
            best[number] = dict.fromkeys(by_size or [None], row.path)
        else:
            by_size.pop(None, None)
            by_size[row.items_expected] = row.path
    return {path for by_size in best.values() for path in by_size.values()}


def _renamed(folders: Iterable[Path]) -> dict[str, str]:
    found: dict[str, str] = {}
    for path in [place / LABELS_FILE for folder in folders for place in (folder, folder / "records")]:
        if path.is_file():
            try:
                names = yaml.safe_load(path.read_text(encoding="utf-8")) or {}
            except (yaml.YAMLError, UnicodeDecodeError) as error:
                raise RecordError(f"{path} is not YAML: {' '.join(str(error).split())}") from error
            if not isinstance(names, dict):
                raise RecordError(f"{path} must give names for names (old: new), found {type(names).__name__}")
            found |= {str(old): str(new) for old, new in names.items()}
    return found


def _typed(frame: pd.DataFrame) -> pd.DataFrame:
    frame = frame.reindex(columns=list(_COLUMNS))
    texts = ["fold", "condition", "task", "metric", "label", "system"]
    frame[texts] = frame[texts].fillna("")
    for name in ("main", "superseded"):
        frame[name] = frame[name].eq(True)
    kinds = dict.fromkeys(_WHOLE_NUMBERS, "Int64") | dict.fromkeys(("value", "learning_rate"), float)
    return frame.astype(kinds | {"official": object, "non_standard": object})
