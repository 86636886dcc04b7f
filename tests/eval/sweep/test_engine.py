"""Who does jobs: this process or a pool of them, within bounds, and honest about those that die."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from robustdistiller.common.process import usable_cores
from robustdistiller.eval.sweep.engine import InProcess, Job, Outcome, run_jobs
from robustdistiller.eval.sweep.forks import Forks
from robustdistiller.eval.sweep.pool import Pool, available_memory_gb, environment_of
from tests.eval.sweep.works import job
from tests.waiting import HANG_S, wait_until

ROOT = Path(__file__).parents[3]
WAIT = "open('pid', 'w').write(str(os.getpid())); [time.sleep(0.02) for _ in range(45_000) if not os.path.exists('go')]"


@pytest.fixture(autouse=True)
def _workers_find_the_tests(monkeypatch):
    monkeypatch.setenv("PYTHONPATH", str(ROOT))


def ended_of(engine, *jobs: Job) -> dict[str, Outcome]:
    ended: dict[str, Outcome] = {}
    run_jobs(engine, jobs, lambda one, outcome: ended.update({one.title: outcome}) or ())
    return ended


def pid_of(one: Job) -> int:
    path = one.folder / "pid"
    wait_until(lambda: path.exists() and path.read_text())
    return int(path.read_text())


@pytest.mark.parametrize("engine", [InProcess, lambda: Pool(workers=2)])
def test_results_failures_and_logs_are_the_same_whoever_does_the_work(tmp_path, engine, monkeypatch):
    monkeypatch.chdir(tmp_path)
    good = job(tmp_path, "good", "print('said'); time.sleep(0.2); result['units'] = 3")
    bad = job(tmp_path, "bad", "raise ValueError('no such corpus')")
    leaves = job(tmp_path, "leaves", "raise SystemExit(3)")
    ended = ended_of(engine(), good, bad, leaves)
    assert (ended["good"].state, ended["good"].result) == ("done", {"units": 3}) and ended["good"].wall_s >= 0.2
    assert "said" in good.log.read_text()
    assert (ended["bad"].state, ended["bad"].reason) == ("failed", "ValueError: no such corpus")
    assert "Traceback" in bad.log.read_text()
    assert ended["leaves"].reason == "SystemExit: 3"
    assert good.outcome == ended["good"], "the next start knows it too"


def test_jobs_that_ends_make_possible_are_done_in_turn(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    order = []

    def ended(one, outcome):
        order.append(one.title)
        return [job(tmp_path, "second")] if one.title == "first" else ()

    said = []
    run_jobs(InProcess(said.append), [job(tmp_path, "first")], ended)
    assert order == ["first", "second"]
    assert said == [f"{name}: begun, its log is {tmp_path / name / 'log.txt'}" for name in order]


def test_a_process_that_dies_is_a_failure_in_one_sentence(tmp_path):
    killed = job(tmp_path, "killed", "print('half way', flush=True); os.kill(os.getpid(), 9)")
    left = job(tmp_path, "left", "os._exit(3)")
    ended = ended_of(Pool(workers=2), killed, left)
    assert ended["killed"].reason == (
        "its process was killed by signal 9, SIGKILL (out of memory?); the last line of its log: half way"
    )
    assert ended["left"].reason == "its process ended with status 3 before its work was done"
    assert Outcome.read(tmp_path / "killed") == ended["killed"]


def test_the_log_of_an_earlier_attempt_is_kept(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for text in ("print('one')", "print('two')"):
        ended_of(InProcess(), job(tmp_path, "again", text))
    assert (tmp_path / "again" / "log.txt").read_text() == "two\n"
    assert (tmp_path / "again" / "log.previous.txt").read_text() == "one\n"


def test_devices_bound_the_pool():
    assert Pool(["cuda:0", "cuda:1"], workers=8, free_memory_gb=lambda: 9.0).slots == 2
    assert Pool(["cuda:0", "cuda:1"], workers=8, per_device=3).slots == 6
    assert Pool(["cpu"], workers=8).slots == 8
    assert Pool(["cpu"], memory_gb=1e9).slots == 1, "something always runs"


def test_memory_that_running_jobs_have_yet_to_fill_is_not_given_away_twice(tmp_path):
    free_gb = [9.0]
    pool = Pool(workers=4, memory_gb=4.0, free_memory_gb=lambda: free_gb[0])
    jobs = [job(tmp_path, name, WAIT) for name in "abcd"]
    assert [one.title for one in pool.start(jobs)] == ["a", "b"], "9 GB are room for two jobs of 4 GB, not for three"
    assert pool.start(jobs[2:]) == []
    free_gb[0] = 20.0
    assert [one.title for one in pool.start(jobs[2:])] == ["c", "d"]
    pool.stop()


def test_a_first_job_is_begun_however_little_memory_there_is(tmp_path):
    pool = Pool(workers=2, memory_gb=4.0, free_memory_gb=lambda: 0.1)
    assert len(pool.start([job(tmp_path, "a", WAIT), job(tmp_path, "b", WAIT)])) == 1
    pool.stop()


def test_processes_are_spread_over_devices(tmp_path, monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4,7")
    show = "print('GPU', os.environ['CUDA_VISIBLE_DEVICES'])"
    pool = Pool(["cuda:0", "cuda:1"], workers=2)
    a, b = job(tmp_path, "a", show), job(tmp_path, "b", show)
    assert pool.start([a, b]) == [a, b]
    run_jobs(pool, [])
    assert [one.log.read_text() for one in (a, b)] == ["GPU 4\n", "GPU 7\n"]
    assert "CUDA_VISIBLE_DEVICES" not in environment_of("cuda", 1)
    assert environment_of("cpu", 1)["CUDA_VISIBLE_DEVICES"] == ""


def test_stop_ends_processes_and_their_children_even_those_that_do_not_listen(tmp_path):
    deaf = "import signal, subprocess, sys; signal.signal(signal.SIGTERM, signal.SIG_IGN); "
    deaf += "child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(900)']); "
    deaf += "open('child', 'w').write(str(child.pid)); "
    pool = Pool(workers=1, grace_s=0.5)
    one = job(tmp_path, "long", deaf + WAIT)
    pool.start([one])
    pids = [pid_of(one), int((one.folder / "child").read_text())]
    pool.stop()
    wait_until(lambda: not any(map(alive, pids)))
    assert one.outcome is None and not pool.running


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGKILL])
def test_no_process_outlives_the_one_that_started_it(tmp_path, number):
    script = tmp_path / "run.py"
    script.write_text(
        "import sys; from pathlib import Path\n"
        "from tests.eval.sweep.works import job\n"
        "from robustdistiller.common.process import terminate_like_interrupt\n"
        "from robustdistiller.eval.sweep.engine import run_jobs\n"
        "from robustdistiller.eval.sweep.pool import Pool\n"
        "with terminate_like_interrupt():\n"
        f"    run_jobs(Pool(workers=2), [job(Path({str(tmp_path)!r}), name, {WAIT!r}) for name in 'ab'])\n"
    )
    parent = subprocess.Popen([sys.executable, str(script)], stderr=subprocess.DEVNULL, start_new_session=True)
    pids = [pid_of(job(tmp_path, name)) for name in "ab"]
    parent.send_signal(number)
    assert parent.wait(HANG_S) != 0
    wait_until(lambda: not any(map(alive, pids)))
    assert not list(tmp_path.glob("*/outcome.json"))


@pytest.mark.parametrize("written", [False, True])
def test_a_signal_while_a_process_is_being_started_leaves_none_behind(tmp_path, monkeypatch, written):
    one, begin = job(tmp_path, "a", WAIT), Forks.begin

    def interrupted(forks, *arguments):
        if written:
            begin(forks, *arguments)
            pid_of(one)
        raise KeyboardInterrupt

    monkeypatch.setattr(Forks, "begin", interrupted)
    with pytest.raises(KeyboardInterrupt):
        run_jobs(Pool(workers=1, grace_s=5), [one])
    assert (one.folder / "pid").exists() == written
    wait_until(lambda: not written or not alive(pid_of(one)))


def test_what_forks_the_processes_is_started_once_and_again_when_it_has_died(tmp_path):
    """Its death is that of its jobs, each of which says why; the next one finds another."""
    pool = Pool(workers=2, prepare="tests.eval.sweep.works:prepare")
    text = "import sys; open('pid', 'w').write(str(os.getppid())); result['known'] = 'colorsys' in sys.modules"
    jobs = [job(tmp_path, name, text) for name in "ab"]
    pool.start(jobs)
    ended: list[tuple[Job, Outcome]] = []
    wait_until(lambda: ended.extend(pool.poll()) or len(ended) == 2)
    assert [outcome.result for _, outcome in ended] == [{"known": True}] * 2
    server = pid_of(jobs[0])
    assert pid_of(jobs[1]) == server
    waiting = job(tmp_path, "c", WAIT)
    pool.start([waiting])
    pid = pid_of(waiting)
    os.kill(server, signal.SIGKILL)
    ended.clear()
    wait_until(lambda: ended.extend(pool.poll()) or ended)
    assert "was killed by signal 9" in ended[0][1].reason
    wait_until(lambda: not alive(pid))
    pool.start([job(tmp_path, "d", text)])
    wait_until(lambda: pool.poll())
    assert pid_of(job(tmp_path, "d")) != server
    pool.stop()


def test_a_process_that_cannot_be_started_says_why(tmp_path):
    ended = ended_of(Pool(workers=1, prepare="tests.eval.sweep.works:not_there"), job(tmp_path, "a"))
    assert ended["a"].reason == (
        "its process ended with status 1 before its work was done; the last line of its log: "
        "AttributeError: module 'tests.eval.sweep.works' has no attribute 'not_there'"
    )


def test_only_what_runs_on_the_cpu_is_forked_from_a_process_that_imports(tmp_path):
    """s3prl looks for a GPU while it is imported, and a process that has found one must not be forked."""
    text = (
        "import sys; result['known'] = 'colorsys' in sys.modules; result['gpus'] = os.environ['CUDA_VISIBLE_DEVICES']"
    )
    for device, expected in (("cpu", {"known": True, "gpus": ""}), ("cuda:0", {"known": False, "gpus": "0"})):
        pool = Pool([device], workers=1, prepare="tests.eval.sweep.works:prepare")
        assert ended_of(pool, job(tmp_path, device, text))[device].result == expected


def test_what_jobs_need_can_be_imported_before_a_fork():
    """Threads do not come through it."""
    code = (
        "from pathlib import Path; from robustdistiller.eval.sweep.work import import_all; import_all();"
        "print(len(list(Path('/proc/self/task').iterdir())))"
    )
    environment = {**os.environ, **environment_of("cpu", 1)}
    found = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True)
    assert found.returncode == 0, found.stderr
    assert found.stdout.split()[-1] == "1"


def test_cores_and_memory_follow_a_container_s_limits(tmp_path):
    (tmp_path / "cpu.max").write_text("100000 100000\n")
    assert usable_cores(tmp_path) == 1
    (tmp_path / "cpu.max").write_text("max 100000\n")
    assert usable_cores(tmp_path) == usable_cores(tmp_path / "none") >= 1
    (tmp_path / "memory.max").write_text("3000000\n")
    (tmp_path / "memory.current").write_text("2000000\n")
    (tmp_path / "memory.stat").write_text("anon 1\ninactive_file 500000\n")
    assert available_memory_gb(tmp_path) == pytest.approx(1.5e-3), "what only caches files can be given up"
    (tmp_path / "memory.max").write_text("max\n")
    assert available_memory_gb(tmp_path) > 0.01


def alive(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False
