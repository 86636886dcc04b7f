"""What data a sweep's heads and numbers are of, ``data.json`` in its folder: none is taken for one of other data."""

from __future__ import annotations

import filecmp
import json
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from robustdistiller.common.digests import content_digests
from robustdistiller.common.files import walk_files, write_text
from robustdistiller.eval.results.identity import made_digest
from robustdistiller.eval.sweep.entries import SweepError, absolute
from robustdistiller.eval.tasks import Task
from robustdistiller.eval.tasks.configs import load_config
from robustdistiller.eval.tasks.parts import lookup

FILE = "data.json"
_COMPARED = 100  # files whose contents are looked at, of a corpus and what may be its copy

#: Setting to the paths that are given there, each with a digest of its contents; of a folder that is empty.
Data = Mapping[str, Mapping[str, str]]


def require_same_data(root: Path, tasks: Iterable[tuple[Task, Mapping[str, Any]]]) -> dict[str, Data]:
    """Refuse a sweep whose records would be of other data than those in its folder, or of two: they do not tell.

    A file is known by its contents, a table of recordings by theirs. A folder in another place is other data where the
    earlier place is still there and holds other files, by their names, their sizes and the contents of some; where it
    has gone, the corpus was moved.

    Args:
        root: folder of the sweep.
        tasks: each with its complete configuration.

    Returns:
        Where the data of each task lie, to be noted when something is made of them.

    Raises:
        SweepError: the data of a task are others.
    """
    noted, found = _read(root), {}
    for task, config in tasks:
        data = _data_of(task, config)
        for where, known in (("this sweep", found), (str(root), noted)):
            for key in known.get(task.code, {}).keys() & data.keys():
                before, paths = known[task.code][key], data[key]
                pairs = list(zip(before.items(), paths.items()))
                if len(before) != len(paths) or not all(_is_same(*one, *other) for one, other in pairs):
                    raise SweepError(
                        f"task {task.code}: the numbers in {where} are of the {key.rpartition('.')[2]} "
                        f"{', '.join(before)}, found other data in {', '.join(paths)}; give these a sweep of their "
                        f"own, with another `out` (where {task.code} reads the same from both, delete {root / FILE})"
                    )
        found[task.code] = data
    return found


def note_data(root: Path, data: Mapping[str, Data]) -> None:
    """Note what the heads and numbers that are made now are of."""
    write_text(root / FILE, json.dumps({**_read(root), **data}, indent=1) + "\n")


def _data_of(task: Task, config: Mapping[str, Any]) -> Data:
    own, found = load_config(task), {}
    for root in task.roots:
        value = lookup(config, root.key)
        if lookup(own, root.key) is None and value:
            paths = absolute([str(one) for one in ([value] if isinstance(value, str | os.PathLike) else value)])
            found[root.key] = {path: content_digests([path])[0] if Path(path).is_file() else "" for path in paths}
        elif task.recordings and task.told_by:  # where the table changes, it is another task
            contents = made_digest(recordings=content_digests(list(task.recordings())))
            found[f"{root.key}@{task.told_by[1][:8]}"] = {str(value): contents}
    return found


def _read(root: Path) -> dict[str, Data]:
    try:
        return json.loads((root / FILE).read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except ValueError as error:
        raise SweepError(f"{root / FILE} is not what a sweep writes ({error}); delete it") from error


def _is_same(before: str, digest_before: str, now: str, digest: str) -> bool:
    if digest_before or digest:
        return digest_before == digest
    if before == now or not Path(before).exists():
        return True
    files = _files(before)
    some = sorted(files)[:: max(1, len(files) // _COMPARED)]
    return files == _files(now) and not filecmp.cmpfiles(before, now, some, shallow=False)[1]


def _files(folder: str) -> dict[str, int]:
    """Files below a folder with their sizes in bytes."""
    paths = ((name, Path(folder, name)) for name in walk_files(folder))
    return {name: path.stat().st_size if path.exists() else 0 for name, path in paths}
