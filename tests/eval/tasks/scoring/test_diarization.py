"""The diarization error rate: counted by hand, by brute force on a grid, and by NIST's own script where it is there."""

from __future__ import annotations

import itertools
import os
import random
import re
import runpy
import shutil
import subprocess
import sys
from pathlib import Path

import h5py
import numpy as np
import pytest

from robustdistiller.eval.tasks import ScoringError
from robustdistiller.eval.tasks.scoring import diarization as scored
from robustdistiller.eval.tasks.scoring.diarization import ErrorTimes, Turn, error_times, score_diarization, to_turns

STEP_S = 0.01
MD_EVAL = shutil.which("md-eval.pl", path=os.pathsep.join([os.environ["PATH"], "/usr/lib/sctk/bin"]))


def random_turns(rng: random.Random, speakers: int, duration_s: float = 20.0) -> list[Turn]:
    """Turns of some speakers on a grid of hundredths of a second."""
    turns = []
    for speaker in range(speakers):
        at = rng.randint(5, 300)
        while at < duration_s / STEP_S:
            end = at + rng.randint(10, 300)
            turns.append(Turn(f"s{speaker}", at * STEP_S, end * STEP_S))
            at = end + rng.randint(5, 300)
    return turns


def by_brute_force(reference: list[Turn], hypothesis: list[Turn]) -> ErrorTimes:
    """Count cells of a grid under every mapping of speakers; slow and plain."""
    count = round(max(turn.offset_s for turn in (*reference, *hypothesis)) / STEP_S) + 1
    cells: list[dict[str, set[str]]] = [{"r": set(), "h": set()} for _ in range(count)]
    for side, turns in (("r", reference), ("h", hypothesis)):
        for turn in turns:
            for cell in range(round(turn.onset_s / STEP_S), round(turn.offset_s / STEP_S)):
                cells[cell][side].add(turn.speaker)
    names = {side: sorted({name for cell in cells for name in cell[side]}) for side in "rh"}
    padded = [*names["h"], *[None] * len(names["r"])]
    maps = [dict(zip(names["r"], chosen)) for chosen in set(itertools.permutations(padded, len(names["r"])))]
    best = max(maps, key=lambda m: sum(m[name] in cell["h"] for cell in cells for name in cell["r"]))
    totals = np.zeros(4, int)
    for cell in cells:
        said, found = len(cell["r"]), len(cell["h"])
        right = sum(best[name] in cell["h"] for name in cell["r"])
        totals += [said, max(said - found, 0), max(found - said, 0), min(said, found) - right]
    return ErrorTimes(*(float(total * STEP_S) for total in totals))


def as_tuple(times: ErrorTimes) -> tuple[float, ...]:
    return times.scored_s, times.missed_s, times.false_alarm_s, times.confused_s


@pytest.mark.parametrize("seed", range(12))
def test_equals_brute_force(seed):
    rng = random.Random(seed)
    reference, hypothesis = (random_turns(rng, rng.randint(1, 3), 8.0) for _ in range(2))
    expected = by_brute_force(reference, hypothesis)
    assert as_tuple(error_times(reference, hypothesis)) == pytest.approx(as_tuple(expected))


@pytest.mark.skipif(MD_EVAL is None or shutil.which("perl") is None, reason="no md-eval.pl (Debian: apt install sctk)")
@pytest.mark.parametrize("seed", range(6))
def test_equals_md_eval(seed, tmp_path):
    rng = random.Random(100 + seed)
    sides = [{name: random_turns(rng, rng.randint(1, 4)) for name in ("one", "two")} for _ in range(2)]
    for file, recordings in zip(("ref", "sys"), sides):
        lines = [
            f"SPEAKER {name} 1 {t.onset_s:.3f} {t.offset_s - t.onset_s:.3f} <NA> <NA> {t.speaker} <NA>\n"
            for name, turns in recordings.items()
            for t in turns
        ]
        (tmp_path / file).write_text("".join(lines))
    turns = {name: [turn for side in sides for turn in side[name]] for name in sides[0]}
    extents = {name: [edge for t in own for edge in (t.onset_s, t.offset_s)] for name, own in turns.items()}
    (tmp_path / "uem").write_text("".join(f"{name} 1 {min(e):.3f} {max(e):.3f}\n" for name, e in extents.items()))
    command = ["perl", MD_EVAL, "-r", "ref", "-s", "sys", "-u", "uem"]
    printed = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True).stdout
    kinds = ("SCORED SPEAKER", "MISSED SPEAKER", "FALARM SPEAKER", "SPEAKER ERROR")
    expected = [float(re.findall(rf"{kind} TIME =\s*([\d.]+)", printed)[-1]) for kind in kinds]
    parts = [error_times(sides[0][name], sides[1][name]) for name in sides[0]]
    assert as_tuple(sum(parts, ErrorTimes(0.0))) == pytest.approx(expected, abs=0.011)  # it prints hundredths


