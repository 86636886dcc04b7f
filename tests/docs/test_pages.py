"""The README and the pages of docs/: code blocks run; those marked as needing data are checked to be well typed."""

from __future__ import annotations

import importlib.util
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import pytest
import yaml
from typer.testing import CliRunner

from robustdistiller.cli.main import app, load
from robustdistiller.eval.run.options import parse
from robustdistiller.eval.sweep import load as load_sweep
from robustdistiller.eval.tasks import TASKS
from robustdistiller.pretrain import list_recipes, load_config
from robustdistiller.upstream import ENTRIES, EncoderConfig, SpeechEncoder, save_checkpoint

ROOT = Path(__file__).resolve().parents[2]
PAGES = sorted((ROOT / "docs").glob("*.md"))
# In the layout of DistilHuBERT, which every format takes.
STUDENT = EncoderConfig.tiny(num_layers=1, feature_norm=False, projection=True, prediction_layers=(4,))
_BLOCK = re.compile(r"(<!-- needs: [^>]+ -->\n)?^```(\w+)\n(.*?)^```$", re.DOTALL | re.MULTILINE)

_REST_OF_A_SWEEP = "out: exp/sweep\nupstreams: [fbank]\ntasks: [KS]\nconditions: [clean]"
_LOOP = re.compile(r"^for (\w+) in ([^;]+); do\n(.*?)^done$", re.DOTALL | re.MULTILINE)
_INCLUDED = re.compile(r'^--8<-- "(.+)"$', re.MULTILINE)


class Block(NamedTuple):
    """A block of code on a page."""

    place: str
    language: str
    code: str
    needs_more: bool


def _blocks() -> list[Block]:
    found = []
    for page in (ROOT / "README.md", *PAGES):
        text = page.read_text(encoding="utf-8")
        for match in _BLOCK.finditer(text):
            line = text[: match.start(2)].count("\n") + 1
            code = _INCLUDED.sub(lambda name: (ROOT / name[1]).read_text(encoding="utf-8"), match[3])
            found.append(Block(f"{page.name}:{line}", match[2], code, match[1] is not None))
    return found


BLOCKS = _blocks()


def _parametrize(*languages: str, needs_more: bool):
    chosen = [block for block in BLOCKS if block.language in languages and block.needs_more == needs_more]
    return pytest.mark.parametrize("block", chosen, ids=lambda block: block.place)


def _unrolled(code: str) -> str:
    """`for NAME in ...; do ... done` as the lines that it stands for."""
    return _LOOP.sub(
        lambda loop: "".join(loop[3].replace(f"${loop[1]}", value) for value in shlex.split(loop[2])), code
    )


def _commands(code: str) -> list[list[str]]:
    """The commands of a block that are ours, as words."""
    lines = [shlex.split(line, comments=True) for line in _unrolled(code.replace("\\\n", " ")).splitlines()]
    return [words for words in lines if words and words[0] in ("robustdistiller", "run_downstream.py")]


def test_there_are_pages_and_blocks_to_try():
    assert len(PAGES) >= 8 and len(BLOCKS) >= 25
    assert {block.language for block in BLOCKS} <= {"python", "bash", "yaml"}
    assert not [block.place for block in BLOCKS if "--8" in block.code], (
        "an example that was not found, or was reformatted"
    )


