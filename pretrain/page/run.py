"""A run's folder as a page: how far it is, losses, validation, cost, configuration.

Everything is read from the files of the folder, so that runs that are under way, were stopped, or went on on another
machine have a page, too.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from robustdistiller.common.files import write_text
from robustdistiller.common.page.render import render_page
from robustdistiller.common.settings import SettingsError
from robustdistiller.pretrain.config.load import load_config
from robustdistiller.pretrain.config.schema import DistillConfig
from robustdistiller.pretrain.config.stages import stages_of
from robustdistiller.pretrain.page.charts import (
    Line,
    loss_charts,
    measure_title,
    measures,
    validation_charts,
    work_charts,
)
from robustdistiller.pretrain.training.log import read_history
from robustdistiller.upstream import read_checkpoint
from robustdistiller.upstream.model.cost import EncoderCost, encoder_cost

PAGE = "run.html"


@dataclass(frozen=True)
class StageState:
    """How far a stage is.

    Attributes:
        name: of the stage.
        max_steps: what it was started with.
        last: its last line in `history.csv`; empty before the first one.
    """

    name: str
    max_steps: int
    last: Line

    @property
    def step(self) -> int:
        """Its last logged step, 0 before the first."""
        return int(self.last.get("step", 0))


def write_run_page(folder: str | Path, path: str | Path | None = None) -> Path:
    """Write the page of a run.

    Args:
        folder: the run's `out_dir`.
        path: file to write; `run.html` in the folder if it is not given.

    Raises:
        SettingsError: there is no run in the folder.
    """
    return write_text(Path(folder) / PAGE if path is None else Path(path), run_page(folder))


def run_page(folder: str | Path) -> str:
    """The page of a run as HTML.

    Args:
        folder: the run's `out_dir`, of a run that has ended, was stopped, or is under way.

    Raises:
        SettingsError: there is no run in the folder.
    """
    folder = Path(folder).expanduser()
    path = folder / "config.yaml"
    if not path.is_file():
        raise SettingsError(f"{folder} has no config.yaml; expected the folder of a run, what it was given as out_dir")
    config = load_config(path)
    history = read_history(folder / "history.csv")
    validation = read_history(folder / "validation.csv") or read_history(folder / "dev.csv")
    stages = _stages(config, history)
    return render_page(
        "robustdistiller.pretrain.page",
        PAGE,
        title=f"Distillation run {folder.resolve().name}",
        recipe=config.recipe,
        about=config.about,
        status=_status(stages, (folder / "student.ckpt").is_file()),
        stages=stages,
        losses=loss_charts(history),
        work=work_charts(history),
        validation=validation_charts(validation, history),
        last_validation=_last_validation(validation),
        best=_best(folder),
        costs=_costs(folder, config),
        config=path.read_text(encoding="utf-8"),
        versions=_json(folder / "run.json").get("versions", {}),
    )


def _stages(config: DistillConfig, history: Sequence[Line]) -> list[StageState]:
    last = {line["stage"]: line for line in history}
    return [StageState(one.name, one.config.trainer.max_steps, last.get(one.name, {})) for one in stages_of(config)]


def _status(stages: Sequence[StageState], exported: bool) -> str:
    ahead = [stage for stage in stages if stage.step < stage.max_steps]
    if not stages or not any(stage.last for stage in stages):
        return "No step has been logged yet."
    if not ahead:
        return "Finished." if exported else "All steps are done; the student has not been exported yet."
    return f"Not finished: step {ahead[0].step:,} of {ahead[0].max_steps:,} of stage {ahead[0].name} is logged."


def _last_validation(validation: Sequence[Line]) -> dict[str, Any] | None:
    """The newest number of each measure and condition, and where they are from."""
    if not validation:
        return None
    names = measures(validation)
    newest: dict[str, dict[str, float]] = {}
    for line in validation:
        row = newest.setdefault(line.get("condition", "dev"), {})
        row |= {name: line[name] for name in names if name in line}
    last = validation[-1]
    return {
        "where": f"stage {last['stage']}, step {int(last['step']):,}",
        "heads": [measure_title(name) for name in names],
        "rows": [(condition, [row.get(name) for name in names]) for condition, row in newest.items()],
    }


def _best(folder: Path) -> dict[str, Any] | None:
    path = folder / "student_best.ckpt"
    return read_checkpoint(path).metadata.get("best") if path.is_file() else None


def _costs(folder: Path, config: DistillConfig) -> dict[str, EncoderCost]:
    """As planned, and of a pruned student as exported: it is small only then."""
    found = {}
    for name, values in _json(folder / "cost.json").items():
        found[name] = EncoderCost(**{key: value for key, value in values.items() if key != "macs_per_s"})
    if "student" in found and any(stage.config.pruning for stage in stages_of(config)):
        found["student, before pruning"] = found.pop("student")
        exported = [path for path in folder.glob("student*.ckpt") if path.stem != "student_best"]
        if exported:
            newest = max(exported, key=lambda path: path.stat().st_mtime)
            found["student, pruned"] = encoder_cost(read_checkpoint(newest).build())
    return found


def _json(path: Path) -> Mapping[str, Any]:
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
