"""What a sweep is asked to do: the YAML file as dataclasses, read strictly."""

from __future__ import annotations

import dataclasses
import itertools
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field

from robustdistiller.acoustics import Condition
from robustdistiller.acoustics.condition import SOURCES
from robustdistiller.common.names import did_you_mean
from robustdistiller.common.settings import SettingsError, read_yaml
from robustdistiller.eval.conditions.sources import Sources
from robustdistiller.eval.conditions.suite import Suite, SuiteError, load_suites
from robustdistiller.eval.results.files import read_policy
from robustdistiller.eval.run.cache.plan import CachePlan
from robustdistiller.eval.run.errors import RunError
from robustdistiller.eval.run.quick import Quick
from robustdistiller.eval.run.specs import Upstream
from robustdistiller.eval.sweep.entries import SweepError, TaskEntry, absolute
from robustdistiller.upstream import ModelName

NotNegative = Annotated[int, Field(ge=0)]
AtLeast1 = Annotated[int, Field(ge=1)]
LEARNING_RATES = (1e-1, 1e-2, 1e-3, 1e-4, 1e-5)


@dataclass
class ExecutorConfig:
    """Where the work is done.

    Attributes:
        kind: ``local`` (in this process, one after the other), ``pool`` (processes on this machine) or ``slurm``.
        workers: processes of a pool at most; 0: as many as devices and memory allow.
        devices: of a pool, e.g. ``[cuda:0, cuda:1]``; default: the sweep's device, of ``auto`` all GPUs there are.
        per_device: processes of a pool that share a device.
        memory_gb: memory of one process; a pool starts no process that would not fit. On SLURM, what is asked for.
        threads: CPU threads of one job, whoever does it: the last digits of a head's weights depend on them.
        partition, account, qos, constraint: as SLURM calls them.
        time_limit_min: SLURM's time limit of one job, minutes.
        gpus: GPUs of one SLURM job.
        array_parallelism: jobs of one SLURM array that may run at a time.
        max_queued: SLURM jobs of this sweep that may be in the queue at a time; 0: as many as the cluster takes.
        max_requeues: times a SLURM job is put back into the queue after its time limit or a preemption; a head goes on
            from its last checkpoint.
        setup: shell lines before a SLURM job, e.g. ``module load cuda``.
        slurm: any other option of sbatch, by its long name.

    Example:
        >>> ExecutorConfig(kind="pool", workers=2).devices
        []
    """

    kind: Literal["local", "pool", "slurm"] = "local"
    workers: NotNegative = 0
    devices: list[str] = field(default_factory=list)
    per_device: AtLeast1 = 1
    memory_gb: Annotated[float, Field(ge=0)] = 4.0
    threads: NotNegative = 1
    partition: str | None = None
    account: str | None = None
    qos: str | None = None
    constraint: str | None = None
    time_limit_min: AtLeast1 = 1440
    gpus: NotNegative = 0
    array_parallelism: AtLeast1 = 64
    max_queued: NotNegative = 0
    max_requeues: NotNegative = 10
    setup: list[str] = field(default_factory=list)
    slurm: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.threads = self.threads or 1  # files of earlier releases have 0

    @property
    def asks_for_gpus(self) -> bool:
        """Whether jobs are given GPUs, by whichever setting."""
        by_option = any(key.replace("_", "-").startswith("gpu") or "gpu" in str(self.slurm[key]) for key in self.slurm)
        return bool(self.gpus) or by_option or any(device.startswith("cuda") for device in self.devices)


