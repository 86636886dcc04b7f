"""Source separation: Libri2Mix, by SUPERB's recipe and by s3prl's second one."""

from dataclasses import replace

from robustdistiller.eval.tasks import corpora
from robustdistiller.eval.tasks.base import Task
from robustdistiller.eval.tasks.parts import Rules, Submission, split_folders
from robustdistiller.eval.tasks.se import PACKAGES, SI_SDR_IMPROVEMENT

SS = Task(
    code="SS",
    title="source separation, Libri2Mix",
    downstream="separation_stft",
    config="ss",
    metrics=(replace(SI_SDR_IMPROVEMENT, points=(9.2341, 10.4514)),),
    roots=split_folders("folder with mix_clean/wav.scp, s1/wav.scp and s2/wav.scp"),
    corpora=(corpora.LIBRI2MIX,),
    data="robustdistiller.eval.data.librimix:SS",
    rules=Rules(
        train="Libri2Mix train-100, 16 kHz, min, mix_clean",
        dev="1000 mixtures of dev, drawn with a fixed seed",
        test="test",
        score="SI-SDR improvement",
    ),
    packages=PACKAGES,
    corruption="mixture",
    id_position=0,
    item_counts={"test": 3000},
    submission=Submission("ss_public", {"test_metrics.txt": "metrics.txt"}, metrics=("si_sdr_improvement",)),
)
SS2 = replace(
    SS,
    code="SS2",
    title="source separation, Libri2Mix (second recipe)",
    downstream="separation_stft2",
    config="ss2",
    metrics=tuple(replace(metric, points=None) for metric in SS.metrics),
    data="robustdistiller.eval.data.librimix:SS2",
    rules=replace(SS.rules, dev="the 3000 mixtures of dev", not_superb="s3prl's second recipe, not SUPERB's"),
    submission=None,
)
