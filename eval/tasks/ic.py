"""Intent classification: Fluent Speech Commands."""

from robustdistiller.eval.tasks import corpora
from robustdistiller.eval.tasks.base import Task
from robustdistiller.eval.tasks.parts import DataRoot, Metric, Rules, Submission

TASK = Task(
    code="IC",
    title="intent classification, Fluent Speech Commands",
    downstream="fluent_commands",
    config="ic",
    metrics=(Metric("accuracy", "acc", higher_is_better=True, short="acc", points=(9.649354219, 98.76)),),
    roots=(DataRoot("config.downstream_expert.datarc.file_path", "data/{train,valid,test}_data.csv and wavs/"),),
    corpora=(corpora.FLUENT_SPEECH_COMMANDS,),
    data="robustdistiller.eval.data.fluent_commands:IC",
    rules=Rules(
        train="train_data.csv",
        dev="valid_data.csv",
        test="test_data.csv",
        score="accuracy, right when action, object and location all are",
    ),
    packages={"pandas": "pandas"},
    pooled_head=True,
    speaker=r"speakers/([^/]+)/",
    item_counts={"test": 3793},
    submission=Submission("ic_public", {"test_predict.csv": "predict.csv"}, "test_truth.csv"),
)
