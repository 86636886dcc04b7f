"""The doctor finds what is wrong, gives the command for it, and survives whatever it looks at."""

from __future__ import annotations

import json
import os
import re
import stat
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from robustdistiller.cli.main import app
from robustdistiller.eval import tasks
from robustdistiller.eval.doctor import examination, probes
from robustdistiller.eval.doctor.report import Check, Report, as_text


@pytest.fixture(scope="module")
def home(tmp_path_factory) -> Path:
    """An empty home folder."""
    return tmp_path_factory.mktemp("home")


@pytest.fixture(scope="module")
def report(home) -> Report:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HOME", str(home))
        for name in ("XDG_CACHE_HOME", "MPLCONFIGDIR", "HF_HOME"):
            patch.delenv(name, raising=False)
        return examination.examine()


def test_this_machine_can_run_the_core(report: Report):
    assert report.ok, [check for check in report.core if not check.ok]
    found = {check.name: check.found for check in report.core}
    assert set(found) >= {"Python", "packages", "torch", "torchaudio", "s3prl", "audio", "sox", "GPU", "disk", "caches"}
    assert "torch 2." in found["packages"] and "s3prl 0.4.18" in found["packages"]
    assert re.fullmatch(r"0\.4\.18, imported in [\d.]+ s, \d{3} upstreams", found["s3prl"])
    assert [task.name for task in report.tasks] == list(tasks.TASKS)
    runnable = {task.name for task in report.tasks if task.ok}
    assert {"KS", "IC", "SID", "ER", "ASR", "PR", "SF", "SD"} <= runnable
    assert any(shim["name"] == "torch.load" and shim["applied"] for shim in report.shims)


def test_report_is_json(report: Report):
    again = json.loads(json.dumps(report.to_dict()))
    assert again["ok"] is True and len(again["tasks"]) == len(tasks.TASKS)


def broken_package(folder: Path, name: str, code: str) -> dict[str, str]:
    """An environment in which ``import name`` runs ``code``."""
    (folder / name).mkdir()
    (folder / name / "__init__.py").write_text(code)
    return {"PYTHONPATH": str(folder)}


@pytest.mark.parametrize(
    ("name", "code", "line", "found"),
    [
        ("torch", "raise OSError('libcudart.so.13: no such file')", "torch", "OSError: libcudart.so.13: no such file"),
        ("torchaudio", "raise RuntimeError('built for CUDA 12')", "torchaudio", "even without its C++ library"),
        ("s3prl", "import os; os.abort()", "s3prl", "exit status -6"),
        ("soundfile", "raise OSError('sndfile library not found')", "audio", "sndfile library not found"),
        ("h5py", "raise ImportError('numpy ABI')", "SD", "h5py does not import: ImportError: numpy ABI"),
        ("packaging", "raise SyntaxError('half a file')", "packages", "SyntaxError: half a file"),
    ],
)
def test_a_package_beyond_use_is_a_line_of_the_report(name, code, line, found, tmp_path, monkeypatch):
    for key, value in broken_package(tmp_path, name, code).items():
        monkeypatch.setenv(key, value)
    probe = "tasks" if line in tasks.TASKS else line
    check = next(check for check in examination.probe(probe)["checks"] if check["name"] == line)
    assert not check["ok"] and found in check["found"], check
    assert check["fix"] or name == "s3prl", "a process that died leaves no advice"


def test_files_of_the_current_folder_are_no_packages(tmp_path, monkeypatch):
    (tmp_path / "packaging.py").write_text("raise SystemExit('a script of the user')")
    monkeypatch.chdir(tmp_path)
    (check,) = [check for check in examination.probe("packages")["checks"] if check["name"] == "packages"]
    assert check["ok"], check


def test_without_s3prl_the_core_works(tmp_path, monkeypatch):
    """A small installation: s3prl and torchaudio are not there, which is advice, not a fault."""
    hide = "import sys, importlib.metadata as m\nsys.modules.update(s3prl=None, torchaudio=None)\n"
    hide += "real = m.version\ndef version(name):\n    if 's3prl' in name: raise m.PackageNotFoundError(name)\n"
    hide += "    return real(name)\nm.version = version\n"
    (tmp_path / "sitecustomize.py").write_text(hide)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    checks = [examination.probe(name)["checks"][0] for name in ("torch", "torchaudio", "s3prl")]
    assert [(check["ok"], check["required"]) for check in checks] == [(True, True), (False, False), (False, False)]
    assert checks[2]["fix"].endswith("[superb]'") and "not installed" in checks[2]["found"]


