"""What a stage came to, as Markdown, CSV and pictures: from the sweep's records, the runs' logs and nothing else."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from research.recipe_study.comparisons import OPENED_FILE, compare, condition_sets, read_opened
from research.recipe_study.distil import Run, teacher_of
from research.recipe_study.picture import plot_answers
from research.recipe_study.plan import TEACHER, Comparison, Plan
from research.recipe_study.systems import systems_of
from research.tables import markdown_table
from robustdistiller.common.files import write_text
from robustdistiller.common.settings import SettingsError
from robustdistiller.eval.report.board import Board
from robustdistiller.eval.report.measured import measured_rows
from robustdistiller.eval.report.plots import plot_board
from robustdistiller.eval.report.tables import grids, write_board
from robustdistiller.eval.results.frame import read_frame
from robustdistiller.pretrain.training.agreement import rank_agreement, read_measured
from robustdistiller.upstream import checkpoint_digest, read_checkpoint

_METHOD = """\
Differences are paired by seed and by test item, or by speaker where a task has five or more. Items (speakers) and
seeds are both drawn at random: intervals and p-values count both (quasi-F, Clark 1973;
`eval/report/significance.py`). A student's seed is that of its distillation and of its heads. p-values of the
listed comparisons are Holm's over the whole list; those of exploratory ones are of one test, and prove nothing.
Heads are trained on clean speech; the learning rate of a task is the same for all, the best for the teacher on the
clean development set. Gains are in points,
positive where better; tasks and conditions weigh alike."""


def board_of(folder: Path, plan: Plan, runs: Sequence[Run]) -> Board:
    """The records of a stage's sweep as a leaderboard in which a student is one system, whatever its seeds.

    Args:
        folder: of the sweep.
        plan: of the study.
        runs: of the stage. Records of other weights, as those of a plan before this one, are left out.
    """
    names = {system.identity: system.name for system in systems_of(plan, runs)}
    frame = read_frame([folder])
    weights = frame.weights.where(~frame.upstream.isin(plan.baselines), frame.upstream)
    system = pd.Series(list(zip(weights, frame.options.fillna(""))), index=frame.index).map(names)
    frame = frame.assign(system=system, label=system)
    unknown = system.isna() & (frame.status != "unreadable")
    rows, notes = measured_rows(frame[~unknown])
    rows = sorted(rows, key=lambda row: plan.systems().index(row.name))
    columns = sorted({column for row in rows for column in row.cells}, key=lambda column: column.order)
    if unknown.any():
        notes.append(f"{frame[unknown].path.nunique()} records are of other students than the plan's, and not shown")
    return Board(tuple(rows), tuple(columns), tuple(notes), {}, frame[~unknown], TEACHER)


def write_screening(plan: Plan, runs: Sequence[Run], folder: Path, out: Path) -> Path:
    """Write what the development sets say, for the choice of finalists: no tests, as there is one seed of each.

    Args:
        plan: of the study.
        runs: of the stage.
        folder: of its sweep.
        out: where the files go.

    Returns:
        The page.
    """
    board = board_of(folder, plan, runs)
    table = pd.DataFrame(means(board, plan)).T
    done = [run for run in runs if run.finished]
    if done:
        table = table.join(_last_measures(done))
    parts = [
        "# Screening: every student once, on development sets",
        _provenance(plan, runs, board),
        "## Scores, and what was measured while training",
        "Means over tasks; distance and accuracy of the linear probe are means over four conditions at the last step.",
        _markdown(table.round(3), "upstream"),
        "Spearman's rank correlation between these columns, over students:",
        _markdown(table.loc[[run.name for run in done if run.name in table.index]].corr("spearman").round(2), ""),
        *_agreement(done),
        *_scores(board, out / "screening", pictures=False),
        *_students(plan, done),
    ]
    return write_text(out / "screening.md", "\n\n".join(parts) + "\n")


def write_finalists(plan: Plan, runs: Sequence[Run], folder: Path, out: Path, asked: Sequence[Comparison] = ()) -> Path:
    """Write the answers: what was listed before the test sets were opened, everything else marked as exploratory.

    Args:
        plan: of the study.
        runs: of the stage.
        folder: of its sweep.
        out: where the files go.
        asked: comparisons as the list has them now.

    Returns:
        The page.

    Raises:
        SettingsError: the test sets were not opened.
    """
    if not (folder / OPENED_FILE).is_file():
        raise SettingsError(f"{folder} has no {OPENED_FILE}; run the stage finalists, which opens the test sets")
    board = board_of(folder, plan, runs)
    opened, listed = read_opened(folder)
    answers = compare(board, plan, listed, asked)
    write_text(out / OPENED_FILE, (folder / OPENED_FILE).read_text(encoding="utf-8"))
    write_text(out / "comparisons.csv", answers.round(4).to_csv(index=False))
    exploratory = answers[answers.exploratory]
    parts = [
        "# Recipe study: finalists on the test sets",
        _provenance(plan, runs, board),
        "## Answers",
        f"The list of {len(listed)} comparisons was closed when the test sets were opened, {opened}.",
        f"![answers]({plot_answers(answers[~answers.exploratory], out / 'answers.png').name})",
        answer_table(answers[~answers.exploratory]),
        *(["## Exploratory: not in the list", answer_table(exploratory)] if len(exploratory) else []),
        "## Means over tasks",
        _markdown(pd.DataFrame(means(board, plan)).T.round(1), "upstream"),
        *_scores(board, out / "finalists"),
        *_agreement([run for run in runs if run.finished]),
        *_students(plan, runs),
        "## How it was tested",
        _METHOD,
    ]
    return write_text(out / "report.md", "\n\n".join(parts) + "\n")


def means(board: Board, plan: Plan) -> dict[str, dict[str, float]]:
    """Mean over tasks on clean and on corrupted speech of each row; NaN where it lacks a cell."""
    found = {}
    for row in board.rows:
        found[row.name] = {}
        for name, conditions in condition_sets(plan).items():
            columns = [c for c in board.columns if c.task in plan.tasks and c.condition in conditions]
            whole = all(column in row.cells for column in columns)
            found[row.name][name] = float(np.mean([row.cells[c].value for c in columns])) if whole else np.nan
    return found


def answer_table(answers: pd.DataFrame) -> str:
    """Comparisons in Markdown."""
    rows = []
    for one in answers.itertuples():
        missing = np.isnan(one.gain)
        p = f"{one.p:.3f} (one test)" if one.exploratory else f"{one.p_holm:.3f}"
        rows.append(
            [
                *(one.question, f"{one.treatment} - {one.reference}", one.over, one.tasks),
                "missing" if missing else f"{one.gain:+.2f} ({one.low:+.2f} to {one.high:+.2f})",
                "" if missing else p,
                str(one.seeds),
            ]
        )
    header = ["question", "difference", "conditions", "tasks", "points (95 % interval)", "adjusted p", "seeds"]
    return markdown_table(header, rows)


def _provenance(plan: Plan, runs: Sequence[Run], board: Board) -> str:
    records = board.records
    missing = [f"{run.name} seed {run.seed}" for run in runs if not run.finished]
    rates = ", ".join(f"{name} {rate:g}" for name, rate in plan.tasks.items())
    lines = [
        f"- teacher: sha256 {checkpoint_digest(teacher_of(plan))[:12]}; {plan.steps} steps of each student",
        f"- measured: {records.start_utc.min()} to {records.start_utc.max()}",
        f"- heads: {plan.head_steps} steps, learning rates {rates}",
        *([f"- missing: {', '.join(missing)}"] if missing else []),
        *(f"- {note}" for note in board.notes if "not a standard run" not in note),  # none is, by this plan's rules
    ]
    return "\n".join(lines)


def _scores(board: Board, folder: Path, pictures: bool = True) -> Iterable[str]:
    """Tables and pictures of `eval.report`, whose files go into a folder; of very many systems none is readable."""
    write_board(board, folder, ["csv", "robustness"])
    yield "## Every cell"
    yield from (grid.to_markdown() for grid in grids(board)[1:])
    if pictures:
        yield from (f"![{path.stem}]({folder.name}/{path.name})" for path in plot_board(board, folder))


def _last_measures(runs: Sequence[Run]) -> pd.DataFrame:
    """Feature distances and probe accuracy of each student at its last step, means over conditions and seeds."""
    measured = read_measured([run.folder for run in runs])
    last = measured.groupby(["run", "condition"]).tail(1)
    name_of = {run.folder.name: run.name for run in runs}
    return last.groupby(last.run.map(name_of))[["cosine", "l1", "probe_accuracy"]].mean()


def _agreement(runs: Sequence[Run]) -> Iterable[str]:
    """Whether feature distance and probe rank students alike."""
    if runs:
        yield "## Do feature distance and linear probe rank students alike?"
        yield "Rank correlation; -1: the nearer to the teacher, the better the probe."
        yield _markdown(rank_agreement([run.folder for run in runs]).round(2), None)


def _students(plan: Plan, runs: Sequence[Run]) -> Iterable[str]:
    rows = []
    for name, student in plan.students.items():
        mine = [run for run in runs if run.name == name and run.finished]
        if mine:
            notes = [read_checkpoint(run.checkpoint).metadata for run in mine]
            config = notes[0]["config"]["trainer"]
            rows.append(
                [
                    *(name, f"`{student.recipe}`", student.about, "; ".join(student.settings)),
                    ", ".join(str(run.seed) for run in mine),
                    f"{np.mean([one['parameters']['student without prediction heads'] for one in notes]) / 1e6:.2f}",
                    f"{np.mean([_hours(run) for run in mine]):.2f}",
                    f"{np.mean([run.job.outcome.wall_s for run in mine]) / 60:.1f}",
                    config["precision"],
                ]
            )
    yield "## Students"
    header = ["student", "recipe", "about", "settings", "seeds", "million parameters", "hours of audio"]
    yield markdown_table([*header, "minutes (since the last start)", "precision"], rows)


def _hours(run: Run) -> float:
    """Audio that a student heard in all stages."""
    return float(pd.read_csv(run.folder / "history.csv").groupby("stage").audio_h.max().sum())


def _markdown(table: pd.DataFrame, index: str | None) -> str:
    if index is not None:
        table = table.rename_axis(index).reset_index()
    return markdown_table(list(map(str, table.columns)), [[str(value) for value in row] for row in table.to_numpy()])
