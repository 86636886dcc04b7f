"""What works here and what to type for what does not: installation, audio, the bridge to s3prl, every SUPERB task.

This module imports only the standard library, and tries everything else in processes of its own (``doctor_probes``): a
package that does not import, or that takes its process with it, is a line of the report. Nothing is written but to a
temporary folder. ``python -m robustdistiller.eval.doctor`` works where even the command line's packages are missing.
"""

from __future__ import annotations

import json
import os
import platform
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

MINIMUM_FREE_GB = 5.0
PYTHONS = ((3, 10), (3, 12))
# Without the current folder, where a file of the user's may have the name of a package.
_PROBES = (
    "import sys; sys.path[:] = [path for path in sys.path if path]; from pathlib import Path; "
    "from robustdistiller.eval.doctor_probes import main; main(sys.argv[1], Path(sys.argv[2]))"
)
_HANGS_S = 600.0
# Where packages keep what they make when they are imported.
_CACHES = ("XDG_CACHE_HOME", "MPLCONFIGDIR", "NUMBA_CACHE_DIR", "TORCHINDUCTOR_CACHE_DIR", "HF_HOME")


@dataclass(frozen=True)
class Check:
    """One line of the report.

    Attributes:
        name: what was looked at.
        ok: it works.
        found: what is there, or what went wrong.
        fix: the command that gets what is missing.
        required: the core does not work without it; otherwise a failed check is advice.
    """

    name: str
    ok: bool
    found: str
    fix: str = ""
    required: bool = True


@dataclass(frozen=True)
class Report:
    """Everything ``robustdistiller doctor`` prints.

    Attributes:
        core: what everything needs.
        shims: what the bridge to s3prl changes here, each as ``name``, ``applied``, ``reason``.
        tasks: one per SUPERB task: whether its packages and tools are here.
    """

    core: tuple[Check, ...]
    shims: tuple[dict[str, Any], ...]
    tasks: tuple[Check, ...]

    @property
    def ok(self) -> bool:
        """Every required check passed."""
        return all(check.ok for check in self.core if check.required)

    def to_dict(self) -> dict[str, Any]:
        """JSON-able content."""
        return {"ok": self.ok, **asdict(self)}


def examine() -> Report:
    """Run every check, some 10 s."""
    probes = ("packages", "torch", "torchaudio", "s3prl", "audio", "tasks")
    with ThreadPoolExecutor(2) as pool:
        found = dict(zip(probes, pool.map(probe, probes)))
    core = (
        check_python(),
        *(Check(**check) for name in probes[:-1] for check in found[name]["checks"]),
        check_sox(),
        check_disk(Path.cwd()),
        check_cache(),
    )
    tasks = tuple(Check(**check) for check in found["tasks"]["checks"])
    return Report(core, tuple(found["s3prl"].get("shims", ())), tasks)


def probe(name: str, arguments: Sequence[str] = ()) -> dict[str, Any]:
    """What the probe ``name`` finds, in a process of its own.

    Returns:
        ``checks``: the fields of its :class:`Check` lines, and what else the probe says. A probe that dies is one
        failed check, with its last words.

    Example:
        >>> probe("nothing_like_it")["checks"][0]["ok"]
        False
    """
    with tempfile.TemporaryDirectory(prefix="robustdistiller-doctor-") as folder:
        answer = Path(folder) / "answer.json"
        command = [sys.executable, "-c", _PROBES, name, str(answer), *arguments]
        clean = {**dict.fromkeys(_CACHES, folder), "PYTHONDONTWRITEBYTECODE": "1"}
        quiet = {"stdin": subprocess.DEVNULL, "capture_output": True, "text": True}
        try:
            done = subprocess.run(command, env={**os.environ, **clean}, timeout=_HANGS_S, **quiet)
            if answer.is_file():
                return json.loads(answer.read_text(encoding="utf-8"))
            words = (done.stderr.strip().splitlines() or [f"its process ended with status {done.returncode}"])[-1]
        except (OSError, subprocess.SubprocessError) as error:
            words = str(error)
    return {"checks": [asdict(Check(name, False, words))]}


