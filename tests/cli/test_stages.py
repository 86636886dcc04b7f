"""Stages run in order and side by side, are reused when nothing changed, and survive being stopped anywhere."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from robustdistiller.cli.stages import Job, JobLocked, Stage, StageFailed, readable
from robustdistiller.common.locks import Busy, locked
from robustdistiller.common.logs import tail
from tests.leftovers import leave_temporary_file
from tests.waiting import HANG_S, wait_until


def stage(root: Path, name: str, code: str = "", needs=(), inputs=(), resumable=False) -> Stage:
    """A stage that notes its run in root/runs and then writes its product."""
    folder = root / name
    note = f"open(r'{root}/runs', 'a').write('{name}\\n'); "
    product = (
        f"; import pathlib as p; p.Path(r'{folder}').mkdir(exist_ok=True); p.Path(r'{folder}/out').write_text('x')"
    )
    command = (sys.executable, "-c", note + (code or "0") + product)
    return Stage(name, command, lambda: [folder / "out"], tuple(needs), tuple(inputs), folder, resumable)


def runs(root: Path) -> list[str]:
    return (root / "runs").read_text().split() if (root / "runs").exists() else []


def test_order_reuse_and_what_a_change_repeats(tmp_path):
    def job(inputs=()):
        a, b = stage(tmp_path, "a", inputs=inputs), stage(tmp_path, "b", needs=["a"])
        return Job([a, b, stage(tmp_path, "c")], tmp_path, workers=2)

    job().run()
    assert sorted(runs(tmp_path)) == ["a", "b", "c"] and runs(tmp_path).index("a") < runs(tmp_path).index("b")
    again = job()
    again.run()
    assert len(runs(tmp_path)) == 3
    assert {progress.state for progress in again.progress.values()} == {"reused"}
    job(inputs=["new data"]).run()  # a is made differently, so b is too; c is not
    assert sorted(runs(tmp_path)[3:]) == ["a", "b"]
    (tmp_path / "b" / "out").unlink()
    job(inputs=["new data"]).run()
    assert runs(tmp_path)[5:] == ["b"]


def test_a_moved_folder_is_still_finished(tmp_path):
    first, second = tmp_path / "first", tmp_path / "second"
    Job([stage(first, "a")], first).run()
    first.rename(second)
    Job([stage(second, "a")], second).run()
    assert runs(second) == ["a"]


def test_stages_run_side_by_side(tmp_path):
    # Each waits until the other has started: one after the other they would never end.
    seen = f"len(set(open(r'{tmp_path}/runs').read().split()))"
    wait = f"import time; [time.sleep(0.02) for _ in range(45_000) if {seen} < 2]; assert {seen} == 2"
    Job([stage(tmp_path, "a", wait), stage(tmp_path, "b", wait)], tmp_path, workers=2).run()


def test_failure_shows_the_end_of_the_log_and_lets_the_other_stage_finish(tmp_path):
    slow = "import time; time.sleep(1)"
    bad = stage(tmp_path, "bad", "print('reading'); raise SystemExit('the disk is on fire')")
    job = Job([bad, stage(tmp_path, "good", slow), stage(tmp_path, "later", needs=["bad"])], tmp_path, workers=2)
    with pytest.raises(StageFailed) as failure:
        job.run()
    message = str(failure.value)
    assert "stage 'bad' failed" in message and "the disk is on fire" in message and "logs/bad.log" in message
    assert sorted(runs(tmp_path)) == ["bad", "good"]
    assert job.progress["good"].state == "done" and job.progress["later"].state == "waiting"


def test_a_missing_product_is_a_failure(tmp_path):
    silent = Stage("silent", (sys.executable, "-c", "0"), lambda: [tmp_path / "nothing"])
    with pytest.raises(StageFailed, match="stage 'silent' failed"):
        Job([silent], tmp_path).run()


def test_unfinished_folders_are_emptied_unless_the_stage_resumes(tmp_path):
    for name, resumable, kept in (("fresh", False, False), ("resumed", True, True)):
        one = stage(tmp_path, name, resumable=resumable)
        job = Job([one], tmp_path)
        job.run()
        note = tmp_path / "logs" / f"{name}.json"
        note.write_text(json.dumps({**json.loads(note.read_text()), "state": "started"}))
        (tmp_path / name / "half").touch()
        job.run()
        assert (tmp_path / name / "half").exists() is kept


RUN = """
import sys
from pathlib import Path
sys.path[:0] = [{tests!r}, {root_of_tests!r}]
from test_stages import stage
from robustdistiller.cli.stages import Job
root = Path({root!r})
slow = (
    "import os, time; open(r'{root}/started', 'w'); "
    "[time.sleep(0.02) for _ in range(45_000) if not os.path.exists(r'{root}/go')]"
)
try:
    Job([stage(root, "a"), stage(root, "b", slow, needs=["a"])], root).run()
