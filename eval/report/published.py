"""Published numbers: the files in ``results/published``, read and validated. They are never records.

`results/published/README.md` says what each column means and where each number comes from.
"""

from __future__ import annotations

import csv
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path

from robustdistiller.common.names import did_you_mean

KINDS = ("baseline", "large", "student")
PROTOCOLS = (
    "superb",
    "default-lr",
    "last-layer",
    "lr-study",
    "fine-tuned",
    "multitask-fine-tuned",
    "multitask-frozen",
    "task-specific",
)
#: Metrics of the published files and whether a higher value is better.
METRICS = {
    **dict.fromkeys(("accuracy", "mtwv", "slot_type_f1", "bleu", "pesq", "stoi", "si_sdr_improvement"), True),
    **dict.fromkeys(("superb_s", "superb_r", "overall"), True),
    **dict.fromkeys(("wer", "per", "slot_value_cer", "eer", "der"), False),
}
_RESULT_COLUMNS = ("system", "task", "metric", "condition", "value", "protocol", "source", "verified", "remark")
_SYSTEM_COLUMNS = ("system", "kind", "teacher", "distilled_on", "parameters_millions", "macs_g", "macs_source")
_SOURCE_COLUMNS = ("source", "title", "where")


class PublishedError(ValueError):
    """The files of published numbers, or a name looked up in them, are wrong."""


@dataclass(frozen=True)
class Source:
    """Where a published number was read.

    Example:
        >>> load_published().sources["dphubert-table-1"].title
        'DPHuBERT, Table 1 (arXiv 2305.17651)'
    """

    source: str
    title: str
    where: str


@dataclass(frozen=True)
class System:
    """A published system.

    Attributes:
        name: as in its paper; ``(100 h)`` where it was distilled on less data than usual.
        kind: ``large`` (a teacher), ``student`` or ``baseline``.
        teacher: what it was distilled from, empty where that was not found.
        distilled_on: speech it was distilled on, empty for what was not distilled.
        parameters: number of parameters, None where not found.
        macs_g: 1e9 multiply-accumulates on the 32 profiling utterances of SUPERB, None where not found.
        macs_source: key of the source of `macs_g`.

    Example:
        >>> load_published().systems["DPHuBERT"].parameters
        23585946
    """

    name: str
    kind: str
    teacher: str
    distilled_on: str
    parameters: int | None
    macs_g: float | None
    macs_source: str


@dataclass(frozen=True)
class Result:
    """One published number.

    Attributes:
        system: key of the systems.
        task: SUPERB task code, or ``SUPERB`` for a score over tasks.
        metric: name as in the records; rates in per cent, MTWV as a fraction.
        condition: ``clean``, or the condition in the source's words.
        value: the number as printed.
        protocol: ``superb`` where it follows the benchmark, otherwise what differs (one of `PROTOCOLS`).
        source: key of the sources.
        verified: whether the number was read in its source.
        remark: what a reader must know.

    Example:
        >>> load_published().value("DPHuBERT", "IC", "accuracy")
        97.92
    """

    system: str
    task: str
    metric: str
    condition: str
    value: float
    protocol: str
    source: str
    verified: bool
    remark: str


@dataclass(frozen=True)
class Published:
    """All published numbers.

    Attributes:
        systems: by name.
        results: in the order of the file.
        sources: by key.

    Example:
        >>> published = load_published()
        >>> len(published.systems), published.find("dphubert").name
        (44, 'DPHuBERT')
    """

    systems: Mapping[str, System]
    results: tuple[Result, ...]
    sources: Mapping[str, Source]

    def find(self, name: str) -> System:
        """The system called `name`, in any case; a name that is none is refused with the nearest.

        Raises:
            PublishedError: with the nearest names.

        Example:
            >>> load_published().find("wavlm base+").parameters
            94700000
        """
        by_lower = {key.lower(): system for key, system in self.systems.items()}
        if name.lower() in by_lower:
            return by_lower[name.lower()]
        hint = did_you_mean(name, self.systems, most=3, cutoff=0.3)
        raise PublishedError(f"no published system is called {name!r}{hint}")

    def of(self, system: str, protocol: str = "superb") -> list[Result]:
        """Verified results of a system under a protocol, those over all tasks left out.

        Example:
            >>> [result.task for result in load_published().of("DistilHuBERT (100 h)")]
            ['ASR', 'SID', 'IC']
        """
        return [
            r
            for r in self.results
            if r.system == system and r.protocol == protocol and r.verified and r.task != "SUPERB"
        ]

    def value(self, system: str, task: str, metric: str, condition: str = "clean") -> float | None:
        """One verified number under SUPERB's protocol; None where there is none.

        Where sources differ (by rounding), the one that ``sources.csv`` lists first counts.

        Example:
            >>> load_published().value("LightHuBERT small", "SUPERB", "superb_s")
            901.0
        """
        wanted = (system, task, metric, condition, "superb", True)
        found = {
            r.source: r.value
            for r in self.results
            if (r.system, r.task, r.metric, r.condition, r.protocol, r.verified) == wanted
        }
        return next((found[source] for source in self.sources if source in found), None)


