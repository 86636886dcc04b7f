"""Speaker diarization: Libri2Mix, scored from the saved posteriors as SUPERB does it."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from robustdistiller.eval.tasks import corpora
from robustdistiller.eval.tasks.base import Task
from robustdistiller.eval.tasks.parts import Metric, OfficialScore, Rules, ScoringError, Submission, split_folders


def _score(expert: Any, split: str, recordings: Sequence[str]) -> OfficialScore:
    from robustdistiller.eval.tasks.scoring import diarization

    if not expert.save_predictions:
        raise ScoringError("scorerc.save_predictions is false, so there is nothing to score; set it to true")
    reference, source = diarization.read_reference(expert.loaderrc[f"{split}_dir"])
    left_out = getattr(expert, f"{split}_dataset").data.wavs.keys() - set(recordings)  # by a quick look
    reference = {name: turns for name, turns in reference.items() if name not in left_out}
    posteriors = diarization.read_posteriors(Path(expert.score_dir) / "predictions", recordings)
    frame_shift = int(expert.datarc["frame_shift"])
    found = diarization.score_diarization(posteriors, reference, frame_shift)
    settings = {
        "threshold": found.threshold,
        "median_frames": found.median_frames,
        "collar_s": diarization.COLLAR_S,
        "frame_shift": frame_shift,
        "reference": source,
        "rates": {f"threshold {t:g}, median {m}": rate for (t, m), rate in found.rates.items()},
    }
    times = [found.recordings[name] for name in recordings]
    items = [one.error_s for one in times], [one.scored_s for one in times]
    return OfficialScore("der", found.total.rate, "", settings, tuple(recordings), items)


TASK = Task(
    code="SD",
    title="speaker diarization, Libri2Mix",
    downstream="diarization",
    config="sd",
    metrics=(
        Metric("der", None, higher_is_better=False, short="DER", points=(10.05, 5.62)),
        Metric("frame_der", "der", higher_is_better=False, short="frame DER"),
        Metric("frame_accuracy", "acc", higher_is_better=True),
    ),
    roots=split_folders("Kaldi folder: wav.scp utt2spk spk2utt segments reco2dur"),
    corpora=(corpora.LIBRI2MIX, corpora.LIBRI2MIX_SPEECH_TIMES),
    data="robustdistiller.eval.data.diarization:SD",
    rules=Rules(
        train="Libri2Mix train-100, 16 kHz, max, mix_both",
        dev="dev",
        test="test",
        score="diarization error rate of turns made from the posteriors, as dscore computes it; s3prl's frame-level "
        "rate, by which the checkpoint is chosen, is another number",
    ),
    packages={"pandas": "pandas", "h5py": "h5py"},
    corruption="recordings",
    id_position=2,
    score=_score,
    item_counts={"test": 3000},
    submission=Submission(
        "sd_public",
        {"scoring/predictions/": "scoring/predictions/", "frame_shift": "frame_shift"},
        metrics=("der",),
    ),
    note="DER as SUPERB scores it; frame_der is what s3prl prints, of which heads are chosen",
)
