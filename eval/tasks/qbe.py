"""Query by example: QUESST 2014, English; nothing is trained."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from robustdistiller.eval.tasks import corpora
from robustdistiller.eval.tasks.base import Task
from robustdistiller.eval.tasks.parts import DataRoot, Metric, OfficialScore, Rules, Submission


def _score(expert: Any, split: str, _: Sequence[str]) -> OfficialScore:
    from robustdistiller.eval.tasks.scoring import qbe

    part = "dev" if split == "dev" else "eval"  # as s3prl reads -t
    truth = qbe.read_ground_truth(Path(expert.datarc["dataset_root"]) / "scoring" / f"groundtruth_quesst14_{part}")
    scores = qbe.read_stdlist(Path(expert.expdir) / "benchmark.stdlist.xml")
    found = qbe.max_term_weighted_value(scores, truth)
    settings = {
        "threshold": found.threshold if math.isfinite(found.threshold) else None,
        "queries": found.queries,
        "queries_searched": found.searched,
        "beta": truth.beta,
        "default_score": qbe.DEFAULT_SCORE,
    }
    return OfficialScore("mtwv", found.value, "", settings)


TASK = Task(
    code="QbE",
    title="query by example, QUESST 2014 English",
    downstream="quesst14_dtw",
    config="qbe",
    metrics=(Metric("mtwv", None, higher_is_better=True, unit="", scale=1.0, short="MTWV", points=(0.0058, 0.0736)),),
    splits=("eval", "dev"),
    roots=(DataRoot("config.downstream_expert.datarc.dataset_root", "Audio/ dev_queries/ eval_queries/ scoring/"),),
    corpora=(corpora.QUESST14,),
    data="robustdistiller.eval.data.quesst14:QBE",
    rules=Rules(
        train="nothing",
        dev="dev queries: the layer is chosen on them",
        test="eval queries",
        score="maximum term weighted value",
        chosen="the layer that is best on dev",
    ),
    packages={"dtw": "dtw-python", "lxml": "lxml"},
    needs_sox=True,
    id_position=0,
    scored_in_pairs=True,
    score=_score,
    trainable=False,
    submission=Submission("qbe_public", {"benchmark.stdlist.xml": "benchmark.stdlist.xml"}, metrics=("mtwv",)),
    note="MTWV needs the corpus' scoring/groundtruth_quesst14_* folders; choose the layer (-l) on dev",
)
