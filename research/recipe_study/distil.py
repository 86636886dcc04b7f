"""The students of the plan, distilled as users distil, side by side; killed, the same call goes on."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from research.recipe_study.plan import Plan
from research.recipe_study.pool import Materials
from robustdistiller.common.settings import SettingsError
from robustdistiller.eval.sweep.engine import Job, Outcome, run_jobs
from robustdistiller.eval.sweep.pool import Pool
from robustdistiller.mini import teacher_checkpoint
from robustdistiller.pretrain import load_config
from robustdistiller.upstream import checkpoint_digest

_FINAL_SHARE = 1 / 3  # of the steps of a pruning recipe come after pruning, as in DPHuBERT
_WARM_SHARE = 1 / 2  # of the steps are the front end's alone, where it is new: each costs a fraction of the others
#: Corruptions under which feature distance and linear probe are measured.
_MEASURED = "[clean, 'noise:snr_db=5', reverb, 'noise+reverb:snr_db=10']"


@dataclass(frozen=True)
class Run:
    """A student from one seed.

    Attributes:
        name: of the student.
        seed: of its initialisation, batches and corruption.
        recipe, overrides: as `robustdistiller distill` takes them.
        folder: of the run; other settings, another teacher or other audio are another folder.
    """

    doing: ClassVar[str] = "distilling"

    name: str
    seed: int
    recipe: str
    overrides: tuple[str, ...]
    folder: Path

    @property
    def checkpoint(self) -> Path:
        """The student."""
        return self.folder / "student.ckpt"

    @property
    def job(self) -> Job:
        """That makes it."""
        return Job(f"{self.name}, seed {self.seed}", self.folder.with_name(f"{self.folder.name}-job"), self)

    @property
    def finished(self) -> bool:
        """Whether there is nothing left to do."""
        outcome = self.job.outcome
        return outcome is not None and outcome.state == "done" and self.checkpoint.is_file()

    def __call__(self, folder: Path) -> None:
        """Distil, or go on with it, in this process."""
        from robustdistiller.pretrain import distill

        distill(load_config(self.recipe, [*self.overrides, f"out_dir={self.folder}"]))


def teacher_of(plan: Plan) -> Path:
    """The teacher's checkpoint.

    Raises:
        SettingsError: there is no such file.
    """
    path = Path(plan.teacher).expanduser().resolve() if plan.teacher else teacher_checkpoint()
    if not path.is_file():
        raise SettingsError(f"teacher: there is no file {path}")
    return path


def runs_of(plan: Plan, stage: str, materials: Materials) -> list[Run]:
    """All runs of a stage: first every student with its first seed, then with its second.

    Raises:
        SettingsError: a recipe does not take its settings; the student is named.
    """
    seeds = plan.seeds(stage)
    wanted = sorted((place, name, seed) for name in seeds for place, seed in enumerate(seeds[name]))
    teacher = teacher_of(plan)
    made_from = [checkpoint_digest(teacher), (materials.work / "data" / "made_from.json").read_text(encoding="utf-8")]
    runs = []
    for _, name, seed in wanted:
        student = plan.students[name]
        try:
            corrupted = load_config(student.recipe, student.settings).corruption is not None
            overrides = (*_places(teacher, materials, corrupted), *settings_of(plan, name), f"seed={seed}")
            merged = json.dumps(load_config(student.recipe, overrides).to_dict(), sort_keys=True)
        except SettingsError as error:
            raise SettingsError(f"students.{name}: {error}") from error
        recipe = merged.replace(str(materials.work), "").replace(
            str(teacher), ""
        )  # as it is now, wherever its data lie
        key = hashlib.sha256(json.dumps([recipe, made_from]).encode()).hexdigest()[:8]
        folder = materials.work / "students" / f"{name}-seed{seed}-{key}"
        runs.append(Run(name, seed, student.recipe, overrides, folder))
    return runs


def settings_of(plan: Plan, name: str) -> list[str]:
    """Settings of a student over its recipe, without seed and places."""
    student = plan.students[name]
    measured = [
        f"validation.every_steps={plan.measure_every_steps}",
        f"validation.conditions={_MEASURED}",
        f"probe.every_steps={plan.measure_every_steps}",
    ]
    base = load_config(student.recipe)
    warm = max(1, round(plan.steps * _WARM_SHARE)) if "warm" in base.stages else 0
    rest = plan.steps - warm
    final = max(1, round(rest * _FINAL_SHARE)) if base.pruning is not None and base.stages else 0
    steps = [f"trainer.max_steps={rest - final}"]
    if warm:
        steps += [f"stages.warm.trainer.max_steps={warm}"]
    if final:
        steps += [f"stages.distil.trainer.max_steps={final}", f"pruning.ramp_steps={max(1, (rest - final) // 3)}"]
        steps += plan.pruned_settings
    if base.stages and not (warm or final):
        raise SettingsError(f"how the steps are shared among the stages {', '.join(base.stages)} is not known here")
    return [*plan.settings, *measured, *steps, *student.settings]


def _places(teacher: Path, materials: Materials, corrupted: bool) -> list[str]:
    def listed(paths: list[Path]) -> str:
        return json.dumps([str(path) for path in paths])

    places = [
        f"teacher.checkpoint={teacher}",
        f"data.speech={listed(materials.speech)}",
        f"data.manifest_dir={materials.work / 'manifests'}",
        f"validation.noise={listed(materials.noise('dev'))}",
        f"validation.rir={listed(materials.rir('dev'))}",
        f"probe.data={materials.probe}",
    ]
    if corrupted:
        places += [f"data.{kind}={listed(getattr(materials, kind)('train'))}" for kind in ("noise", "rir", "babble")]
    return places


def distil_all(runs: list[Run], workers: int, say: Callable[[str], None]) -> list[str]:
    """Train what is not finished.

    Args:
        runs: of a stage.
        workers: processes side by side.
        say: called with one line for each run that ends.

    Returns:
        One line for each that failed; its log is named.

    Raises:
        KeyboardInterrupt: stopped; called again, it goes on.
    """
    failures = []

    def ended(job: Job, outcome: Outcome) -> tuple:
        say(f"{job.title}: {outcome.state} ({outcome.wall_s:.0f} s)")
        if outcome.state == "failed":
            failures.append(f"{job.title} failed: {outcome.reason}; its log: {job.log}")
        return ()

    run_jobs(Pool(workers=workers), [run.job for run in runs if not run.finished], ended, say=say)
    return failures
