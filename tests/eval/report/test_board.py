"""The leaderboard: what stands in which column, what is refused, and every format it is written in."""

from __future__ import annotations

import dataclasses
import html.parser
import json
import re
import shutil
import subprocess
from pathlib import Path

import pandas as pd
import pytest
from typer.testing import CliRunner

from robustdistiller.cli.main import app
from robustdistiller.eval.report.measured import measured_systems, read_systems
from robustdistiller.eval.report.page.html import to_html
from robustdistiller.eval.report.published import load_published
from robustdistiller.eval.report.rows import build_board
from robustdistiller.eval.report.tables import clean_grid, condition_grids, to_csv
from robustdistiller.eval.results.files import write_record
from robustdistiller.eval.results.record import Metric, RecordError
from robustdistiller.eval.tasks import TASKS
from tests.waiting import HANG_S

from . import boards

QUICKSTART = Path(__file__).parents[3] / "results" / "quickstart" / "records"


published = load_published()


@pytest.fixture
def folder(tmp_path) -> Path:
    boards.write_answers(tmp_path / "records", "teacher", gain=0.05)
    boards.write_answers(tmp_path / "records", "student")
    return tmp_path / "records"


def superb_records(label: str = "ours", system: str = "DPHuBERT") -> dict[Path, object]:
    """Records that claim a published system's scores on every task, on official test sets where they are known."""
    files = {}
    by_task: dict[str, list[Metric]] = {}
    for one in published.of(system):
        by_task.setdefault(one.task, []).append(Metric(one.metric, one.value, one.metric != "wer", "%"))
    for code, metrics in by_task.items():
        split = TASKS[code].splits[0]
        items = TASKS[code].item_counts.get(split, 77)
        files[Path(f"{code}.json")] = boards.record(
            label, task=code, split=split, metrics=metrics, items=items, rules_digest=f"{len(files):02x}" * 32
        )
    return files


def run(*arguments: str):
    return CliRunner().invoke(app, ["leaderboard", *arguments], env={"COLUMNS": "300"})


# What stands where


def test_reference_systems_are_there_from_the_first_table_on(folder):
    grid = clean_grid(build_board(read_systems([folder]), published))
    names = [row[0] for row in grid.rows]
    assert names == [
        *("teacher", "student"),
        *("WavLM Base+ †", "HuBERT Base †", "DPWavLM †", "DPHuBERT †", "DistilHuBERT †"),
    ]
    assert "† published by others, not measured here." in grid.notes
    scores = {row[0]: row[-1] for row in grid.rows}
    assert (scores["WavLM Base+ †"], scores["DPHuBERT †"], scores["DistilHuBERT †"]) == ("1106", "866", "717")
    assert scores["teacher"] == "-"
    alone = clean_grid(build_board(read_systems([folder]), None))
    assert [row[0] for row in alone.rows] == ["teacher", "student"] and not alone.notes[0].startswith("†")


def test_other_test_sets_never_share_a_column_with_published_numbers(folder):
    board = build_board(read_systems([folder]), published)
    for column in board.columns:
        kinds = {row.published for row in board.rows if column in row.cells}
        assert len(kinds) == 1
    grid = clean_grid(board)
    assert {"IC", "IC (200 items)"} <= set(grid.header)
    assert any("scored on 200 items and the official test set has 3793" in note for note in grid.notes)


def test_the_official_test_set_shares_the_column(tmp_path):
    boards.write_answers(tmp_path, "student", items=3793)
    board = build_board(read_systems([tmp_path]), published, draws=50)
    (column,) = [c for c in board.columns if (c.task, c.condition, c.items) == ("IC", "clean", None)]
    named = {row.name: row for row in board.rows}
    assert column in named["student"].cells and named["DPHuBERT"].cells[column].value == 97.92
    assert any("student has no superb_s" in note and "missing: PR, SID, KS" in note for note in board.notes)


def test_superb_s_of_measured_systems_needs_all_tasks_on_official_test_sets():
    files = superb_records()
    unknown = [c for c in ("ER", "ASV", "SD", "QbE", "SF") if not TASKS[c].item_counts.get(TASKS[c].splits[0])]
    board = build_board(measured_systems(files), published, official=unknown)
    (row,) = [row for row in board.rows if not row.published]
    assert round(row.superb_s) == 866 and round(row.overall, 1) == 78.9
    for missing in ("SF", "KS"):
        fewer = {path: one for path, one in files.items() if one.task != missing}
        board = build_board(measured_systems(fewer), published, official=unknown)
        (row,) = [row for row in board.rows if not row.published]
        assert row.superb_s is None and row.overall is None
        assert f"ours has no superb_s: it is the mean over ten tasks, and these are missing: {missing}" in board.notes
    if unknown:
        board = build_board(measured_systems(files), published)
        assert board.rows[0].superb_s is None
        assert any(f"--official {unknown[0]}" in note for note in board.notes)


