"""CoVoST 2 (ST): what is needed, and that this project has not run it."""

from __future__ import annotations

from robustdistiller.eval.data.checks import find
from robustdistiller.eval.data.plan import DIFFERS, MISSING, OK, Plan, Recipe, Roots

FILES = ("train.tsv", "dev.tsv", "test.tsv", "config.yaml", "spm-src_text.model", "spm-src_text.txt")
_MAKE = (
    "made by s3prl/downstream/speech_translation/prepare_data/prepare_covo.sh of s3prl's repository, with fairseq "
    "(pip install fairseq-fixed), sentencepiece and Common Voice 4"
)


def _plan_st(plan: Plan, roots: Roots) -> None:
    found = "this task has not been run with this package; its data is not made here"
    plan.note("ST", "fairseq, sentencepiece, sacrebleu", found, DIFFERS, "robustdistiller doctor says what is missing")
    folder = find(plan, roots["data"][0], FILES, ", ".join(FILES), _MAKE)
    for name in FILES:
        found, state, fix = ("there", OK, "") if (folder / name).is_file() else ("not there", MISSING, _MAKE)
        plan.note(name, "a file", found, state, fix)
    plan.set("data", folder)


ST = Recipe({"data": "the prepared folder: {train,dev,test}.tsv, config.yaml, sentencepiece model"}, _plan_st)
