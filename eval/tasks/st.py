"""Speech translation: CoVoST 2, English to German."""

from robustdistiller.eval.tasks import corpora
from robustdistiller.eval.tasks.base import Task
from robustdistiller.eval.tasks.parts import DataRoot, Metric, Rules

TASK = Task(
    code="ST",
    title="speech translation, CoVoST 2 English-German",
    downstream="speech_translation",
    config="st",
    metrics=(Metric("bleu", "bleu", higher_is_better=True, unit="", scale=1.0, short="BLEU", points=(2.32, 20.01)),),
    roots=(
        DataRoot(
            "config.downstream_expert.taskrc.data", "prepared CoVoST: {train,dev,test}.tsv, config.yaml, spm model"
        ),
    ),
    corpora=(corpora.COVOST2,),
    data="robustdistiller.eval.data.covost:ST",
    rules=Rules(
        train="CoVoST 2 English-German train",
        dev="dev",
        test="test",
        score="case-sensitive detokenised BLEU",
    ),
    packages={
        "fairseq": "fairseq-fixed",
        "sentencepiece": "sentencepiece",
        "sacrebleu": "sacrebleu",
        "editdistance": "editdistance",
    },
    corruption="none",
    note="s3prl leaves translations to fairseq, which it needs; give its output-st-test.tsv to the website by hand",
)