def test_partial_cells_are_not_shown_but_said(folder):
    partial = boards.record("student", "noise+reverb:snr_db=5", 99.25, status="partial", reason="stopped at 3 of 200")
    write_record(folder, partial)
    board = build_board(read_systems([folder]), published)
    assert (
        "student, IC test, noise+reverb:snr_db=5, seed 1337 is not shown: partial, stopped at 3 of 200" in board.notes
    )
    everything = to_csv(board).to_csv() + to_html(board) + "".join(g.to_markdown() for g in condition_grids(board))
    assert "99.25" not in everything


def test_values_intervals_and_summaries(folder):
    board = build_board(read_systems([folder]), None)
    (grid,) = condition_grids(board)
    assert grid.title == "IC (200 items): accuracy (%), higher is better"
    assert grid.header[:5] == ["system", "clean", "noise 10 dB", "noise 0 dB", "reverb"]
    assert grid.header[5:] == ["mean", "loss", "area, noise"]
    student = {row.name: row for row in board.rows}["student"]
    cells = {column.condition: cell for column, cell in student.cells.items()}
    assert cells["clean"].low < cells["clean"].value < cells["clean"].high
    (found,) = student.robustness.values()
    corrupted = [cells[c].value for c in cells if c != "clean"]
    assert found.mean.value == pytest.approx(sum(corrupted) / 3)
    assert found.degradation.low < found.degradation.value < found.degradation.high
    assert re.fullmatch(r"\d+\.\d\d \[\d+\.\d\d, \d+\.\d\d\]", grid.rows[1][1])
    assert (0, 1) in grid.best and (1, 1) not in grid.best  # the teacher is better


def test_seeds_are_averaged(tmp_path):
    boards.write_answers(tmp_path, "student", seed=1)
    boards.write_answers(tmp_path, "student", gain=0.1, seed=2)
    (system,) = read_systems([tmp_path])
    one = {key.condition: cell for key, cell in system.cells.items()}["reverb"]
    assert one.values["accuracy"] == pytest.approx(sum(r.main_metric.value for r in one.records) / 2)
    assert one.items["accuracy"].value == pytest.approx(one.values["accuracy"])


# Formats


def test_csv_markdown_and_latex(folder, tmp_path):
    result = run(str(folder), "--format", "csv,markdown,latex,html", "--out", str(tmp_path / "out"))
    assert result.exit_code == 0, result.output
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == [
        f"leaderboard.{end}" for end in ("csv", "html", "md", "tex")
    ]
    frame = pd.read_csv(tmp_path / "out" / "leaderboard.csv")
    assert set(frame.origin) == {"measured", "published"}
    assert (
        frame[frame.origin == "published"].source.notna().all()
        and frame[frame.origin == "measured"].source.isna().all()
    )
    assert frame.query("system == 'DPHuBERT' and task == 'ASR'").value.item() == 10.47
    assert len(frame.query("origin == 'measured'")) == 8
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


def test_terminal_shows_quickstart_beside_the_published_systems():
    result = run(str(QUICKSTART))
    assert result.exit_code == 0, result.output
    assert boards.quickstart_score("robust student", "clean") in result.output and "DPHuBERT †" in result.output
    assert "346 items and the official test set has 3793" in result.output
    result = run(str(QUICKSTART), "--no-published")
    assert result.exit_code == 0 and "DPHuBERT" not in result.output and "superb_s" in result.output


