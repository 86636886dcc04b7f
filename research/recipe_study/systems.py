"""What a sweep of the study scores: teacher, baselines, students, and what is made of them without training."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from research.recipe_study.distil import Run, teacher_of
from research.recipe_study.plan import TEACHER, Plan, Way, made_name
from robustdistiller.common.files import write_text
from robustdistiller.common.written import dump_yaml
from robustdistiller.pretrain.student.merge import merge_checkpoints
from robustdistiller.upstream import checkpoint_digest
from robustdistiller.upstream.export import export_model

LOCAL, ONNX = "robustdistiller_local", "robustdistiller_onnx"
SEPARATOR = " / seed "


@dataclass(frozen=True)
class System:
    """An upstream of the sweep.

    Attributes:
        name: of the row that it is part of, such as ``ours`` or ``ours, int8``.
        seed: of a student; None is one that heads of every seed are trained on.
        upstream: entry of s3prl's hub.
        checkpoint, options: its files.
    """

    name: str
    seed: int | None
    upstream: str
    checkpoint: Path | None = None
    options: Path | None = None

    @property
    def label(self) -> str:
        """How it is called in the sweep: ``ours / seed 3``."""
        return self.name if self.seed is None else f"{self.name}{SEPARATOR}{self.seed}"

    @property
    def entry(self) -> dict[str, Any]:
        """Its entry in the sweep's file."""
        files = {"checkpoint": self.checkpoint, "options": self.options}
        return {"name": self.upstream, "label": self.label} | {key: str(path) for key, path in files.items() if path}

    @property
    def identity(self) -> tuple[str, str]:
        """What its records tell it by: digest of its weights, options. Of a baseline, its name instead."""
        if self.checkpoint is None:
            return self.upstream, ""
        return checkpoint_digest(self.checkpoint), self.options.read_text(encoding="utf-8") if self.options else ""


def systems_of(plan: Plan, runs: Sequence[Run]) -> list[System]:
    """What was not made here, the students that are there, and what is made of them.

    Args:
        plan: of the study.
        runs: of the stage; what is made of them is written into their folders, where it is not there.
    """
    done = [run for run in runs if run.finished]
    return [
        System(TEACHER, None, LOCAL, teacher_of(plan)),
        *(System(name, None, name) for name in plan.baselines),
        *(System(name, None, LOCAL, Path(path).resolve()) for name, path in plan.others.items()),
        *(System(run.name, run.seed, LOCAL, run.checkpoint) for run in done),
        *_made(plan, done),
    ]


def _made(plan: Plan, runs: Sequence[Run]) -> Iterable[System]:
    there = {(run.name, run.seed): run for run in runs}
    for name, way in plan.ways.items():
        for run in runs:
            if run.name in way.students and (way.merge is None or (way.merge, run.seed) in there):
                partner = there[way.merge, run.seed].checkpoint if way.merge else None
                yield System(made_name(run.name, name), run.seed, *_files(run, name, way, partner))


def _files(run: Run, name: str, way: Way, partner: Path | None) -> tuple[str, Path, Path | None]:
    if way.options:
        return LOCAL, run.checkpoint, write_text(run.folder / f"{name}.yaml", dump_yaml(way.options))
    path = run.folder / f"{name}.{'onnx' if way.export else 'ckpt'}"
    if not path.is_file():
        if way.export:
            export_model(run.checkpoint, path, way.export)
        else:
            merge_checkpoints(str(run.checkpoint), str(partner), path)
    return ONNX if way.export else LOCAL, path, None
