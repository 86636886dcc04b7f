"""QUESST 2014 (QbE): lists of languages, and the English audio they name."""

from __future__ import annotations

from robustdistiller.eval.data.checks import find, not_there, read_lines
from robustdistiller.eval.data.plan import DIFFERS, OK, Plan, Recipe, Roots
from robustdistiller.eval.tasks.parts import ScoringError
from robustdistiller.eval.tasks.scoring.qbe import read_ground_truth

LANGUAGE = "nnenglish"
#: What is listed to its list.
LISTS = {"documents": "utterances", "dev queries": "dev", "eval queries": "eval"}
_FORM = r"(?:\S*?/)?(?P<path>\S+)\s+(?P<language>\S+)"  # the path begins with the name of the corpus's folder
_LAYOUT = "Audio/ dev_queries/ eval_queries/ scoring/"


def _plan_qbe(plan: Plan, roots: Roots) -> None:
    fix = "give quesst14Database, the folder that holds Audio, dev_queries, eval_queries and scoring"
    folder = find(plan, roots["dataset_root"][0], ["scoring/language_key_utterances.lst"], _LAYOUT, fix)
    for what, name in LISTS.items():
        file = folder / "scoring" / f"language_key_{name}.lst"
        lines = read_lines(plan, file, _FORM, "PATH LANGUAGE", "s3prl fails at such a line")
        if lines is not None:
            english = [line["path"] for line in lines if line["language"] == LANGUAGE]
            plan.count(f"English {what}", len(english), None, "items")
            plan.listed(f"audio of the {what}", not_there(folder, english), len(english))
    for place in (folder / "scoring" / f"groundtruth_quesst14_{part}" for part in ("dev", "eval")):
        try:
            found, state, fix = f"{len(read_ground_truth(place).targets)} queries", OK, ""
        except ScoringError as error:
            found, state, fix = str(error), DIFFERS, "without it s3prl searches, and there is no MTWV"
        plan.note(place.name, "for scoring", found, state, fix)
    plan.set("dataset_root", folder)


QBE = Recipe({"dataset_root": f"quesst14Database: {_LAYOUT}"}, _plan_qbe)
