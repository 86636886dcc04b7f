"""Evaluate a model from Python: heads trained and scored on SUPERB tasks, clean and corrupted, in one call."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import nn

from robustdistiller.acoustics import Condition
from robustdistiller.common.files import slug
from robustdistiller.common.generators import untouched_generators
from robustdistiller.eval import tasks as registry
from robustdistiller.eval.conditions.sources import Sources
from robustdistiller.eval.conditions.suite import load_suites, suite_names
from robustdistiller.eval.data import look, recipe_of, run
from robustdistiller.eval.data.plan import MISSING
from robustdistiller.eval.results.files import record_path
from robustdistiller.eval.results.frame import read_frame
from robustdistiller.eval.results.identity import made_digest
from robustdistiller.eval.results.record import Record
from robustdistiller.eval.run.cache import CachePlan
from robustdistiller.eval.run.dev_choice import Tried, choose, describe
from robustdistiller.eval.run.evaluate import evaluate_head
from robustdistiller.eval.run.making import made_of
from robustdistiller.eval.run.quick import Quick
from robustdistiller.eval.run.run_info import identify_weights
from robustdistiller.eval.run.specs import HeadSpec, TrainedHead, Upstream
from robustdistiller.eval.run.train import train_head
from robustdistiller.eval.sweep.config import TaskEntry
from robustdistiller.eval.tasks import Task
from robustdistiller.upstream import checkpoint_digest
from robustdistiller.upstream.pretrained.names import existing_path

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True)
class Results:
    """What was measured.

    Attributes:
        records: one for each task, fold, seed and condition.
        folder: of the files of records; `robustdistiller leaderboard` reads it.
    """

    records: list[Record] = field(default_factory=list)
    folder: Path = Path("records")

    @property
    def frame(self) -> pd.DataFrame:
        """One row for each record and metric, in the order of the records; see `eval.results.frame.read_frame`."""
        places = {str(record_path(self.folder, one)): place for place, one in enumerate(self.records)}
        frame = read_frame([self.folder])
        frame["place"] = frame["path"].astype(str).map(places)
        ordered = frame.dropna(subset="place").sort_values("place", kind="stable", ignore_index=True)
        return ordered.drop(columns="place")


def evaluate(
    model: str | Path | nn.Module | Upstream,
    tasks: Sequence[str | Task] = (),
    conditions: Sequence[str | Condition] = ("clean",),
    data: Mapping[str, str | Path | Mapping[str, Any]] | None = None,
    *,
    csv: str | Path | None = None,
    out: str | Path = "exp/evaluate",
    seeds: Sequence[int] = (1337,),
    learning_rates: Sequence[float] | None = None,
    overrides: Mapping[str, Mapping[str, Any]] | None = None,
    quick: bool | Quick = False,
    device: str = "auto",
    label: str = "",
    sources: Sources | None = None,
    corruption_seed: int = 0,
    features: CachePlan | None = None,
    policy: str = "reuse",
) -> Results:
    """Train heads on a frozen model by SUPERB's rules with s3prl, and score them on clean and corrupted audio.

    What is finished in ``out`` is not done again, and a training that was stopped goes on exactly. A model in memory is
    known by its weights: changed weights are another system, with heads of its own.

    Args:
        model: a registered name, a path, ``org/name[@revision]`` on the Hugging Face Hub, an upstream of s3prl's, or a
            module in memory whose ``forward(list of waveforms)``, each ``(samples,)`` at 16 kHz, returns
            ``{"hidden_states": [(batch, frames, dim), ...]}`` and whose ``get_downsample_rates(key)`` returns the
            samples per frame.
        tasks: codes such as ``KS``, or tasks of your own (see `eval.tasks.Task`).
        conditions: of the test audio, in their one-line form such as ``noise:snr_db=5``, or names of suites.
        data: where the data of a task lie: its folder as `robustdistiller prepare` takes it, or the paths by the last
            part of their keys, such as ``{"KS": {"speech_commands_root": ..., "speech_commands_test_root": ...}}``.
        csv: a task more: the classification of your own recordings, by a table with the columns ``path`` and ``label``,
            and if wanted ``speaker`` and ``split`` (see `eval.tasks.csv_task`).
        out: folder of heads and records.
        seeds: of the heads' training.
        learning_rates: of the heads: each is tried, and the best on the development set is scored; by default the one
            of the task's configuration.
        overrides: settings of s3prl's configuration by task and dotted key, such as
            ``{"KS": {"runner.total_steps": 1000}}``.
        quick: look at a tenth of the data with few steps, under a label of its own; a `Quick` says how much.
        device: ``cpu``, ``cuda[:N]`` or ``auto``.
        label: name of the model in tables.
        sources: noise, rooms, speech and music of the conditions; the shipped ones by default.
        corruption_seed: of what is drawn from them.
        features: where the model's features are kept between epochs; by default nowhere.
        policy: ``reuse``, ``rerun`` or ``show`` records that are there.

    Returns:
        Records, and as ``frame`` a table of them.

    Raises:
        InstallationError: a package of a task is missing.
        FileNotFoundError, ValueError: model, data or sources are not there; one sentence.

    Example:
        >>> import robustdistiller
        >>> results = robustdistiller.evaluate(
        ...     "robustdistiller_mini",
        ...     tasks=["KS", "IC"],
        ...     conditions=["clean", "noise:snr_db=5"],
        ...     data={"KS": "/data/speech_commands", "IC": "/data/fluent_speech_commands_dataset"},
        ...     quick=True,
        ... )  # doctest: +SKIP
        >>> results.frame[["task", "condition", "metric", "value"]]  # doctest: +SKIP
    """
    upstream = _upstream(model, label)
    folder = Path(out).expanduser().absolute()
    conditions, sources = _conditions(conditions, sources)
    given = [*tasks, *([] if csv is None else [str(csv)])]
    chosen = [task if isinstance(task, Task) else registry.get(task) for task in given]
    if not chosen:
        raise ValueError("no task is given; expected tasks=[...] such as KS, or csv=FILE")
    for name in {*(data or {}), *(overrides or {})}:
        if not any(_is(task, name) for task in chosen):
            known = ", ".join(task.code for task in chosen)
            raise ValueError(f"data or settings of {name!r}, which is not among the tasks: {known}")
    entries = [_entry(task, data or {}, overrides or {}, folder) for task in chosen]
    heads = folder / "heads" / slug(upstream.label) / _weights_of(upstream)
    base = {
        "device": device,
        "features": features or CachePlan(),
        "quick": (quick if isinstance(quick, Quick) else Quick()) if quick else None,
    }
    records: list[Record] = []
    with _left_as_it_was(upstream.module):
        for entry in entries:
            for fold in entry.folds or [""]:
                for seed in seeds:
                    config, task = entry.compose(fold), entry.registry
                    place = heads / slug("-".join(filter(None, (task.code, fold, f"seed{seed}"))))
                    spec = HeadSpec(upstream, task, config, place, seed, **base)
                    spec, selection = _chosen(spec, learning_rates)
                    records += evaluate_head(
                        spec,
                        conditions,
                        sources=sources,
                        corruption_seed=corruption_seed,
                        records=folder / "records",
                        policy=policy,
                        label=upstream.label,
                        selection=selection,
                    )
    return Results(records, folder / "records")


def _chosen(spec: HeadSpec, rates: Sequence[float] | None) -> tuple[HeadSpec, dict[str, Any] | None]:
    """The head that is best on the development set, and how it was chosen where there were several."""
    if not spec.task.trainable:
        return dataclasses.replace(spec, folder=spec.folder / "untrained"), None
    rates = rates or [spec.config["optimizer"]["lr"]]
    tried: dict[Tried, HeadSpec] = {}
    for rate in rates:
        config = {**spec.config, "optimizer": {**spec.config["optimizer"], "lr": rate}}
        one = dataclasses.replace(spec, config=config)
        other = made_digest(**made_of(one))[:8]  # heads of other settings or labels have other folders
        one = dataclasses.replace(one, folder=spec.folder / f"lr{rate:g}-{other}")
        head: TrainedHead = train_head(one)
        tried[Tried(rate, head.dev_score, head.step)] = one
    if len(tried) == 1:
        return next(iter(tried.values())), None
    best = choose(tried, spec.task.dev_metric.higher_is_better)
    if best is None:
        raise ValueError(f"{spec.task.code}: no head has a score on the development set; give one learning rate")
    return tried[best], describe(spec.task, tried, best)


def _upstream(model: str | Path | nn.Module | Upstream, label: str) -> Upstream:
    if isinstance(model, Upstream):
        found = model
    elif isinstance(model, nn.Module):
        name = type(model).__name__
        if not hasattr(model, "get_downsample_rates"):
            raise ValueError(f"{name} has no get_downsample_rates(key), which says how many samples make a frame")
        found = Upstream(name, module=model)
    else:
        found = Upstream(str(model))
    return dataclasses.replace(found, label=label or found.label or Path(found.checkpoint or found.name).stem)


def _weights_of(upstream: Upstream) -> str:
    """What tells models of one label apart on disk."""
    if upstream.module is not None:
        return identify_weights(upstream.module, None)[0][:12]
    path = existing_path(upstream.checkpoint) if upstream.checkpoint else None
    known = path is not None and (path.is_file() or (path / "config.json").is_file())
    return checkpoint_digest(path)[:12] if known else slug(upstream.checkpoint or upstream.name)


def _conditions(
    given: Sequence[str | Condition], sources: Sources | None
) -> tuple[list[str | Condition], Sources | None]:
    """The conditions, those of suites in the place of their names, and the suites' sources unless others are given."""
    if isinstance(given, str):
        raise ValueError(f"conditions: expected a list, found {given!r}")
    suites = [one for one in given if one != "clean" and one in suite_names()]
    if not suites:
        return list(given), sources
    suite = load_suites(suites)
    return [*(one for one in given if one not in suites), *suite.conditions], sources or suite.sources


