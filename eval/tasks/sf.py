"""Slot filling: Audio SNIPS."""

from collections.abc import Mapping, Sequence
from typing import Any

from robustdistiller.eval.tasks import corpora
from robustdistiller.eval.tasks.base import Task
from robustdistiller.eval.tasks.parts import DataRoot, Metric, Rules, Submission


def _items(kept: Mapping[str, Any]) -> dict[str, tuple[Sequence[float], Sequence[float]]]:
    """The CER of slot values counts other slots than utterances: there is none of single utterances."""
    from s3prl.downstream.ctc.metric import slot_type_f1

    f1 = [float(slot_type_f1([said], [meant])) for said, meant in zip(kept["hypothesis"], kept["groundtruth"])]
    return {"slot_type_f1": (f1, [1] * len(f1))}


TASK = Task(
    code="SF",
    title="slot filling, Audio SNIPS",
    downstream="ctc",
    config="sf",
    metrics=(
        Metric("slot_type_f1", "slot_type_f1", higher_is_better=True, short="F1", points=(69.64, 89.81)),
        Metric("slot_value_cer", "slot_value_cer", higher_is_better=False, short="CER", points=(52.94, 21.76)),
    ),
    roots=(
        DataRoot("config.downstream_expert.corpus.path", "{train,valid,test}/SPEAKER-*.wav and all.iob.snips.txt"),
        DataRoot("config.downstream_expert.text.slots_file", "Audio SNIPS' slots.txt"),
    ),
    corpora=(corpora.AUDIO_SNIPS,),
    data="robustdistiller.eval.data.snips:SF",
    rules=Rules(
        train="eight voices",
        dev="four other voices, 700 other sentences",
        test="four other voices, 700 other sentences",
        score="F1 of slot types, by which the checkpoint is chosen, and character error rate of slot values",
    ),
    packages={"editdistance": "editdistance"},
    told_by=("downstream_expert.corpus.name", "snips"),
    items=_items,
    speaker=r"([A-Z][a-z]+)-",
    item_counts={"test": 2800},
    submission=Submission(
        "sf_public", {"test-hyp.ark": "predict.ark"}, "test-ref.ark", metrics=("slot_type_f1", "slot_value_cer")
    ),
)
