"""QUESST 2014 (QbE): lists of languages, and the English audio they name."""

from __future__ import annotations

from pathlib import Path

from robustdistiller.eval.data.checks import Lines, Where, not_there
from robustdistiller.eval.data.plan import DIFFERS, OK, Input, Plan, Recipe, Roots
from robustdistiller.eval.tasks.parts import ScoringError
from robustdistiller.eval.tasks.scoring.qbe import read_ground_truth

LANGUAGE = "nnenglish"
WHERE = Where(
    ("scoring/language_key_utterances.lst",),
    "Audio/ dev_queries/ eval_queries/ scoring/",
    "no scoring/language_key_utterances.lst",
    "give quesst14Database, the folder that holds Audio, dev_queries, eval_queries and scoring",
)
#: What is listed to its list; the path begins with the name of the corpus's folder.
LISTS = {
    what: Lines(
        f"scoring/language_key_{name}.lst",
        r"(?:\S*?/)?(?P<path>\S+)\s+(?P<language>\S+)",
        "PATH LANGUAGE",
        "s3prl fails at such a line",
    )
    for what, name in {"documents": "utterances", "dev queries": "dev", "eval queries": "eval"}.items()
}


def _plan_qbe(plan: Plan, roots: Roots) -> None:
    folder = plan.find(roots["dataset_root"][0], WHERE)
    if folder is None:
        return
    for what, lines in zip(LISTS, plan.look(folder, *LISTS.values())):
        english = [line["path"] for line in lines or () if line["language"] == LANGUAGE]
        if lines is not None:
            plan.count(f"English {what}", len(english), None, "items")
            plan.listed(f"audio of the {what}", not_there(folder, english), len(english))
    for part in ("dev", "eval"):
        _look_at_ground_truth(plan, folder / "scoring" / f"groundtruth_quesst14_{part}")
    plan.set("dataset_root", folder)


def _look_at_ground_truth(plan: Plan, place: Path) -> None:
    try:
        queries = len(read_ground_truth(place).targets)
    except ScoringError as error:
        fix = "without it s3prl searches, and there is no MTWV"
        plan.note(place.name, "for scoring", str(error), DIFFERS, fix)
    else:
        plan.note(place.name, "for scoring", f"{queries} queries", OK)


QBE = Recipe((Input("dataset_root", "quesst14Database: Audio/ dev_queries/ eval_queries/ scoring/"),), _plan_qbe)
