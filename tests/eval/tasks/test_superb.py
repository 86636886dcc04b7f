"""SUPERB's score and the overall mean give the printed numbers; the published files are checked."""

from __future__ import annotations

import shutil
from importlib.resources import files
from pathlib import Path

import pytest

from robustdistiller.eval.report.published import PublishedError, load_published
from robustdistiller.eval.tasks import superb as scores
from robustdistiller.eval.tasks.superb import (
    PAPER_TASKS,
    ScoreError,
    overall_mean,
    points_of,
    superb_score,
    task_points,
)
from tests.records import published_value

LEADERBOARD = {
    "WavLM Large": 1145,
    "WavLM Base+": 1106,
    "WavLM Base": 1019,
    "LightHuBERT stage 1": 959,
    "HuBERT Base": 941,
    "ccc-wav2vec 2.0 Base": 940,
    "data2vec-aqc Base": 935,
    "DPWavLM": 926,
    "HuBERT Large": 919,
    "wav2vec 2.0 Large": 914,
    "LightHuBERT small": 901,
    "data2vec Base": 884,
    "DPHuBERT": 866,
    "wav2vec 2.0 Base": 818,
    "DistilHuBERT": 717,
    "FBANK": 0,
}


@pytest.fixture(scope="module")
def published():
    return load_published()


def values(published, system):
    return {(r.task, r.metric): r.value for r in published.of(system) if r.condition == "clean"}


def reproduced(published) -> list[str]:
    """Systems whose printed score the formula gives, to within the rounding of the printed single numbers."""
    return [s for s, printed in LEADERBOARD.items() if abs(superb_score(values(published, s)) - printed) < 0.6]


def test_superb_s_of_every_system_on_the_leaderboard(published):
    assert reproduced(published) == list(LEADERBOARD)
    assert {s: published_value(published, s, "SUPERB", "superb_s") for s in LEADERBOARD} == LEADERBOARD


def test_superb_s_of_the_star_table_to_its_rounding(published):
    printed = [r for r in published.results if r.metric == "superb_s" and r.source == "star-table"]
    assert len(printed) == 10
    for one in printed:
        assert superb_score(values(published, one.system)) == pytest.approx(one.value, abs=2), one


@pytest.mark.parametrize("key", [(task, metric) for task in PAPER_TASKS for metric in points_of(task)])
@pytest.mark.parametrize("side", [0, 1])
def test_any_wrong_constant_is_noticed(published, monkeypatch, key, side):
    task, metric = key
    points = list(points_of(task)[metric])
    points[side] += 0.02 * (points[1] - points[0])
    wrong = {**points_of(task), metric: tuple(points)}
    monkeypatch.setattr(scores, "points_of", lambda code: wrong if code == task else points_of(code))
    assert reproduced(published) != list(LEADERBOARD)


def test_points_of_a_task_are_the_mean_over_its_metrics(published):
    found = values(published, "DPHuBERT")
    f1, cer = (86.86 - 69.64) / (89.81 - 69.64), (28.26 - 52.94) / (21.76 - 52.94)
    assert task_points("SF", found) == pytest.approx(500 * (f1 + cer))


def test_a_score_over_other_tasks_is_refused(published):
    found = values(published, "DPHuBERT")
    with pytest.raises(ScoreError, match=r"missing: SF$"):
        superb_score({key: value for key, value in found.items() if key != ("SF", "slot_value_cer")})


def test_overall_mean_gives_every_printed_value(published):
    printed = [r for r in published.results if r.metric == "overall"]
    wrong = []
    for one in printed:
        if (one.system, one.source) == ("FBANK", "armhubert-table"):  # made from values this table does not hold
            assert "older FBANK values" in one.remark
        elif abs(overall_mean(values(published, one.system)) - one.value) > 0.051:
            wrong.append(one)
    assert wrong == []
    with pytest.raises(ScoreError, match="eleven metrics; missing: SID accuracy"):
        overall_mean({("PR", "per"): 5.0})


def test_unverified_numbers_are_kept_but_never_handed_out(published):
    unverified = [r for r in published.results if r.verified == "no"]
    assert unverified
    for one in unverified:
        assert one not in published.of(one.system)
        assert published_value(published, one.system, one.task, one.metric) is None
    assert all(r.source != "unchecked" for r in published.results if r.verified == "yes")