def test_counted_by_hand():
    """Ten seconds of A, then B from 8 s to 12 s; the system has one speaker all the time and a late second one."""
    truth = [Turn("A", 0.0, 10.0), Turn("B", 8.0, 12.0)]
    said = [Turn("x", 0.0, 13.0), Turn("y", 9.0, 10.0)]
    # 8 to 9 s: B missed. 9 to 10 s: both there. 10 to 12 s: B called x, who is A. 12 to 13 s: false alarm.
    assert as_tuple(error_times(truth, said)) == (14.0, 1.0, 1.0, 2.0)
    assert error_times(truth, said).rate == pytest.approx(100 * 4 / 14)
    assert as_tuple(error_times(truth, [])) == (14.0, 14.0, 0.0, 0.0)
    assert as_tuple(error_times([], said)) == (0.0, 0.0, 14.0, 0.0)
    twice = [Turn("A", 0.0, 6.0), Turn("A", 4.0, 10.0), truth[1]]  # overlapping turns of one speaker are one
    assert error_times(twice, said) == error_times(truth, said)


def test_the_mapping_is_of_the_whole_recording():
    truth = [Turn("A", 0.0, 3.0), Turn("B", 3.0, 6.0)]
    assert error_times(truth, [Turn("1", 0.0, 3.0), Turn("2", 3.0, 6.0)]).error_s == 0
    assert as_tuple(error_times(truth, [Turn("1", 0.0, 6.0)])) == (6.0, 0.0, 0.0, 3.0)
    # Two recordings are mapped apart: names need not agree between them.
    parts = error_times(truth, [Turn("1", 0.0, 3.0), Turn("2", 3.0, 6.0)]) + error_times(
        truth, [Turn("2", 0.0, 3.0), Turn("1", 3.0, 6.0)]
    )
    assert parts.error_s == 0 and parts.scored_s == 12.0


def test_turns_are_those_of_make_rttm(tmp_path, monkeypatch):
    """s3prl ships make_rttm.py, which the benchmark runs; its RTTM is read back and compared."""
    from importlib.util import find_spec

    script = Path(find_spec("s3prl").submodule_search_locations[0]) / "downstream" / "diarization" / "make_rttm.py"
    posteriors = np.random.default_rng(0).random((300, 2)).repeat(3, axis=0)
    with h5py.File(tmp_path / "rec.h5", "w") as file:
        file["T_hat"] = posteriors
    (tmp_path / "list").write_text(str(tmp_path / "rec.h5"))
    for threshold, median, shift in ((0.5, 1, 320), (0.3, 11, 160), (0.7, 11, 256)):
        options = [f"--threshold={threshold}", f"--median={median}", f"--frame_shift={shift}"]
        monkeypatch.setattr(sys, "argv", [str(script), *options, str(tmp_path / "list"), str(tmp_path / "rttm")])
        runpy.run_path(str(script), run_name="__main__")
        theirs = scored.read_rttm(tmp_path / "rttm")["rec"]
        ours = to_turns(posteriors, threshold, median, shift)
        assert len(ours) > 20
        assert [(f"rec_{t.speaker}", t.onset_s, t.offset_s) for t in ours] == [
            (t.speaker, t.onset_s, t.offset_s) for t in theirs
        ]


