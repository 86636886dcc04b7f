"""The doctor finds what is wrong and gives the command for it."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path

import pytest
import torchaudio
import typer
from rich.console import Console
from typer.testing import CliRunner

from robustdistiller.cli import doctor as command
from robustdistiller.eval import doctor, tasks
from robustdistiller.eval.doctor import Check, Report, TaskCheck
from robustdistiller.upstream.s3prl_bridge import Shim


@pytest.fixture(scope="module")
def report() -> Report:
    return doctor.examine()


def test_this_machine_can_run_the_core(report: Report):
    assert report.ok, [check for check in report.core if not check.ok]
    found = {check.name: check.found for check in report.core}
    assert set(found) >= {"Python", "packages", "torch and torchaudio", "s3prl", "audio", "sox", "GPU", "disk"}
    assert "torch 2." in found["packages"] and "s3prl 0.4.18" in found["packages"]
    assert re.fullmatch(r"0\.4\.18 (imported in [\d.]+ s|was imported before), \d{3} upstreams", found["s3prl"])
    assert [task.code for task in report.tasks] == list(tasks.TASKS)
    runnable = {task.code for task in report.tasks if task.ok}
    assert {"KS", "IC", "SID", "ER", "ASR", "PR", "SF", "SD"} <= runnable
    assert any(shim.name == "torch.load" and shim.applied for shim in report.shims)


def test_report_is_json(report: Report):
    again = json.loads(json.dumps(report.to_dict()))
    assert again["ok"] is True and len(again["tasks"]) == len(tasks.TASKS)


def test_python_version(monkeypatch: pytest.MonkeyPatch):
    assert doctor.check_python().ok
    monkeypatch.setattr(sys, "version_info", (3, 13, 0))
    assert not doctor.check_python().ok


def test_packages(monkeypatch: pytest.MonkeyPatch):
    installed = {"torch": "2.9.0", "s3prl": "0.4.18"}
    monkeypatch.setattr(doctor, "_version", installed.get)
    wanted = ["torch>=2.8,<2.12", "s3prl==0.4.18", "pesq; extra == 'metrics'", "old; python_version < '3'"]
    good = doctor.check_packages(wanted)
    assert good.ok and good.found == "all 2 present: torch 2.9.0, s3prl 0.4.18"
    bad = doctor.check_packages([*wanted, "torch>=2.11", "lhotse>=1.28", "numpy"])
    assert not bad.ok and bad.required
    assert bad.found == "torch 2.9.0, expected >=2.11; lhotse missing, expected >=1.28; numpy missing, expected any"
    assert bad.fix == "pip install 'torch>=2.11' 'lhotse>=1.28' 'numpy'"
    monkeypatch.setattr(doctor, "PACKAGE", "not-installed-at-all")
    assert doctor.check_packages(doctor._requirements()).fix == "pip install -e ."


def test_torch_pair():
    assert doctor.check_torch_pair("2.8.0+cpu", "2.8.1").ok
    bad = doctor.check_torch_pair("2.8.0", "2.11.0")
    assert not bad.ok and bad.fix == "pip install 'torchaudio==2.8.*'"


def test_broken_s3prl_and_audio_are_reported_not_raised(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(
        doctor.importlib, "import_module", lambda name: (_ for _ in ()).throw(ImportError(f"no {name}"))
    )
    broken = doctor.check_s3prl_import()
    assert not broken.ok and broken.required and "does not import: ImportError: no s3prl.hub" in broken.found
    monkeypatch.undo()

    assert doctor.check_audio().ok
    real = torchaudio.load
    monkeypatch.setattr(torchaudio, "load", lambda path: (real(path)[0] * 1.01, 16000))
    assert not doctor.check_audio().ok, "a wrong level must show"
    monkeypatch.setattr(torchaudio, "load", lambda path: (_ for _ in ()).throw(OSError("TorchCodec is required")))
    assert "OSError: TorchCodec is required" in doctor.check_audio().found


def test_missing_tools_and_packages_come_with_their_command(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(doctor.s3prl_bridge, "sox_path", lambda: None)
    sox = doctor.check_sox()
    assert not sox.ok and not sox.required and "apt-get install sox" in sox.fix
    assert doctor.check_task(tasks.get("KS")).ok, "16 kHz files need no sox"
    asv = doctor.check_task(tasks.get("ASV"))
    assert asv.missing == ("sox",) and asv.commands == ("apt-get install sox",)
    monkeypatch.setattr(doctor.importlib.util, "find_spec", lambda _name: None)
    assert doctor.check_task(tasks.get("QbE")).commands == ("pip install dtw-python lxml", "apt-get install sox")
    with pytest.raises(ModuleNotFoundError) as raised:
        doctor.require(tasks.get("SE"))
    message = str(raised.value)
    assert message.startswith("SE (speech enhancement, VoiceBank-DEMAND) needs librosa, h5py, pesq, pystoi, not found")
    assert message.endswith("\n  pip install librosa h5py pesq pystoi")
    monkeypatch.undo()
    doctor.require(tasks.get("IC"))


def test_disk(tmp_path: Path):
    assert doctor.check_disk(tmp_path, minimum_gb=0).ok
    full = doctor.check_disk(tmp_path, minimum_gb=1e9)
    assert not full.ok and not full.required and "GB free in" in full.found


def run(report: Report, monkeypatch: pytest.MonkeyPatch, *arguments: str):
    app = typer.Typer()
    app.command()(command.doctor)
    monkeypatch.setattr(command, "examine", lambda: report)
    monkeypatch.setattr(command, "Console", lambda: Console(width=120, no_color=True))
    return CliRunner().invoke(app, list(arguments))


def test_command_prints_the_tables_and_exits_by_the_core(report: Report, monkeypatch: pytest.MonkeyPatch):
    done = run(report, monkeypatch)
    assert done.exit_code == 0, done.output
    for words in ("This machine", "torchaudio.set_audio_backend", "SUPERB tasks", "ASV", "speaker verification"):
        assert words in done.output
    assert "torchaudio.set_audio_backend" not in run(report, monkeypatch, "--no-shims").output
    assert json.loads(run(report, monkeypatch, "--json").output)["ok"] is True


def test_command_tells_what_to_type(monkeypatch: pytest.MonkeyPatch):
    good, broken = Check("Python", True, "3.11"), Check("packages", False, "torch missing", "pip install torch")
    advice = Check("sox", False, "not found", "apt-get install sox", required=False)
    task = TaskCheck("SE", "enhancement", ("pesq",), ("pip install pesq",), "")
    shim = Shim("torch.load", True, "because")

    done = run(Report((good, broken, advice), (shim,), (task,)), monkeypatch)
    assert done.exit_code == 1
    assert "The core does not work yet. Type:\n  pip install torch\n" in done.output

    done = run(Report((good, advice), (shim,), (task,)), monkeypatch)
    assert done.exit_code == 0
    assert "as needed:\n  apt-get install sox\n  pip install pesq   # SE\n" in done.output
    assert "enhancement missing: pesq" in done.output
    assert "Everything works." in run(Report((good,), (), ()), monkeypatch).output
