"""Jobs on a SLURM that is made of scripts: arrays, limits, hiccups, requeued jobs, sweeps that are started again."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from pathlib import Path

import pytest

from robustdistiller.common import files
from robustdistiller.eval.sweep.config import ExecutorConfig, SweepError
from robustdistiller.eval.sweep.engine import Job, Outcome, run_jobs
from robustdistiller.eval.sweep.slurm import Slurm
from tests.eval.sweep.works import job
from tests.slurm.fake import FakeSlurm
from tests.waiting import wait_until

ROOT = Path(__file__).parents[3]
WAIT = "[time.sleep(0.02) for _ in range(45_000) if not os.path.exists('go')]"


@pytest.fixture
def cluster(tmp_path, monkeypatch):
    pytest.importorskip("submitit", reason="submitit is not installed: pip install -e '.[slurm]'")
    fake = FakeSlurm(tmp_path / "cluster")
    monkeypatch.setenv("PATH", fake.path)
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    yield fake
    fake.close()


@pytest.fixture
def slurm(cluster, tmp_path):
    """Makes an executor that looks often; what it says is in `said`."""

    def make(**settings) -> Slurm:
        said: list[str] = []
        made = Slurm(ExecutorConfig(kind="slurm", **settings), tmp_path / "submitit", said.append)
        made.poll_s, made.late_s, made.retry_s, made.said = 0.05, 0.5, 0.2, said
        return made

    return make


def ended_of(engine, *jobs: Job) -> dict[str, Outcome]:
    ended: dict[str, Outcome] = {}
    run_jobs(engine, jobs, lambda one, outcome: ended.update({one.title: outcome}) or ())
    return ended


def test_what_is_ready_is_one_array_and_each_job_says_how_it_ended(cluster, slurm, tmp_path):
    jobs = [job(tmp_path, "good", "print('said'); result['units'] = 3"), job(tmp_path, "bad", "raise ValueError('x')")]
    dead = job(tmp_path, "dead", "os._exit(9)")
    ended = ended_of(slurm(time_limit_min=60, memory_gb=0.5, slurm={"comment": "a b"}), *jobs, dead)
    assert len(cluster.calls("sbatch")) == 1
    script = (cluster.folder / "script-101.sh").read_text()
    assert "--array=0-2%3" in script and "--comment='a b'" in script and "OMP_NUM_THREADS=1" in script
    assert ended["good"].result == {"units": 3} and "said" in jobs[0].log.read_text()
    assert ended["bad"].reason == "ValueError: x"
    assert ended["dead"].reason == "its process left SLURM's queue (job 101_2, FAILED)"


def test_each_look_is_one_call_of_squeue(cluster, slurm, tmp_path):
    engine = slurm()
    engine.start([job(tmp_path, name, WAIT) for name in "abcde"])
    before = len(cluster.calls("squeue"))
    assert engine.poll() == [] and len(cluster.calls("squeue")) == before + 1


def test_a_limit_of_the_cluster_is_kept_and_everything_is_done_in_the_end(cluster, slurm, tmp_path):
    cluster.set("limit", 2)
    engine = slurm()
    most = []
    jobs = [job(tmp_path, f"job{number}") for number in range(5)]
    ended: list[str] = []
    run_jobs(
        engine, jobs, lambda one, outcome: ended.append(one.title) or (), lambda: most.append(len(cluster.queue()))
    )
    assert sorted(ended) == [one.title for one in jobs] and max(most) <= 2
    assert [
        line for line in engine.said if "takes no more jobs for now" in line and "submit limit" in line
    ] == engine.said
    assert len(engine.said) == 1, "said once"


def test_the_setting_keeps_below_a_limit_without_asking_for_more(cluster, slurm, tmp_path):
    cluster.set("limit", 2)
    engine = slurm(max_queued=2)
    assert len(ended_of(engine, *(job(tmp_path, f"job{number}") for number in range(3)))) == 3
    assert engine.said == []


def test_other_refusals_end_the_sweep_in_one_sentence(cluster, slurm, tmp_path):
    (cluster.bin / "sbatch").write_text("#!/bin/sh\necho 'sbatch: error: invalid partition specified: x' >&2\nexit 1\n")
    with pytest.raises(SweepError, match="sbatch refused the jobs: sbatch: error: invalid partition specified: x"):
        slurm().start([job(tmp_path, "a"), job(tmp_path, "b")])


def test_a_hiccup_loses_nothing_and_submits_nothing_twice(cluster, slurm, tmp_path):
    jobs = [job(tmp_path, name, WAIT) for name in "ab"]
    first = slurm()
    first.start(jobs)
    assert "scancel 101" in first.stop()

    cluster.set("silent", 3)
    second, again = slurm(), [job(tmp_path, name, WAIT) for name in "ab"]
    assert second.start(again) == [] and second.start(again) == [], "nothing is begun while SLURM does not answer"
    assert second.poll() == []
    for one in again:
        wait_until(one.folder.exists)
        (one.folder / "go").touch()
    assert {title: one.state for title, one in ended_of(second, *again).items()} == {"a": "done", "b": "done"}
    assert len(cluster.calls("sbatch")) == 1, "the jobs of the first start were followed"
    (said,) = second.said
    assert said.startswith("SLURM does not answer (slurm_load_jobs error: Unable to contact slurm controller")


def test_jobs_that_were_submitted_when_a_signal_came_are_followed(cluster, slurm, tmp_path, monkeypatch):
    jobs, write = [job(tmp_path, name, WAIT) for name in "ab"], files.write_text

    def interrupted(path, text):
        signal.raise_signal(signal.SIGINT)
        return write(path, text)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr("robustdistiller.eval.sweep.slurm.write_text", interrupted)
        slurm().start(jobs)
    again = [job(tmp_path, name, WAIT) for name in "ab"]
    for one in again:
        (one.folder / "go").touch()
    assert {one.state for one in ended_of(slurm(), *again).values()} == {"done"}
    assert len(cluster.calls("sbatch")) == 1


def test_a_job_that_ends_while_slurm_does_not_answer_is_not_begun_again(cluster, slurm, tmp_path):
    first, one = slurm(), job(tmp_path, "a", WAIT + "; result['n'] = 1")
    first.start([one])
    second = slurm()
    (one.folder / "go").touch()
    wait_until(lambda: one.outcome and not cluster.queue())
    assert ended_of(second, job(tmp_path, "a", WAIT))["a"].result == {"n": 1}
    assert len(cluster.calls("sbatch")) == 1
    third = slurm()
    assert ended_of(third, job(tmp_path, "a", "result['n'] = 2"))["a"].result == {"n": 2}, "asked for anew"


def test_a_job_that_left_the_queue_while_nobody_looked_is_submitted_again(cluster, slurm, tmp_path):
    one = job(tmp_path, "a", "os._exit(1) if not os.path.exists('go') else None")
    first = slurm()
    first.start([one])
    wait_until(lambda: not cluster.queue())
    (one.folder / "go").touch()
    assert ended_of(slurm(), job(tmp_path, "a", "result['n'] = 1"))["a"].result == {"n": 1}
    assert len(cluster.calls("sbatch")) == 2


def test_a_preempted_job_goes_back_into_the_queue_and_leaves_one_outcome(cluster, slurm, tmp_path):
    begin = "open('begun', 'a').write('x'); time.sleep(0 if os.path.getsize('begun') > 1 else 900)"
    one = job(tmp_path, "a", begin)
    engine = slurm()
    engine.start([one])
    wait_until(lambda: (one.folder / "begun").exists())
    (job_id,) = cluster.queue()
    wait_until(lambda: json.loads((cluster.folder / "queue" / f"{job_id}.json").read_text())["state"] == "RUNNING")
    subprocess.run(["scancel", "--signal=USR2", job_id], check=True, env=os.environ)
    ended: list[Outcome] = []
    run_jobs(engine, [], lambda _, outcome: ended.append(outcome) or ())
    assert [outcome.state for outcome in ended] == ["done"]
    assert (one.folder / "begun").read_text() == "xx" and cluster.calls("scontrol")[0] == f"requeue {job_id}"


def test_without_slurm_s_commands_it_says_so(tmp_path, monkeypatch):
    pytest.importorskip("submitit")
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(SweepError, match=r"sbatch, srun, squeue cannot be found here; .* use executor kind pool"):
        Slurm(ExecutorConfig(kind="slurm"), tmp_path)