def test_the_lowest_of_ten_settings_counts():
    rng = np.random.default_rng(1)
    truth = {name: [Turn("A", 0.0, 4.0), Turn("B", 3.0, 8.0)] for name in ("one", "two")}
    posteriors = {name: np.zeros((400, 2)) for name in truth}
    for p in posteriors.values():  # quiet speech of speaker A: found from 0.3 and 0.4 on only
        p[:200, 0], p[150:, 1] = 0.45, 0.9
        p += rng.normal(0, 0.02, p.shape)
        p[::40, 1] = 0.0  # gaps of one frame, which the median filter closes
    found = score_diarization(posteriors, truth, 320)
    assert len(found.rates) == 10 and found.total.rate == min(found.rates.values())
    assert found.threshold in (0.3, 0.4) and found.median_frames == 11
    assert found.rates[0.5, 11] > 40 > found.rates[0.4, 1] > 1 > found.rates[0.4, 11]
    assert sum(t.scored_s for t in found.recordings.values()) == pytest.approx(18.0)


def test_wrong_frame_shift_gives_another_rate():
    truth, posteriors = {"r": [Turn("A", 0.0, 4.0)]}, {"r": np.array([[0.9]] * 200)}
    assert score_diarization(posteriors, truth, 320).total.rate == 0
    assert score_diarization(posteriors, truth, 160).total.rate == 50


def test_recordings_without_reference_speech_are_passed_over_and_lost_ones_refused():
    posteriors = {"r": np.array([[0.9]] * 200), "silent": np.array([[0.9]] * 200)}
    assert score_diarization(posteriors, {"r": [Turn("A", 0.0, 4.0)]}, 320).total.rate == 0
    with pytest.raises(ScoringError, match=r"reference has 1 recordings that were not evaluated, e\.g\. gone"):
        score_diarization(posteriors, {"r": [Turn("A", 0, 4)], "gone": [Turn("A", 0, 4)]}, 320)
    with pytest.raises(ScoringError, match="nobody speaks"):
        score_diarization(posteriors, {}, 320)


def test_files_that_are_missing_or_broken(tmp_path):
    with pytest.raises(ScoringError, match="have no predictions in"):
        scored.read_posteriors(tmp_path, ["rec"])
    (tmp_path / "rttm").write_text("SPEAKER rec 1 zero 1.0 <NA> <NA> A <NA>\n")
    with pytest.raises(ScoringError, match=r"rttm, line 1: expected 'SPEAKER"):
        scored.read_reference(tmp_path)
    (tmp_path / "rttm").unlink()
    (tmp_path / "segments").write_text("A_rec rec 0.5 2.0\n")
    (tmp_path / "utt2spk").write_text("A_rec A\n")
    assert scored.read_reference(tmp_path) == ({"rec": [Turn("A", 0.5, 2.0)]}, "segments")


@pytest.mark.parametrize(
    ("file", "line", "told"),
    [
        ("segments", "u rec 0.5", r"segments, line 1: expected 'UTTERANCE RECORDING BEGIN END', found 'u rec 0.5'"),
        ("segments", "u rec 0.5 late", r"segments, line 1: expected .*, found 'u rec 0.5 late'"),
        ("segments", "v rec 0.5 1", r"utt2spk has no speaker of 'v', which is in segments"),
        ("utt2spk", "u", r"utt2spk, line 1: expected 'UTTERANCE SPEAKER', found 'u'"),
        ("rttm", b"\xff\xfe", r"rttm is no text file"),
    ],
)
def test_odd_lines_of_a_reference_are_named(file, line, told, tmp_path):
    (tmp_path / "utt2spk").write_text("u A extra\n")
    (tmp_path / "segments").write_text("u rec 5e-1 2.0 extra\n\n")
    assert scored.read_reference(tmp_path)[0] == {"rec": [Turn("A", 0.5, 2.0)]}
    (tmp_path / file).write_bytes(line if isinstance(line, bytes) else line.encode())
    with pytest.raises(ScoringError, match=told):
        scored.read_reference(tmp_path)
