"""The rules of SUPERB's tasks: on what a head is trained, chosen and scored, and what a standard run may choose.

A run is standard when its configuration is the shipped one of `downstream_configs`, apart from the learning rate, from
paths, and from what changes speed but no result. `eval.tasks.rules` tells what else differs.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Protocol:
    """The rules of one task.

    Attributes:
        train, dev, test: what heads are trained on, chosen on and scored on.
        score: how the number is read.
        free: settings beyond `rules.FREE` that a standard run may choose.
        allowed: settings of which a standard run may take one of several values.
        files: names that the files given at a setting have in a standard run.
        free_arguments: command-line settings of s3prl that a standard run may choose.
        comparable: whether the numbers may stand beside SUPERB's.

    Example:
        >>> from robustdistiller.eval import tasks
        >>> tasks.get("ER").protocol.allowed["downstream_expert.datarc.test_fold"][:2]
        ('fold1', 'fold2')
    """

    train: str
    dev: str
    test: str
    score: str
    free: tuple[str, ...] = ()
    allowed: Mapping[str, tuple[Any, ...]] = field(default_factory=dict)
    files: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    free_arguments: tuple[str, ...] = ()
    comparable: bool = True


_BEST_ON_DEV = "the checkpoint that is best on dev, scored once on test"
_SECOND_RECIPE = "; s3prl's second recipe, which is not comparable with SUPERB's numbers"

KS = Protocol(
    train="Speech Commands v0.01, about 80 % by the corpus's own hash rule, ten words, unknown and silence",
    dev="10 % by the same rule, drawn with replacement to balance the classes",
    test="the official test set of twelve folders",
    score=f"accuracy; {_BEST_ON_DEV}",
)
IC = Protocol(
    train="train_data.csv",
    dev="valid_data.csv",
    test="test_data.csv",
    score=f"accuracy, right when action, object and location all are; {_BEST_ON_DEV}",
)
SID = Protocol(
    train="part 1 of the identification split, cropped to 8 s",
    dev="part 2",
    test="part 3, whole utterances",
    score=f"accuracy over 1251 speakers; {_BEST_ON_DEV}",
)
ER = Protocol(
    train="80 % of four sessions",
    dev="the other 20 % of them, drawn with a fixed seed",
    test="the fifth session",
    score=f"accuracy over four classes, the mean of the five folds; of each {_BEST_ON_DEV}",
    allowed={"downstream_expert.datarc.test_fold": ("fold1", "fold2", "fold3", "fold4", "fold5")},
    free_arguments=("downstream_variant",),
)
ASR = Protocol(
    train="train-clean-100",
    dev="dev-clean",
    test="test-clean (papers on robustness add test-other)",
    score=f"word error rate without a language model; {_BEST_ON_DEV}",
)
ASR_LM = Protocol(
    train="the head of ASR",
    dev="dev-clean",
    test="test-clean",
    score="word error rate of the ASR head, decoded with LibriSpeech's official 4-gram",
)
PR = Protocol(
    train="train-clean-100",
    dev="dev-clean",
    test="test-clean",
    score=f"phoneme error rate; {_BEST_ON_DEV}",
    files={
        "downstream_expert.corpus.lexicon": (
            "librispeech-lexicon-200k-g2p.txt",
            "librispeech-lexicon-allothers-g2p.txt",
        )
    },
)
SF = Protocol(
    train="eight voices",
    dev="four other voices, 700 other sentences",
    test="four other voices, 700 other sentences",
    score=f"F1 of slot types and character error rate of slot values; {_BEST_ON_DEV} (by F1)",
)
ASV = Protocol(
    train="VoxCeleb1 dev, 1211 speakers, 8 s crops",
    dev="none",
    test="the official trials (VoxCeleb1-O)",
    score="equal error rate; SUPERB saves a checkpoint every 20000 steps and reports the best of them on the trials",
)
SD = Protocol(
    train="Libri2Mix train-100, 16 kHz, max, mix_both",
    dev="dev",
    test="test",
    score="diarization error rate of turns made from the posteriors, as dscore computes it; s3prl's frame-level rate, "
    "by which the checkpoint is chosen, is another number",
    free=("downstream_expert.datarc.frame_shift",),  # s3prl notes the upstream's own here
)
QBE = Protocol(
    train="nothing",
    dev="dev queries: the layer is chosen on them",
    test="eval queries",
    score="maximum term weighted value, of the layer that is best on dev",
    free_arguments=("upstream_layer_selection",),
)
SE = Protocol(
    train="26 speakers of the 28-speaker training set",
    dev="speakers p226 and p287 of it",
    test="the test set",
    score=f"PESQ and STOI; {_BEST_ON_DEV}",
)
SE2 = Protocol(SE.train, SE.dev, SE.test, SE.score + _SECOND_RECIPE, comparable=False)
SS = Protocol(
    train="Libri2Mix train-100, 16 kHz, min, mix_clean",
    dev="1000 mixtures of dev, drawn with a fixed seed",
    test="test",
    score=f"SI-SDR improvement; {_BEST_ON_DEV}",
)
SS2 = Protocol(SS.train, "the 3000 mixtures of dev", SS.test, SS.score + _SECOND_RECIPE, comparable=False)
ST = Protocol(
    train="CoVoST 2 English-German train",
    dev="dev",
    test="test",
    score="case-sensitive detokenised BLEU; the checkpoint that is best on dev",
)
