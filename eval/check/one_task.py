"""One task in this process: stock s3prl, then this package without and with its feature cache."""

from __future__ import annotations

import logging
import math
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import mock

from robustdistiller.eval import tasks
from robustdistiller.eval.check import toy_corpora
from robustdistiller.eval.results.files import read_records
from robustdistiller.eval.results.record import Record
from robustdistiller.eval.run.head_checkpoint import find_head, head_tensors, read_checkpoint
from robustdistiller.eval.run.launcher import launch
from robustdistiller.eval.tasks.configs import write_config
from robustdistiller.eval.tasks.scoring import qbe
from robustdistiller.upstream.contract import open_upstream
from robustdistiller.upstream.s3prl import bridge
from robustdistiller.upstream.s3prl.entries import register

#: Beside clean speech: without published noise, so that nothing has to be fetched.
CORRUPTED = "noise:snr_db=5,noise=white"
#: Largest difference of scores and head weights, relative: the same computation on one processor ...
SAME = 1e-6
#: ... and one in which the order of sums differs, as it does with a cache (of utterances, not batches) and on a GPU.
#: Adam makes much of gradients that are zero but for rounding.
ROUNDED = 1e-2


@dataclass(frozen=True)
class Run:
    """What one of the three runs found.

    Attributes:
        scores: metric to value, in the units of records.
        head: checkpoint of the trained head; None for a task without one.
        output: file of the task's answers, where s3prl computes no score.
        cache: what features a cache held, empty without one.
    """

    scores: Mapping[str, float]
    head: Path | None
    output: Path | None = None
    cache: str = ""


class Trial:
    """The three runs of a task on the same toy corpus; of an upstream as s3prl's options name it."""

    def __init__(self, task: str, upstream: Mapping[str, str | None], steps: int, device: str, folder: str) -> None:
        self.task, self.upstream, self.device, self.folder = tasks.get(task), upstream, device, Path(folder)
        keys = ("total_steps", "eval_step", "save_step", "log_step") if self.task.trainable else ()
        self.settings = toy_corpora.build(task, self.folder / "data") | {f"config.runner.{key}": steps for key in keys}
        self.split = self.task.splits[0]

    def stock(self) -> Run:
        """S3prl's own runner, as it is installed."""
        bridge.install(self.folder / "s3prl")
        register()
        from s3prl import run_downstream
        from tensorboardX import SummaryWriter

        scalars: dict[str, float] = {}
        write = SummaryWriter.add_scalar

        def keep(writer: Any, tag: str, value: float, *arguments: Any, **options: Any) -> None:
            scalars[tag] = float(value)
            write(writer, tag, value, *arguments, **options)

        def run(arguments: Sequence[str]) -> None:
            sys.argv = ["run_downstream.py", *arguments, "--device", self.device]
            run_downstream.main()

        with mock.patch.object(SummaryWriter, "add_scalar", keep):
            head = self._train_and_evaluate(run, self.folder / "stock", self.task.downstream)
        scored = any(metric.key for metric in self.task.metrics)
        return Run(self.task.scores(scalars, self.split) if scored else {}, head, self._output("stock"))

    def here(self, name: str, cache: Path | None = None) -> tuple[Run, Record]:
        """This package's runner: clean speech, and corrupted speech, whose record comes second.

        Raises:
            ValueError: there is no finished record of clean speech.
        """
        features = ["--feature-cache", str(cache)] if cache else []

        def run(arguments: Sequence[str]) -> None:
            conditions = ["--condition", "clean", "--condition", CORRUPTED] if "evaluate" in arguments else []
            launch([*arguments, *features, *conditions, "--device", self.device])

        head = self._train_and_evaluate(run, self.folder / name, self.task.code)
        records = {record.condition: record for record in read_records(self.folder / name / "records")}
        clean, corrupted = records["clean"], records[CORRUPTED]
        if clean.status != "ok":
            raise ValueError(f"clean speech: {clean.reason}")
        keyed = {metric.name for metric in self.task.metrics if metric.key is not None}
        scores = {metric.name: metric.value for metric in clean.metrics if metric.name in keyed}
        cached = ", ".join(dict.fromkeys((clean.feature_cache or {}).values()))
        return Run(scores, head, self._output(name), cached), corrupted

    def is_accelerated(self) -> bool:
        """Whether the upstream is one of ours that this package runs on faster kernels, equal but for rounding."""
        upstream = open_upstream(self.upstream["-u"], self.upstream.get("-k"), self.upstream.get("-g"))
        return self.device == "cpu" and hasattr(upstream, "accelerate")

    def _train_and_evaluate(self, run: Any, folder: Path, downstream: str) -> Path | None:
        new = ["-d", downstream, "-c", str(write_config(self.task, folder))]
        new += ["-p", str(folder), "-o", toy_corpora.as_option(self.settings)]
        new += [part for option, value in self.upstream.items() if value for part in (option, value)]
        if not self.task.trainable:
            run(["-m", "evaluate", "-t", self.split, *new])
            return None
        run(["-m", "train", *new])
        head = find_head(folder)
        run(["-m", "evaluate", "-t", self.split, "-e", str(head)])
        return head

    def _output(self, name: str) -> Path | None:
        found = self.folder / name / "benchmark.stdlist.xml"
        return found if found.is_file() else None


