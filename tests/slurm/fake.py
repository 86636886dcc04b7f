"""SLURM's commands as scripts that keep a queue in a folder and run its jobs on this machine.

In the folder: ``queue/ID.json`` for each job, ``calls.txt`` with a line for each command, and what tests put there:
``limit`` (jobs that may be in the queue), ``silent`` (times that squeue will not answer), ``hold`` (jobs wait).
"""

from __future__ import annotations

import json
import os
import re
import signal
import stat
import subprocess
import sys
import time
from pathlib import Path

COMMANDS = ("sbatch", "squeue", "scontrol", "scancel", "srun")


class FakeSlurm:
    """Install the commands below a folder.

    Args:
        folder: to be made.
    """

    def __init__(self, folder: Path) -> None:
        self.folder, self.bin = folder, folder / "bin"
        (folder / "queue").mkdir(parents=True)
        self.bin.mkdir()
        for name in COMMANDS:
            script = self.bin / name
            script.write_text(f'#!/bin/sh\nexec {sys.executable} {__file__} {name} {folder} "$@"\n')
            script.chmod(script.stat().st_mode | stat.S_IEXEC)

    @property
    def path(self) -> str:
        """PATH with the commands in front."""
        return f"{self.bin}{os.pathsep}{os.environ['PATH']}"

    def calls(self, name: str) -> list[str]:
        """Arguments of the calls of a command so far."""
        lines = (self.folder / "calls.txt").read_text().splitlines() if (self.folder / "calls.txt").exists() else []
        return [line.partition(" ")[2] for line in lines if line.split(" ")[0] == name]

    def set(self, name: str, value: int | None) -> None:
        """Put a number there, or take it away."""
        path = self.folder / name
        path.unlink(missing_ok=True) if value is None else path.write_text(str(value))

    def queue(self) -> list[str]:
        """Jobs that wait or run."""
        return sorted(path.stem for path in (self.folder / "queue").glob("*.json"))

    def close(self) -> None:
        """End everything that still runs."""
        for path in (self.folder / "queue").glob("*.json"):
            for pid in json.loads(path.read_text()).get("pids", ()):
                try:
                    os.killpg(pid, signal.SIGKILL)
                except ProcessLookupError:
                    continue


def _number(folder: Path, name: str) -> int | None:
    return int((folder / name).read_text()) if (folder / name).exists() else None


def _write(path: Path, data: dict) -> None:
    temporary = path.with_suffix(".new")
    temporary.write_text(json.dumps(data))
    temporary.replace(path)


def sbatch(folder: Path, script: str) -> int:
    text = Path(script).read_text()
    array = re.search(r"--array=0-(\d+)", text)
    count = int(array[1]) + 1 if array else 1
    limit, queued = _number(folder, "limit"), len(list((folder / "queue").glob("*.json")))
    if limit is not None and queued + count > limit:
        sys.stderr.write(
            "sbatch: error: QOSMaxSubmitJobPerUserLimit\nsbatch: error: Batch job submission failed: Job violates "
            "accounting/QOS policy (job submit limit, user's size and/or time limits)\n"
        )
        return 1
    number = (_number(folder, "last") or 100) + 1
    (folder / "last").write_text(str(number))
    kept = folder / f"script-{number}.sh"
    kept.write_text(text)
    for task in range(count):
        job_id = f"{number}_{task}" if array else str(number)
        entry = folder / "queue" / f"{job_id}.json"
        _write(entry, {"script": str(kept), "state": "PENDING"})
        node = subprocess.Popen(
            [sys.executable, __file__, "node", str(folder), job_id],
            start_new_session=True,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        _write(entry, {"script": str(kept), "state": "PENDING", "pids": [node.pid]})
    print(f"Submitted batch job {number}")
    return 0


def node(folder: Path, job_id: str) -> int:
    """Runs one job, again when it asks for that."""
    entry = folder / "queue" / f"{job_id}.json"
    while "pids" not in json.loads(entry.read_text()) or (folder / "hold").exists():
        time.sleep(0.05)
    number, _, task = job_id.partition("_")
    environment = {**os.environ, "SLURM_JOB_ID": number, "SLURM_NTASKS": "1", "SLURM_JOB_NUM_NODES": "1"}
    environment |= {"SLURM_NODEID": "0", "SLURM_JOB_NODELIST": "one", "SLURM_PROCID": "0", "SLURM_LOCALID": "0"}
    if task:
        environment |= {"SLURM_ARRAY_JOB_ID": number, "SLURM_ARRAY_TASK_ID": task}
    while True:
        job = json.loads(entry.read_text())
        process = subprocess.Popen(["bash", job["script"]], env=environment, start_new_session=True)
        _write(entry, {**job, "state": "RUNNING", "pids": [job["pids"][0], process.pid]})
        status = process.wait()
        if not (folder / f"requeue-{job_id}").exists():
            break
        (folder / f"requeue-{job_id}").unlink()
    (folder / f"ended-{job_id}").write_text("COMPLETED" if status == 0 else "FAILED")
    entry.unlink()
    return 0


def squeue(folder: Path, *arguments: str) -> int:
    silent = _number(folder, "silent") or 0
    if silent > 0:
        (folder / "silent").write_text(str(silent - 1))
        sys.stderr.write("slurm_load_jobs error: Unable to contact slurm controller (connect failure)\n")
        return 1
    print("\n".join(sorted(path.stem for path in (folder / "queue").glob("*.json"))))
    return 0


def scontrol(folder: Path, *arguments: str) -> int:
    if arguments[0] == "requeue":
        (folder / f"requeue-{arguments[1]}").touch()
        return 0
    ended = folder / f"ended-{arguments[-1]}"
    print(f"JobId={arguments[-1]} JobState={ended.read_text() if ended.exists() else 'OUT_OF_MEMORY'} Requeue=1")
    return 0


def scancel(folder: Path, *arguments: str) -> int:
    """``scancel --signal=NAME ID``, to the job's processes."""
    number = getattr(signal, "SIG" + arguments[0].partition("=")[2])
    pids = json.loads((folder / "queue" / f"{arguments[1]}.json").read_text())["pids"]
    for process in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            same = os.getpgid(int(process.parent.name)) == pids[1]
            if same and b"submitit.core._submit" in process.read_bytes() and b"srun" not in process.read_bytes():
                os.kill(int(process.parent.name), number)
        except (ProcessLookupError, FileNotFoundError):
            continue
    return 0


def srun(folder: Path, *arguments: str) -> int:
    """``srun --unbuffered --output FILE --error FILE COMMAND...``"""
    names = {"%A": os.environ.get("SLURM_ARRAY_JOB_ID", ""), "%a": os.environ.get("SLURM_ARRAY_TASK_ID", "")}
    names |= {"%j": os.environ["SLURM_JOB_ID"], "%t": "0"}
    rest, streams = list(arguments), {}
    while rest[0].startswith("--"):
        option = rest.pop(0)
        if option in ("--output", "--error"):
            path = rest.pop(0)
            for sign, value in names.items():
                path = path.replace(sign, value)
            streams[option] = Path(path).open("a")  # noqa: SIM115
    return subprocess.run(rest, stdout=streams["--output"], stderr=streams["--error"], check=False).returncode


if __name__ == "__main__":
    _, command, where, *given = sys.argv
    if command != "node":
        with (Path(where) / "calls.txt").open("a") as stream:
            stream.write(" ".join([command, *given]) + "\n")
    sys.exit(globals()[command](Path(where), *given))
