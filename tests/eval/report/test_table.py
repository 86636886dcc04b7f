"""Tables and plots: right numbers, right order, and no table from records that do not belong together."""

from __future__ import annotations

import math

import matplotlib.image
import numpy as np
import pytest

from robustdistiller.eval.report.plots import plot_table
from robustdistiller.eval.report.table import build_tables, standard_error
from robustdistiller.eval.results.record import Metric, RecordError, example_record


def cell(label: str, condition: str, value: float, **changes):
    corrupted = condition != "clean"
    parameters = {"teacher": 4_500_000, "student": 2_500_000}.get(label, 0)
    return example_record(
        upstream="fbank" if label == "fbank" else "robustdistiller_local",
        label=label,
        checkpoint_digest="none" if label == "fbank" else changes.pop("digest", f"{ord(label[0]):02x}" * 32),
        parameters=parameters,
        condition=condition,
        manifest_digest=changes.pop("manifest_digest", "ee" * 32 if corrupted else "none"),
        items_expected=changes.pop("items", 400),
        items_scored=changes.pop("scored", 400),
        **{"metrics": [Metric("accuracy", value, True, "%")], **changes},
    )


CONDITIONS = ["reverb", "noise:snr_db=0", "clean", "noise+reverb:snr_db=10", "noise:snr_db=10"]


@pytest.fixture
def records():
    return [
        cell(u, c, 10 * i + j) for i, u in enumerate(["fbank", "student", "teacher"]) for j, c in enumerate(CONDITIONS)
    ]


def test_values_order_and_errors(records):
    (table,) = build_tables(records)
    assert list(table.values.index) == ["teacher", "student", "fbank"]  # by size
    assert list(table.values.columns) == ["clean", "noise 10 dB", "noise 0 dB", "reverb", "noise 10 dB + reverb"]
    assert table.values.loc["student"].tolist() == [12, 14, 11, 10, 13]
    share = (0.12 * 400 + 1) / 402
    assert table.errors.loc["student", "clean"] == pytest.approx(100 * math.sqrt(share * (1 - share) / 400))
    assert table.cell("student", "clean") == "12.0 ±1.6"
    assert "| student | 2.50 M | 12.0 ±1.6 |" in table.to_markdown()
    frame = table.to_frame()
    assert len(frame) == 15 and frame.query("upstream == 'teacher' and condition == 'reverb'").value.item() == 20


def test_binomial_error_matches_simulation():
    hits = np.random.default_rng(0).binomial(346, 0.3, size=20_000)
    assert standard_error([30.0], 346, "accuracy") == pytest.approx(100 * np.std(hits / 346), rel=0.03)


def test_missing_cells_are_dashes(records):
    (table,) = build_tables(records[1:])
    assert table.cell("fbank", "reverb") == "-"
    assert len(table.to_frame()) == 14


def test_tasks_and_splits_have_tables_of_their_own(records):
    wer = [Metric("wer", 20.0, False, "%")]
    tables = build_tables([*records, cell("student", "clean", 0, task="ASR", split="test-other", metrics=wer)])
    assert [(t.task, t.split) for t in tables] == [("ASR", "test-other"), ("IC", "test")]
    assert "lower is better" in tables[0].title and tables[0].cell("student", "clean") == "20.0"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"status": "partial", "reason": "stopped", "scored": 399}, "1 of 16 records are not finished(.|\n)*stopped"),
        (
            {"status": "failed", "reason": "RuntimeError: boom"},
            "teacher / IC / clean / seed 1337: failed, RuntimeError",
        ),
        ({"rules_digest": "ef" * 32}, "differ in what the task's rules fix"),
        ({"train_condition": "noise:snr_db=5"}, "differ in the training condition"),
        ({"items": 300, "scored": 300}, "differ in the number of items"),
        ({"metrics": [Metric("wer", 3.0, False, "%")]}, "differ in the metric"),
        ({"condition": "reverb", "manifest_digest": "00" * 32}, "noise that was heard under 'reverb'"),
        ({"seed": 2}, "differ in seeds"),
    ],
)
def test_mixtures_are_refused(records, changes, message):
    condition = changes.pop("condition", "clean")
    intruder = cell("teacher", condition, 1.0, digest="9" * 64, **changes)
    build_tables(records)  # without the intruder there is a table
    with pytest.raises(RecordError, match=message):
        build_tables([*records, intruder])


def test_duplicates_that_agree_are_one_and_others_are_refused(records):
    (table,) = build_tables([*records, records[0]])
    assert table.values.notna().to_numpy().sum() == 15
    with pytest.raises(RecordError, match=r"two records of the same cell disagree: fbank / IC / reverb.*0 .*77"):
        build_tables([*records, cell("fbank", "reverb", 77)])


def test_no_records():
    with pytest.raises(RecordError, match="no records"):
        build_tables([])


def test_mean_over_seeds(records):
    second = [cell("teacher", c, 40.0, seed=2) for c in CONDITIONS]
    first = [r for r in records if r.label == "teacher"]
    (table,) = build_tables([*first, *second])
    assert table.values.loc["teacher", "clean"] == 31 and table.seeds == (2, 1337)
    assert "mean of seeds 2, 1337" in table.title
    assert table.errors.loc["teacher", "clean"] == pytest.approx(math.hypot(standard_error([31.0], 400, "accuracy"), 9))


def test_equal_labels_are_told_apart():
    (table,) = build_tables([cell("student", "clean", i, digest=str(i) * 64) for i in (7, 8)])
    assert list(table.values.index) == [
        "student (robustdistiller_local 77777777)",
        "student (robustdistiller_local 88888888)",
    ]


def test_same_condition_from_other_sources_is_another_column(records):
    other = [
        cell(u, "reverb", 5, sources={"rir": {"name": "x", "digest": "0"}}) for u in ("teacher", "student", "fbank")
    ]
    (table,) = build_tables([*records, *other])
    assert sum(column.startswith("reverb [") for column in table.values.columns) == 2


def test_plot_is_written_and_not_empty(records, tmp_path):
    (table,) = build_tables(records)
    path = plot_table(table, tmp_path / "deep" / "ic.png", reference="teacher")
    image = matplotlib.image.imread(path)
    assert image.shape[0] > 300 and image.shape[1] > 600
    pixels = np.round(255 * image[..., :3]).astype(int).reshape(-1, 3)
    colours = {tuple(colour) for colour in np.unique(pixels, axis=0)}
    assert {(0, 114, 178), (213, 94, 0), (0, 0, 0)} <= colours  # two upstreams and the reference line
    assert [p.name for p in path.parent.iterdir()] == ["ic.png"]
    with pytest.raises(ValueError, match="no row 'master' in the table; rows: teacher, student, fbank"):
        plot_table(table, path, reference="master")
