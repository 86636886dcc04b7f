"""QUESST 2014 (QbE): lists of languages, and the English audio they name."""

from __future__ import annotations

import re
from pathlib import Path

from robustdistiller.eval.data.looking import lines_of, locate, not_there
from robustdistiller.eval.data.plan import DIFFERS, MISSING, OK, Input, Plan, Recipe, Roots
from robustdistiller.eval.tasks import Task
from robustdistiller.eval.tasks.scoring.qbe import read_ground_truth
from robustdistiller.eval.tasks.scoring.reasons import ScoringError

LANGUAGE = "nnenglish"
LISTS = {"documents": "utterances", "dev queries": "dev", "eval queries": "eval"}


def plan_qbe(task: Task, roots: Roots, out: Path) -> Plan:
    """Plan of QbE: nothing is made.

    Example:
        >>> from robustdistiller.eval import tasks
        >>> plan_qbe(tasks.get("QbE"), {"dataset_root": [Path("nowhere")]}, Path("out")).ok
        False
    """
    plan = Plan(task, out)
    given = roots["dataset_root"][0]
    folder = locate(given, ["scoring/language_key_utterances.lst"])
    if folder is None:
        found = "no such folder" if not given.is_dir() else "no scoring/language_key_utterances.lst"
        fix = "give quesst14Database, the folder that holds Audio, dev_queries, eval_queries and scoring"
        plan.note(str(given), "Audio/ dev_queries/ eval_queries/ scoring/", found, MISSING, fix)
        return plan
    for what, name in LISTS.items():
        file = folder / "scoring" / f"language_key_{name}.lst"
        if not file.is_file():
            plan.note(file.name, "lines 'PATH LANGUAGE'", "not there", MISSING, "unpack the archive again")
            continue
        parts = [line.split() for line in lines_of(file)]
        odd = [" ".join(one) for one in parts if len(one) != 2]
        if odd:
            plan.note(file.name, "lines 'PATH LANGUAGE'", repr(odd[0]), MISSING, "s3prl fails at such a line")
            continue
        english = [re.sub(r"^.*?/", "", path) for path, language in parts if language == LANGUAGE]
        plan.count(f"English {what}", len(english), None, "items")
        plan.absent(f"audio of the {what}", not_there(folder, english), len(english), "unpack the archive again")
    for part in ("dev", "eval"):
        _look_at_ground_truth(plan, folder / "scoring" / f"groundtruth_quesst14_{part}")
    plan.set("dataset_root", folder)
    return plan


def _look_at_ground_truth(plan: Plan, folder: Path) -> None:
    try:
        truth = read_ground_truth(folder)
    except ScoringError as error:
        plan.note(folder.name, "for scoring", str(error), DIFFERS, "without it s3prl searches, and there is no MTWV")
    else:
        plan.note(folder.name, "for scoring", f"{len(truth.targets)} queries", OK)


QBE = Recipe((Input("dataset_root", "quesst14Database: Audio/ dev_queries/ eval_queries/ scoring/"),), plan_qbe)
