"""The page of a run: of one that has ended, was stopped, went on, is being written, and has odd names in it."""

from __future__ import annotations

import base64
import re
import shutil
from pathlib import Path

import pytest
import yaml

from robustdistiller.common.settings import SettingsError
from robustdistiller.pretrain import RunInterrupted, distill
from robustdistiller.pretrain.page.charts import loss_charts, validation_charts
from robustdistiller.pretrain.page.run import run_page, write_run_page
from robustdistiller.pretrain.training.log import append_line, read_history
from tests.pages import Page, in_browser, needs_browser


def rows(page: str, section: str) -> list[list[str]]:
    """The texts of a table's cells, without its head."""
    table = page.split(f'id="{section}-title"', 1)[1].split("</table>", 1)[0].split("<tbody>")[1]
    cells = [re.findall(r"<t[hd][^>]*>(.*?)</t[hd]>", row, re.DOTALL) for row in table.split("</tr>")]
    return [row for row in cells if row]


def copied(run: Path, folder: Path) -> Path:
    """A run's folder without what is large."""
    return shutil.copytree(run, folder / "copy", ignore=shutil.ignore_patterns("*.ckpt", "checkpoints", "tensorboard"))


def test_a_finished_run(straight: Path):
    page = (straight / "run.html").read_text(encoding="utf-8")
    found = Page(page)
    assert found.loads == [] and "script" not in found.tags and "default-src 'none'" in page
    assert len(set(found.ids)) == len(found.ids)
    last = read_history(straight / "history.csv")[-1]
    (stage,) = rows(page, "stages")
    assert (
        stage[:4] == ["distil", "6", "6", f"{last['epoch']:.0f}"]
        and stage[5] == f"{last['loss']:.4f}"
        and "Finished." in page
    )
    titles = re.findall(r"<h3>(.*?)</h3>", page)
    assert titles[:4] == ["loss", "l1 by target", "cosine by target", "enhancement"] and "learning rate" in titles
    assert f"{last['loss']:.4g} at step 6" in page  # for those who do not see the chart
    teacher, student = rows(page, "costs")
    assert teacher[0] == "teacher" and student[0] == "student" and teacher[4] == "100%"
    assert "num_layers: 2" in page and "torch" in page.split('id="config-title"')[1]
    for image in re.findall(r'src="data:image/svg\+xml;base64,([^"]+)"', page):
        svg = base64.b64decode(image).decode()
        assert "<svg" in svg and ">step</text>" in svg


def test_a_run_that_was_stopped_and_went_on(make_config, tmp_path: Path):
    class Stop:
        def on_step_end(self, distiller, report) -> None:
            if report.step == 3 and self.active:
                raise KeyboardInterrupt

    stop = Stop()
    stop.active = True
    config = make_config(tmp_path, "trainer.save_every_steps=1", "trainer.log_every_steps=1")
    with pytest.raises((KeyboardInterrupt, RunInterrupted)):
        distill(config, callbacks=[stop])
    assert not (tmp_path / "run.html").exists()
    page = write_run_page(tmp_path).read_text(encoding="utf-8")
    assert "Not finished: step 3 of 6 of stage distil is logged." in page and rows(page, "stages")[0][1:3] == ["3", "6"]
    stop.active = False
    distill(config, callbacks=[stop])
    page = (tmp_path / "run.html").read_text(encoding="utf-8")
    assert "Finished." in page and rows(page, "stages")[0][1:3] == ["6", "6"]


def test_before_the_first_line_and_while_a_line_is_written(straight: Path, tmp_path: Path):
    folder = copied(straight, tmp_path)
    history = folder / "history.csv"
    text = history.read_text()
    history.write_text(text[:-40])  # the last line is cut in a number
    assert rows(run_page(folder), "stages")[0][1] == "4" and "Not finished" in run_page(folder)
    history.unlink()
    (folder / "cost.json").unlink()
    page = run_page(folder)
    assert "No step has been logged yet." in page and "<img" not in page and "costs-title" not in page


def test_all_steps_done_but_not_exported(straight: Path, tmp_path: Path):
    assert "the student has not been exported yet" in run_page(copied(straight, tmp_path))


