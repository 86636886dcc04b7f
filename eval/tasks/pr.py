"""Phoneme recognition: LibriSpeech."""

from collections.abc import Mapping, Sequence
from typing import Any

from robustdistiller.eval.tasks import corpora
from robustdistiller.eval.tasks.base import Task
from robustdistiller.eval.tasks.parts import DataRoot, Metric, Rules, Submission, edit_errors


def _items(kept: Mapping[str, Any]) -> dict[str, tuple[Sequence[float], Sequence[float]]]:
    sides = zip(kept["hypothesis"], kept["groundtruth"])
    return {"per": edit_errors((said.split(" "), meant.split(" ")) for said, meant in sides)}


TASK = Task(
    code="PR",
    title="phoneme recognition, LibriSpeech",
    downstream="ctc",
    config="pr",
    metrics=(Metric("per", "per", higher_is_better=False, short="PER", points=(82.01, 3.53)),),
    roots=(
        DataRoot("config.downstream_expert.corpus.path", "LibriSpeech: SPLIT/SPEAKER/CHAPTER/*.flac and *.trans.txt"),
        DataRoot("config.downstream_expert.corpus.lexicon", "files of lines 'WORD PH PH ...'", is_list=True),
    ),
    corpora=(corpora.LIBRISPEECH, corpora.LIBRISPEECH_LEXICA),
    data="robustdistiller.eval.data.pronunciations:PR",
    rules=Rules(
        train="train-clean-100",
        dev="dev-clean",
        test="test-clean",
        score="phoneme error rate",
        files={
            "downstream_expert.corpus.lexicon": (
                "librispeech-lexicon-200k-g2p.txt",
                "librispeech-lexicon-allothers-g2p.txt",
            )
        },
    ),
    packages={"editdistance": "editdistance"},
    told_by=("downstream_expert.corpus.name", "libriphone"),
    items=_items,
    speaker=r"(\d+)-\d+-\d+",
    item_counts={"test": 2620},
    submission=Submission("pr_public", {"test-hyp.ark": "predict.ark"}, "test-ref.ark", metrics=("per",)),
)
