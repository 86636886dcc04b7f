"""Fluent Speech Commands (IC): three tables, and the audio they name."""

from __future__ import annotations

from robustdistiller.eval.data.checks import Table, Where
from robustdistiller.eval.data.plan import Input, Plan, Recipe, Roots
from robustdistiller.eval.tasks.corpora import FLUENT_SPEECH_COMMANDS

SLOTS = ("action", "object", "location")
WHERE = Where(
    ("data/train_data.csv",),
    "data/{train,valid,test}_data.csv and wavs/",
    "no data/train_data.csv",
    "give fluent_speech_commands_dataset, the folder that holds data and wavs",
)
TABLES = {
    split: Table(f"data/{split}_data.csv", ("path", *SLOTS), FLUENT_SPEECH_COMMANDS.counts[split], f"audio of {split}")
    for split in ("train", "valid", "test")
}


def _plan_ic(plan: Plan, roots: Roots) -> None:
    folder = plan.find(roots["file_path"][0], WHERE)
    if folder is None:
        return
    train, *others = plan.look(folder, *TABLES.values())
    fix = "s3prl takes its classes from the training table and fails at others"
    for split, table in zip(("valid", "test"), others):
        for slot in SLOTS if train is not None and table is not None else ():
            unseen = sorted(set(map(str, table[slot])) - set(map(str, train[slot])))
            plan.odd(f"{slot} of {split}", "values of the training table", unseen, "{names}", fix)
    plan.set("file_path", folder)


IC = Recipe((Input("file_path", "fluent_speech_commands_dataset: data/{train,valid,test}_data.csv, wavs/"),), _plan_ic)