def check_python(version: tuple[int, int] = sys.version_info[:2]) -> Check:
    """A Python that this package is tested on.

    Example:
        >>> check_python((3, 11)).ok, check_python((3, 9)).fix
        (True, 'make PYTHON=/path/to/python3.11 install')
    """
    ok = PYTHONS[0] <= version <= PYTHONS[1]
    return Check(
        "Python",
        ok,
        f"{platform.python_version()}, {sys.executable}",
        "" if ok else "make PYTHON=/path/to/python3.11 install",
    )


def check_sox() -> Check:
    """The one system tool."""
    program = shutil.which("sox")
    fix = "" if program else "apt-get install sox   (or: brew install sox, conda install sox)"
    return Check("sox", program is not None, program or "not found: ASV and QbE need it", fix, required=False)


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


def check_cache() -> Check:
    """A folder for caches that can be written."""
    wanted = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    there = next((folder for folder in (wanted, *wanted.parents) if folder.exists()), Path("/"))
    ok = there.is_dir() and os.access(there, os.W_OK)
    found = str(wanted) if ok else f"{wanted} cannot be written"
    return Check(
        "caches", ok, found, "" if ok else "export XDG_CACHE_HOME=/a/folder/that/can/be/written", required=False
    )


def as_text(report: Report, shims: bool = True) -> str:
    """The report for a terminal.

    Example:
        >>> print(as_text(Report((Check("Python", False, "3.9", "make PYTHON=python3.11"),), (), ())))
        This machine
          no  Python  3.9
        <BLANKLINE>
        The core does not work yet. Type:
          make PYTHON=python3.11
    """
    parts = [table("This machine", ((mark(check), check.name, check.found) for check in report.core))]
    if shims and report.shims:
        rows = (("bridged" if shim["applied"] else "as is", shim["name"], shim["reason"]) for shim in report.shims)
        parts.append(table("The bridge to s3prl", rows))
    if report.tasks:
        rows = (("ok" if task.ok else "no", task.name, task.found) for task in report.tasks)
        parts.append(table("SUPERB tasks (for their data: robustdistiller prepare --list)", rows))
    broken = [check.fix for check in report.core if not check.ok and check.required and check.fix]
    advice = [check.fix for check in report.core if not check.ok and not check.required and check.fix]
    advice += [f"{task.fix}   # {task.name}" for task in report.tasks if task.fix]
    if not report.ok:
        verdict = "The core does not work yet." + (" Type:" if broken else "")
    else:
        verdict = "The core works. For the rest, as needed:" if advice else "Everything works."
    commands = dict.fromkeys(advice if report.ok else broken)
    return "\n".join([*parts, verdict, *(f"  {command}" for command in commands)])


def mark(check: Any) -> str:
    """``ok``, ``no``, or ``--`` where what failed is not ``required``."""
    return "ok" if check.ok else "no" if check.required else "--"


def table(title: str, rows: Iterable[tuple[str, str, str]]) -> str:
    """Rows of three columns below a title, and an empty line.

    Example:
        >>> print(table("Here", [("ok", "sox", "/usr/bin/sox"), ("no", "GPU", "none")]))
        Here
          ok  sox  /usr/bin/sox
          no  GPU  none
        <BLANKLINE>
    """
    rows = list(rows)
    widths = [max(len(row[column]) for row in rows) for column in (0, 1)]
    lines = (f"  {mark:<{widths[0]}}  {name:<{widths[1]}}  {found}".rstrip() for mark, name, found in rows)
    return "\n".join([title, *lines, ""])


def main() -> int:
    """Print the report; returns 0 where the core works."""
    report = examine()
    sys.stdout.write(as_text(report) + "\n")
    return 0 if report.ok else 1


if __name__ == "__main__":
    sys.exit(main())
