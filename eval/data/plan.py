"""What `prepare` finds of a task's data, what it will make, and what s3prl has to be told in the end."""

from __future__ import annotations

import json
import shlex
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

if TYPE_CHECKING:
    from tqdm import tqdm

    from robustdistiller.eval.tasks import Task

#: What a finding can be: fine; fine for s3prl but not the official corpus; made by this command; an error.
OK, DIFFERS, TO_MAKE, MISSING = "ok", "differs", "to make", "missing"
NOT_OFFICIAL = "not as many as in the official corpus; scores will not be comparable with published ones"
UNPACK_AGAIN = "unpack the archive again"
NOTE = "prepared.json"

#: Name of an input to the paths that were given for it.
Roots = Mapping[str, Sequence[Path]]
#: Makes the file or folder at a path, which holds what an interrupted call left there, and updates a progress bar.
Make = Callable[[Path, "tqdm"], Any]


class PrepareError(ValueError):
    """The data of a task cannot be prepared; the message is one sentence."""


class NotThere(Exception):
    """A corpus is not there, so that nothing more can be looked at; the plan says so."""


@dataclass(frozen=True)
class Finding:
    """One line of the report.

    Attributes:
        what: what was looked at.
        expected: what belongs there.
        found: what is there.
        state: one of `OK`, `DIFFERS`, `TO_MAKE`, `MISSING`.
        fix: what to do about it; empty where there is nothing to do.
        target: of a finding about something that is made, what (see `Step`).
    """

    what: str
    expected: str
    found: str
    state: str
    fix: str = ""
    target: str = ""


@dataclass(frozen=True)
class Recipe:
    """How one or several tasks are prepared.

    Attributes:
        inputs: name, for ``--root NAME=PATH``, to what belongs there; the first one is ROOT, the others may be left
            out where they are found beside it.
        plan: looks at what was given and notes in the plan what is missing and what will be made. It may be called with
            any of the inputs, and with paths that do not exist.
    """

    inputs: Mapping[str, str]
    plan: Callable[[Plan, Roots], None]


@dataclass(frozen=True)
class Step:
    """Something to make.

    Attributes:
        target: the file or folder, relative to the output folder.
        title: what it is.
        make: makes it.
        items: number of items it is made of, for the progress bar.
        stamp: what it is made from; where this differs from the last time it is made again.
    """

    target: str
    title: str
    make: Make
    items: int
    stamp: str

    @property
    def note(self) -> dict[str, Any]:
        """What `NOTE` says of it once it is made."""
        return {"stamp": self.stamp, "done": True}


@dataclass
class Plan:
    """All that `prepare` knows about a task before it does anything.

    Attributes:
        task: the registry entry.
        out: folder of what is made.
        findings: what was expected and found, in order.
        steps: what is made, or was made before.
        settings: s3prl's key to path (or list of paths), for ``-o``.
    """

    task: Task
    out: Path
    findings: list[Finding] = field(default_factory=list)
    steps: list[Step] = field(default_factory=list)
    settings: dict[str, str | list[str]] = field(default_factory=dict)

    @property
    def ok(self) -> bool:
        """Nothing that s3prl needs is missing, or what is missing will be made."""
        return all(finding.state != MISSING for finding in self.findings)

    def note(self, what: str, expected: str, found: str, state: str, fix: str = "") -> None:
        """Add a finding."""
        self.findings.append(Finding(what, expected, found, state, fix))

    def count(self, what: str, found: int, official: int | None, of: str = "files", needed: bool = True) -> None:
        """Compare a number of items with the official one: another is a difference, none of `needed` an error."""
        expected = f"{official} {of}" if official is not None else of
        shown = f"{found or 'no'} {of}"
        if found == 0 and needed:
            self.note(what, expected, shown, MISSING, "an unfinished download, or archives that are not unpacked?")
        elif official is not None and found != official:
            self.note(what, expected, shown, DIFFERS, NOT_OFFICIAL)
        else:
            self.note(what, expected, shown, OK)

    def odd(
        self, what: str, expected: str, names: Sequence[str], found: str, fix: str, state: str = MISSING, most: int = 3
    ) -> bool:
        """Note what is wrong with some names, where there are any; returns whether there are.

        Args:
            what, expected, fix, state: of the finding.
            names: the odd ones.
            found: what was found, with ``{names}`` and, where it says how many, ``{count}``.
            most: names that are shown.
        """
        if names:
            self.note(what, expected, found.format(names=named(names, most), count=len(names)), state, fix)
        return bool(names)

    def listed(self, what: str, missing: Sequence[str], total: int, fix: str = UNPACK_AGAIN) -> None:
        """Note that all files of a list are there, or name those that are not."""
        expected = f"{total} files that are listed"
        if not self.odd(what, expected, missing, "{count} are not there: {names}", fix):
            self.note(what, expected, "all of them", OK)

    def set(self, name: str, value: Path | Sequence[Path]) -> None:
        """Note the path for one of the task's data roots, given by the last part of its key."""
        key = next(root.key for root in self.task.roots if root.key.endswith(f".{name}"))
        paths = [str(path.absolute()) for path in ([value] if isinstance(value, Path) else value)]
        fix = "rename the folder: s3prl's -o cannot hold such a path"
        self.odd(name, "a path without ',,'", [path for path in paths if ",," in path], "{names}", fix)
        self.settings[key] = paths[0] if isinstance(value, Path) else paths

    def add(
        self, target: str, title: str, expected: str, make: Make, items: int, stamp: str, found: str = "not there yet"
    ) -> Path:
        """Add something to make (see `Step`), with its finding; returns where it will be."""
        step = Step(target, title, make, items, stamp)
        made = self.is_made(step)
        found, state = ("made before", OK) if made else (found, TO_MAKE)
        self.steps.append(step)
        self.findings.append(Finding(title, expected, found, state, target=target))
        return self.out / target

    def is_made(self, step: Step) -> bool:
        """Whether an earlier run made it, of the same."""
        return self.made_before().get(step.target) == step.note and (self.out / step.target).exists()

    def made_before(self) -> dict[str, Any]:
        """What earlier runs made: target to `Step.note`."""
        file = self.out / NOTE
        try:
            return json.loads(file.read_text(encoding="utf-8"))
        except FileNotFoundError:
            return {}
        except json.JSONDecodeError as error:
            raise PrepareError(f"{file} is not what this command writes ({error}); delete it to begin anew") from error

    def _ordered(self) -> dict[str, str | list[str]]:
        return {root.key: self.settings[root.key] for root in self.task.roots if root.key in self.settings}

    def option(self) -> str:
        """The ``-o`` that run_downstream.py needs, quoted for a shell."""
        text = ",,".join(f"{key}={value!r}" for key, value in self._ordered().items())
        return f'-o "{text}"' if not set(text) & set('"$`\\') else f"-o {shlex.quote(text)}"

    def sweep_entry(self) -> str:
        """The same as an entry of a sweep's ``tasks``, e.g. ``- {task: IC, data: {file_path: /data/fluent}}``."""
        data = {key.rsplit(".", 1)[-1]: value for key, value in self._ordered().items()}
        entry = {"task": self.task.code, "data": data}
        return "- " + yaml.safe_dump(entry, default_flow_style=True, sort_keys=False, width=1_000_000).strip()


def named(names: Sequence[str], most: int = 3) -> str:
    """The first few of many names: ``a, b, c and 2 more``."""
    more = len(names) - most
    return ", ".join(names[:most]) + (f" and {more} more" if more > 0 else "")
