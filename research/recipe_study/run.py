"""Runs the study: every cell (upstream and seed) is trained, scored and written, by as many processes as wanted."""

from __future__ import annotations

import logging
import multiprocessing
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path

import torch

from research.recipe_study.evaluate import Evaluation
from research.recipe_study.outcomes import Outcome, load_outcome, outcome_path, save_outcome
from research.recipe_study.plan import BASELINES, STUDENTS, choose
from research.recipe_study.upstreams import (
    fbank_upstream,
    load_upstream,
    parameters,
    train_student,
    training_seconds,
    untrained_student,
)
from robustdistiller.common.locks import Busy, locked
from robustdistiller.eval.run.run_info import versions
from robustdistiller.upstream import checkpoint_digest

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Study:
    """Settings of the study.

    Attributes:
        evaluation: how upstreams are scored, and on what.
        out: results folder.
        teacher: checkpoint.
        steps: optimizer steps of each student.
        seeds: of students and heads.
        students: names, from the plan.
        baselines: names, from the plan.
        command: what was typed, for the records.
    """

    evaluation: Evaluation
    out: Path
    teacher: Path
    steps: int
    seeds: tuple[int, ...] = (0, 1, 2)
    students: tuple[str, ...] = tuple(STUDENTS)
    baselines: tuple[str, ...] = tuple(BASELINES)
    command: str = ""

    def cells(self) -> list[tuple[str, tuple[int, ...]]]:
        """What is to be done, in order: whatever is there after a while is a whole study with fewer seeds."""
        students = [student.name for student in choose(self.students or None)] if self.students else []
        fixed = [(name, self.seeds) for name in self.baselines if name != "random"]
        first, *others = self.seeds
        untrained = ["random"] if "random" in self.baselines else []
        cells = [(name, (first,)) for name in students] + fixed + [(name, (first,)) for name in untrained]
        return cells + [(name, (seed,)) for seed in others for name in [*students, *untrained]]


def run_study(study: Study, jobs: int = 1) -> list[str]:
    """Does every cell that is not done, passing over those that another process works on.

    Args:
        study: what.
        jobs: processes; each uses one thread.

    Returns:
        one line for each cell that failed or was left to another process; empty when everything is there.
    """
    torch.set_num_threads(1)
    left = []
    if jobs == 1:
        for name, seeds in study.cells():
            left += _attempt(study, name, seeds)
        return left
    # Started anew rather than forked: a fork of a process with threads of its own may hang.
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(jobs, mp_context=context, initializer=_start_worker) as pool:
        futures = [pool.submit(_attempt, study, name, seeds) for name, seeds in study.cells()]
        for future in as_completed(futures):
            left += future.result()
    return left


def _start_worker() -> None:
    torch.set_num_threads(1)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(process)d %(message)s")


def _attempt(study: Study, name: str, seeds: Sequence[int]) -> list[str]:
    """Does a cell; what went wrong is returned, so that the other cells go on."""
    parent = multiprocessing.parent_process()
    if parent is not None and not parent.is_alive():  # killed: nobody wants the cells that are still queued
        return [f"{name} {_list(seeds)}: the study was killed"]
    try:
        run_cell(study, name, seeds)
    except Busy:
        return [f"{name} {_list(seeds)}: another process works on it"]
    except (RuntimeError, OSError, ValueError) as error:
        logger.error("%s %s: %s", name, _list(seeds), error)
        return [f"{name} {_list(seeds)}: {error}"]
    return []


def run_cell(study: Study, name: str, seeds: Sequence[int]) -> None:
    """Trains and scores one upstream for some seeds and writes its outcomes, unless they are there.

    Raises:
        Busy: another process does.
        DistillationFailed: the student could not be trained.
    """
    data = study.evaluation.data
    with locked(data.work / "locks" / f"{name}-{_list(seeds)}.lock", wait=False) as lock:
        teacher_digest = checkpoint_digest(study.teacher)
        wanted = [seed for seed in seeds if not _is_done(study, name, seed, teacher_digest)]
        if not wanted:
            return
        notes = {"label": BASELINES.get(name, ""), "kind": "baseline", "steps": None, "training_seconds": 0.0}
        if name in STUDENTS:
            student = STUDENTS[name]
            logger.info("training %s seed %d, unless it is there", name, wanted[0])
            checkpoint = train_student(student, data, study.teacher, wanted[0], study.steps, lock)
            upstream, identity = load_upstream(checkpoint)
            arguments = student.arguments(data, Path(study.teacher.name), wanted[0], study.steps, Path("OUT"))
            notes = {
                "label": student.label,
                "kind": "student",
                "recipe": student.recipe,
                "tests": student.tests,
                "settings": [a for a in arguments[1:] if not a.startswith(("data.speech", "data.noise", "data.rir",
                                                                           "data.manifest_dir", "out_dir"))],
                "config": student.config_digest(study.steps),
                "steps": study.steps,
                "training_seconds": training_seconds(checkpoint),
            }  # fmt: skip
        elif name == "teacher":
            upstream, identity = load_upstream(study.teacher)
        elif name == "random":
            upstream, identity = load_upstream(untrained_student(study.teacher, data.work / "students", wanted[0]))
        else:
            upstream, identity = fbank_upstream()
        notes |= {
            "teacher": teacher_digest,
            "checkpoint": identity,
            "parameters": parameters(upstream),
            "command": study.command,
            "versions": versions(),
            "autocast": study.evaluation.autocast,
        }
        logger.info("scoring %s seeds %s", name, wanted)
        for seed, outcome in study.evaluation.run(upstream, identity, name, wanted).items():
            date = datetime.now(timezone.utc).strftime("%Y-%m-%d %H:%M UTC")
            complete = Outcome({**outcome.notes, **notes, "date": date}, outcome.cells)
            save_outcome(outcome_path(study.out, name, seed), complete)
            logger.info("done %s seed %d: %.0f s of scoring", name, seed, outcome.notes["evaluation_seconds"])


def _is_done(study: Study, name: str, seed: int, teacher_digest: str) -> bool:
    """Whether the outcome is there, comes from this teacher and these settings, and has every cell."""
    path = outcome_path(study.out, name, seed)
    if not path.is_file():
        return False
    known = load_outcome(path)
    config = STUDENTS[name].config_digest(study.steps) if name in STUDENTS else None
    same = known.notes["teacher"] == teacher_digest and known.notes.get("config") == config
    scored = {f"{task} heads": study.evaluation.settings_digest(task) for task in study.evaluation.tasks}
    wanted = {(task, c) for task in study.evaluation.tasks for c in study.evaluation.conditions}
    return same and scored.items() <= known.notes["digests"].items() and wanted <= set(known.cells)


def _list(seeds: Sequence[int]) -> str:
    return "seed" + "+".join(map(str, seeds))
