"""The page: whole in itself, safe with any name, and working in a browser."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from robustdistiller.eval.report.board import leaderboard
from robustdistiller.eval.results.files import write_record
from robustdistiller.eval.results.record import Metric
from tests.pages import Page, in_browser, needs_browser

from . import boards

QUICKSTART = Path(__file__).parents[3] / "results" / "quickstart" / "records"


def test_the_page_is_whole_in_itself():
    board = leaderboard([QUICKSTART])
    page = board.to_html()
    found = Page(page)
    assert found.loads == [] and "@import" not in page and "url(" not in page and "fetch(" not in page
    assert "default-src 'none'" in page and "{{" not in page
    assert len(set(found.ids)) == len(found.ids)
    controls = {"task", "condition", "size", "origin", "name", "first", "second", "one"}
    assert controls | {"table", "curves", "heat", "scatter", "pair", "over-conditions", "sources"} <= set(found.ids)
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
    page = leaderboard([]).to_html()
    names = re.findall(r"^(?:async )?function (\w+)", page, re.MULTILINE)
    assert len(names) > 20 and sorted(set(names)) == sorted(names)


def test_names_cannot_become_markup(tmp_path):
    evil = '</script><script>document.title="owned"</script><b>&{{style}}'
    boards.write_answers(tmp_path, evil)
    page = leaderboard([tmp_path], published=False, reference=evil).to_html(evil)
    found = Page(page)
    assert found.tags.count("script") == 2 and "b" not in found.tags
    assert json.loads(found.scripts[0])["rows"][0]["name"] == evil


def test_labels_that_differ_in_case_are_compared(tmp_path):
    for label, gain in (("Student", 0.0), ("student", 0.08), ("published:x", 0.0)):
        boards.write_answers(tmp_path, label, gain=gain)
    data = json.loads(Page(leaderboard([tmp_path]).to_html()).scripts[0])
    assert {frozenset((pair["first"], pair["second"])) for pair in data["pairs"]} == {
        frozenset(pair) for pair in ((0, 1), (0, 2), (1, 2))
    }


@pytest.fixture
def apart(tmp_path):
    """Two systems of which one has all items right and the other none, so that their difference has no interval."""
    for label, share in (("right", 2.0), ("wrong", -1.0)):
        boards.write_answers(tmp_path, label, items=6, conditions={"clean": share})
        boards.write_answers(tmp_path, label, items=6, conditions={"noise:snr_db=2.5": 0.6, "noise:snr_db=17.5": 0.7})
        for condition, value in (("clean", 0.0648), ("noise:snr_db=5", 0.0312)):
            metrics = [Metric("mtwv", value, True, "")]
            write_record(tmp_path, boards.record(label, condition, task="QbE", split="eval", metrics=metrics))
    return leaderboard([tmp_path], published=False)


def test_a_difference_without_an_interval_is_on_the_page(apart):
    data = json.loads(Page(apart.to_html()).scripts[0])
    [clean] = [c["id"] for g in data["groups"] for c in g["columns"] if c["clean"] and g["title"].startswith("IC")]
    difference, low, high, p, better = data["pairs"][0]["lines"][clean]
    assert (difference, low, high, better) == (100, None, None, "") and p == pytest.approx(4 * 2 * 0.5**6)


# In a browser

_CHECK = """
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
  set("task", [...document.getElementById("task").options].find((o) => o.text.startsWith("words (")).value);
  found.task = heads();
  found.taskNames = names();
  set("name", "robust");
  found.named = names();
  set("name", "");
  found.curves = document.querySelectorAll("#curves svg polyline").length;
  found.heat = [...document.querySelectorAll("#heat tbody td")].map((cell) => cell.textContent);
  found.scatter = document.querySelectorAll("#scatter svg g[tabindex]").length;
  found.scatterTitle = document.querySelector("#scatter p.hint").textContent;
  const place = (name) => [...document.getElementById("one").options].find((o) => o.text === name).value;
  const text = (cells) => [...cells].map((cell) => cell.textContent);
  set("first", place("teacher"));
  set("second", place("robust student"));
  found.pair = [...document.querySelectorAll("#pair tbody tr")].map((row) => text(row.children));
  set("first", place("robust student"));
  set("second", place("teacher"));
  found.turned = [...document.querySelectorAll("#pair tbody tr")].map((row) => text(row.children));
  set("one", place("robust student"));
  found.one = [...document.querySelectorAll("#over-conditions tbody tr")].map((row) => text(row.children));
  set("task", "");
  set("origin", "");
  set("second", place("DPHuBERT (published)"));
  found.nothing = document.getElementById("pair").textContent;
  found.scatterAll = document.querySelectorAll("#scatter svg g[tabindex]").length;
  found.overflow = document.documentElement.scrollWidth - document.documentElement.clientWidth;
  found.width = window.innerWidth;
  found.small = found.small.length;