except KeyboardInterrupt:
    sys.exit(130)
"""


@pytest.mark.parametrize(
    ("number", "background"),
    [(signal.SIGINT, False), (signal.SIGTERM, False), (signal.SIGTERM, True), (signal.SIGKILL, False)],
)
def test_stopped_and_started_again(tmp_path, number, background):
    script = tmp_path / "run.py"
    script.write_text(
        RUN.format(tests=str(Path(__file__).parent), root_of_tests=str(Path(__file__).parents[2]), root=str(tmp_path))
    )
    # Started by a script in the background, it ignores SIGINT, and so did its stages.
    ignoring = ["sh", "-c", 'trap "" INT; exec "$@"', "sh"] if background else []
    process = subprocess.Popen([*ignoring, sys.executable, str(script)], start_new_session=True)
    wait_until((tmp_path / "started").exists, process)
    os.kill(process.pid, number)
    assert process.wait(HANG_S) == (-9 if number == signal.SIGKILL else 130)
    assert runs(tmp_path) == ["a", "b"]
    again = [sys.executable, str(script)]
    if number == signal.SIGKILL:  # the stage outlived its parent and keeps others out until it ends
        root = tmp_path
        with pytest.raises(JobLocked, match="in use by another run, or by a stage of one that was killed"):
            Job([stage(root, "a")], root).run()
    (tmp_path / "go").touch()
    if number == signal.SIGKILL:
        wait_until(lambda: _is_free(tmp_path / ".lock"))
    assert subprocess.run(again, timeout=HANG_S).returncode == 0
    assert runs(tmp_path) == ["a", "b", "b"]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_while_a_stage_is_being_started_leaves_no_process_behind(tmp_path, monkeypatch, number):
    started = []

    def start(*arguments, **options):
        started.append(process := subprocess.Popen(*arguments, **options))
        signal.raise_signal(number)
        return process

    replaced = SimpleNamespace(**{**vars(subprocess), "Popen": start})
    monkeypatch.setattr("robustdistiller.cli.stages.subprocess", replaced)
    job = Job([stage(tmp_path, "a", "import time; time.sleep(900)")], tmp_path)
    with pytest.raises(KeyboardInterrupt):
        job.run()
    assert [process.poll() for process in started] == [-signal.SIGINT]
    assert job.progress["a"].state == "stopped" and _is_free(tmp_path / ".lock")


def test_what_a_killed_run_left_is_removed(tmp_path):
    left, mine = leave_temporary_file(tmp_path / "records"), tmp_path / ".mine.tmp-1"
    mine.touch()
    Job([stage(tmp_path, "a")], tmp_path).run()
    assert not left.exists() and mine.exists()


def _is_free(lock: Path) -> bool:
    try:
        with locked(lock, wait=False):
            return True
    except Busy:
        return False


def test_a_need_must_come_first(tmp_path):
    with pytest.raises(KeyError):
        Job([stage(tmp_path, "b", needs=["a"]), stage(tmp_path, "a")], tmp_path)


def test_log_begins_with_the_command_and_progress_bars_show_their_latest_state(tmp_path):
    job = Job([stage(tmp_path, "a", "print('10%\\r\\x1b[32m90%\\r', end='')")], tmp_path, threads=3)
    job.run()
    log = (tmp_path / "logs" / "a.log").read_text()
    assert log.startswith("$ ")
    assert tail(tmp_path / "logs" / "a.log", 1) == ["90%"]
    assert job.progress["a"].state == "done"


def test_commands_are_shown_as_typed():
    command = (sys.executable, "-m", "robustdistiller.cli", "distill", "robustdistiller", "data.speech=[a]")
    assert readable(command) == 'robustdistiller distill robustdistiller "data.speech=[a]"'