def differences(one: Run, other: Run, tolerance: float) -> list[str]:
    """In what two runs differ by more than a tolerance, relative; of scores, of the answers, of the head's weights."""
    found = [
        f"{name} {value:.6g} and {other.scores[name]:.6g}"
        for name, value in one.scores.items()
        if not math.isclose(value, other.scores[name], rel_tol=tolerance, abs_tol=tolerance)
    ]
    if one.output is not None and other.output is not None:
        answers = [qbe.read_stdlist(run.output) for run in (one, other)]
        if answers[0] != answers[1]:
            found.append(f"the answers in {one.output.name}")
    if one.head is not None and other.head is not None:
        worst = _head_difference(one.head, other.head)
        if not worst <= tolerance:
            found.append(f"the head's weights by {worst:.1e}")
    return found


def _head_difference(one: Path, other: Path) -> float:
    """Largest root mean square difference between the tensors of two heads, relative to the tensor's own."""
    mine, theirs = (head_tensors(read_checkpoint(path)) for path in (one, other))
    if mine.keys() != theirs.keys():
        return math.inf
    return max(
        float(
            (value - theirs[name]).double().square().mean().sqrt() / value.double().square().mean().sqrt().clamp(1e-8)
        )
        for name, value in mine.items()
        if value.numel()
    )


def examine(*given: Any) -> dict[str, Any]:
    """Run all three of a `Trial` with these arguments and compare; returns fields of `run.TaskCheck`."""
    trial = Trial(*given)
    found: dict[str, Any] = {"scores": {}}
    tolerance = SAME if trial.device == "cpu" else ROUNDED
    step = "s3prl's own runner"
    try:
        stock = trial.stock()
        found["scores"]["s3prl"] = dict(stock.scores)
        step = "this package's runner"
        plain, corrupted = trial.here("plain")
        found["scores"]["here"] = dict(plain.scores)
        if corrupted.status != "ok":
            return {**found, "status": "failed", "why": f"{CORRUPTED}: {corrupted.reason}"}
        step = "with the feature cache"
        cached, _ = trial.here("cached", trial.folder / "features")
        found["scores"]["cached"] = dict(cached.scores)
    except (Exception, SystemExit) as error:  # of whatever kind: the upstream is anybody's code
        logging.getLogger(__name__).exception("%s", step)
        return {**found, "status": "failed", "why": f"{step}: {type(error).__name__}: {error}"}
    found["cache"] = cached.cache or "not used: the same audio gives other features when it comes again, see the log"
    different = differences(stock, plain, tolerance)
    if different and trial.is_accelerated():
        different = differences(stock, plain, ROUNDED)
    wrong = [f"s3prl and this package differ in {one}" for one in different]
    wrong += [f"without and with the cache: {one}" for one in differences(plain, cached, ROUNDED)]
    return {**found, "status": "differs" if wrong else "ok", "why": "; ".join(wrong)}
