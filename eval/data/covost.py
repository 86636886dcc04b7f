"""CoVoST 2 (ST): what is needed, and that this project has not run it."""

from __future__ import annotations

from pathlib import Path

from robustdistiller.eval.data.looking import locate
from robustdistiller.eval.data.plan import DIFFERS, MISSING, OK, Input, Plan, Recipe, Roots
from robustdistiller.eval.tasks import Task

FILES = ("train.tsv", "dev.tsv", "test.tsv", "config.yaml", "spm-src_text.model", "spm-src_text.txt")
_MAKE = (
    "made by s3prl/downstream/speech_translation/prepare_data/prepare_covo.sh of s3prl's repository, with fairseq "
    "(pip install fairseq-fixed), sentencepiece and Common Voice 4"
)


def plan_st(task: Task, roots: Roots, out: Path) -> Plan:
    """Plan of ST: nothing is made here, fairseq's tools have to.

    Example:
        >>> from robustdistiller.eval import tasks
        >>> plan_st(tasks.get("ST"), {"data": [Path("nowhere")]}, Path("out")).findings[0].found.split(";")[0]
        'this task has not been run with this package'
    """
    plan = Plan(task, out)
    found = "this task has not been run with this package; its data is not made here"
    plan.note("ST", "fairseq, sentencepiece, sacrebleu", found, DIFFERS, "robustdistiller doctor says what is missing")
    given = roots["data"][0]
    folder = locate(given, FILES)
    if folder is None:
        state = "no such folder" if not given.is_dir() else "none of these files"
        plan.note(str(given), ", ".join(FILES), state, MISSING, _MAKE)
        return plan
    for name in FILES:
        there = (folder / name).is_file()
        plan.note(name, "a file", "there" if there else "not there", OK if there else MISSING, "" if there else _MAKE)
    plan.set("data", folder)
    return plan


ST = Recipe((Input("data", "the prepared folder: {train,dev,test}.tsv, config.yaml, sentencepiece model"),), plan_st)
