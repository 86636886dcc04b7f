"""Every format that the leaderboard is written in, and its options on the command line."""

from __future__ import annotations

import dataclasses
import json
import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from typer.testing import CliRunner

from robustdistiller.cli.main import app
from robustdistiller.eval.report.published import load_published
from robustdistiller.eval.report.tables import grids
from robustdistiller.eval.report.utterances import utterance_scores
from robustdistiller.eval.results.files import record_path, write_record
from robustdistiller.eval.results.item_scores import ItemScores, Outcomes, write_outcomes
from robustdistiller.eval.results.record import Metric

from . import boards
from .boards import alone, cells

QUICKSTART = Path(__file__).parents[3] / "results" / "quickstart" / "records"
published = load_published()


def run(*arguments: str):
    return CliRunner().invoke(app, ["leaderboard", *arguments], env={"COLUMNS": "300"})


def test_nothing_is_written_unless_asked(folder, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    before = sorted(tmp_path.rglob("*"))
    result = run(str(folder))
    assert result.exit_code == 0, result.output
    assert sorted(tmp_path.rglob("*")) == before


def test_csv_markdown_and_latex(folder, tmp_path):
    result = run(str(folder), "--out", str(tmp_path / "out"))
    assert result.exit_code == 0, result.output
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == [
        *(f"leaderboard.{end}" for end in ("csv", "html", "md", "tex")),
        "robustness.csv",
    ]
    frame = pd.read_csv(tmp_path / "out" / "leaderboard.csv")
    assert set(frame.origin) == {"measured", "published"}
    assert (
        frame[frame.origin == "published"].source.notna().all()
        and frame[frame.origin == "measured"].source.isna().all()
    )
    assert frame.query("system == 'DPHuBERT' and task == 'ASR'").value.item() == 10.47
    assert len(frame.query("origin == 'measured'")) == 8
    summaries = pd.read_csv(tmp_path / "out" / "robustness.csv").query("system == 'student'").set_index("summary")
    corrupted = [cell.value for title, cell in cells(alone(folder), "student").items() if title != "clean"]
    assert float(summaries.value["mean"]) == pytest.approx(sum(corrupted) / 3)
    assert summaries.low["loss %"] < float(summaries.value["loss %"]) < summaries.high["loss %"]
    assert summaries.value["worst"] == "noise 0 dB" and summaries.over["mean"] == "noise 10 dB; noise 0 dB; reverb"
    latex = (tmp_path / "out" / "leaderboard.tex").read_text()
    assert latex.count(r"\toprule") == latex.count(r"\bottomrule") == latex.count(r"\begin{tabular}") == 2
    assert r"superb\_s" in latex and not re.search(r"(?<!\\)_", latex) and r"DPHuBERT \textsuperscript{\dag}" in latex
    for block in re.findall(r"\\begin\{tabular\}\{(l r*|lr+)\}(.*?)\\end\{tabular\}", latex, re.DOTALL):
        lines = [line for line in block[1].splitlines() if line.endswith(r"\\")]
        assert {line.count(" & ") for line in lines} == {len(block[0]) - 1}
    markdown = (tmp_path / "out" / "leaderboard.md").read_text()
    tables = re.findall(r"(?:^\|.*\n)+", markdown, re.MULTILINE)
    assert len(tables) == 2
    for one in tables:
        assert len({line.count("|") for line in one.splitlines()}) == 1


@pytest.mark.parametrize(
    ("label", "printed"),
    [("[b] 2 < 3 | 4", r"{}[b] 2 \textless{} 3 \textbar{} 4"), ("*best*", "{}*best*"), ("a [b]*", "a [b]*")],
)
def test_labels_are_text_in_latex(tmp_path, label, printed):
    """After the end of a row, a bracket would be read as the space to leave, and a star as the row's own."""
    boards.write_answers(tmp_path, label)
    latex = [grid.to_latex() for grid in grids(alone(tmp_path))]
    assert all(f"\\midrule\n{printed} & " in one for one in latex)


def test_json_holds_numbers_notes_and_sources(folder):
    result = run(str(folder), "--json")
    found = json.loads(result.output)
    assert {"system", "value", "low", "high", "seeds", "condition"} <= set(found["numbers"][0])
    assert {one["summary"] for one in found["summaries"]} >= {"mean", "difference", "loss %"}
    assert found["numbers"][0]["system"] == "teacher" and found["notes"] and "dphubert-table-1" in found["sources"]


def test_terminal_shows_quickstart_beside_the_published_systems():
    result = run(str(QUICKSTART))
    assert result.exit_code == 0, result.output
    assert boards.quickstart_score("robust student", "clean") in result.output and "DPHuBERT †" in result.output
    assert "words (596 items): not a standard run" in " ".join(result.output.split())
    result = run(str(QUICKSTART), "--no-published")
    assert result.exit_code == 0 and "DPHuBERT" not in result.output
    assert "superb_s" not in result.output and "MACs" not in result.output, "nothing stands in these columns"


@pytest.mark.parametrize("name", ["distilhubert, distorted (correlation)", "FBANK"])
@pytest.mark.parametrize("suffix", ["", " [last layer only]"])
def test_the_published_systems_that_are_named_are_shown(name, suffix):
    result = run(str(QUICKSTART), "--system", name + suffix)
    assert result.exit_code == 0 and f"{name.lower()}" in result.output.lower() and "DPHuBERT" not in result.output


def test_no_digit_is_lost_on_a_narrow_terminal(folder):
    result = CliRunner().invoke(app, ["leaderboard", str(folder), "--no-published"], env={"COLUMNS": "40"})
    for cell in cells(alone(folder), "student").values():
        assert f"{cell.value:.2f}" in result.output


def test_utterances_have_the_columns_of_speech_robust_bench(folder, tmp_path):
    assert run(str(folder), "--out", str(tmp_path), "--format", "utterances").exit_code == 0
    frame = pd.read_csv(tmp_path / "utterances.csv")
    assert list(frame.columns[:10]) == [
        *("id", "reference", "prediction", "wer", "cer", "model", "augmentation", "severity", "dataset", "runid"),
    ]
    assert len(frame) == 2 * 4 * 200
    clean = frame[(frame.model == "student") & (frame.condition == "clean")]
    assert clean.score.mean() == pytest.approx(cells(alone(folder), "student")["clean"].value)
    assert set(clean.severity) == {0} and set(clean.dataset) == {"IC test"}


@pytest.mark.filterwarnings("error")
def test_an_utterance_without_anything_to_count_has_no_score(tmp_path):
    kept = Outcomes.sort(["a", "b", "c"], {"der": ItemScores(np.array([1.0, 0, 2]), np.array([10.0, 0, 20]))})
    metric = Metric("der", kept.metrics["der"].value, False, "%")
    one = boards.record("student", task="SD", metrics=[metric], items=3)
    pointer = write_outcomes(record_path(tmp_path, one).with_suffix(".npz"), kept)
    write_record(tmp_path, dataclasses.replace(one, outcomes=pointer))
    found = utterance_scores(alone(tmp_path))
    assert found.score.round(6).tolist()[::2] == [10, 10] and np.isnan(found.score[1])


# Errors


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--system", "USAD"], "--system USAD: it has no verified number under SUPERB's rules"),
        (["--system", "DPHuBRET"], "no published system is called 'DPHuBRET'; did you mean 'DPHuBERT'"),
        (["--format", "csv,pdf"], "unknown format pdf; known: csv,robustness,markdown,latex,html,utterances"),
        (["--official", "XYZ"], "unknown task 'XYZ'"),
        (["--format", "csv"], "no folder is given to write them to; add --out FOLDER"),
        (["--title", "Mine"], "no folder is given to write them to; add --out FOLDER"),
        (["--title", "Mine", "--out", "x", "--format", "csv"], "which --format csv does not write; add html"),
        (["--system", "DPHuBERT", "--no-published"], "--no-published hides them"),
        (["--reference", "techer"], "no system is called 'techer'; did you mean 'teacher'"),
    ],
)
def test_wrong_options_are_one_sentence(folder, arguments, message):
    result = run(str(folder), *arguments)
    assert result.exit_code == 2
    assert result.stderr.startswith("robustdistiller leaderboard: ") and message in result.stderr
    assert len(result.stderr.strip().splitlines()) == 1


def test_folders_without_records(tmp_path):
    result = run(str(tmp_path))
    assert result.exit_code == 2 and f"there are no records in {tmp_path}" in result.stderr
    result = run(str(tmp_path / "nowhere"))
    assert result.exit_code == 2 and "no folder of records" in result.stderr
