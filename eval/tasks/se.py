"""Speech enhancement: VoiceBank-DEMAND, by SUPERB's recipe and by s3prl's second one."""

from dataclasses import replace

from robustdistiller.eval.tasks import corpora
from robustdistiller.eval.tasks.base import Task
from robustdistiller.eval.tasks.parts import Metric, Rules, Submission, split_folders

PACKAGES = {"librosa": "librosa", "h5py": "h5py", "pesq": "pesq", "pystoi": "pystoi"}
SI_SDR_IMPROVEMENT = Metric(
    "si_sdr_improvement", "si_sdr", higher_is_better=True, unit="dB", scale=1.0, short="SI-SDRi"
)

SE = Task(
    code="SE",
    title="speech enhancement, VoiceBank-DEMAND",
    downstream="enhancement_stft",
    config="se",
    metrics=(
        Metric("pesq", "pesq", higher_is_better=True, unit="", scale=1.0, short="PESQ", points=(2.55, 2.64)),
        Metric("stoi", "stoi", higher_is_better=True, short="STOI", points=(93.6, 94.2)),
        SI_SDR_IMPROVEMENT,
    ),
    roots=split_folders("folder with noisy/wav.scp and clean/wav.scp"),
    corpora=(corpora.VOICEBANK_DEMAND,),
    data="robustdistiller.eval.data.voicebank:SE",
    rules=Rules(
        train="26 speakers of the 28-speaker training set",
        dev="speakers p226 and p287 of it",
        test="the test set",
        score="PESQ and STOI",
    ),
    packages=PACKAGES,
    corruption="mixture",
    id_position=0,
    speaker=r"(p\d+)_",
    item_counts={"test": 824},
    submission=Submission("se_public", {"test_metrics.txt": "metrics.txt"}, metrics=("pesq", "stoi")),
)
SE2 = replace(
    SE,
    code="SE2",
    title="speech enhancement, VoiceBank-DEMAND (second recipe)",
    downstream="enhancement_stft2",
    config="se2",
    metrics=tuple(replace(metric, points=None) for metric in SE.metrics),
    rules=replace(SE.rules, not_superb="s3prl's second recipe, not SUPERB's"),
    submission=None,
)
