"""Fluent Speech Commands (IC): three tables, and the audio they name."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from robustdistiller.eval.data.looking import locate, not_there
from robustdistiller.eval.data.plan import MISSING, Input, Plan, Recipe, Roots, named
from robustdistiller.eval.tasks import Task
from robustdistiller.eval.tasks.corpora import FLUENT_SPEECH_COMMANDS

SLOTS = ("action", "object", "location")


def plan_ic(task: Task, roots: Roots, out: Path) -> Plan:
    """Plan of IC: nothing is made.

    Example:
        >>> from robustdistiller.eval import tasks
        >>> plan_ic(tasks.get("IC"), {"file_path": [Path("nowhere")]}, Path("out")).findings[0].state
        'missing'
    """
    plan = Plan(task, out)
    given = roots["file_path"][0]
    folder = locate(given, ["data/train_data.csv"])
    if folder is None:
        found = "no such folder" if not given.is_dir() else "no data/train_data.csv"
        fix = "give fluent_speech_commands_dataset, the folder that holds data and wavs"
        plan.note(str(given), "data/{train,valid,test}_data.csv and wavs/", found, MISSING, fix)
        return plan
    tables = {split: _look_at_table(plan, folder, split) for split in ("train", "valid", "test")}
    _look_at_intents(plan, tables)
    plan.set("file_path", folder)
    return plan


def _look_at_table(plan: Plan, folder: Path, split: str) -> pd.DataFrame | None:
    name = f"data/{split}_data.csv"
    if not (folder / name).is_file():
        plan.note(name, "a table", "not there", MISSING, "unpack the archive again")
        return None
    table = pd.read_csv(folder / name)
    absent = [column for column in ("path", *SLOTS) if column not in table.columns]
    if absent:
        found = f"no {', '.join(absent)}"
        plan.note(name, f"columns path, {', '.join(SLOTS)}", found, MISSING, "take the table of the official archive")
        return None
    plan.count(name, len(table), FLUENT_SPEECH_COMMANDS.counts[split], "utterances")
    missing = not_there(folder, table["path"])
    plan.absent(f"audio of {split}", missing, len(table), "unpack the archive again")
    return table


def _look_at_intents(plan: Plan, tables: dict[str, pd.DataFrame | None]) -> None:
    train = tables["train"]
    for split in ("valid", "test"):
        table = tables[split]
        if train is None or table is None:
            continue
        for slot in SLOTS:
            unseen = sorted(set(map(str, table[slot])) - set(map(str, train[slot])))
            if unseen:
                fix = "s3prl takes its classes from the training table and fails at others"
                plan.note(f"{slot} of {split}", "values of the training table", named(unseen), MISSING, fix)


IC = Recipe((Input("file_path", "fluent_speech_commands_dataset: data/{train,valid,test}_data.csv, wavs/"),), plan_ic)
