"""Evaluate a model from Python: heads trained and scored on SUPERB tasks, clean and corrupted, in one call."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import nn

from robustdistiller.acoustics import Condition
from robustdistiller.acoustics.condition import SOURCES
from robustdistiller.common.errors import RunFailed
from robustdistiller.common.generators import untouched_generators
from robustdistiller.common.names import refuse_unknown
from robustdistiller.eval import tasks as registry
from robustdistiller.eval.conditions.sources import Sources
from robustdistiller.eval.conditions.suite import is_suite
from robustdistiller.eval.data import look, recipe_of, run
from robustdistiller.eval.data.plan import DIFFERS, MISSING
from robustdistiller.eval.results.files import read_each
from robustdistiller.eval.results.frame import read_frame
from robustdistiller.eval.results.identity import cell_id
from robustdistiller.eval.results.record import Record
from robustdistiller.eval.run.cache.plan import CachePlan
from robustdistiller.eval.run.quick import Quick
from robustdistiller.eval.run.specs import Upstream
from robustdistiller.eval.sweep import ExecutorConfig, Sweep, SweepConfig, TaskEntry
from robustdistiller.eval.tasks import Task
from robustdistiller.eval.tasks.csv_task import DOWNSTREAM as TABLE
from robustdistiller.eval.tasks.csv_task import csv_task
from robustdistiller.upstream.device import usable_device
from robustdistiller.upstream.s3prl.entries import require_entry

if TYPE_CHECKING:
    import pandas as pd

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Results:
    """What was measured.

    Attributes:
        records: one for each task, seed, fold and condition.
        folder: of the files of records; `robustdistiller leaderboard` reads it.
    """

    records: list[Record] = field(default_factory=list)
    folder: Path = Path("records")

    @property
    def frame(self) -> pd.DataFrame:
        """One row for each record and metric, in the order of the records; see `eval.results.frame.read_frame`."""
        order = {(cell_id(one), one.start_utc): place for place, one in enumerate(self.records)}
        there = [(path, one) for path, one in read_each(self.folder) if isinstance(one, Record)]
        places = {str(path): order.get((cell_id(one), one.start_utc)) for path, one in there}
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
    threads: int = 1,
    label: str = "",
    sources: Sources | Mapping[str, Sequence[str]] | None = None,
    corruption_seed: int = 0,
    features: CachePlan | None = None,
    policy: str = "reuse",
) -> Results:
    """Train heads on a frozen model by SUPERB's rules with s3prl, and score them on clean and corrupted audio.

    This is a sweep of one model in this process, see `eval.sweep.sweep`: what is finished in ``out`` is not done again,
    a training that was stopped goes on exactly, and each job has its log in ``out/jobs``. A model in memory is known by
    its weights: changed weights are another system, with heads of its own.

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
        out: folder of heads and records; one call at a time works in it.
        seeds: of the heads' training.
        learning_rates: of the heads: each is tried, and the best on the development set is scored; by default the one
            of the task's configuration.
        overrides: settings of s3prl's configuration by task and dotted key, such as
            ``{"KS": {"runner.total_steps": 1000}}``.
        quick: look at a tenth of the data with few steps, under a label of its own; a `Quick` says how much.
        device: ``cpu``, ``cuda[:N]`` or ``auto``.
        threads: of the CPU; the last digits of heads depend on them.
        label: name of the model in tables.
        sources: what conditions draw from, instead of the shipped recordings: ``noise``, ``rir``, ``speech`` or
            ``music`` to paths, such as ``{"noise": ["/data/cafe"]}``, over what the suites say. A `Sources` is taken
            as it is, and the suites' are not.
        corruption_seed: of what is drawn from them.
        features: where the model's features are kept between epochs; by default in ``out/features`` if all tasks are
            tables of your own and the model is not a module in memory, otherwise nowhere.
        policy: ``reuse``, ``rerun`` or ``show`` records that are there.

    Returns:
        Records, and as ``frame`` a table of them.

    Raises:
        InstallationError: a package of a task is missing.
        FileNotFoundError, ValueError: model, data or sources are not there; one sentence.
        RunFailed: a head or a score failed, after all others were made; the same call tries it again.

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
    usable_device(device)
    recordings = sources if isinstance(sources, Mapping) else {}
    refuse_unknown(recordings, SOURCES, "kind of source")
    paths = {f"sources of {kind}": given for kind, given in recordings.items()}
    for name, value in {"tasks": tasks, "conditions": conditions, **paths}.items():
        if isinstance(value, str | Path):  # whose letters would be taken one by one
            raise ValueError(f"{name}: expected a list, found {str(value)!r}; write [{str(value)!r}]")
    suites = [one for one in conditions if is_suite(one)]
    given = [*tasks, *([] if csv is None else [csv_task(csv)])]
    chosen = [task if isinstance(task, Task) else registry.get(task) for task in given]
    if not chosen:
        raise ValueError("no task is given; expected tasks=[...] such as KS, or csv=FILE")
    for name in {*(data or {}), *(overrides or {})}:
        if not any(_is(task, name) for task in chosen):
            known = ", ".join(task.code for task in chosen)
            raise ValueError(f"data or settings of {name!r}, which is not among the tasks: {known}")
    root = Path(out).expanduser().absolute()
    upstream = _upstream(model, label)
    if features is None:
        own = upstream.module is None and all(task.downstream == TABLE for task in chosen)
        features = CachePlan(str(root / "features") if own else None)
    config = SweepConfig(
        out=str(root),
        upstreams=[upstream],
        tasks=[_task_entry(task, data or {}, overrides or {}, learning_rates, root) for task in chosen],
        conditions=[str(one) for one in conditions if one not in suites],
        suites=suites,
        **{kind: [str(path) for path in paths] for kind, paths in recordings.items()},
        seeds=list(seeds),
        search="every",
        corruption_seed=corruption_seed,
        policy=policy,
        device=device,
        feature_cache=features.folder or "",
        feature_cache_dtype=features.dtype,
        feature_cache_gb=features.max_gb,
        feature_cache_conditions=features.keep_conditions,
        read_ahead_s=features.read_ahead_s,
        quick=quick,
        executor=ExecutorConfig(threads=threads),
    )
    with _left_as_it_was(upstream.module):
        found = Sweep(config, say=logger.info, sources=sources if isinstance(sources, Sources) else None).run()
    if found.failures:
        done = sum(record.finished for record in found.records)
        kept = f"{done} finished numbers are kept: robustdistiller leaderboard {root} shows them"
        raise RunFailed("\n".join([*found.failures, kept]))
    return Results(found.records, root / "records")