@dataclass
class SweepConfig:
    """A sweep.

    Attributes:
        out: folder of everything the sweep writes.
        upstreams, tasks: what is measured on what.
        conditions: test conditions; default: clean.
        suites: named sets of conditions, added to `conditions`.
        seeds: of the heads' training.
        upstream_seeds: instead of `seeds`, of some upstreams by their labels.
        learning_rates: of the heads; the best on the development set is evaluated.
        search: ``once``: the learning rate is chosen with the first seed (and the first fold) of each upstream and task
            and taken over by the others; ``every``: each seed and fold chooses its own.
        noise, rir, speech, music: sources of the conditions; default: the shipped ones (no music is shipped).
        corruption_seed: of the drawn corruption.
        policy: one of `results.files.POLICIES`; what older files say is understood.
        device: ``auto`` (a GPU where there is one), ``cpu``, ``cuda`` or ``cuda:N``.
        check_upstreams: look at each upstream with two short noises first; a later change of its source code is noticed
            only where that was done.
        feature_cache: keep the upstreams' features on disk: ``auto`` is a folder of the sweep, empty keeps none.
        feature_cache_dtype: ``fp32`` or ``fp16``, of frames.
        feature_cache_gb: limit of what is kept of each upstream.
        feature_cache_conditions: also keep the features of corrupted test audio, which are many and seldom read again.
        read_ahead_s: seconds of audio that an upstream gets at a time in evaluation; 0: as s3prl gives it.
        quick: a quick look at a part of the data, labelled so: ``true``, or ``{share: 0.1, steps: 1000, seed: 0}``.
        executor: where the work is done.

    Example:
        >>> SweepConfig(out="o", upstreams=[Upstream("fbank")], tasks=[TaskEntry("KS")]).learning_rates[0]
        0.1
    """

    out: str
    upstreams: list[Upstream]
    tasks: list[TaskEntry]
    conditions: list[str] = field(default_factory=list)
    suites: list[str] = field(default_factory=list)
    seeds: list[int] = field(default_factory=lambda: [1337])
    upstream_seeds: dict[str, list[int]] = field(default_factory=dict)
    learning_rates: list[float] = field(default_factory=lambda: list(LEARNING_RATES))
    search: Literal["once", "every"] = "once"
    noise: list[str] = field(default_factory=list)
    rir: list[str] = field(default_factory=list)
    speech: list[str] = field(default_factory=list)
    music: list[str] = field(default_factory=list)
    corruption_seed: int = 0
    policy: str = "reuse"
    device: str = "auto"
    check_upstreams: bool = True
    feature_cache: str = ""
    feature_cache_dtype: str = "fp32"
    feature_cache_gb: float = 50.0
    feature_cache_conditions: bool = False
    read_ahead_s: float = 0.0
    quick: Quick | bool = False
    executor: ExecutorConfig = field(default_factory=ExecutorConfig)

    def __post_init__(self) -> None:
        for name in ("upstreams", "tasks", "seeds", "learning_rates"):
            if not getattr(self, name):
                raise SweepError(f"{name} is empty; give at least one")
        for seed in itertools.chain(self.seeds, *self.upstream_seeds.values()):
            if not 0 <= seed < 2**32:  # NumPy takes no other
                raise SweepError(f"seeds: found {seed}, expected a number from 0 to {2**32 - 1}")
        self.policy = read_policy(self.policy)
        self._check_devices()
        self.feature_plan = self._feature_plan()
        self.conditions = self.conditions or ([] if self.suites else ["clean"])
        for text in itertools.chain(self.conditions, *(entry.conditions or [] for entry in self.tasks)):
            try:
                Condition.parse(text)
            except ValueError as error:
                raise SweepError(f"conditions: {error}") from error
        self.upstreams = [dataclasses.replace(one, label=one.label or _default_label(one)) for one in self.upstreams]
        for what, advice, names in (
            ("upstreams share the label", "give each its own", [upstream.label for upstream in self.upstreams]),
            ("tasks share the name", "give each its own, a table by its file's name", [one.name for one in self.tasks]),
        ):
            double = sorted({name for name in names if names.count(name) > 1})
            if double:
                raise SweepError(f"two {what} {double[0]!r}; {advice}")
        labels = [upstream.label for upstream in self.upstreams]
        for label in self.upstream_seeds:
            if label not in labels:
                raise SweepError(f"upstream_seeds: no upstream has the label {label!r}{did_you_mean(label, labels)}")

    def _check_devices(self) -> None:
        executor = self.executor
        for name in (self.device, *executor.devices):
            if not re.fullmatch(r"auto|cpu|cuda(:\d+)?", name):
                raise SweepError(f"device must be auto, cpu, cuda or cuda:N, found {name!r}")
        if self.device == "cpu" and executor.asks_for_gpus:
            raise SweepError(
                "device is cpu, but the executor is given GPUs (devices, gpus or an option of sbatch); leave one "
                "of the two out"
            )
        if self.device.startswith("cuda") and "cpu" in executor.devices:
            raise SweepError(f"device is {self.device}, but the executor's devices name cpu; leave out one of the two")
        if self.device.startswith("cuda") and executor.kind == "slurm" and not executor.asks_for_gpus:
            raise SweepError(f"device is {self.device}, but the jobs are given no GPU; add executor: {{gpus: 1}}")

    @property
    def job_device(self) -> str:
        """The device as a job is told, whose process sees at most the GPU it is to use: auto, cpu or cuda."""
        executor = self.executor
        if executor.kind == "slurm" and executor.asks_for_gpus:
            return "cuda"
        kinds = {device.partition(":")[0] for device in executor.devices or [self.device]}
        if executor.kind == "local":
            return self.device
        return kinds.pop() if len(kinds) == 1 else "auto"

    def _feature_plan(self) -> CachePlan:
        """What becomes of the upstreams' features."""
        folder = str(self.root / "features") if self.feature_cache == "auto" else self.feature_cache
        try:
            return CachePlan(
                absolute(folder) if folder else None,
                self.feature_cache_dtype,
                self.feature_cache_gb,
                self.read_ahead_s,
                self.feature_cache_conditions,
            )
        except RunError as error:
            raise SweepError(str(error)) from error

    @property
    def quick_look(self) -> Quick | None:
        """The part of the data that is looked at; None for all of it."""
        return (Quick() if self.quick else None) if isinstance(self.quick, bool) else self.quick

    @property
    def root(self) -> Path:
        """The folder of everything, absolute."""
        return Path(self.out).expanduser().absolute()

    def conditions_of(self, task: TaskEntry) -> tuple[Condition, ...]:
        """The test conditions of a task, each once: its own, or the sweep's and those of its suites.

        Raises:
            SweepError: a suite cannot be read, or the task cannot be evaluated under one of them.
        """
        texts, more = (
            (task.conditions, ()) if task.conditions is not None else (self.conditions, self._suite.conditions)
        )
        found = tuple(dict.fromkeys((*map(Condition.parse, texts), *more)))
        if reason := next(filter(None, map(task.registry.why_not_under, found)), ""):
            raise SweepError(f"task {task.name}: {reason}; give its entry conditions of its own")
        return found

    @property
    def sources(self) -> Sources:
        """What conditions draw from: the suites' sources, what the file gives over them, the shipped ones last.

        Raises:
            SweepError: a suite cannot be read.
        """
        return self._suite.sources.with_given({kind: getattr(self, kind) for kind in SOURCES})

    @property
    def _suite(self) -> Suite:
        try:
            return load_suites(self.suites)
        except SuiteError as error:
            raise SweepError(f"suites: {error}") from error


def _default_label(upstream: Upstream) -> str:
    if upstream.checkpoint is None:
        return upstream.name
    return ModelName.parse(upstream.checkpoint, strict=False).label


def load(path: str | Path) -> SweepConfig:
    """Read a sweep's file.

    Raises:
        SweepError: the file cannot be read, or says what makes no sense; with the file's name.

    Example:
        >>> load("nowhere.yaml")
        Traceback (most recent call last):
        robustdistiller.eval.sweep.entries.SweepError: nowhere.yaml: no such file
    """
    path = Path(path)
    if not path.is_file():
        raise SweepError(f"{path}: {'a folder, expected a YAML file' if path.is_dir() else 'no such file'}")
    try:
        return read_yaml(SweepConfig, path.read_text(encoding="utf-8"))
    except SettingsError as error:
        raise SweepError(f"{path}: {error}") from error
