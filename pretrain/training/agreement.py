"""Whether feature distance and linear probe rank students alike, from the `validation.csv` of some runs."""

from __future__ import annotations

import io
import math
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import scipy.stats

from robustdistiller.common.files import write_atomically
from robustdistiller.common.settings import SettingsError

DISTANCES = ("cosine", "l1")
_ACCURACY = "probe_accuracy"
_LEAST_POINTS, _LEAST_RUNS = 3, 3
_FEW_POINTS, _FEW_RUNS = 5, 8
_DRAWS = 1000
_COLUMNS = ["condition", "distance", "points_of", "points", "runs", "rho", "low", "high", "note"]


def rank_agreement(folders: Sequence[str | Path], seed: int = 0) -> pd.DataFrame:
    """Spearman's rank correlation of feature distance and probe accuracy.

    -1 means that whenever a student is closer to the teacher, the probe tells its features apart better; 0 that the
    distance says nothing about it. The interval is the 95 % percentile bootstrap over runs, because the points of a run
    are not independent. From few runs it is too narrow: for one point a run and a true value of 0.68, it held that
    value in 52 % of simulated samples of 3 runs, 89 % of 5 and 98 % of 8.

    Args:
        folders: of runs that had `validation.every_steps` and `probe.every_steps`.
        seed: of the bootstrap.

    Returns:
        One line per `condition`, `distance` (`cosine`, `l1`) and `points_of` (`all steps`: every measured step of every
        run; `last steps`: the last one of each run), with `points`, `runs`, `rho`, `low` and `high` (NaN where they are
        not defined), and a `note` that says what is lacking.

    Raises:
        SettingsError: a folder has no usable `validation.csv`, or no step at which both were measured.

    >>> import tempfile
    >>> lines = ["step,condition,l1,cosine,probe_accuracy", *(f"{n},clean,1,{1 / n},{n / 4}" for n in (1, 2, 3, 4))]
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     _ = Path(folder, "validation.csv").write_text("\\n".join(lines))
    ...     found = rank_agreement([folder])
    >>> print(*found.loc[0, ["distance", "points_of", "points", "rho"]])
    cosine all steps 4 -1.0
    """
    measured = read_measured(folders)
    differ = ["the runs have different targets, so that their distances measure different things"]
    differ *= measured.targets.nunique() > 1
    last = measured.groupby(["run", "condition"], sort=False).tail(1)
    lines = []
    for condition in measured.condition.unique():
        for distance in DISTANCES:
            for points_of, points in (("all steps", measured), ("last steps", last)):
                chosen = points[points.condition == condition]
                runs = [run[[distance, _ACCURACY]].to_numpy() for _, run in chosen.groupby("run", sort=False)]
                *found, notes = _correlation(runs, seed)
                lines.append(
                    (condition, distance, points_of, len(chosen), len(runs), *found, "; ".join(notes + differ))
                )
    return pd.DataFrame(lines, columns=_COLUMNS)


def read_measured(folders: Sequence[str | Path]) -> pd.DataFrame:
    """The lines of `validation.csv` at which both distance and probe were measured, in the order of stages and steps.

    Returns:
        `run` (the folder's name, or its path where a name comes twice), `step`, `condition`, `cosine`, `l1`,
        `probe_accuracy`, and `targets` (columns of the run's targets).

    Raises:
        SettingsError: as for :func:`rank_agreement`.
    """
    paths = [Path(folder).expanduser().resolve() for folder in folders]
    names = Counter(path.name for path in paths)
    twice = [path for path, count in Counter(paths).items() if count > 1]
    if twice or not paths:
        raise SettingsError(f"found {f'{twice[0]} twice' if twice else 'no runs'}, expected one or more different runs")
    tables = [_read(path).assign(run=path.name if names[path.name] == 1 else str(path)) for path in paths]
    return pd.concat(tables, ignore_index=True)


