"""What works here and what to type for what does not: installation, audio, the bridge to s3prl, every SUPERB task."""

from __future__ import annotations

import contextlib
import importlib
import importlib.metadata
import importlib.util
import io
import os
import platform
import shutil
import sys
import tempfile
import time
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
import torch
from packaging.requirements import Requirement
from packaging.version import Version

from robustdistiller.eval.tasks import TASKS, Task
from robustdistiller.upstream import s3prl_bridge

PACKAGE = "robustdistiller"
MINIMUM_FREE_GB = 5.0


@dataclass(frozen=True)
class Check:
    """One line of the report: ``found`` says what is there, ``fix`` the command that gets what is missing.

    A failed check that is not ``required`` is advice: the core works without it.
    """

    name: str
    ok: bool
    found: str
    fix: str = ""
    required: bool = True


@dataclass(frozen=True)
class TaskCheck:
    """Whether a task can run here; what is ``missing`` and the ``commands`` that get it."""

    code: str
    title: str
    missing: tuple[str, ...]
    commands: tuple[str, ...]
    note: str

    @property
    def ok(self) -> bool:
        """Nothing is missing."""
        return not self.missing


@dataclass(frozen=True)
class Report:
    """Everything ``robustdistiller doctor`` prints."""

    core: tuple[Check, ...]
    shims: tuple[s3prl_bridge.Shim, ...]
    tasks: tuple[TaskCheck, ...]

    @property
    def ok(self) -> bool:
        """Every required check passed."""
        return all(check.ok for check in self.core if check.required)

    def to_dict(self) -> dict[str, Any]:
        """JSON-able content."""
        return {"ok": self.ok, **asdict(self)}


def examine() -> Report:
    """Run every check. Takes as long as importing s3prl, some 5 to 15 s.

    Example:
        >>> report = examine()
        >>> [check.name for check in report.core][:2]
        ['Python', 'packages']
    """
    shims = tuple(s3prl_bridge.install())
    core = (
        check_python(),
        check_packages(_requirements()),
        check_torch_pair(),
        check_s3prl_import(),
        check_audio(),
        check_sox(),
        check_gpu(),
        check_disk(Path.cwd()),
    )
    return Report(core=core, shims=shims, tasks=tuple(check_task(task) for task in TASKS.values()))


def check_python() -> Check:
    """Python 3.10 to 3.12."""
    version = platform.python_version()
    ok = (3, 10) <= sys.version_info[:2] <= (3, 12)
    return Check("Python", ok, f"{version}, {sys.executable}", "" if ok else "make PYTHON=python3.11 install")


def _requirements() -> list[str]:
    try:
        return importlib.metadata.requires(PACKAGE) or []
    except importlib.metadata.PackageNotFoundError:
        return [f"{PACKAGE} (itself)"]


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def check_packages(requirements: Iterable[str]) -> Check:
    """Every package this project declares is installed, in a version it declares.

    Args:
        requirements: requirement strings as in package metadata; those of extras are left out.

    Example:
        >>> check_packages(["packaging>=1", "pytest; extra == 'dev'"]).ok
        True
        >>> check_packages(["packaging>=1000"]).fix
        "pip install 'packaging>=1000'"
    """
    wrong, wanted, count = [], [], 0
    for text in requirements:
        if text.startswith(f"{PACKAGE} "):
            return Check("packages", False, f"{PACKAGE} is not installed", "pip install -e .")
        requirement = Requirement(text)
        if requirement.marker is not None and not requirement.marker.evaluate({"extra": ""}):
            continue
        count += 1
        version = _version(requirement.name)
        if version is None or not requirement.specifier.contains(version, prereleases=True):
            wrong.append(f"{requirement.name} {version or 'missing'}, expected {requirement.specifier or 'any'}")
            wanted.append(f"'{requirement.name}{requirement.specifier}'")
    if wrong:
        return Check("packages", False, "; ".join(wrong), f"pip install {' '.join(wanted)}")
    shown = ("torch", "torchaudio", "s3prl", "lightning", "lhotse", "transformers", "huggingface_hub")
    versions = ", ".join(f"{name} {_version(name)}" for name in shown if _version(name))
    return Check("packages", True, f"all {count} present: {versions}")


def check_torch_pair(torch_version: str | None = None, torchaudio_version: str | None = None) -> Check:
    """torch and torchaudio come from the same release.

    Args:
        torch_version: default: the installed one.
        torchaudio_version: default: the installed one.

    Example:
        >>> check_torch_pair("2.11.0+cu130", "2.8.0").fix
        "pip install 'torchaudio==2.11.*'"
    """
    ours, theirs = torch_version or _version("torch"), torchaudio_version or _version("torchaudio")
    name = "torch and torchaudio"
    if ours is None or theirs is None:
        return Check(name, False, f"torch {ours or 'missing'}, torchaudio {theirs or 'missing'}", "pip install -e .")
    release = ".".join(map(str, Version(ours).release[:2]))
    ok = Version(theirs).release[:2] == Version(ours).release[:2]
    return Check(name, ok, f"{ours} and {theirs}", "" if ok else f"pip install 'torchaudio=={release}.*'")


