"""A sweep without s3prl: an engine that leaves behind what the real jobs leave."""

from __future__ import annotations

import hashlib
import zipfile
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import datetime, timezone
from pathlib import Path

import pytest

from robustdistiller.eval.results.files import read_records, write_record
from robustdistiller.eval.run.run_info import code_digest
from robustdistiller.eval.run.specs import Upstream
from robustdistiller.eval.sweep import Sweep, SweepConfig, TaskEntry
from robustdistiller.eval.sweep.engine import Job, Outcome
from robustdistiller.eval.sweep.work import CODE_FILE
from robustdistiller.upstream.pretrained.names import ModelName
from tests.records import example_record

NOISE = "noise:snr_db=5,noise=white"


def records(config):
    return {(r.label, r.condition): r for r in read_records(Path(config.out))}


def why(config):
    plans = Sweep(config).plans.values()
    return [decision.why for plan in plans for decision in plan.decisions.values()]


def trainings(engine):
    return [title for title in engine.done if "training" in title]


def change(config, **values):
    return replace(config, **values)


class FakeEngine:
    """Does every job at once.

    Attributes:
        dev: accuracy on the development set by learning rate, per cent.
        fails: title parts of jobs that fail, with their reason.
        failing_conditions: conditions whose record says failed.
        silent: evaluations end without writing records.
        done: titles of the jobs begun, in order.
        works: what was to be done, by title.
        salt: changes what comes out of a training.
        code: source files of the upstreams.
    """

    slots, poll_s = 2, 0.0

    def __init__(self) -> None:
        self.dev = {1e-1: 20.0, 1e-2: 70.0, 1e-3: 50.0}
        self.fails: dict[str, str] = {}
        self.failing_conditions: set[str] = set()
        self.silent = self.stopped = False
        self.salt = ""
        self.code: list[str] = []
        self.done: list[str] = []
        self.works: dict[str, object] = {}
        self._ended: list[tuple[Job, Outcome]] = []
        self._minute = 0

    @property
    def running(self) -> list[Job]:
        return [job for job, _ in self._ended]

    def start(self, jobs: Sequence[Job]) -> list[Job]:
        begun = list(jobs[:3])
        for job in begun:
            job.write()
            self.done.append(job.title)
            self.works[job.title] = job.work
            if job.work.doing == "training":
                (job.folder / CODE_FILE).write_text(job.work.code)
            reason = next((why for part, why in self.fails.items() if part in job.title), "")
            outcome = Outcome("failed", reason, 1.0) if reason else getattr(self, job.work.doing)(job)
            self._ended.append((job, outcome.write(job.folder)))
        return begun

    def poll(self) -> list[tuple[Job, Outcome]]:
        ended, self._ended = self._ended, []
        return ended

    def stop(self) -> str:
        self.stopped = True
        return "stopped"

    def checking(self, job: Job) -> Outcome:
        found = {"weights": "cd" * 32, "weights_of": "tensors", "parameters": 7}
        return Outcome("done", "", 1.0, {**found, "source_files": self.code, "code": code_digest(self.code)})

    def training(self, job: Job) -> Outcome:
        head = job.work.head
        head.folder.mkdir(parents=True, exist_ok=True)
        made = f"{head.folder}{self.salt}"
        with zipfile.ZipFile(head.folder / "dev-best.ckpt", "w") as file:
            file.writestr("data.pkl", made)
        result = {
            "head": hashlib.sha256(made.encode()).hexdigest(),
            "checkpoint": "dev-best.ckpt",
            "dev_score": self.dev[head.config["optimizer"]["lr"]],
            "step": 10,
        }
        return Outcome("done", "", 20.0, {**result, "units": 10})

    def evaluating(self, job: Job) -> Outcome:
        if self.silent:
            return Outcome("failed", "its process was killed by signal 9")
        work, bad = job.work, ""
        for split, conditions in work.cells.items():
            for condition in conditions:
                failed = {"status": "failed", "reason": "RuntimeError: a file vanished"}
                fails = condition.label in self.failing_conditions
                bad = bad or (failed["reason"] if fails else "")
                self._write(work, split, condition, failed if fails else {})
        return Outcome("failed" if bad else "done", bad, 6.0, {"units": 2})

    def _write(self, work, split, condition, failed) -> None:
        options = work.options
        sources = options["sources"].corruptors([condition], options["corruption_seed"])
        described = options["sources"].describe(condition, sources[condition])
        made = None if options["checkpoint"] is None else zipfile.ZipFile(options["checkpoint"]).read("data.pkl")
        record = example_record(
            upstream=work.head.upstream.name,
            label=work.head.upstream.label,
            checkpoint=ModelName.short_of(work.head.upstream.checkpoint),
            task=work.head.task.code,
            fold=work.head.config["downstream_expert"]["datarc"].get("test_fold", ""),
            seed=work.head.seed,
            condition=condition.label,
            sources=described,
            corruption_seed=0 if condition.kind == "clean" else options["corruption_seed"],
            split=split,
            selection=options["selection"],
            learning_rate=work.head.config["optimizer"]["lr"],
            head_digest="" if made is None else hashlib.sha256(made).hexdigest(),
            rules_digest="",
            upstream_code=code_digest(self.code),
            start_utc=self._time(),
            duration_s=3.0,
        )
        write_record(options["records"], replace(record, **failed))

    def _time(self) -> str:
        """Later than anything before, without waiting for it."""
        self._minute += 1
        now = datetime.now(timezone.utc)
        return now.replace(microsecond=0).isoformat()


@pytest.fixture
def engine() -> FakeEngine:
    return FakeEngine()


@pytest.fixture
def config(tmp_path: Path) -> SweepConfig:
    """Two upstreams, two conditions, three learning rates."""
    (tmp_path / "corpus").mkdir()
    override = {f"runner.{name}": 10 for name in ("total_steps", "eval_step", "save_step")}
    return SweepConfig(
        out=str(tmp_path / "out"),
        upstreams=[Upstream("fbank"), Upstream("mel", label="other")],
        tasks=[TaskEntry("IC", data={"file_path": str(tmp_path / "corpus")}, override=override)],
        conditions=["clean", "noise:noise=white,snr_db=5"],
        learning_rates=[1e-1, 1e-2, 1e-3],
    )


@pytest.fixture
def go(engine: FakeEngine) -> Callable[..., Sweep]:
    """Plans and runs a sweep: what was said is in `said`, its result in `result`, its jobs in `engine.done`."""

    def run(config: SweepConfig) -> Sweep:
        engine.done.clear()
        engine.works.clear()
        said: list[str] = []
        sweep = Sweep(config, engine, said.append)
        sweep.said = said
        sweep.result = sweep.run()
        return sweep

    return run


@pytest.fixture
def one(config):
    """One upstream only."""
    return change(config, upstreams=config.upstreams[:1])
