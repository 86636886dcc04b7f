"""Making what a plan says: each thing appears whole or not at all, and an interrupted run goes on where it stopped."""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

from tqdm import tqdm

from robustdistiller.common.files import write_text
from robustdistiller.common.locks import sole_user
from robustdistiller.eval.data.plan import NOTE, Plan, PrepareError, Step

logger = logging.getLogger(__name__)

WORK = ".work"
_DIGITS = 16  # of the names in it
T, R = TypeVar("T"), TypeVar("R")


def run(plan: Plan, progress: bool = True) -> list[str]:
    """Make everything that is not there yet; another process that makes something in the same folder is waited for.

    Returns:
        Targets that were made now.

    Raises:
        PrepareError: something needed is missing, or a file that this command did not make stands in the way.
    """
    if not plan.ok:
        raise PrepareError(f"{plan.task.code}: something needed is missing, so nothing was made")
    if all(plan.is_made(step) for step in plan.steps) and not (plan.out / WORK).exists():
        return []
    with sole_user(plan.out, logger.warning, wait=True):
        todo = [step for step in plan.steps if not plan.is_made(step)]
        for step in todo:
            _make(plan, step, progress)
        for own in (plan.out / WORK).glob("[0-9a-f]" * _DIGITS):  # of this run, and begun by others
            shutil.rmtree(own, ignore_errors=True)
        with contextlib.suppress(OSError):  # what is not this command's stays
            (plan.out / WORK).rmdir()
    return [step.target for step in todo]


def _make(plan: Plan, step: Step, progress: bool) -> None:
    target = plan.out / step.target
    if target.exists() and step.target not in plan.made_before():
        raise PrepareError(f"{target} was not made by this command; move it away, or choose another --out")
    # Named by what it is made of: what was begun from something else is not gone on with.
    made_of = hashlib.sha256(f"{step.target} {step.stamp}".encode()).hexdigest()
    result = plan.out / WORK / made_of[:_DIGITS] / "result"
    result.parent.mkdir(parents=True, exist_ok=True)
    with tqdm(total=step.items, desc=step.title, disable=None if progress else True) as bar:
        step.make(result, bar)
    if target.is_dir() and not target.is_symlink():
        shutil.rmtree(target)
    target.unlink(missing_ok=True)
    target.parent.mkdir(parents=True, exist_ok=True)
    write_text(plan.out / NOTE, json.dumps({**plan.made_before(), step.target: step.note}, indent=1) + "\n")
    result.replace(target)


def mapped(function: Callable[[T], R], items: Sequence[T], jobs: int = 8) -> Iterator[R]:
    """Results of a function on many items, in order, by a few threads; stops at once when it is interrupted."""
    pool = ThreadPoolExecutor(jobs)
    try:
        yield from pool.map(function, items)
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def convert_files(files: Mapping[str, Path], convert: Callable[[Path, Path], None], result: Path, bar: tqdm) -> None:
    """Convert many files, as `Step.make` does; those that an interrupted run finished are kept."""
    unfinished = result.with_name("unfinished")
    for parent in {(folder / name).parent for name in files for folder in (result, unfinished)}:
        parent.mkdir(parents=True, exist_ok=True)
    todo = [name for name in files if not (result / name).is_file()]

    def convert_one(name: str) -> None:
        convert(files[name], unfinished / name)
        (unfinished / name).replace(result / name)

    bar.update(len(files) - len(todo))
    for _ in mapped(convert_one, todo, jobs=2):
        bar.update()


def link(source: Path, result: Path, bar: tqdm) -> None:
    """Make a link to a file or folder, as `Step.make` does."""
    result.unlink(missing_ok=True)
    result.symlink_to(source.absolute(), target_is_directory=source.is_dir())
    bar.update()