def _read(folder: Path) -> pd.DataFrame:
    path = folder / "validation.csv"
    try:
        # Not by pandas, which makes an error of its own of a Ctrl-C while it reads.
        table = pd.read_csv(io.StringIO(path.read_text(encoding="utf-8")))
    except OSError as error:
        raise SettingsError(
            f"{path} cannot be read ({error.strerror}), expected the folder of a run with validation.every_steps=N"
        ) from error
    except ValueError as error:  # pandas' own are of this kind
        raise SettingsError(f"{path} is not the table of a validation ({str(error).strip()})") from error
    if _ACCURACY not in table:
        raise SettingsError(
            f"{path} has no column {_ACCURACY}: the run had no probe; train with probe.every_steps=N probe.data=CSV"
        )
    needed = ["step", "condition", *DISTANCES, _ACCURACY]
    missing = [name for name in needed if name not in table]
    if missing:
        raise SettingsError(f"{path} has no column {missing[0]}, expected {', '.join(needed)}")
    try:
        table = table.astype(dict.fromkeys((*DISTANCES, _ACCURACY), float))
    except ValueError as error:
        raise SettingsError(f"{path}: {error}, expected numbers of {', '.join(DISTANCES)} and {_ACCURACY}") from error
    targets = tuple(name for name in table.columns if name.startswith("cosine_layer"))
    kept = table.replace([math.inf, -math.inf], math.nan).dropna(subset=[*DISTANCES, _ACCURACY])
    if kept.empty:
        raise SettingsError(
            f"{path} has no step at which both distance and probe were measured; give probe.every_steps a multiple of "
            "validation.every_steps"
        )
    return kept[needed].assign(targets=[targets] * len(kept))


def _correlation(runs: list[np.ndarray], seed: int) -> tuple[float, float, float, list[str]]:
    """rho, its interval, and what is to be said, of (points, 2) for each run."""
    points = np.concatenate(runs)
    if len(points) < _LEAST_POINTS:
        return *[math.nan] * 3, [f"found {_count(len(points), 'point')}, expected {_LEAST_POINTS} or more to rank"]
    rho, notes = _spearman(points), []
    if math.isnan(rho):
        return *[math.nan] * 3, ["one of the two has the same value everywhere, so that there is nothing to rank"]
    if len(points) < _FEW_POINTS:
        once_in = math.factorial(len(points)) // 2
        notes.append(f"{len(points)} points are in perfect order, or in the opposite one, by chance once in {once_in}")
    if len(runs) < _LEAST_RUNS:
        return rho, math.nan, math.nan, [*notes, f"no interval from {_count(len(runs), 'run')}, it takes {_LEAST_RUNS}"]
    if len(runs) < _FEW_RUNS:
        notes.append(f"an interval from {len(runs)} runs is rough, rather too narrow")
    generator = np.random.default_rng(seed)
    drawn = generator.integers(0, len(runs), (_DRAWS, len(runs)))
    samples = [_spearman(np.concatenate([runs[index] for index in draw])) for draw in drawn]
    low, high = np.nanpercentile(samples, [2.5, 97.5])  # NaN where a draw has one value only
    return rho, float(low), float(high), notes


def _spearman(points: np.ndarray) -> float:
    """Pearson's correlation of the ranks of (points, 2); NaN where one of them has a single value."""
    first, second = scipy.stats.rankdata(points, axis=0).T
    if np.ptp(first) == 0 or np.ptp(second) == 0:
        return math.nan
    return float(np.clip(np.corrcoef(first, second)[0, 1], -1, 1))


def _count(number: int, what: str) -> str:
    return f"{number} {what}{'s' * (number != 1)}"


def draw_agreement(folders: Sequence[str | Path], picture: str | Path) -> None:
    """Draw probe accuracy over distance as PNG: a column per condition, a row per distance; last steps are filled."""
    from matplotlib.figure import Figure  # no pyplot: its state is global

    measured = read_measured(folders)
    conditions, runs = measured.condition.unique(), measured.run.unique()
    size = (3.2 * len(conditions) + 1.6, 2.6 * len(DISTANCES))
    figure = Figure(figsize=size, layout="constrained")
    grid = figure.subplots(len(DISTANCES), len(conditions), squeeze=False, sharey=True)
    for row, distance in zip(grid, DISTANCES):
        row[0].set_ylabel("probe accuracy")
        for axes, condition in zip(row, conditions):
            for index, run in enumerate(runs):
                points = measured[(measured.run == run) & (measured.condition == condition)]
                x, y, colour = points[distance], points[_ACCURACY], f"C{index % 10}"
                axes.plot(x, y, "o", color=colour, fillstyle="none", markersize=4, label=run)
                axes.plot(x[-1:], y[-1:], "o", color=colour, markersize=7)
            axes.set_title(condition, fontsize=9)
            axes.set_xlabel(f"{distance} distance", fontsize=8)
            axes.tick_params(labelsize=7)
            axes.grid(alpha=0.3)
    figure.legend(*grid[0, 0].get_legend_handles_labels(), loc="outside right upper", fontsize=7)
    write_atomically(picture, lambda file: figure.savefig(file, format="png", dpi=120))