@_parametrize("python", needs_more=False)
def test_python_runs(block, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(TASKS, "_tasks", dict(TASKS))  # what a page registers is gone afterwards
    exec(compile(block.code, block.place, "exec", dont_inherit=True), {"__name__": "__main__"})


def test_onnx_runtime_runs_an_exported_student(tmp_path, monkeypatch, capsys):
    pytest.importorskip("onnxruntime")
    monkeypatch.chdir(tmp_path)
    save_checkpoint("student.ckpt", SpeechEncoder(STUDENT), {})
    assert CliRunner().invoke(app, ["export", "student.ckpt", "student.onnx"]).exit_code == 0
    (block,) = [one for one in BLOCKS if "onnxruntime.InferenceSession" in one.code]
    exec(compile(block.code, block.place, "exec", dont_inherit=True), {"__name__": "__main__"})
    assert "'layer_1': (2, 49, " in capsys.readouterr().out


@_parametrize("bash", needs_more=False)
def test_commands_run(block, corpus, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mini").symlink_to(ROOT / "mini")
    save_checkpoint("student.ckpt", SpeechEncoder(STUDENT), {})
    commands = _commands(block.code)
    assert commands
    for _, *words in commands:
        if words[:2] == ["prepare", "mini"]:  # as if it was called for the second time
            shutil.copytree(corpus.root, words[2], copy_function=os.link)
        result = CliRunner().invoke(app, words)
        assert result.exit_code == 0, f"{words}: {result.output}"


@_parametrize("python", needs_more=True)
def test_python_that_needs_more_compiles(block):
    compile(block.code, block.place, "exec")


@_parametrize("bash", needs_more=True)
def test_commands_that_need_more_are_well_typed(block):
    for program, *words in _commands(block.code):
        words = [word for word in words if word != "..."]
        if program == "run_downstream.py":
            parse(words)
        elif words[0] == "distill":
            recipe = next((word for word in words[1:] if "=" not in word), "robustdistiller")
            load_config(recipe, [word for word in words[1:] if "=" in word])
        else:
            load(words[0]).make_context(words[0], words[1:])


@_parametrize("yaml", needs_more=False)
def test_yaml_is_read(block, tmp_path, monkeypatch):
    """Recipes, sweeps and parts of sweeps, each by what reads them."""
    monkeypatch.chdir(tmp_path)
    Path("labels.csv").write_text("path,label\n" + "".join(f"{n}.wav,{'ab'[n % 2]}\n" for n in range(40)))
    for number in range(40):
        Path(f"{number}.wav").touch()
    values = yaml.safe_load(block.code)
    if "base" in values:
        Path("recipe.yaml").write_text(block.code)
        assert load_config("recipe.yaml").recipe
        return
    Path("sweep.yaml").write_text(block.code if "out" in values else f"{block.code}\n{_REST_OF_A_SWEEP}")
    config = load_sweep("sweep.yaml")
    assert all(hasattr(config, name) for name in values)
    assert config.executor.kind == values["executor"]["kind"]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page):
    for target in re.findall(r"\]\((?!http|#)([^)#]+)", page.read_text(encoding="utf-8")):
        assert (page.parent / target).is_file(), target


def test_every_page_is_in_the_menu():
    menu = yaml.safe_load((ROOT / "mkdocs.yml").read_text(encoding="utf-8"))["nav"]
    assert sorted(name for entry in menu for name in entry.values()) == [page.name for page in PAGES]


def test_every_upstream_is_listed():
    page = (ROOT / "docs/use-a-student.md").read_text(encoding="utf-8")
    rows = page.split("| upstream (`-u`) |", 1)[1].split("\n\n", 1)[0].splitlines()[2:]
    assert sorted(name for row in rows for name in re.findall(r"`(\w+)`", row.split("|")[1])) == sorted(ENTRIES)


def test_every_recipe_is_listed():
    page = (ROOT / "docs/recipes.md").read_text(encoding="utf-8")
    listed = []
    for row in page.split("| recipe | what it does |", 1)[1].split("\n\n", 1)[0].splitlines()[2:]:
        first, *more = re.findall(r"`(\w+)`", row.split("|")[1])
        # `_x` continues the row's first name
        listed += [first, *(first.rpartition("_")[0] + name if name.startswith("_") else name for name in more)]
    assert sorted(listed) == sorted(list_recipes())


def test_the_site_builds_and_fetches_nothing(tmp_path):
    pytest.importorskip("material", reason="mkdocs-material is not installed: pip install '.[docs]'")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(tmp_path / "site")]
    options = {"capture_output": True, "text": True, "env": {**os.environ, "NO_MKDOCS_2_WARNING": "true"}}
    built = subprocess.run(command, cwd=ROOT, check=False, **options)  # with --quiet, warnings would not be counted
    assert built.returncode == 0, built.stderr
    for page in (tmp_path / "site").rglob("*.html"):
        html = page.read_text(encoding="utf-8")
        assert not re.findall(r"<(?:script|link|img)\b[^>]*\b(?:src|href)=\"?(https?:[^\" >]+)", html), page


def test_a_wide_table_says_its_headings_in_its_cells():
    """On a phone, extra.css shows each row as a block whose cells begin with their heading."""
    path = ROOT / "docs/hooks/labelled_cells.py"
    spec = importlib.util.spec_from_file_location("labelled_cells", path)
    hook = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(hook)
    head = "<thead><tr><th>a</th><th><code>b</code></th><th>c</th></tr></thead>"
    row = "<tr><td>1</td><td class='x'>2</td><td></td></tr>"
    wide = hook.on_page_content(f"<p></p><table>{head}<tbody>{row}{row}</tbody></table>")
    assert re.findall(r'<td data-label="(\w)"', wide) == ["a", "b", "c"] * 2
    narrow = "<table><tr><th>a</th><th>b</th></tr><tr><td>1</td><td>2</td></tr></table>"
    assert hook.on_page_content(narrow) == narrow
