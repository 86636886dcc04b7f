"""The report: what was looked at, what was found, and what to type."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any


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

    def __post_init__(self) -> None:
        if self.ok:
            object.__setattr__(self, "fix", "")


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


def as_text(report: Report) -> str:
    """The report for a terminal."""
    parts = [table("This machine", ((mark(check), check.name, check.found) for check in report.core))]
    if report.shims:
        rows = (("bridged" if shim["applied"] else "as is", shim["name"], shim["reason"]) for shim in report.shims)
        parts.append(table("The bridge to s3prl", rows))
    if report.tasks:
        rows = (("ok" if task.ok else "no", task.name, task.found) for task in report.tasks)
        parts.append(table("SUPERB tasks (for their data: robustdistiller prepare --list)", rows))
    broken = [check.fix for check in report.core if check.required and check.fix]
    advice = [check.fix for check in report.core if not check.required and check.fix]
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
    """Rows of three columns below a title, and an empty line."""
    rows = list(rows)
    widths = [max(len(row[column]) for row in rows) for column in (0, 1)]
    lines = (f"  {mark:<{widths[0]}}  {name:<{widths[1]}}  {found}".rstrip() for mark, name, found in rows)
    return "\n".join([title, *lines, ""])
