"""Diarization error rate as SUPERB computes it from the posteriors that s3prl's expert saves.

Sources, all read: s3prl's ``downstream/diarization/score.sh`` and ``make_rttm.py`` (the website runs the same two), the
instruction in its ``docs/superb.md`` to report the lowest of the ten results, and dscore with NIST's md-eval 22 behind
it, which score.sh calls without options: no collar, overlapped speech scored, one mapping of speakers per recording,
times summed over recordings. So SUPERB's number takes the best of five thresholds and two median filters on the test
set itself; the choice is kept in the record.

Not verified: the fork of dscore that SUPERB names was not available, nryant/dscore was read in its place.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import h5py
import numpy as np
import scipy

from robustdistiller.common.audio import SAMPLE_RATE_HZ
from robustdistiller.eval.tasks.parts import ScoringError, text_of

#: What score.sh tries; the lowest error rate counts.
THRESHOLDS = (0.3, 0.4, 0.5, 0.6, 0.7)
MEDIAN_FRAMES = (1, 11)
#: Nothing around a speaker's boundaries is forgiven: md-eval's default, which dscore passes on.
COLLAR_S = 0.0


@dataclass(frozen=True)
class Turn:
    """One speaker speaks.

    Attributes:
        speaker: name within the recording.
        onset_s, offset_s: begin and end.
    """

    speaker: str
    onset_s: float
    offset_s: float


@dataclass(frozen=True)
class ErrorTimes:
    """Speaker time, in seconds: two people who speak at once count twice.

    Attributes:
        scored_s: of the reference.
        missed_s: more reference speakers than hypothesised ones.
        false_alarm_s: more hypothesised speakers than reference ones.
        confused_s: attributed to somebody else.
    """

    scored_s: float
    missed_s: float = 0.0
    false_alarm_s: float = 0.0
    confused_s: float = 0.0

    @property
    def error_s(self) -> float:
        """All three kinds."""
        return self.missed_s + self.false_alarm_s + self.confused_s

    @property
    def rate(self) -> float:
        """Diarization error rate in per cent."""
        if self.scored_s <= 0:
            raise ScoringError("nobody speaks in the reference, so there is no diarization error rate")
        return 100.0 * self.error_s / self.scored_s

    def __add__(self, other: ErrorTimes) -> ErrorTimes:
        return ErrorTimes(
            self.scored_s + other.scored_s,
            self.missed_s + other.missed_s,
            self.false_alarm_s + other.false_alarm_s,
            self.confused_s + other.confused_s,
        )


def error_times(reference: Iterable[Turn], hypothesis: Iterable[Turn]) -> ErrorTimes:
    """Errors of one recording, as md-eval counts them without a collar and with overlapped speech.

    Reference and hypothesis speakers are mapped one to one so that they share as much time as possible. Everything from
    the first to the last turn of either side is scored.

    Args:
        reference, hypothesis: turns; those of one speaker may overlap.
    """
    reference, hypothesis = _merged(reference), _merged(hypothesis)
    cuts = np.array(sorted({edge for turn in (*reference, *hypothesis) for edge in (turn.onset_s, turn.offset_s)}))
    lengths, middles = np.diff(cuts), (cuts[:-1] + cuts[1:]) / 2
    said, found = _active(reference, middles), _active(hypothesis, middles)
    rows, columns = scipy.optimize.linear_sum_assignment((said * lengths) @ found.T, maximize=True)
    n_said, n_found = said.sum(axis=0), found.sum(axis=0)
    n_right = (said[rows] * found[columns]).sum(axis=0)
    return ErrorTimes(
        float(lengths @ n_said),
        float(lengths @ np.maximum(n_said - n_found, 0)),
        float(lengths @ np.maximum(n_found - n_said, 0)),
        float(lengths @ (np.minimum(n_said, n_found) - n_right)),
    )


def _active(turns: Sequence[Turn], at_s: np.ndarray) -> np.ndarray:
    """(speakers, times): 1 where a speaker speaks."""
    speakers = list(dict.fromkeys(turn.speaker for turn in turns))
    active = np.zeros((len(speakers), len(at_s)))
    for turn in turns:
        active[speakers.index(turn.speaker), (at_s > turn.onset_s) & (at_s < turn.offset_s)] = 1
    return active


def _merged(turns: Iterable[Turn]) -> list[Turn]:
    """Overlapping turns of one speaker as one, as dscore does it before it scores."""
    by_speaker: dict[str, list[Turn]] = defaultdict(list)
    for turn in sorted(turns, key=lambda t: t.onset_s):
        own = by_speaker[turn.speaker]
        if own and turn.onset_s < own[-1].offset_s:
            own[-1] = Turn(turn.speaker, own[-1].onset_s, max(own[-1].offset_s, turn.offset_s))
        else:
            own.append(turn)
    return [turn for own in by_speaker.values() for turn in own]


def to_turns(posteriors: np.ndarray, threshold: float, median_frames: int, frame_shift: int) -> list[Turn]:
    """Posteriors to turns, with the rounding to hundredths of a second of make_rttm.py.

    Args:
        posteriors: (frames, speakers), 0 to 1.
        threshold: a speaker speaks where the posterior is above it.
        median_frames: length of the median filter over the decisions, odd; 1 for none.
        frame_shift: samples at 16 kHz from one frame to the next.
    """
    active = (posteriors > threshold).astype(np.int64)
    if median_frames > 1:
        active = scipy.signal.medfilt(active, (median_frames, 1))
    shift_s = frame_shift / SAMPLE_RATE_HZ
    turns = []
    for speaker, frames in enumerate(active.T):
        (changes,) = np.nonzero(np.diff(np.pad(frames, 1)))
        for begin, end in zip(changes[::2], changes[1::2]):
            onset_s, duration_s = (float(f"{frame * shift_s:.2f}") for frame in (begin, end - begin))
            if duration_s > 0:
                turns.append(Turn(str(speaker), onset_s, round(onset_s + duration_s, 3)))
    return turns


def read_rttm(path: Path | str) -> dict[str, list[Turn]]:
    """Turns by recording; times to the millisecond, as dscore hands them to md-eval.

    Raises:
        ScoringError: a line that is none of RTTM, with the file and its number.
    """
    turns: dict[str, list[Turn]] = defaultdict(list)
    for number, line in enumerate(text_of(path).splitlines(), start=1):
        fields = line.split()
        if not fields or fields[0] != "SPEAKER":
            continue
        try:
            recording, speaker = fields[1], fields[7]
            onset_s, duration_s = round(float(fields[3]), 3), round(float(fields[4]), 3)
        except (IndexError, ValueError) as error:
            raise ScoringError(
                f"{path}, line {number}: expected 'SPEAKER RECORDING CHANNEL ONSET DURATION <NA> <NA> NAME <NA>', "
                f"found {line!r}"
            ) from error
        if duration_s > 0:
            turns[recording].append(Turn(speaker, onset_s, round(onset_s + duration_s, 3)))
    return dict(turns)


def read_reference(folder: Path | str) -> tuple[dict[str, list[Turn]], str]:
    """Turns of a Kaldi folder: its ``rttm``, or else its ``segments`` with ``utt2spk``, from which s3prl takes labels.

    Returns:
        turns by recording, and the name of the file they are from.

    Raises:
        ScoringError: the folder has neither; or a line of theirs is odd, with the file and its number.
    """
    folder = Path(folder)
    if (folder / "rttm").is_file():
        return read_rttm(folder / "rttm"), "rttm"
    if not (folder / "segments").is_file() or not (folder / "utt2spk").is_file():
        raise ScoringError(
            f"{folder} has neither rttm nor segments and utt2spk, so there is no reference for diarization"
        )
    speakers = dict(_rows(folder / "utt2spk", 2, "UTTERANCE SPEAKER"))
    turns: dict[str, list[Turn]] = defaultdict(list)
    for utterance, recording, *times_s in _rows(folder / "segments", 4, "UTTERANCE RECORDING BEGIN END"):
        if utterance not in speakers:
            raise ScoringError(f"{folder / 'utt2spk'} has no speaker of {utterance!r}, which is in segments")
        turns[recording].append(Turn(speakers[utterance], *times_s))
    return dict(turns), "segments"


def _rows(path: Path, columns: int, expected: str) -> Iterator[tuple]:
    """Two names of each line that is not empty, and times, to the millisecond, in the other columns."""
    for number, line in enumerate(text_of(path).splitlines(), start=1):
        words = line.split()
        try:
            found = (*words[:2], *(round(float(time_s), 3) for time_s in words[2:columns]))
        except ValueError:
            found = ()
        if len(found) == columns:
            yield found
        elif words:
            raise ScoringError(f"{path}, line {number}: expected {expected!r}, found {line!r}")


def read_posteriors(folder: Path | str, recordings: Iterable[str]) -> dict[str, np.ndarray]:
    """What s3prl's expert saved, ``RECORDING.h5`` with ``T_hat``, shape (frames, speakers).

    Raises:
        ScoringError: recordings without a file.
    """
    folder, posteriors, missing = Path(folder), {}, []
    for recording in recordings:
        path = folder / f"{recording}.h5"
        if not path.is_file():
            missing.append(recording)
            continue
        with h5py.File(path, "r") as stored:
            posteriors[recording] = stored["T_hat"][:]
    if missing:
        raise ScoringError(
            f"{len(missing)} recordings have no predictions in {folder}, e.g. {missing[0]}; "
            "evaluate again with scorerc.save_predictions: true"
        )
    return posteriors


@dataclass(frozen=True)
class DiarizationScore:
    """The benchmark's score and how it came about.

    Attributes:
        threshold, median_frames: the best setting; of equal ones the first tried.
        recordings: error times of each under the best setting.
        rates: (threshold, median_frames) to error rate in per cent.
    """

    threshold: float
    median_frames: int
    recordings: Mapping[str, ErrorTimes]
    rates: Mapping[tuple[float, int], float]

    @property
    def total(self) -> ErrorTimes:
        """Times over all recordings."""
        return sum(self.recordings.values(), ErrorTimes(0.0))


def score_diarization(
    posteriors: Mapping[str, np.ndarray], reference: Mapping[str, Sequence[Turn]], frame_shift: int
) -> DiarizationScore:
    """SUPERB's diarization error rate: the lowest over `THRESHOLDS` and `MEDIAN_FRAMES`.

    A recording without turns in the reference counts nothing, as md-eval passes it over.

    Raises:
        ScoringError: the reference has recordings that were not evaluated, or nobody speaks in it.
    """
    lost = sorted(set(reference) - set(posteriors))
    if lost:
        raise ScoringError(
            f"the reference has {len(lost)} recordings that were not evaluated, e.g. {lost[0]}; "
            "their speech would count as missed"
        )
    best: DiarizationScore | None = None
    rates: dict[tuple[float, int], float] = {}
    for median_frames in MEDIAN_FRAMES:
        for threshold in THRESHOLDS:
            times = {
                recording: _times(reference.get(recording, ()), to_turns(p, threshold, median_frames, frame_shift))
                for recording, p in posteriors.items()
            }
            one = DiarizationScore(threshold, median_frames, times, rates)
            rates[threshold, median_frames] = one.total.rate
            if best is None or rates[threshold, median_frames] < rates[best.threshold, best.median_frames]:
                best = one
    return best


def _times(reference: Sequence[Turn], hypothesis: Sequence[Turn]) -> ErrorTimes:
    return error_times(reference, hypothesis) if reference else ErrorTimes(0.0)
