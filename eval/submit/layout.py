"""What SUPERB's website reads, task by task: folder and file names below ``predict/`` in a zip archive.

Sources: s3prl's ``submit/submit.py`` (at 3fabd0e, which packs the frame shift of diarization; earlier ones lost it, and
the website then scores at 160 samples) and the website's ``backend/calculate.py``, which reads what is unpacked.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

ROOT = "predict"


@dataclass(frozen=True)
class Part:
    """One task of the archive.

    Attributes:
        folder: below ``predict/``; ``{fold}`` stands for the test fold.
        files: file in the experiment's folder to file in `folder`; a name that ends in ``/`` is a folder of files.
        truth: file of the experiment's folder with the right answers, where s3prl writes one.
        metrics: what the website computes.

    Example:
        >>> PARTS["ER"].folder.format(fold="fold2")
        'er_fold2_public'
    """

    folder: str
    files: Mapping[str, str]
    truth: str = ""
    metrics: tuple[str, ...] = ("accuracy",)


PARTS: Mapping[str, Part] = {
    "PR": Part("pr_public", {"test-hyp.ark": "predict.ark"}, "test-ref.ark", ("per",)),
    "SID": Part("sid_public", {"test_predict.txt": "predict.txt"}, "test_truth.txt"),
    "KS": Part("ks_public", {"test_predict.txt": "predict.txt"}, "test_truth.txt"),
    "IC": Part("ic_public", {"test_predict.csv": "predict.csv"}, "test_truth.csv"),
    "ER": Part("er_{fold}_public", {"test_{fold}_predict.txt": "predict.txt"}, "test_{fold}_truth.txt"),
    "ASR": Part("asr_public", {"test-clean-noLM-hyp.ark": "predict.ark"}, "test-clean-noLM-ref.ark", ("wer",)),
    "ASR-LM": Part("asr_lm_public", {"test-clean-LM-hyp.ark": "predict.ark"}, "test-clean-LM-ref.ark", ("wer",)),
    "QbE": Part("qbe_public", {"benchmark.stdlist.xml": "benchmark.stdlist.xml"}, metrics=("mtwv",)),
    "SF": Part(
        *("sf_public", {"test-hyp.ark": "predict.ark"}, "test-ref.ark"), metrics=("slot_type_f1", "slot_value_cer")
    ),
    "ASV": Part("sv_public", {"test_predict.txt": "predict.txt"}, metrics=("eer",)),
    "SD": Part(
        "sd_public",
        {"scoring/predictions/": "scoring/predictions/", "frame_shift": "frame_shift"},
        metrics=("der",),
    ),
    "SE": Part("se_public", {"test_metrics.txt": "metrics.txt"}, metrics=("pesq", "stoi")),
    "SS": Part("ss_public", {"test_metrics.txt": "metrics.txt"}, metrics=("si_sdr_improvement",)),
}
#: Tasks of this package that the archive has no place for, or that are not packed, and why.
NOT_PACKED: Mapping[str, str] = {
    "SE2": "the second recipe of enhancement is not SUPERB's",
    "SS2": "the second recipe of separation is not SUPERB's",
    "ST": "s3prl leaves translations to fairseq; give its output-st-test.tsv to the website by hand",
}