def test_a_folder_without_a_run_is_refused(tmp_path: Path):
    with pytest.raises(SettingsError, match=r"has no config.yaml; expected the folder of a run"):
        run_page(tmp_path)


def test_names_cannot_become_markup(straight: Path, tmp_path: Path):
    evil = '</pre><script>document.title="owned"</script>'
    folder = copied(straight, tmp_path)
    config = yaml.safe_load((folder / "config.yaml").read_text())
    config["about"] = config["recipe"] = evil
    (folder / "config.yaml").write_text(yaml.safe_dump(config))
    line = {"stage": "distil", "step": 2, "condition": evil, "cosine": 0.5}
    append_line(folder / "validation.csv", line)
    page = run_page(folder)
    assert "script" not in Page(page).tags and "&lt;script&gt;" in page
    assert rows(page, "validation") == [[evil.replace("<", "&lt;").replace(">", "&gt;").replace('"', "&#34;"), "0.5"]]


def test_stages_follow_each_other_and_pruning_has_its_target():
    history = [
        {"stage": "prune", "step": 1.0, "loss": 3.0, "sparsity": 0.1, "target_sparsity": 0.2},
        {"stage": "prune", "step": 2.0, "loss": 2.0, "sparsity": 0.3, "target_sparsity": 0.4},
        {"stage": "distil", "step": 1.0, "loss": 1.0},
    ]
    loss, sparsity = loss_charts(history)
    assert loss.words == "loss: 3 at step 1, 1 at step 3" and "distil" in svg_of(loss)
    assert sparsity.words == "reached: 0.1 at step 1, 0.3 at step 2; target: 0.2 at step 1, 0.4 at step 2"


def test_conditions_keep_their_colour_where_one_of_them_has_no_number():
    lines = [
        {"stage": "distil", "step": 1.0, "condition": "clean", "si_snr_db": 9.0},
        {"stage": "distil", "step": 1.0, "condition": "noise", "si_snr_db": 5.0, "si_snr_improvement_db": 1.0},
    ]
    both, gain = (svg_of(chart) for chart in validation_charts(lines, lines))
    assert "#0072b2" in both.lower() and "#d55e00" in both.lower()
    assert "#0072b2" not in gain.lower() and "#d55e00" in gain.lower()


def test_values_that_are_not_finite_leave_a_gap():
    lines = [{"stage": "distil", "step": step, "loss": loss} for step, loss in ((1.0, 2.0), (2.0, float("nan")))]
    assert loss_charts(lines)[0].words == "loss: 2 at step 1, 2 at step 1"


def svg_of(chart) -> str:
    return base64.b64decode(chart.image.partition(",")[2]).decode()


_CHECK = """
const images = [...document.images];
await Promise.all(images.map((image) => image.decode()));
const found = { errors: window.wrong, images: images.map((image) => [image.naturalWidth, image.clientWidth]) };
found.alt = images.every((image) => image.alt.length > 20);
const summary = document.querySelector("summary");
summary.focus();
found.focused = document.activeElement === summary;
summary.click();
found.config = document.querySelector("pre").getBoundingClientRect().height > 100;
found.overflow = document.documentElement.scrollWidth - document.documentElement.clientWidth;
found.width = window.innerWidth;
"""


@needs_browser
def test_the_page_works_in_a_browser_of_phone_width(straight: Path, tmp_path: Path):
    folder = copied(straight, tmp_path)
    lines = ["stage,step,condition,l1,cosine,probe_accuracy"]
    lines += [f"distil,{step},noise+reverb+codec:snr_db=10,0.5,0.4,0.9" for step in (2, 4, 6)]
    (folder / "validation.csv").write_text("\n".join(lines) + "\n")
    found = in_browser(run_page(folder), _CHECK, tmp_path)
    assert found["errors"] == [] and len(found["images"]) == 11 and found["alt"]
    assert all(natural > 300 and 300 < shown <= 390 for natural, shown in found["images"])
    assert found["focused"] and found["config"] and found["width"] == 390 and found["overflow"] == 0
