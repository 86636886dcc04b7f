"""Fluent Speech Commands (IC): three tables, and the audio they name."""

from __future__ import annotations

from robustdistiller.eval.data.checks import find, not_there
from robustdistiller.eval.data.plan import MISSING, UNPACK_AGAIN, Plan, Recipe, Roots
from robustdistiller.eval.tasks.corpora import FLUENT_SPEECH_COMMANDS

SLOTS = ("action", "object", "location")


def _plan_ic(plan: Plan, roots: Roots) -> None:
    import pandas as pd

    fix = "give fluent_speech_commands_dataset, the folder that holds data and wavs"
    expected = "data/{train,valid,test}_data.csv and wavs/"
    folder = find(plan, roots["file_path"][0], ["data/train_data.csv"], expected, fix)
    trained = None
    for split in ("train", "valid", "test"):
        name = f"data/{split}_data.csv"
        if not (folder / name).is_file():
            plan.note(name, "a table", "not there", MISSING, UNPACK_AGAIN)
            continue
        try:
            table = pd.read_csv(folder / name, dtype=str, keep_default_na=False)
        except ValueError as error:  # empty, no text, or lines of unequal length
            plan.note(name, "a table", f"none: {error}", MISSING, UNPACK_AGAIN)
            continue
        absent = [column for column in ("path", *SLOTS) if column not in table]
        fix = "take the table of the official archive"
        if plan.odd(name, f"columns path, {', '.join(SLOTS)}", absent, "no {names}", fix, most=len(absent)):
            continue
        plan.count(name, len(table), FLUENT_SPEECH_COMMANDS.counts[split], "utterances")
        plan.listed(f"audio of {split}", not_there(folder, table["path"]), len(table))
        if split == "train":
            trained = table
        for slot in SLOTS if trained is not None else ():
            unseen = sorted(set(table[slot]) - set(trained[slot]))
            fix = "s3prl takes its classes from the training table and fails at others"
            plan.odd(f"{slot} of {split}", "values of the training table", unseen, "{names}", fix)
    plan.set("file_path", folder)


IC = Recipe({"file_path": "fluent_speech_commands_dataset: data/{train,valid,test}_data.csv, wavs/"}, _plan_ic)
