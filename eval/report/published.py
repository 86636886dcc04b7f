"""Published numbers: the files in ``results/published``, read and validated. They are never records.

`results/published/README.md` says what each column means and where each number comes from.
"""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Annotated, Literal, TypeVar

from pydantic import Field

from robustdistiller.common.names import did_you_mean
from robustdistiller.common.settings import SettingsError, read

Protocol = Literal[
    "superb",
    "default-lr",
    "last-layer",
    "lr-study",
    "fine-tuned",
    "multitask-fine-tuned",
    "multitask-frozen",
    "task-specific",
]
#: Metrics of the published files and whether a higher value is better.
METRICS = {
    **dict.fromkeys(("accuracy", "mtwv", "slot_type_f1", "bleu", "pesq", "stoi", "si_sdr_improvement"), True),
    **dict.fromkeys(("superb_s", "superb_r", "overall"), True),
    **dict.fromkeys(("wer", "per", "slot_value_cer", "eer", "der"), False),
}
T = TypeVar("T")


class PublishedError(ValueError):
    """The files of published numbers, or a name looked up in them, are wrong."""


@dataclass(frozen=True)
class Source:
    """Where a published number was read."""

    source: str
    title: str
    where: str = ""


@dataclass(frozen=True)
class System:
    """A published system, a line of ``systems.csv``; None and empty texts stand for what was not found."""

    system: str
    kind: Literal["baseline", "large", "student"]
    teacher: str = ""
    distilled_on: str = ""
    parameters_millions: float | None = None
    macs_g: float | None = None
    macs_source: str = ""

    def __post_init__(self) -> None:
        if self.macs_g is not None and not self.macs_source:
            raise ValueError("macs_g needs a macs_source")

    @property
    def parameters(self) -> int | None:
        """Number of parameters, None where not found."""
        return None if self.parameters_millions is None else round(self.parameters_millions * 1e6)


@dataclass(frozen=True)
class Result:
    """One published number, a line of ``published_results.csv``: rates in per cent, MTWV as a fraction."""

    system: str
    task: str
    metric: str
    condition: str
    value: Annotated[float, Field(allow_inf_nan=False)]
    protocol: Protocol
    source: str
    verified: Literal["yes", "no"]
    remark: str = ""


@dataclass(frozen=True)
class Published:
    """All published numbers.

    Attributes:
        systems: by name.
        results: in the order of the file.
        sources: by key, the most trusted first.
    """

    systems: Mapping[str, System]
    results: tuple[Result, ...]
    sources: Mapping[str, Source]

    def find(self, name: str) -> System:
        """The system called `name`, in any case."""
        by_lower = {key.lower(): system for key, system in self.systems.items()}
        if name.lower() in by_lower:
            return by_lower[name.lower()]
        hint = did_you_mean(name, self.systems, most=3, cutoff=0.6)
        raise PublishedError(f"no published system is called {name!r}{hint}")

    def of(self, system: str, protocol: str = "superb", over_tasks: bool = False) -> list[Result]:
        """Verified results of a system under a protocol; of one number from several sources, the first source's.

        Sources may differ by rounding; their order is that of ``sources.csv``.
        """
        order, wanted = list(self.sources), (system, protocol, "yes", over_tasks)
        own = [r for r in self.results if (r.system, r.protocol, r.verified, r.task == "SUPERB") == wanted]
        first: dict[tuple[str, str, str], Result] = {}
        for one in sorted(own, key=lambda one: order.index(one.source)):
            first.setdefault((one.task, one.metric, one.condition), one)
        return [one for one in own if one is first[one.task, one.metric, one.condition]]


def load_published(folder: Path | str | None = None) -> Published:
    """Read and validate the published numbers.

    Args:
        folder: with ``published_results.csv``, ``systems.csv`` and ``sources.csv``; default: those of the package.

    Raises:
        PublishedError: a missing file, unknown column, name or source, a number that is none, or two numbers for one
            cell from one source; with the file and the line.
    """
    folder = Path(str(files("robustdistiller.results") / "published")) if folder is None else Path(folder)
    sources = {one.source: one for one in _read(folder / "sources.csv", Source, ["source"], {})}
    read_systems = _read(folder / "systems.csv", System, ["system"], {"macs_source": sources})
    systems = {one.system: one for one in read_systems}
    results = _read(
        folder / "published_results.csv",
        Result,
        ["system", "task", "metric", "condition", "protocol", "source", "remark"],
        {"system": systems, "metric": METRICS, "source": sources},
    )
    return Published(systems, tuple(results), sources)


def _read(path: Path, cls: type[T], key: Sequence[str], known: Mapping[str, Mapping[str, object]]) -> list[T]:
    """The lines of a CSV file; no two agree in `key`, and what the columns of `known` name is there."""
    if not path.is_file():
        raise PublishedError(f"{path}: no such file; the published numbers are part of the package")
    columns = list(cls.__dataclass_fields__)
    found, lines = [], {}
    with path.open(encoding="utf-8", newline="") as stream:
        reader = csv.DictReader(stream)
        if reader.fieldnames != columns:
            raise PublishedError(f"{path}: expected the columns {', '.join(columns)}, found {reader.fieldnames}")
        for row in reader:
            where = f"{path}, line {reader.line_num}"
            if None in row or None in row.values():
                raise PublishedError(f"{where}: expected {len(columns)} columns")
            try:
                found.append(read(cls, {name: text for name, text in row.items() if text}))
            except SettingsError as error:
                raise PublishedError(f"{where}: {error}") from error
            for column, names in known.items():
                if row[column] and row[column] not in names:
                    what, hint = column.rpartition("_")[2], did_you_mean(row[column], names)
                    raise PublishedError(f"{where}: unknown {what} {row[column]!r}{hint}")
            first = lines.setdefault(tuple(row[name] for name in key), reader.line_num)
            if first != reader.line_num:
                raise PublishedError(f"{where}: repeats line {first}; two lines for one {' of one '.join(key)}")
    return found
