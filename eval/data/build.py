"""Making what a plan says: each thing appears whole or not at all, and an interrupted run goes on where it stopped."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

from tqdm import tqdm

from robustdistiller.common.files import write_text
from robustdistiller.eval.data.plan import Plan, PrepareError, Step

NOTE, WORK = "prepared.json", ".work"
T, R = TypeVar("T"), TypeVar("R")


def state_of(step: Step, out: Path) -> str:
    """``made``, ``begun`` or ``to make``."""
    noted = _read(out).get(step.target)
    if noted is not None and noted["stamp"] == step.stamp:
        if noted["done"] and (out / step.target).exists():
            return "made"
        if _workplace(step, out).exists():
            return "begun"
    return "to make"


def run(plan: Plan, progress: bool = True) -> list[str]:
    """Make everything that is not there yet.

    Args:
        plan: what to make; nothing of it may be missing.
        progress: show a bar for each step.

    Returns:
        Targets that were made now.

    Raises:
        PrepareError: something needed is missing, or a file that this command did not make stands in the way.
    """
    if not plan.ok:
        raise PrepareError(f"{plan.task.code}: something needed is missing, so nothing was made")
    todo = [step for step in plan.steps if state_of(step, plan.out) != "made"]
    for step in todo:
        _make(step, plan.out, progress)
    shutil.rmtree(plan.out / WORK, ignore_errors=True)
    for path in (path for value in plan.settings.values() for path in ([value] if isinstance(value, str) else value)):
        if not Path(path).exists():
            raise PrepareError(f"{plan.task.code}: {path} was there and is gone; was it removed meanwhile?")
    return [step.target for step in todo]


def _make(step: Step, out: Path, progress: bool) -> None:
    target, work = out / step.target, _workplace(step, out)
    if target.exists() and step.target not in _read(out):
        raise PrepareError(f"{target} was not made by this command; move it away, or choose another --out")
    stamp = work / "stamp"
    if work.exists() and (not stamp.is_file() or stamp.read_text(encoding="utf-8") != step.stamp):
        shutil.rmtree(work)  # begun from something else
    work.mkdir(parents=True, exist_ok=True)
    stamp.write_text(step.stamp, encoding="utf-8")
    _note(out, step, done=False)
    with tqdm(total=step.items, desc=step.title, disable=None if progress else True) as bar:
        result = step.make(work, bar)
    if target.is_dir() and not target.is_symlink():
        shutil.rmtree(target)
    target.parent.mkdir(parents=True, exist_ok=True)
    result.replace(target)
    _note(out, step, done=True)
    shutil.rmtree(work, ignore_errors=True)


def _workplace(step: Step, out: Path) -> Path:
    return out / WORK / step.target.replace("/", "~")


def _read(out: Path) -> dict[str, Any]:
    note = out / NOTE
    try:
        return json.loads(note.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except json.JSONDecodeError as error:
        raise PrepareError(f"{note} is not what this command writes ({error}); delete it to begin anew") from error


def _note(out: Path, step: Step, done: bool) -> None:
    notes = {**_read(out), step.target: {"stamp": step.stamp, "done": done}}
    write_text(out / NOTE, json.dumps(notes, indent=1) + "\n")


def mapped(function: Callable[[T], R], items: Sequence[T], jobs: int = 8) -> Iterator[R]:
    """Results of a function on many items, in order, by a few threads; stops at once when it is interrupted."""
    pool = ThreadPoolExecutor(jobs)
    try:
        yield from pool.map(function, items)
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def convert_files(files: Mapping[str, Path], convert: Callable[[Path, Path], None], work: Path, bar: tqdm) -> Path:
    """Convert many files, as `Step.make` does; those that an interrupted run finished are kept.

    Args:
        files: name of the result to its source.
        convert: called with a source and the path to write to.
        work, bar: see `Step`.

    Returns:
        The folder of the results.
    """
    result, unfinished = work / "result", work / "unfinished"
    shutil.rmtree(unfinished, ignore_errors=True)
    todo = [name for name in files if not (result / name).is_file()]
    for folder in (result, unfinished):
        for parent in {(folder / name).parent for name in files}:
            parent.mkdir(parents=True, exist_ok=True)

    def convert_one(name: str) -> None:
        convert(files[name], unfinished / name)
        (unfinished / name).replace(result / name)

    bar.update(len(files) - len(todo))
    for _ in mapped(convert_one, todo, jobs=2):
        bar.update()
    return result


def link(source: Path, work: Path, bar: tqdm) -> Path:
    """Make a link to a file or folder, as `Step.make` does; returns the link."""
    place = work / "result"
    place.unlink(missing_ok=True)
    place.symlink_to(source.absolute(), target_is_directory=source.is_dir())
    bar.update()
    return place
