"""A real SLURM of one node in a temporary folder: controller, node daemon and munge, from Debian's packages."""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

PROGRAMS = {"slurmctld": "slurm-wlm", "slurmd": "slurm-wlm", "sbatch": "slurm-wlm", "munged": "munge"}
# A requeued job waits until its credential has expired: short here, two minutes as a rule.
_CONFIGURATION = """\
ClusterName=one
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={controller_port}
SlurmdPort={node_port}
SlurmUser=root
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket,cred_expire=10
CredType=cred/munge
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
MpiDefault=none
ReturnToService=2
KillWait=5
NodeName={host} NodeAddr=127.0.0.1 CPUs={cpus} RealMemory=2000 State=UNKNOWN
PartitionName=short Nodes={host} Default=YES MaxTime=INFINITE State=UP
"""


def why_not() -> str:
    """Why SLURM cannot be started here; empty when it can."""
    missing = {package for program, package in PROGRAMS.items() if shutil.which(program) is None}
    if missing:
        return f"SLURM is not installed: apt-get install {' '.join(sorted(missing))}"
    if os.geteuid() != 0:
        return "SLURM's daemons start jobs as other users, so they need root"
    try:
        import submitit  # noqa: F401
    except ModuleNotFoundError:
        return "submitit is not installed: pip install -e '.[slurm]'"
    return ""


@contextlib.contextmanager
def one_node(cpus: int = 2, start_s: float = 90.0) -> Iterator[dict[str, str]]:
    """Start SLURM; yields the environment that its commands need.

    Args:
        cpus: of the node.
        start_s: seconds until it must be ready.

    Raises:
        RuntimeError: it did not start; with the end of its logs.
    """
    folder = Path(tempfile.mkdtemp(prefix="slurm-", dir="/tmp"))
    folder.chmod(0o755)
    try:
        _start_munge(folder)
        for name in ("state", "spool"):
            (folder / name).mkdir()
        configuration = folder / "slurm.conf"
        host = socket.gethostname().split(".")[0]
        ports = dict(zip(("controller_port", "node_port"), _free_ports(2)))
        configuration.write_text(_CONFIGURATION.format(folder=folder, host=host, cpus=cpus, **ports))
        environment = {**os.environ, "SLURM_CONF": str(configuration)}
        for daemon in ("slurmctld", "slurmd"):
            subprocess.run([daemon, "-f", str(configuration)], env=environment, check=True, capture_output=True)
        deadline = time.monotonic() + start_s
        while "idle" not in _node_state(environment):
            if time.monotonic() > deadline:
                logs = [(folder / f"{name}.log").read_text()[-1500:] for name in ("slurmctld", "slurmd")]
                raise RuntimeError("SLURM did not start:\n" + "\n".join(logs))
            time.sleep(0.5)
        yield environment
    finally:
        for name in ("slurmd", "slurmctld", "munged"):
            _stop(folder / f"{name}.pid")
        shutil.rmtree(folder, ignore_errors=True)


def _start_munge(folder: Path) -> None:
    home = folder / "munge"
    home.mkdir(mode=0o700)
    key = home / "key"
    key.write_bytes(secrets.token_bytes(1024))
    key.chmod(0o400)
    files = {"key-file": key, "log-file": home / "log", "seed-file": home / "seed"}
    files |= {"pid-file": folder / "munged.pid", "socket": folder / "munge.socket"}
    options = [f"--{name}={path}" for name, path in files.items()]
    subprocess.run(["munged", "--force", *options], check=True, capture_output=True)


def _node_state(environment: dict[str, str]) -> str:
    command = ["sinfo", "--noheader", "--format", "%T"]
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False).stdout


def _free_ports(count: int) -> list[int]:
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in sockets]


def _stop(pid_file: Path) -> None:
    try:
        pid = int(pid_file.read_text())
        os.kill(pid, signal.SIGTERM)
    except (FileNotFoundError, ValueError, ProcessLookupError):
        return
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            return
        time.sleep(0.1)
