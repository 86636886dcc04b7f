"""What a sweep's heads are tested on: its conditions, with those of its suites, and what they draw from."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Mapping
from pathlib import Path

import yaml

from robustdistiller.acoustics import Condition
from robustdistiller.acoustics.condition import SOURCES
from robustdistiller.eval.conditions.sources import Sources
from robustdistiller.eval.sweep.config import SweepConfig, TaskEntry
from robustdistiller.eval.sweep.errors import SweepError

#: By condition: digest of each kind of source it draws from, and the seed of the draw.
Heard = Mapping[Condition, tuple[dict[str, str], int]]


def conditions_of(sweep: SweepConfig, task: TaskEntry) -> tuple[Condition, ...]:
    """The test conditions of a task, each once.

    Raises:
        SweepError: a suite that cannot be read.

    Example:
        >>> from robustdistiller.eval.sweep.config import UpstreamEntry
        >>> fbank, ks = UpstreamEntry("fbank"), TaskEntry("KS")
        >>> sweep = SweepConfig("o", [fbank], [ks], conditions=["clean", "reverb", "clean"])
        >>> [str(condition) for condition in conditions_of(sweep, ks)]
        ['clean', 'reverb']
    """
    if task.conditions is not None:
        return tuple(dict.fromkeys(Condition.parse(text) for text in task.conditions))
    own = tuple(dict.fromkeys(Condition.parse(text) for text in sweep.conditions))
    return own if not sweep.suites else _suite(sweep)[0]


def sources_of(sweep: SweepConfig) -> Sources:
    """What the conditions draw from: the suites' sources, what the file gives over them, the shipped ones last.

    Example:
        >>> from robustdistiller.eval.sweep.config import UpstreamEntry
        >>> sources_of(SweepConfig("o", [UpstreamEntry("fbank")], [TaskEntry("KS")])) == Sources()
        True
    """
    if not sweep.suites:
        return Sources(**{kind: tuple(getattr(sweep, kind)) for kind in SOURCES})
    given = {kind: getattr(sweep, kind) for kind in SOURCES}
    return _suite(sweep)[1].with_given(given)


def heard_of(sweep: SweepConfig, conditions: Iterable[Condition]) -> Heard:
    """Read the sources themselves: a folder whose audio changed is another source.

    Args:
        sweep: for its sources and its seed.
        conditions: in question.

    Raises:
        FileNotFoundError, ValueError: a source cannot be read or has no fitting room.

    Example:
        >>> from robustdistiller.eval.sweep.config import UpstreamEntry
        >>> sweep = SweepConfig("o", [UpstreamEntry("fbank")], [TaskEntry("KS")])
        >>> heard_of(sweep, [Condition.parse("clean")])
        {Condition(kind='clean'...): ({}, 0)}
    """
    sources = sources_of(sweep)
    heard = {}
    for condition, corruptor in sources.corruptors(conditions, sweep.corruption_seed).items():
        digests = {kind: one["digest"] for kind, one in sources.describe(condition, corruptor).items()}
        heard[condition] = digests, sweep.corruption_seed if corruptor is not None else 0
    return heard


def write_suite(sweep: SweepConfig, folder: Path, name: str, conditions: Iterable[Condition]) -> Path:
    """A suite for the launcher: some of the sweep's conditions, with the sources of its suites.

    Args:
        sweep: with suites.
        folder: to write to.
        name: of the file, without its suffix.
        conditions: to evaluate.
    """
    folder.mkdir(parents=True, exist_ok=True)
    _write_all(sweep, folder / "all-conditions.yaml")
    path = folder / f"{name}.yaml"
    part = {"base": str(folder / "all-conditions.yaml"), "conditions": [str(one) for one in conditions]}
    path.write_text(yaml.safe_dump(part), encoding="utf-8")
    return path


def _suite(sweep: SweepConfig) -> tuple[tuple[Condition, ...], Sources]:
    from robustdistiller.eval.conditions.suite import SuiteError, load_suite

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "sweep.yaml"
        _write_all(sweep, path)
        try:
            suite = load_suite(path)
        except SuiteError as error:
            raise SweepError(f"suites: {error}") from error
    return suite.conditions, suite.sources


def _write_all(sweep: SweepConfig, path: Path) -> None:
    suites = [str(Path(one).absolute()) if Path(one).suffix in (".yaml", ".yml") else one for one in sweep.suites]
    path.write_text(yaml.safe_dump({"conditions": [*sweep.conditions, *suites]}), encoding="utf-8")