"""


@needs_browser
def test_the_page_works_in_a_browser_of_phone_width(tmp_path):
    found = in_browser(leaderboard([QUICKSTART], reference="teacher").to_html(), _CHECK, tmp_path)
    assert found["errors"] == []
    assert found["start"][:3] == ["teacher", "plain student", "robust student"] and "DPHuBERT" in found["start"]
    assert found["heads"][:5] == ["system", "size", "MACs", "superb_s", "overall"]
    assert found["bySuperb"] == ["WavLM Large", "WavLM Base+"] and found["ariaSort"] == "descending"
    assert found["focused"] == "superb_s"  # sorting by keyboard keeps the place
    assert (found["byError"], found["byErrorDown"]) == ("WavLM Large", "FBANK")
    assert 0 < found["small"] < len(found["start"])
    assert found["task"][:8] == ["system", "size", "clean", "noise 10 dB", "noise 0 dB", "reverb", *found["task"][6:8]]
    assert {"mean", "difference", "loss %", "% of teacher's", "area, noise"} <= set(found["task"])
    there, back = ({line[0]: line for line in found[name]} for name in ("pair", "turned"))
    assert list(there) == [f"words (596 items), {title}" for title in boards.TITLES]
    noise = there["words (596 items), noise 10 dB"]
    scores = [boards.quickstart_score(name, "noise 10 dB") for name in ("teacher", "robust student")]
    assert noise[2:4] == [f"{score} ‡" for score in scores]
    number = r"([+-]\d+\.\d\d)"
    gains = [
        re.fullmatch(f"{number}{number} to {number}", line[4].replace("\u2212", "-")).groups()
        for line in (noise, back["words (596 items), noise 10 dB"])
    ]
    gain, low, high = map(float, gains[1])
    assert gain == pytest.approx(float(scores[1]) - float(scores[0]), abs=0.011) and low < gain < high
    assert [float(one) for one in gains[0]] == [-gain, -high, -low]
    told = "robust student is better" if low > 0 else "teacher is better" if high < 0 else "no difference shown"
    assert noise[6] == told
    assert [line[0] for line in found["one"]] == list(there)
    clean, noisy = (float(boards.quickstart_score("robust student", name)) for name in ("clean", "noise 10 dB"))
    assert found["one"][1][2].startswith(f"{noisy:.2f} ‡")
    assert float(found["one"][1][4]) == pytest.approx(clean - noisy, abs=0.011)
    assert float(found["one"][1][5].removesuffix(" %")) == pytest.approx(100 * (clean - noisy) / clean, abs=0.51)
    assert found["nothing"] == "These two have no number in common."
    systems = boards.quickstart_systems()
    assert len(found["taskNames"]) == len(systems) and found["named"] == ["robust student"]
    assert found["curves"] == 2 * len(systems)  # each has a line over SNR and one to clean
    assert found["one"][1][5] in found["heat"]
    assert found["scatterTitle"].endswith("acc % ↑")  # a paragraph wraps, where text in the drawing was cut off
    assert found["scatter"] == len(systems) - 1 and found["scatterAll"] > 25
    assert found["width"] == 390 and found["overflow"] == 0


_SMALL = """
  const set = (id, value) => {
    const control = document.getElementById(id);
    control.value = value;
    control.dispatchEvent(new Event("input"));
  };
  const text = (nodes) => [...nodes].map((one) => one.textContent);
  const texts = (where) => text(document.querySelectorAll(where));
  const pairs = () => [...document.querySelectorAll("#pair tbody tr")].map((row) => text(row.children));
  const found = { errors: window.wrong, ticks: texts("#curves svg text"), pair: pairs() };
  set("first", 1);
  set("second", 0);
  found.turned = pairs();
  set("task", [...document.getElementById("task").options].find((o) => o.text.startsWith("QbE")).value);
  found.sums = texts("#table tbody tr:first-child td");
"""


@needs_browser
def test_the_page_shows_small_steps_and_what_has_no_interval(apart, tmp_path):
    found = in_browser(apart.to_html(), _SMALL, tmp_path)
    assert found["errors"] == []
    assert {"2.5", "17.5", "clean"} <= set(found["ticks"])
    there, back = ({line[0]: line[4] for line in found[name]}["IC (6 items), clean"] for name in ("pair", "turned"))
    assert (there, back) == ("+100.00", "\u2212100.00")
    assert found["sums"][-3:] == ["0.0312", "0.0336", "51.8519"]