def load_published(folder: Path | str | None = None) -> Published:
    """Read and validate the published numbers.

    Args:
        folder: with ``published_results.csv``, ``systems.csv`` and ``sources.csv``; default: those of the package.

    Raises:
        PublishedError: a missing file, unknown column, name or source, a number that is none, or two numbers for one
            cell from one source; with the file and the line.

    Example:
        >>> load_published().value("WavLM Base+", "ASR", "wer")
        5.59
    """
    folder = Path(str(files("robustdistiller.results") / "published")) if folder is None else Path(folder)
    sources = {s: Source(**row) for s, row in _read(folder / "sources.csv", _SOURCE_COLUMNS, unique="source")}
    systems = {}
    for name, row in _read(folder / "systems.csv", _SYSTEM_COLUMNS, unique="system"):
        systems[name] = _system(row, f"{folder / 'systems.csv'}: {name}", sources)
    path = folder / "published_results.csv"
    results, seen = [], {}
    for line, row in _read(path, _RESULT_COLUMNS):
        where = f"{path}, line {line}"
        results.append(_result(row, where, systems, sources))
        key = tuple(row[c] for c in ("system", "task", "metric", "condition", "protocol", "source", "remark"))
        if key in seen:
            raise PublishedError(f"{where}: repeats line {seen[key]}; two numbers for one cell from one source")
        seen[key] = line
    return Published(systems, tuple(results), sources)


def _read(path: Path, columns: Iterable[str], unique: str = "") -> list[tuple]:
    """Rows of a CSV file with their line numbers, or with the value of the `unique` column."""
    if not path.is_file():
        raise PublishedError(f"{path}: no such file; the published numbers are part of the package")
    with path.open(encoding="utf-8", newline="") as stream:
        reader = csv.DictReader(stream)
        if tuple(reader.fieldnames or ()) != tuple(columns):
            raise PublishedError(f"{path}: expected the columns {', '.join(columns)}, found {reader.fieldnames}")
        rows = [(reader.line_num, row) for row in reader]
    for line, row in rows:
        if None in row or None in row.values():
            raise PublishedError(f"{path}, line {line}: expected {len(tuple(columns))} columns")
    if not unique:
        return rows
    names = [row[unique] for _, row in rows]
    repeated = sorted({name for name in names if names.count(name) > 1})
    if repeated:
        raise PublishedError(f"{path}: named twice: {', '.join(repeated)}")
    return [(row[unique], row) for _, row in rows]


def _number(text: str, what: str, where: str) -> float | None:
    if not text:
        return None
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise PublishedError(f"{where}: {what} must be a number, found {text!r}")
    return value


def _known(value: str, known: Iterable[str], what: str, where: str) -> str:
    if value not in known:
        raise PublishedError(f"{where}: unknown {what} {value!r}{did_you_mean(value, known)}")
    return value


def _system(row: dict[str, str], where: str, sources: Mapping[str, Source]) -> System:
    millions = _number(row["parameters_millions"], "parameters_millions", where)
    if row["macs_g"]:
        _known(row["macs_source"], sources, "source", where)
    return System(
        name=row["system"],
        kind=_known(row["kind"], KINDS, "kind", where),
        teacher=row["teacher"],
        distilled_on=row["distilled_on"],
        parameters=None if millions is None else round(millions * 1e6),
        macs_g=_number(row["macs_g"], "macs_g", where),
        macs_source=row["macs_source"],
    )


def _result(row: dict[str, str], where: str, systems: Mapping[str, System], sources: Mapping[str, Source]) -> Result:
    value = _number(row["value"], "value", where)
    if value is None:
        raise PublishedError(f"{where}: there is no value")
    return Result(
        system=_known(row["system"], systems, "system", where),
        task=row["task"],
        metric=_known(row["metric"], METRICS, "metric", where),
        condition=row["condition"],
        value=value,
        protocol=_known(row["protocol"], PROTOCOLS, "protocol", where),
        source=_known(row["source"], sources, "source", where),
        verified=_known(row["verified"], ("yes", "no"), "verified flag", where) == "yes",
        remark=row["remark"],
    )
