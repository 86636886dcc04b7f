"""Scores of a task from the files of the archive alone, by the rules of SUPERB's website.

The website (``backend/calculate.py`` and ``inference/metric.py`` of superbbenchmark/website-react) reads predictions
and its own truth as tables of name and value, compares what the predictions name, and knows nothing of s3prl. Here the
truth is what s3prl wrote at the evaluation, or the corpus.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np

from robustdistiller.eval.submit.experiments import Experiment, SubmissionError
from robustdistiller.eval.tasks import ScoringError
from robustdistiller.eval.tasks.parts import text_of
from robustdistiller.eval.tasks.scoring import diarization, qbe

#: The website's, where no frame shift was packed.
DEFAULT_FRAME_SHIFT = 160
_TRIALS = "downstream_expert.datarc.test_meta_data"
_KALDI = "downstream_expert.loaderrc.test_dir"
_QUESST = "downstream_expert.datarc.dataset_root"


def rescore(packed: Path, experiment: Experiment, truth: Path | None = None) -> dict[str, float]:
    """Score one task from its folder of the unpacked archive.

    Args:
        packed: the task's folder, e.g. ``predict/ks_public``.
        experiment: where the right answers are.
        truth: of ASV the list of trials, of SD the Kaldi folder or its rttm, of QbE the corpus; default: where the
            evaluation read it.

    Returns:
        Metric to value, as in records (rates in per cent).

    Raises:
        SubmissionError: a file is missing or names what the truth does not.
    """
    record = experiment.record
    try:
        part = experiment.part
        if part.metrics[0] in _SPECIAL:
            return _SPECIAL[part.metrics[0]](packed, experiment, truth)
        predictions = _only_file(packed)
        answers = experiment.folder / part.truth.format(fold=record.fold)
        separator = "," if predictions.suffix == ".csv" else " "
        said, meant = read_table(predictions, separator), read_table(answers, separator)
        unknown = [name for name in said if name not in meant]
        if unknown:
            raise SubmissionError(f"{answers} has no answer for {unknown[0]!r}, which {predictions.name} names")
        if len(said) != record.items_scored:
            raise SubmissionError(
                f"{predictions.name} names {len(said)} different items and {record.items_scored} were scored: either "
                "names repeat, of which the website keeps the last, or the file is of another evaluation"
            )
        pairs = [(said[name], meant[name]) for name in sorted(said)]
        return {metric: 100.0 * _rate(metric, *zip(*pairs)) for metric in part.metrics}
    except (ScoringError, OSError) as error:
        raise SubmissionError(str(error)) from error


def read_table(path: Path, separator: str = " ") -> dict[str, str]:
    """Name to value, one pair a line, as the website reads it: of a name that repeats the last value."""
    found = {}
    for line in text_of(path).splitlines():
        name, _, value = line.strip().partition(separator)
        found[name] = value.strip() if separator == " " else value
    return found


def _only_file(folder: Path) -> Path:
    files = sorted(folder.iterdir())
    if len(files) != 1:
        raise SubmissionError(f"{folder.name} must hold one file, found {len(files)}")
    return files[0]


def _rate(metric: str, said: tuple[str, ...], meant: tuple[str, ...]) -> float:
    if metric == "accuracy":
        return float(np.mean([a == b for a, b in zip(said, meant)]))
    from s3prl.downstream.ctc import metric as s3prl

    return getattr(s3prl, "wer" if metric == "per" else metric)(said, meant)


def _given(experiment: Experiment, key: str, truth: Path | None, what: str) -> Path:
    """Where the right answers are."""
    path = truth or experiment.setting(key)
    if path and Path(path).exists():
        return Path(path)
    where = f"{path} is not there" if path else f"the run's configuration in {experiment.folder} does not say where"
    raise SubmissionError(
        f"{what} is needed to score {experiment.title} again: {where}; give --truth {experiment.record.task}=PATH"
    )


def _verification(packed: Path, experiment: Experiment, truth: Path | None) -> dict[str, float]:
    """Equal error rate. s3prl leaves its file of right answers empty, so they come from the trials."""
    from s3prl.downstream.sv_voxceleb1.utils import EER

    def name(path: str) -> str:  # of a file, as s3prl's expert makes it
        return "-".join(path.split("/")[-3:]).split(".")[0]

    trials = _given(experiment, _TRIALS, truth, "the list of trials")
    meant = {}
    for number, line in enumerate(text_of(trials).splitlines(), start=1):
        label, *pair = line.split() or [""]
        if len(pair) == 2 and label in ("0", "1"):
            meant[f"{name(pair[0])}_{name(pair[1])}"] = int(label)
        elif line.strip():
            raise SubmissionError(f"{trials}, line {number}: expected '1|0 PATH PATH', found {line!r}")
    said = read_table(_only_file(packed))
    if set(said) != set(meant):
        odd = sorted(set(said) ^ set(meant))[0]
        raise SubmissionError(f"{trials} and {packed.name} are not of the same trials, e.g. {odd}")
    scores = np.array([float(said[pair]) for pair in sorted(said)])
    return {"eer": 100.0 * EER(np.array([meant[pair] for pair in sorted(said)]), scores)[0]}


def _diarization(packed: Path, experiment: Experiment, truth: Path | None) -> dict[str, float]:
    folder = _given(experiment, _KALDI, truth, "the test folder with rttm")
    reference = diarization.read_rttm(folder) if folder.is_file() else diarization.read_reference(folder)[0]
    predictions = packed / "scoring" / "predictions"
    posteriors = diarization.read_posteriors(predictions, sorted(path.stem for path in predictions.glob("*.h5")))
    shift = packed / "frame_shift"
    stated = text_of(shift).strip() if shift.is_file() else str(DEFAULT_FRAME_SHIFT)
    if not stated.isdecimal():
        raise SubmissionError(f"{experiment.folder / shift.name} must hold a number of samples, found {stated!r}")
    frame_shift = int(stated)
    return {"der": diarization.score_diarization(posteriors, reference, frame_shift).total.rate}


def _query_by_example(packed: Path, experiment: Experiment, truth: Path | None) -> dict[str, float]:
    corpus = _given(experiment, _QUESST, truth, "QUESST 2014")
    ground_truth = qbe.read_ground_truth(corpus / "scoring" / "groundtruth_quesst14_eval")
    return {"mtwv": qbe.max_term_weighted_value(qbe.read_stdlist(_only_file(packed)), ground_truth).value}


def _metrics(packed: Path, experiment: Experiment, truth: Path | None) -> dict[str, float]:
    """Enhancement and separation: the website takes the means that s3prl wrote."""
    stated = read_table(_only_file(packed))
    names = {"pesq": ("pesq", 1.0), "stoi": ("stoi", 100.0), "si_sdr_improvement": ("si_sdr", 1.0)}
    wanted = {metric: names[metric] for metric in experiment.part.metrics}
    lacking = [key for key, _ in wanted.values() if key not in stated]
    if lacking:
        raise SubmissionError(f"metrics.txt of {experiment.title} has no {lacking[0]}, found {', '.join(stated)}")
    return {metric: scale * float(stated[key]) for metric, (key, scale) in wanted.items()}


#: What cannot be told from the predictions alone comes from the corpus (`--truth`).
NEEDS_TRUTH = ("eer", "der", "mtwv")
_SPECIAL: Mapping[str, Callable[[Path, Experiment, Path | None], dict[str, float]]] = {
    "eer": _verification,
    "der": _diarization,
    "mtwv": _query_by_example,
    "pesq": _metrics,
    "si_sdr_improvement": _metrics,
}
