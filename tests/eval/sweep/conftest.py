"""A sweep without s3prl: an executor that leaves behind what the real jobs leave."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from robustdistiller.eval.results.files import write_record
from robustdistiller.eval.results.identity import made_digest
from robustdistiller.eval.results.record import example_record
from robustdistiller.eval.run.head_checkpoint import HeadNote
from robustdistiller.eval.sweep import SweepConfig, TaskEntry, UpstreamEntry, expand, heard_of, make_plan
from robustdistiller.eval.sweep.jobs import Job, Outcome
from robustdistiller.eval.sweep.run import Sweep


class FakeExecutor:
    """Does every job at once.

    Attributes:
        dev: accuracy on the development set by learning rate, 0 to 1.
        fails: title parts of jobs that fail, with their reason.
        failing_conditions: conditions whose record says failed.
        silent: evaluations end without writing records.
        done: titles of the jobs begun, in order.
    """

    slots, poll_s = 2, 0.0

    def __init__(self) -> None:
        self.dev = {1e-1: 0.2, 1e-2: 0.7, 1e-3: 0.5}
        self.fails: dict[str, str] = {}
        self.failing_conditions: set[str] = set()
        self.silent = False
        self.done: list[str] = []
        self.stopped = False
        self._ended: list[tuple[Job, Outcome]] = []

    def room(self) -> int:
        return 3

    def submit(self, jobs: Sequence[Job]) -> None:
        for job in jobs:
            job.write()
            self.done.append(job.title)
            reason = next((why for part, why in self.fails.items() if part in job.title), "")
            outcome = Outcome("failed", reason, 1.0) if reason else getattr(self, job.kind)(job)
            outcome.write(job.folder)
            self._ended.append((job, outcome))

    def poll(self) -> list[tuple[Job, Outcome]]:
        ended, self._ended = self._ended, []
        return ended

    def adopt(self, job: Job) -> bool:
        return False

    def stop(self) -> str:
        self.stopped = True
        return "stopped"

    def contract(self, job: Job) -> Outcome:
        return Outcome("done", wall_s=1.0)

    def train(self, job: Job) -> Outcome:
        folder = Path(job.work["folder"])
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "dev-best.ckpt").touch()
        rate = job.work["config"]["optimizer"]["lr"]
        scores = {"split": "dev", "step": 10, "scalars": {"fluent_commands/dev-acc": self.dev[rate]}}
        HeadNote(dev_scores=[{**scores, "saved": ["dev-best.ckpt"]}]).write(folder)
        return Outcome("done", wall_s=20.0, work_done=10)

    def evaluate(self, job: Job) -> Outcome:
        if self.silent:
            return Outcome("failed", "its process was killed by signal 9")
        bad = ""
        for call in job.work["calls"]:
            given = dict(itertools.pairwise(call))
            selection = HeadNote.read(Path(given["-e"]).parent).selection
            for condition in [value for option, value in itertools.pairwise(call) if option == "--condition"]:
                failed = {"status": "failed", "reason": "RuntimeError: a file vanished"}
                bad = bad or (failed["reason"] if condition in self.failing_conditions else "")
                record = example_record(
                    label=given["--label"],
                    condition=condition,
                    split=given["-t"],
                    selection=selection,
                    learning_rate=selection["learning_rate"],
                    head_digest=made_digest(selection=selection),
                    duration_s=3.0,
                    **(failed if condition in self.failing_conditions else {}),
                )
                write_record(given["--records"], record)
        return Outcome("failed" if bad else "done", bad, 6.0)


@pytest.fixture
def executor() -> FakeExecutor:
    return FakeExecutor()


@pytest.fixture
def config(tmp_path: Path) -> SweepConfig:
    """Two upstreams, two conditions, three learning rates."""
    (tmp_path / "corpus").mkdir()
    override = {f"runner.{name}": 10 for name in ("total_steps", "eval_step", "save_step")}
    return SweepConfig(
        out=str(tmp_path / "out"),
        upstreams=[UpstreamEntry("fbank"), UpstreamEntry("mel", label="other")],
        tasks=[TaskEntry("IC", data={"file_path": str(tmp_path / "corpus")}, override=override)],
        conditions=["clean", "noise:noise=white,snr_db=5"],
        learning_rates=[1e-1, 1e-2, 1e-3],
    )


@pytest.fixture
def go(executor: FakeExecutor) -> Callable[..., Sweep]:
    """Plans and runs a sweep; what was said is in `said`, jobs begun by this call in `executor.done`."""

    def run(config: SweepConfig) -> Sweep:
        executor.done.clear()
        groups = expand(config)
        heard = heard_of(config, groups[0].conditions)
        said: list[str] = []
        sweep = Sweep(config, make_plan(groups, config.policy, heard), heard, executor, said.append)
        sweep.said = said
        sweep.run()
        return sweep

    return run