def test_numbers_measured_in_a_plot_and_of_a_second_implementation(published):
    small = {(r.task, r.value) for r in published.of("STaRHuBERT (9.4 M)")}
    assert small == {("ASR", 11.3), ("SID", 64.9), ("IC", 94.1)}
    assert all("plot" in r.remark for r in published.results if r.source == "star-figure")
    again = {r.task for r in published.of("STaRHuBERT again (100 h)")}
    assert "SD" not in again and {"PR", "SF", "SE"} <= again, "its DER is better than its teacher's: not verified"
    assert published.of("SPEAR") == []


def test_names_are_found_in_any_case_and_others_get_the_nearest(published):
    assert published.find("dpwavlm").system == "DPWavLM"
    with pytest.raises(
        PublishedError, match="no published system is called 'DistillHuBERT'; did you mean 'DistilHuBERT'"
    ):
        published.find("DistillHuBERT")


@pytest.mark.parametrize(
    ("file", "old", "new", "message"),
    [
        (
            "published_results.csv",
            "DPHuBERT,PR,per,",
            "DPHuBRET,PR,per,",
            "unknown system 'DPHuBRET'; did you mean 'DPH",
        ),
        (
            "published_results.csv",
            "DPHuBERT,PR,per,clean,9.67",
            "DPHuBERT,PR,per,clean,>9",
            "value: found '>9', expected a number",
        ),
        ("published_results.csv", "DPHuBERT,PR,per,clean,9.67", "DPHuBERT,PR,per,clean,", "value is missing"),
        ("published_results.csv", "DPHuBERT,PR,per,", "DPHuBERT,PR,PER,", "unknown metric 'PER'"),
        (
            "published_results.csv",
            "superb,dphubert-table-1,yes",
            "superb,dphubert,yes",
            "unknown source 'dphubert'; did",
        ),
        (
            "published_results.csv",
            "superb,dphubert-table-1,yes",
            "superb,dphubert-table-1,maybe",
            "verified: found 'maybe', expected 'yes' or 'no'",
        ),
        (
            "published_results.csv",
            "superb,dphubert-table-1,yes",
            "other,dphubert-table-1,yes",
            "protocol: found 'other', expected 'superb', ",
        ),
        ("published_results.csv", "system,task", "model,task", "expected the columns system, task"),
        ("published_results.csv", "DPHuBERT,PR,per,clean,9.67,", "DPHuBERT,PR,per,clean,9.67,x,", "expected 9 columns"),
        (
            "systems.csv",
            "DPHuBERT,student",
            "DPHuBERT,pupil",
            "kind: found 'pupil', expected 'baseline', 'large' or 'student'",
        ),
        ("systems.csv", "DPWavLM,student", "DPHuBERT,student", "repeats line [0-9]+; two lines for one system"),
        ("sources.csv", "star-table,", "stars,", "systems.csv, line 2: unknown source 'star-table'"),
    ],
)
def test_broken_files_are_refused_in_one_sentence(tmp_path, file, old, new, message):
    folder = tmp_path / "published"
    shutil.copytree(Path(str(files("robustdistiller.results") / "published")), folder)
    path = folder / file
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))
    with pytest.raises(PublishedError, match=message) as error:
        load_published(folder)
    assert file in str(error.value) or "systems.csv" in str(error.value)
    assert "\n" not in str(error.value)


def test_two_numbers_for_one_cell_from_one_source_are_refused(tmp_path):
    folder = tmp_path / "published"
    shutil.copytree(Path(str(files("robustdistiller.results") / "published")), folder)
    path = folder / "published_results.csv"
    line = next(text for text in path.read_text().splitlines() if text.startswith("DPHuBERT,PR,per"))
    path.write_text(path.read_text() + line.replace("9.67", "9.76") + "\n")
    with pytest.raises(PublishedError, match=r"line \d+: repeats line \d+; two lines for one system of one task"):
        load_published(folder)
    (folder / "sources.csv").unlink()
    with pytest.raises(PublishedError, match=r"sources\.csv: no such file"):
        load_published(folder)
