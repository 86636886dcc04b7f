"""Speaker identification: VoxCeleb1."""

from robustdistiller.eval.tasks import corpora
from robustdistiller.eval.tasks.base import Task
from robustdistiller.eval.tasks.parts import DataRoot, Metric, Rules, Submission

TASK = Task(
    code="SID",
    title="speaker identification, VoxCeleb1",
    downstream="voxceleb1",
    config="sid",
    metrics=(Metric("accuracy", "acc", higher_is_better=True, short="acc", points=(20.058174, 90.3)),),
    roots=(
        DataRoot("config.downstream_expert.datarc.file_path", "{dev,test}/wav/idXXXXX/VIDEO/NNNNN.wav"),
        DataRoot("config.downstream_expert.datarc.meta_data", "the split list: lines '1|2|3 idXXXXX/VIDEO/NNNNN.wav'"),
    ),
    corpora=(corpora.VOXCELEB1,),
    data="robustdistiller.eval.data.voxceleb:SID",
    rules=Rules(
        train="part 1 of the identification split, cropped to 8 s",
        dev="part 2",
        test="part 3, whole utterances",
        score="accuracy over 1251 speakers",
    ),
    packages={"librosa": "librosa"},
    pooled_head=True,
    random_crops=True,
    speaker=r"(id\d{5})",
    item_counts={"test": 8251},
    submission=Submission("sid_public", {"test_predict.txt": "predict.txt"}, "test_truth.txt"),
)