def test_it_needs_the_standard_library_only_and_reports_what_else_is_missing(tmp_path):
    hidden = ("torch", "numpy", "typer", "rich", "yaml", "s3prl", "packaging")
    (tmp_path / "sitecustomize.py").write_text(f"import sys\nsys.modules.update(dict.fromkeys({hidden}))")
    environment = {**os.environ, "PYTHONPATH": str(tmp_path)}
    command = [sys.executable, "-m", "robustdistiller.eval.doctor"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 1 and not done.stderr, done.stderr
    assert "The core does not work yet. Type:\n  pip install" in done.stdout
    lines = dict(re.findall(r"^  no  (\w+) +(.+)$", done.stdout, re.MULTILINE))
    assert lines["torch"] == "numpy is not installed", done.stdout
    assert lines["s3prl"] in ("numpy is not installed", "torch is not installed"), done.stdout


def test_nothing_is_written_outside_a_temporary_folder(report: Report, home: Path):
    assert report.ok and not list(home.rglob("*"))


def test_python_version():
    assert examination.check_python((3, 10)).ok and examination.check_python((3, 12)).ok
    assert not examination.check_python((3, 9)).ok and not examination.check_python((3, 14)).ok


def test_packages(monkeypatch: pytest.MonkeyPatch):
    installed = {"torch": "2.9.0", "espnet-s3prl": "2026.5.14"}
    monkeypatch.setattr(probes, "_version", installed.get)
    wanted = ["torch>=2.8", "s3prl>=0.4.18; extra == 'superb'", "pesq; extra == 'metrics'", "old; python_version < '3'"]
    core, superb, metrics = probes.check_packages(wanted)
    assert core.ok and core.required and core.found == "torch 2.9.0, espnet-s3prl 2026.5.14"
    assert superb.ok, "the fork serves as well"
    assert not metrics.ok and not metrics.required and metrics.found == "pesq missing"
    assert metrics.name == "packages for metrics (SE and SS)" and metrics.fix.endswith("[metrics]'")
    core, train = probes.check_packages(["torch>=2.11", "numpy", "lhotse>=1.28; extra == 'train'"])
    assert not core.ok and core.found == "torch 2.9.0, expected >=2.11; numpy missing"
    assert train.found == "lhotse missing" and not train.required
    monkeypatch.setattr(probes, "PACKAGE", "not-installed-at-all")
    missing = probes.packages()[0]
    assert not missing.ok and missing.found == "not-installed-at-all missing"


def test_audio_of_a_wrong_level_or_rate_shows():
    written = np.sin(np.arange(100) / 10)
    assert probes.check_audio(written, written, written * 10**-0.15, 16000).ok
    assert not probes.check_audio(written, written * 1.01, written * 10**-0.15, 16000).ok
    assert not probes.check_audio(written, written, written, 16000).ok
    assert not probes.check_audio(written, written, written * 10**-0.15, 8000).ok


def test_missing_sox_comes_with_its_command(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(examination.shutil, "which", lambda _name: None)
    sox = examination.check_sox()
    assert not sox.ok and not sox.required and "apt-get install sox" in sox.fix


def test_disk(tmp_path: Path):
    assert examination.check_disk(tmp_path, minimum_gb=0).ok
    full = examination.check_disk(tmp_path, minimum_gb=1e9)
    assert not full.ok and not full.required and "GB free in" in full.found


def test_a_cache_folder_that_is_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "not" / "there" / "yet"))
    assert examination.check_cache().ok
    (tmp_path / "file").touch(stat.S_IRUSR)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    found = examination.check_cache()
    assert not found.ok and "cannot be written" in found.found and found.fix.startswith("export XDG_CACHE_HOME=")


def test_command_prints_the_tables_and_exits_by_the_core(report: Report, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("robustdistiller.cli.doctor.examine", lambda: report)
    done = CliRunner().invoke(app, ["doctor"])
    assert done.exit_code == 0, done.output
    for words in ("This machine", "torchaudio.set_audio_backend", "SUPERB tasks", "ASV", "speaker verification"):
        assert words in done.output
    assert "torchaudio.set_audio_backend" not in CliRunner().invoke(app, ["doctor", "--no-shims"]).output
    assert json.loads(CliRunner().invoke(app, ["doctor", "--json"]).output)["ok"] is True
    assert json.loads(CliRunner().invoke(app, ["doctor", "--json", "--no-shims"]).output)["shims"] == []
    result = CliRunner().invoke(app, ["doctor", "-u", "fbank", "--no-shims"])
    assert result.exit_code == 2 and "--no-shims is of the report on this machine" in result.stderr


def test_the_text_tells_what_to_type():
    good, broken = Check("Python", True, "3.11"), Check("packages", False, "torch missing", "pip install torch")
    advice = Check("sox", False, "not found", "apt-get install sox", required=False)
    task = Check("SE", False, "enhancement; missing: pesq", "pip install pesq", required=False)
    shim = {"name": "torch.load", "applied": True, "reason": "because"}

    text = as_text(Report((good, broken, advice), (shim,), (task,)))
    assert text.endswith("The core does not work yet. Type:\n  pip install torch")
    text = as_text(Report((good, advice), (shim,), (task,)))
    assert text.endswith("as needed:\n  apt-get install sox\n  pip install pesq   # SE")
    assert "enhancement; missing: pesq" in text and "bridged  torch.load  because" in text