def _is(task: Task, name: str) -> bool:
    return name.lower() in (task.code.lower(), task.downstream)


def _entry(task: Task, data: Mapping[str, Any], overrides: Mapping[str, Any], folder: Path) -> TaskEntry:
    """A task with its data and settings."""
    where = next((value for name, value in data.items() if _is(task, name)), {})
    if not isinstance(where, Mapping):
        where = _found(task, Path(where), folder)
    settings = next((value for name, value in overrides.items() if _is(task, name)), {})
    return TaskEntry(task, data={key: _plain(value) for key, value in where.items()}, override=dict(settings))


def _found(task: Task, root: Path, folder: Path) -> Mapping[str, Any]:
    """The data of a task below its folder."""
    if len(task.roots) == 1:
        return {task.roots[0].key.rsplit(".", 1)[-1]: root}
    plan = look(task, {next(iter(recipe_of(task).inputs)): [root]}, folder / "prepared" / task.code)
    if not plan.ok:
        lacking = next(one for one in plan.findings if one.state == MISSING)
        raise FileNotFoundError(
            f"{task.code}: {lacking.what}: expected {lacking.expected}, found {lacking.found}; "
            f"`robustdistiller prepare {task.code} {root}` says what else is missing"
        )
    run(plan)
    return plan.settings


def _plain(value: Any) -> Any:
    return [str(one) for one in value] if isinstance(value, list | tuple) else str(value)


@contextmanager
def _left_as_it_was(module: nn.Module | None) -> Iterator[None]:
    """The generators, and the mode and device of a module, are after a ``with`` block as they were before it."""
    with untouched_generators():
        if module is None:
            yield
            return
        modes = {one: one.training for one in module.modules()}
        device = next((one.device for one in module.parameters()), None)
        try:
            yield
        finally:
            for one, mode in modes.items():
                one.training = mode
            if device is not None:
                module.to(device)
