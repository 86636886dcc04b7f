"""Keyword spotting: Speech Commands."""

from robustdistiller.eval.tasks import corpora
from robustdistiller.eval.tasks.base import Task
from robustdistiller.eval.tasks.parts import DataRoot, Metric, Rules, Submission

TASK = Task(
    code="KS",
    title="keyword spotting, Speech Commands",
    downstream="speech_commands",
    config="ks",
    metrics=(Metric("accuracy", "acc", higher_is_better=True, short="acc", points=(41.3826674, 96.66)),),
    roots=(
        DataRoot("config.downstream_expert.datarc.speech_commands_root", "WORD/HASH_nohash_N.wav, _background_noise_/"),
        DataRoot("config.downstream_expert.datarc.speech_commands_test_root", "the test set's twelve class folders"),
    ),
    corpora=(corpora.SPEECH_COMMANDS,),
    data="robustdistiller.eval.data.speech_commands:KS",
    rules=Rules(
        train="Speech Commands v0.01, about 80 % by the corpus's own hash rule, ten words, unknown and silence",
        dev="10 % by the same rule, drawn with replacement to balance the classes",
        test="the official test set of twelve folders",
    ),
    pooled_head=True,
    random_crops=True,
    speaker=r"([0-9a-f]{8})_nohash_",
    item_counts={"test": 3081},
    submission=Submission("ks_public", {"test_predict.txt": "predict.txt"}, "test_truth.txt"),
    note="files that are not at 16 kHz need sox; the official ones are",
)