def _upstream(model: str | Path | nn.Module | Upstream, label: str) -> Upstream:
    if isinstance(model, nn.Module):
        model = Upstream(type(model).__name__, module=model)
    elif not isinstance(model, Upstream):
        model = Upstream(str(model))
    if model.module is None:
        require_entry(model.name)
    return dataclasses.replace(model, label=label or model.label)


def _is(task: Task, name: str) -> bool:
    return name.lower() in (task.code.lower(), task.downstream)


def _task_entry(
    task: Task,
    data: Mapping[str, Any],
    overrides: Mapping[str, Any],
    learning_rates: Sequence[float] | None,
    root: Path,
) -> TaskEntry:
    """A task with its data and settings."""
    where = next((value for name, value in data.items() if _is(task, name)), {})
    if not isinstance(where, Mapping):
        where = _found(task, Path(where).expanduser(), root)
    where = {key: [str(one) for one in value] if isinstance(value, list | tuple) else str(value)
             for key, value in where.items()}  # fmt: skip
    settings = next((value for name, value in overrides.items() if _is(task, name)), {})
    entry = TaskEntry(task, data=where, override=dict(settings))
    if task.trainable:
        entry.learning_rates = list(learning_rates or [entry.compose()["optimizer"]["lr"]])
    return entry


def _found(task: Task, given: Path, root: Path) -> Mapping[str, Any]:
    """The data of a task below its folder."""
    if len(task.roots) == 1:
        return {task.roots[0].key.rsplit(".", 1)[-1]: given}
    plan = look(task, {next(iter(recipe_of(task).inputs)): [given]}, root / "prepared" / task.code)
    if not plan.ok:
        lacking = next(one for one in plan.findings if one.state == MISSING)
        raise FileNotFoundError(
            f"{task.code}: {lacking.what}: expected {lacking.expected}, found {lacking.found}; "
            f"`robustdistiller prepare {task.code} {given}` says what else is missing"
        )
    for finding in plan.findings:
        if finding.state == DIFFERS:
            logger.warning("%s: %s: expected %s, found %s", task.code, finding.what, finding.expected, finding.found)
    run(plan)
    return plan.settings


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
