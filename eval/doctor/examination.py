"""Every check: of the machine here, of packages in processes of their own. Nothing is written but temporary files."""

from __future__ import annotations

import os
import platform
import shutil
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from itertools import chain
from pathlib import Path
from typing import Any

from robustdistiller.common.process import ProcessDied, call_apart
from robustdistiller.eval.doctor.report import Check, Report

PYTHONS = ((3, 10), (3, 12))
_PROBES = ("packages", "torch", "torchaudio", "s3prl", "audio", "tasks")
_HANGS_S = 600.0
# Where packages keep what they make when they are imported.
_CACHES = ("XDG_CACHE_HOME", "MPLCONFIGDIR", "NUMBA_CACHE_DIR", "TORCHINDUCTOR_CACHE_DIR", "HF_HOME")


def examine() -> Report:
    """Run every check, some 10 s."""
    with ThreadPoolExecutor(2) as pool:
        found = dict(zip(_PROBES, pool.map(probe, _PROBES)))
    checks = {name: [Check(**check) for check in answer["checks"]] for name, answer in found.items()}
    tasks = checks.pop("tasks")
    packages = chain.from_iterable(checks.values())
    machine = (check_python(), *packages, check_sox(), check_disk(Path.cwd()), check_cache())
    return Report(machine, tuple(found["s3prl"].get("shims", ())), tuple(tasks))


def probe(name: str, *arguments: str) -> dict[str, Any]:
    """What a function of :mod:`~robustdistiller.eval.doctor.probes` finds, in a process of its own.

    Returns:
        ``checks``: the fields of its :class:`Check` lines, and what else the probe says. A probe that dies is one
        failed check, with its last words.
    """
    with tempfile.TemporaryDirectory(prefix="robustdistiller-doctor-") as folder:
        clean = {**dict.fromkeys(_CACHES, folder), "PYTHONDONTWRITEBYTECODE": "1"}
        try:
            run = "robustdistiller.eval.doctor.probes:run"
            return call_apart(run, name, *arguments, environment=clean, timeout_s=_HANGS_S)
        except (ProcessDied, OSError) as error:
            return {"checks": [asdict(Check(name, False, str(error)))]}


def check_python(version: tuple[int, int] = sys.version_info[:2]) -> Check:
    """A Python that this package is tested on."""
    found = f"{platform.python_version()}, {sys.executable}"
    return Check("Python", PYTHONS[0] <= version <= PYTHONS[1], found, "make PYTHON=/path/to/python3.11 install")


def check_sox() -> Check:
    """The one system tool."""
    program = shutil.which("sox")
    fix = "apt-get install sox   (or: brew install sox, conda install sox)"
    return Check("sox", program is not None, program or "not found: ASV and QbE need it", fix, required=False)


def check_disk(folder: Path, minimum_gb: float = 5.0) -> Check:
    """Free space where experiments will be written."""
    free_gb = shutil.disk_usage(folder).free / 1e9
    fix = f"free some space: experiments want {minimum_gb:.0f} GB or more"
    return Check("disk", free_gb >= minimum_gb, f"{free_gb:.0f} GB free in {folder}", fix, required=False)


def check_cache() -> Check:
    """A folder for caches that can be written."""
    wanted = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    there = next(folder for folder in (wanted, *wanted.parents) if folder.exists())
    ok = there.is_dir() and os.access(there, os.W_OK)
    fix = "export XDG_CACHE_HOME=/a/folder/that/can/be/written"
    return Check("caches", ok, str(wanted) if ok else f"{wanted} cannot be written", fix, required=False)
