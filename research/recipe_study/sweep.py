"""One sweep over the students of a stage: its file is written, so that it can be read, changed and run by hand."""

from __future__ import annotations

from pathlib import Path

from research.recipe_study.distil import Run
from research.recipe_study.plan import Plan
from research.recipe_study.pool import Materials
from research.recipe_study.systems import systems_of
from robustdistiller.common.files import write_text
from robustdistiller.common.settings import SettingsError
from robustdistiller.common.written import dump_yaml


def write_sweep(plan: Plan, stage: str, runs: list[Run], materials: Materials, workers: int) -> Path:
    """Write the sweep of a stage.

    Screening scores development sets in noise and rooms for choosing, finalists are scored on test sets. A student's
    heads have its seed, so that a seed is one attempt at the whole thing; teacher and baselines have every seed.

    Returns:
        Its file, in the folder that the sweep works in.

    Raises:
        SettingsError: the plan names a task that is not there.
    """
    split = "dev" if stage == "screening" else "test"
    steps = plan.head_steps
    override = {
        "runner.total_steps": steps,
        "scheduler": {"name": "linear_schedule_with_warmup", "num_warmup_steps": max(1, steps // 15)},
        **{f"runner.{name}": max(1, steps // 6) for name in ("eval_step", "save_step", "log_step")},
    }
    there = materials.tasks
    for name in plan.tasks:
        if name not in there:
            raise SettingsError(f"tasks: there is no {name!r}, expected some of {', '.join(sorted(there))}")
    systems = systems_of(plan, runs)
    settings = {
        "out": str(materials.work / stage),
        "upstreams": [system.entry for system in systems],
        "tasks": [
            {"task": str(there[name]), "override": override, "splits": [split], "learning_rates": [rate]}
            for name, rate in plan.tasks.items()
        ],
        "conditions": plan.conditions,
        "seeds": sorted({one.seed for one in systems} - {None}),
        "upstream_seeds": {one.label: [one.seed] for one in systems if one.seed is not None},
        "noise": [str(path) for path in materials.noise(split)],
        "rir": [str(path) for path in materials.rir(split)],
        "speech": [str(path) for path in materials.babble(split)],
        "feature_cache": "auto",
        "check_upstreams": False,  # all are of this project, and each look takes a process
        "executor": {"kind": "pool", "workers": workers, "memory_gb": 1.5},
    }
    return write_text(materials.work / stage / "sweep.yaml", dump_yaml(settings))
