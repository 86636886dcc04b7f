"""What is compared with what, written down before the test sets are opened, and Holm's correction over exactly that."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from datetime import datetime, timezone
from pathlib import Path

import numpy as np
import pandas as pd
import yaml

from research.recipe_study.plan import Comparison, Plan, load_comparisons
from robustdistiller.common.files import write_text
from robustdistiller.common.settings import SettingsError, read
from robustdistiller.common.written import dump_yaml
from robustdistiller.eval.report.board import Board
from robustdistiller.eval.report.cells import shared_seeds, stack
from robustdistiller.eval.report.significance import Estimate, adjust, crossed_test
from robustdistiller.eval.results.identity import CLEAN

OPENED_FILE = "opened.yaml"


def open_test_sets(folder: Path, comparisons: Path, plan: Plan) -> Path:
    """Keep the list of comparisons as it is before the first test item is scored; later calls change nothing.

    Args:
        folder: of the finalists' sweep.
        comparisons: the list.
        plan: of the study.

    Returns:
        The file that it is kept in.

    Raises:
        SettingsError: there is no list, or it does not fit the plan; test items were scored and the file that was kept
            is not there; or the plan has other numbers of seeds than when it was written.
    """
    path = folder / OPENED_FILE
    if not path.is_file():
        if any((folder / "records").rglob("*.json")):
            raise SettingsError(f"{folder} has test scores and no {OPENED_FILE}; put it back, or give another --work")
        listed = [dataclasses.asdict(one.resolved(plan)) for one in load_comparisons(comparisons, plan)]
        now = datetime.now(timezone.utc).isoformat(timespec="seconds")
        write_text(path, dump_yaml({"opened_utc": now, "finalists": plan.finalists, "comparisons": listed}))
    seeds = yaml.safe_load(path.read_text(encoding="utf-8"))["finalists"]
    if seeds != plan.finalists:
        raise SettingsError(
            f"finalists: found {plan.finalists}, expected {seeds} as when the test sets were opened: seeds "
            "that are added until a difference shows are no test. Put them back, or give another --work"
        )
    return path


def read_opened(folder: Path) -> tuple[str, list[Comparison]]:
    """When the test sets were opened, and what was to be compared then."""
    opened = yaml.safe_load((folder / OPENED_FILE).read_text(encoding="utf-8"))
    return opened["opened_utc"], [read(Comparison, one) for one in opened["comparisons"]]


def gain(
    board: Board, treatment: str, reference: str, tasks: Sequence[str], conditions: Sequence[str]
) -> Estimate | None:
    """How much better one upstream is than another in points, tasks and conditions weighing alike.

    Paired by test item, or by speaker where the task knows enough of them, and by seed.

    Args:
        board: of the study, one row for each upstream.
        treatment, reference: names of its rows.
        tasks, conditions: the cells.

    Returns:
        Positive is better; None where a cell, or a seed that both have, is missing, or where the rules of heads differ.
    """
    columns = {task: [c for c in board.columns if c.task == task and c.condition in conditions] for task in tasks}
    try:
        rows = [board.row(name) for name in (treatment, reference)]
        sides = [[[row.cells[c] for c in columns[task]] for row in rows] for task in tasks]
    except (KeyError, ValueError):
        return None
    if any(len(found) != len(conditions) for found in columns.values()):
        return None
    if any(len({cell.rules for cells in pair for cell in cells}) > 1 for pair in sides):
        return None  # heads of other settings, such as steps
    seeds = shared_seeds([cell for pair in sides for cells in pair for cell in cells])
    blocks = []
    for task, pair in zip(tasks, sides):
        stacked = stack([cell for cells in pair for cell in cells], seeds)
        if stacked is None:
            return None
        first, second = stacked.reshape(2, len(conditions), *stacked.shape[1:]).mean(axis=1)
        blocks.append((first - second) * (1 if columns[task][0].higher_is_better else -1))
    return crossed_test(blocks)


def compare(board: Board, plan: Plan, listed: Sequence[Comparison], asked: Sequence[Comparison] = ()) -> pd.DataFrame:
    """The answers: one line for each comparison.

    Args:
        board: of the finalists.
        plan: of the study.
        listed: what stood in the list when the test sets were opened: p-values are Holm's over all of it, with those
            that are missing counted as tested.
        asked: further ones; those that are not listed are exploratory, and their p-values are their own.

    Returns:
        With columns ``question``, ``treatment``, ``reference``, ``over``, ``tasks``, ``seeds``, ``gain``, ``low``,
        ``high``, ``p`` (of one test), ``p_holm`` (NaN where exploratory) and ``exploratory``.
    """
    listed, asked = ([one.resolved(plan) for one in some] for some in (listed, asked))
    lines = []
    for one in [*listed, *(one for one in asked if one not in listed)]:
        found = gain(board, one.treatment, one.reference, one.tasks, one.conditions(plan))
        low, high = (found and found.interval) or (np.nan, np.nan)
        lines.append(
            {
                **{name: getattr(one, name) for name in ("question", "treatment", "reference")},
                "over": _told(one.over, plan),
                "tasks": ", ".join(one.tasks),
                "seeds": found.seeds if found else 0,
                "gain": found.value if found else np.nan,
                "low": low,
                "high": high,
                "p": found.p if found else np.nan,
                "p_holm": np.nan,
                "exploratory": one not in listed,
            }
        )
    table = pd.DataFrame(lines)
    table.loc[~table.exploratory, "p_holm"] = adjust(table.loc[~table.exploratory, "p"].fillna(1.0))
    table.loc[table.gain.isna(), "p_holm"] = np.nan
    return table


def _told(conditions: Sequence[str], plan: Plan) -> str:
    """Conditions by the name of their set where they are one."""
    sets = {**condition_sets(plan), "all": Comparison("", "", "", "all").conditions(plan)}
    return next((name for name, known in sets.items() if list(conditions) == known), ", ".join(conditions))


def condition_sets(plan: Plan) -> dict[str, list[str]]:
    """Clean speech, and all other conditions together."""
    both = {over: Comparison("", "", "", over).conditions(plan) for over in (CLEAN, "corrupted")}
    return {name: conditions for name, conditions in both.items() if conditions}