def check_s3prl_import() -> Check:
    """s3prl's upstream list and its entry script import through the bridge."""
    known = "s3prl.run_downstream" in sys.modules
    start = time.perf_counter()
    try:
        # Some of its upstreams print what optional packages they miss.
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            hub = importlib.import_module("s3prl.hub")
            importlib.import_module("s3prl.run_downstream")
    except Exception as error:  # noqa: BLE001 - the report says whatever went wrong
        return Check("s3prl", False, f"does not import: {type(error).__name__}: {error}", "pip install s3prl==0.4.18")
    seconds = time.perf_counter() - start
    count = len([name for name in dir(hub) if not name.startswith("_")])
    took = "was imported before" if known else f"imported in {seconds:.1f} s"
    return Check("s3prl", True, f"{_version('s3prl')} {took}, {count} upstreams")


def check_audio() -> Check:
    """A file written here is read back as s3prl reads it, and through Speech Commands' effects."""
    import torchaudio

    written = np.round(8000 * np.sin(np.arange(1600) / 10)) / 32768
    try:
        from torchaudio.sox_effects import apply_effects_file

        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "tone.wav"
            soundfile.write(path, written, 16000, subtype="PCM_16")
            plain, rate_hz = torchaudio.load(str(path))
            quiet, _ = apply_effects_file(str(path), [["channels", "1"], ["rate", "16000"], ["gain", "-3.0"]])
    except Exception as error:  # noqa: BLE001 - the report says whatever went wrong
        return Check("audio", False, f"reading a wav file failed: {type(error).__name__}: {error}", "pip install -e .")
    error = float(np.abs(plain[0].numpy() - written).max())
    gain_error = float((quiet - plain * 10**-0.15).abs().max())
    ok = rate_hz == 16000 and error < 1e-6 and gain_error < 1e-6
    return Check("audio", ok, f"wav read back with an error of {max(error, gain_error):.0e}", required=True)


def check_sox() -> Check:
    """The one system tool."""
    program = s3prl_bridge.sox_path()
    fix = "" if program else "apt-get install sox   (or: brew install sox, conda install sox)"
    return Check("sox", program is not None, program or "not found: ASV and QbE need it", fix, required=False)


def check_gpu() -> Check:
    """GPUs that torch can use; none is fine."""
    if not torch.cuda.is_available():
        return Check("GPU", True, f"none, {os.cpu_count()} CPU cores", required=False)
    devices = [torch.cuda.get_device_properties(index) for index in range(torch.cuda.device_count())]
    return Check("GPU", True, ", ".join(f"{gpu.name} ({gpu.total_memory / 2**30:.0f} GiB)" for gpu in devices))


def check_disk(folder: Path, minimum_gb: float = MINIMUM_FREE_GB) -> Check:
    """Free space where experiments will be written.

    Example:
        >>> check_disk(Path.cwd(), minimum_gb=0).ok, check_disk(Path.cwd(), minimum_gb=1e9).ok
        (True, False)
    """
    free_gb = shutil.disk_usage(folder).free / 1e9
    ok = free_gb >= minimum_gb
    fix = "" if ok else f"free some space: experiments want {minimum_gb:.0f} GB or more"
    return Check("disk", ok, f"{free_gb:.0f} GB free in {folder}", fix, required=False)


def missing_packages(task: Task) -> list[str]:
    """Packages (pip names) that ``task`` needs and that are not installed.

    Example:
        >>> from robustdistiller.eval import tasks
        >>> missing_packages(tasks.get("IC"))
        []
    """
    missing = []
    for module, pip_name in task.packages.items():
        try:
            absent = importlib.util.find_spec(module) is None
        except ModuleNotFoundError:  # a parent of a dotted name
            absent = True
        if absent:
            missing.append(pip_name)
    return missing


def check_task(task: Task) -> TaskCheck:
    """Whether the packages and tools of ``task`` are here (its data is checked when it starts).

    Example:
        >>> from robustdistiller.eval import tasks
        >>> check_task(tasks.get("IC")).ok
        True
    """
    packages = missing_packages(task)
    tools = [] if s3prl_bridge.sox_path() or task.code == "KS" else [tool for tool in task.tools if tool == "sox"]
    commands = [f"pip install {' '.join(packages)}"] if packages else []
    commands += [f"apt-get install {tool}" for tool in tools]
    return TaskCheck(task.code, task.title, (*packages, *tools), tuple(commands), task.note)


def require(task: Task) -> None:
    """Refuse to start ``task`` without its packages and tools.

    Raises:
        ModuleNotFoundError: naming everything that is missing and the commands to type.

    Example:
        >>> from robustdistiller.eval import tasks
        >>> require(tasks.get("IC"))
    """
    check = check_task(task)
    if not check.ok:
        commands = "\n  ".join(check.commands)
        raise ModuleNotFoundError(
            f"{task.code} ({task.title}) needs {', '.join(check.missing)}, not found here. Type:\n  {commands}"
        )
