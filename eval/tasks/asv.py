"""Speaker verification: VoxCeleb1."""

from collections.abc import Sequence
from typing import Any

from robustdistiller.eval.tasks import corpora
from robustdistiller.eval.tasks.base import Task
from robustdistiller.eval.tasks.parts import DataRoot, Metric, Rules, Submission, last_parts

_DATA = "config.downstream_expert.datarc"


def _count_trials(dataset: Any, _: Sequence[int]) -> int:
    return len(dataset.pair_table)


TASK = Task(
    code="ASV",
    title="speaker verification, VoxCeleb1",
    downstream="sv_voxceleb1",
    config="asv",
    metrics=(Metric("eer", "EER", higher_is_better=False, short="EER", points=(9.56, 5.11)),),
    roots=(
        DataRoot(f"{_DATA}.file_path", "{dev,test}/wav/idXXXXX/VIDEO/NNNNN.wav"),
        DataRoot(f"{_DATA}.dev_meta_data", "any trials: s3prl opens them, and scores none"),
        DataRoot(f"{_DATA}.test_meta_data", "the official trials: lines '1|0 PATH PATH'"),
    ),
    corpora=(corpora.VOXCELEB1,),
    data="robustdistiller.eval.data.voxceleb:ASV",
    rules=Rules(
        train="VoxCeleb1 dev, 1211 speakers, 8 s crops",
        dev="none",
        test="the official trials (VoxCeleb1-O)",
        score="equal error rate",
        chosen="of the checkpoints at every 20000 steps the best on the trials",
    ),
    packages={"librosa": "librosa", "sklearn": "scikit-learn", "joblib": "joblib"},
    needs_sox=True,
    random_crops=True,
    id_position=0,
    portable_id=last_parts,
    scored_in_pairs=True,
    trial_sides=True,
    count_items=_count_trials,
    best_of_every=20_000,
    item_counts={"test": 37_720},
    submission=Submission("sv_public", {"test_predict.txt": "predict.txt"}, metrics=("eer",)),
    note="a condition corrupts both sides of a trial, once per utterance, or with side=test the test side only",
)
