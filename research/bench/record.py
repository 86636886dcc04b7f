"""What a benchmark writes: one JSON file with everything measured, and a page of tables made from all such files."""

from __future__ import annotations

import dataclasses
import json
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from research.bench.measure import Comparison, Series
from research.bench.plot import draw_series
from research.tables import markdown_table
from robustdistiller.common.files import write_text

SCHEMA = 1


@dataclass(frozen=True)
class Report:
    """One run of one benchmark.

    Attributes:
        name: of the benchmark.
        title: what it is about.
        command: what was typed.
        seed: of everything random in it.
        device: where it ran.
        comparisons: ratios.
        series: costs against sizes.
        text: findings in words, a paragraph each.
        machine: processor, threads, versions, commit, date.

    >>> Report("corruption", "corrupting speech", "python -m research.bench corruption", 0, "cpu").file_name
    'corruption-cpu.json'
    """

    name: str
    title: str
    command: str
    seed: int
    device: str
    comparisons: tuple[Comparison, ...] = ()
    series: tuple[Series, ...] = ()
    text: tuple[str, ...] = ()
    machine: Mapping[str, Any] = field(default_factory=dict)

    @property
    def file_name(self) -> str:
        """One per benchmark and kind of device."""
        return f"{self.name}-{self.device.partition(':')[0]}.json"

    def to_dict(self) -> dict[str, Any]:
        """JSON-able content."""
        return {"schema": SCHEMA, **dataclasses.asdict(self)}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Report:
        """Inverse of `to_dict`.

        Raises:
            ValueError: another schema.
        """
        values = dict(values)
        found = values.pop("schema", None)
        if found != SCHEMA:
            raise ValueError(f"a benchmark report of schema {found}; expected {SCHEMA}: run the benchmark again")
        values["comparisons"] = tuple(
            Comparison(**{**c, "ours_s": tuple(c["ours_s"]), "peer_s": tuple(c["peer_s"])})
            for c in values["comparisons"]
        )
        values["series"] = tuple(
            Series(**{**s, "x": tuple(s["x"]), "y": tuple(map(tuple, s["y"]))}) for s in values["series"]
        )
        values["text"] = tuple(values["text"])
        return cls(**values)


def write_report(folder: Path, report: Report) -> Path:
    """Writes the JSON file of a run, draws its series, and makes `tables.md` of the folder anew.

    Returns:
        the JSON file.

    >>> import tempfile
    >>> report = Report("toy", "a toy", "python -m research.bench toy", 0, "cpu")
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     write_report(Path(folder), report).name, (Path(folder) / "tables.md").is_file()
    ('toy-cpu.json', True)
    """
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / report.file_name
    text = json.dumps(report.to_dict(), indent=1) + "\n"
    write_text(path, text)
    draw_series(report, path.with_suffix(".png"))
    tables = markdown(load_reports(folder))
    write_text(folder / "tables.md", tables)
    return path


def load_reports(folder: Path) -> list[Report]:
    """All reports of a folder, by name.

    >>> load_reports(Path("nowhere"))
    []
    """
    return [Report.from_dict(json.loads(path.read_text(encoding="utf-8"))) for path in sorted(folder.glob("*.json"))]


def markdown(reports: Iterable[Report]) -> str:
    """Tables of all reports: medians with the range over rounds, ratios, targets."""
    parts = ["# Benchmarks\n\nMade from the JSON files beside it. Times are medians (lowest to highest round)."]
    for report in reports:
        machine = report.machine
        parts.append(
            f"## {report.title}\n\n`{report.command}`, seed {report.seed}, {machine.get('date')}, "
            f"{machine.get('device')}, {machine.get('processor')}, {machine.get('threads')} threads, "
            f"torch {machine.get('versions', {}).get('torch')}"
        )
        if report.comparisons:
            pairs, places = {(c.ours, c.peer) for c in report.comparisons}, {c.part for c in report.comparisons}
            several = 1 < len(places) <= len(pairs) and len(places) * len(pairs) == len(report.comparisons)
            parts.append((_matrix if several else _comparison_table)(report.comparisons))
        parts += [_series_line(series) for series in report.series]
        if report.series:
            parts.append(f"![costs against sizes]({Path(report.file_name).with_suffix('.png')})")
        parts += list(report.text)
    return "\n\n".join(parts) + "\n"


def _comparison_table(comparisons: Sequence[Comparison]) -> str:
    header = ["what", "ours", "s", "the other way", "s", "times faster", "target", "equal?", "further"]
    rows = []
    for c in comparisons:
        target = "" if c.target is None else f"{c.target:g}: {'met' if c.met else 'not met'}"
        times = _spread(c.ours_s), c.peer, _spread(c.peer_s), _ratio(c)
        rows.append([c.part, c.ours, *times, target, c.equal, _further(c)])
    return markdown_table(header, rows)


def _matrix(comparisons: Sequence[Comparison]) -> str:
    """The same pairs under several circumstances: a line a pair, a column of ratios for each circumstance."""
    parts = list(dict.fromkeys(c.part for c in comparisons))
    rows = []
    for ours, peer in dict.fromkeys((c.ours, c.peer) for c in comparisons):
        of_pair = {c.part: c for c in comparisons if (c.ours, c.peer) == (ours, peer)}
        first, met = of_pair[parts[0]], sum(bool(c.met) for c in of_pair.values())
        target = "" if first.target is None else f"{first.target:g}: met in {met} of {len(parts)}"
        rows.append([ours, peer, *(_ratio(of_pair[part]) for part in parts), target, _further(first)])
    ratios = [f"times faster, {part}" for part in parts]
    return markdown_table(["ours", "the other way", *ratios, "target", f"further, {parts[0]}"], rows)


def _ratio(comparison: Comparison) -> str:
    return f"{comparison.ratio:.2f} ({comparison.ratios[0]:.2f} to {comparison.ratios[-1]:.2f})"


def _further(comparison: Comparison) -> str:
    notes = comparison.notes.items()
    return ", ".join(f"{key} {value:.4g}" if isinstance(value, float) else f"{key} {value}" for key, value in notes)


def _spread(seconds: Sequence[float]) -> str:
    return f"{statistics.median(seconds):.4g} ({min(seconds):.4g} to {max(seconds):.4g})"


def _series_line(series: Series) -> str:
    points = ", ".join(f"{x:g}: {y:.4g}" for x, y in zip(series.x, series.medians))
    line = f"{series.part}: {series.y_name} by {series.x_name}: {points}; slope in logarithms {series.exponent:.2f}."
    return f"{line} {series.note}".rstrip()