class Page(html.parser.HTMLParser):
    """Elements, attributes that could load something, and ids of a page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.loads: list[tuple[str, str]] = []
        self.ids: list[str] = []
        self.scripts: list[str] = []
        self.labelled: set[str] = set()
        self.inside = ""
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        self.inside = tag
        for name, value in attributes:
            if name in ("src", "srcset", "data", "action") or (name == "href" and not value.startswith("#")):
                self.loads.append((tag, value))
            if name == "id":
                self.ids.append(value)
            if name in ("aria-labelledby", "aria-label"):
                self.labelled.add(value)

    def handle_endtag(self, tag):
        self.inside = ""

    def handle_data(self, text):
        if self.inside == "script":
            self.scripts.append(text)


def test_the_page_is_whole_in_itself():
    board = build_board(read_systems([QUICKSTART]), published, draws=50)
    page = to_html(board)
    found = Page(page)
    assert found.loads == [] and "@import" not in page and "url(" not in page and "fetch(" not in page
    assert "default-src 'none'" in page and "{{" not in page
    assert len(set(found.ids)) == len(found.ids)
    assert {"task", "condition", "size", "origin", "name", "table", "curves", "heat", "scatter", "sources"} <= set(
        found.ids
    )
    assert {"table-title", "heat-title"} <= found.labelled & set(found.ids) and "noscript" in found.tags
    data = json.loads(found.scripts[0])
    rows = {row["name"]: row for row in data["rows"]}
    columns = {c["id"]: (g, c) for g in data["groups"] for c in g["columns"]}
    robust = {columns[name][1]["title"]: cell["v"] for name, cell in rows["robust student"]["cells"].items()}
    assert f"{robust['noise 10 dB']:.2f}" == boards.quickstart_score("robust student", "noise 10 dB")
    assert rows["DPHuBERT"]["published"] and rows["DPHuBERT"]["superb"] == pytest.approx(866.2, abs=0.1)
    sources = [data["sources"][number - 1] for number in rows["DPHuBERT"]["sources"]]
    assert any(source.startswith("DPHuBERT, Table 1") for source in sources)
    assert all(not c["clean"] or c["snr"] is None for _, c in columns.values())
    # The table for browsers without scripts.
    assert page.count("<tr>") == 1 + len(board.rows) and "<td>10.47</td>" in page


def test_scripts_of_the_page_share_no_function_name():
    """They stand in one scope, where a later function silently takes the place of an earlier one."""
    page = to_html(build_board([], published))
    names = re.findall(r"^(?:async )?function (\w+)", page, re.MULTILINE)
    assert len(names) > 20 and sorted(set(names)) == sorted(names)


def test_names_cannot_become_markup(tmp_path):
    evil = '</script><script>document.title="owned"</script><b>&{{style}}'
    boards.write_answers(tmp_path, evil)
    page = to_html(build_board(read_systems([tmp_path]), None, draws=50), title=evil)
    found = Page(page)
    assert found.tags.count("script") == 2 and "b" not in found.tags
    assert json.loads(found.scripts[0])["rows"][0]["name"] == evil


# Errors


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--system", "DPHuBRET"], "no published system is called 'DPHuBRET'; did you mean 'DPHuBERT'"),
        (["--format", "terminal,pdf"], "unknown format pdf; known: terminal,csv,markdown,latex,html"),
        (["--official", "XYZ"], "unknown task 'XYZ'"),
    ],
)
def test_wrong_options_are_one_sentence(folder, arguments, message):
    result = run(str(folder), *arguments)
    assert result.exit_code == 1
    assert result.stderr.startswith("robustdistiller leaderboard: ") and message in result.stderr
    assert len(result.stderr.strip().splitlines()) == 1


def test_folders_without_records(tmp_path):
    result = run(str(tmp_path))
    assert result.exit_code == 1 and f"there are no records in {tmp_path}" in result.stderr
    result = run(str(tmp_path / "nowhere"))
    assert result.exit_code == 1 and "no folder of records" in result.stderr


def test_records_that_were_edited_or_disagree(folder, tmp_path):
    path = next(folder.rglob("*.json"))
    text = path.read_text()
    path.write_text(re.sub(r'"value": [\d.]+', '"value": 99.9', text))
    result = run(str(folder))
    assert result.exit_code == 1 and "changed after it was written" in result.stderr and str(path) in result.stderr
    path.write_text(text)
    other = dataclasses.replace(boards.record("student", "clean", 12.5))
    write_record(tmp_path / "other", other)
    result = run(str(folder), str(tmp_path / "other"))
    assert result.exit_code == 1 and "two records of the same cell disagree" in result.stderr
    with pytest.raises(RecordError, match=r"12\.5"):
        read_systems([folder, tmp_path / "other"])
    assert [s.name for s in read_systems([folder, folder])] == [
        "teacher",
        "student",
    ]  # the same folder twice is no harm


# In a browser

BROWSER = next(
    (path for name in ("chromium", "chromium-browser", "google-chrome") if (path := shutil.which(name))), None
)
_CHECK = """
<script>
window.addEventListener("load", () => setTimeout(() => {
  const table = () => document.querySelector("#table table");
  const names = () => [...table().querySelectorAll("tbody th")].map((cell) => cell.firstChild.data.trim());
  const heads = () => [...table().querySelectorAll("thead button")].map((button) => button.textContent);
  const set = (id, value) => {
    const control = document.getElementById(id);
    control.value = value;
    control.dispatchEvent(new Event("input"));
  };
  const found = { errors: window.wrong, start: names(), heads: heads() };
  const sort = (name) => [...table().querySelectorAll("thead button")].find((b) => b.textContent === name).click();
  sort("superb_s");
  found.bySuperb = names().slice(0, 2);
  found.ariaSort = table().querySelector("th[aria-sort]").getAttribute("aria-sort");
  found.focused = document.activeElement.textContent;
  sort("PR");
  found.byError = names()[0];
  sort("PR");
  found.byErrorDown = names()[0];
  set("size", "30");
  found.small = names();
  set("size", "");
  set("origin", "measured");
  set("task", [...document.getElementById("task").options].find((o) => o.text.startsWith("IC (")).value);
  found.task = heads();
  found.taskNames = names();
  set("name", "robust");
  found.named = names();
  set("name", "");
  found.curves = document.querySelectorAll("#curves svg polyline").length;
  found.heat = [...document.querySelectorAll("#heat tbody td")].map((cell) => cell.textContent);
  found.scatter = document.querySelectorAll("#scatter svg g[tabindex]").length;
  set("task", "");
  set("origin", "");
  found.scatterAll = document.querySelectorAll("#scatter svg g[tabindex]").length;
  found.overflow = document.documentElement.scrollWidth - document.documentElement.clientWidth;
  found.width = window.innerWidth;
  found.small = found.small.length;
  parent.postMessage(found, "*");
}, 300));
</script></body>"""
_HOLDER = """<!doctype html><body><pre id="result"></pre>
<iframe src="page.html" style="width:390px;height:800px"></iframe>
<script>window.addEventListener("message", (event) => {
  document.getElementById("result").textContent = JSON.stringify(event.data);
});</script></body>"""


@pytest.mark.skipif(BROWSER is None, reason="no chromium on PATH (Debian: apt-get install chromium)")
def test_the_page_works_in_a_browser_of_phone_width(tmp_path):
    page = to_html(build_board(read_systems([QUICKSTART]), published, draws=50))
    catch = "<script>window.wrong = []; window.onerror = (words) => window.wrong.push(String(words));</script><title>"
    page = page.replace("<title>", catch, 1).replace("</body>", _CHECK, 1)
    (tmp_path / "page.html").write_text(page, encoding="utf-8")
    (tmp_path / "holder.html").write_text(_HOLDER, encoding="utf-8")
    shown = subprocess.run(
        [
            *(BROWSER, "--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={tmp_path / 'profile'}"),
            *(
                "--no-first-run",
                "--disable-extensions",
                "--disable-background-networking",
                "--disable-component-update",
            ),
            *("--virtual-time-budget=8000", "--dump-dom", (tmp_path / "holder.html").as_uri()),
        ],
        capture_output=True,
        text=True,
        timeout=HANG_S,
    )
    dumped = re.search(r'<pre id="result">(.*?)</pre>', shown.stdout, re.DOTALL)
    assert dumped and dumped[1], shown.stderr[-2000:]
    found = json.loads(html.unescape(dumped[1]))
    assert found["errors"] == []
    assert found["start"][:3] == ["teacher", "plain student", "robust student"] and "DPHuBERT" in found["start"]
    assert found["heads"][:5] == ["system", "size", "MACs", "superb_s", "overall"]
    assert found["bySuperb"] == ["WavLM Large", "WavLM Base+"] and found["ariaSort"] == "descending"
    assert found["focused"] == "superb_s"  # sorting by keyboard keeps the place
    assert (found["byError"], found["byErrorDown"]) == ("WavLM Large", "FBANK")
    assert 0 < found["small"] < len(found["start"])
    assert found["task"][:8] == ["system", "size", "clean", "noise 10 dB", "noise 0 dB", "reverb", *found["task"][6:8]]
    assert {"mean", "loss", "area, noise"} <= set(found["task"])
    assert len(found["taskNames"]) == 5 and found["named"] == ["robust student"]
    assert found["curves"] == 10  # five systems, each a line over SNR and one to clean
    assert "70 %" in found["heat"]
    assert found["scatter"] == 3 and found["scatterAll"] > 25
    assert found["width"] == 390 and found["overflow"] == 0
