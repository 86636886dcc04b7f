"""Emotion recognition: IEMOCAP, five folds."""

from robustdistiller.eval.tasks import corpora
from robustdistiller.eval.tasks.base import Task
from robustdistiller.eval.tasks.parts import DataRoot, Metric, Rules, Submission

FOLDS = ("fold1", "fold2", "fold3", "fold4", "fold5")

TASK = Task(
    code="ER",
    title="emotion recognition, IEMOCAP",
    downstream="emotion",
    config="er",
    metrics=(Metric("accuracy", "acc", higher_is_better=True, short="acc", points=(48.23672168, 67.62)),),
    roots=(
        DataRoot("config.downstream_expert.datarc.root", "Session{1..5}/sentences/wav/DIALOG/UTTERANCE.wav"),
        DataRoot(
            "config.downstream_expert.datarc.meta_data",
            "Session{1..5}/{train,test}_meta_data.json, made by: robustdistiller prepare ER ROOT",
        ),
    ),
    corpora=(corpora.IEMOCAP,),
    data="robustdistiller.eval.data.iemocap:ER",
    rules=Rules(
        train="80 % of four sessions",
        dev="the other 20 % of them, drawn with a fixed seed",
        test="the fifth session",
        score="accuracy over four classes, the mean of the five folds",
    ),
    pooled_head=True,
    speaker=r"(Ses\d\d)[FM]_\w+_([FM])\d+",
    item_counts={"test": 5531},
    folds=FOLDS,
    fold_key="config.downstream_expert.datarc.test_fold",
    submission=Submission("er_{fold}_public", {"test_{fold}_predict.txt": "predict.txt"}, "test_{fold}_truth.txt"),
    note="each run scores one fold; SUPERB reports the mean over five (datarc.test_fold=fold1..fold5)",
)
