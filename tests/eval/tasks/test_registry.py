"""The registry is open: packages bring tasks, and a downstream of the user's own gets conditions and records."""

from __future__ import annotations

import logging
import pickle
import sys
from dataclasses import replace

import numpy as np
import pytest
import soundfile
import yaml

from robustdistiller.eval import tasks
from robustdistiller.eval.results.files import read_record_files
from robustdistiller.eval.results.item_scores import read_outcomes
from robustdistiller.eval.run.launcher import main
from robustdistiller.eval.tasks import DataRoot, Metric, Task
from robustdistiller.eval.tasks.registry import Registry

EXPERT = '''
from pathlib import Path

import numpy as np
import soundfile
import torch
from torch.utils.data import DataLoader


class Loudness(torch.nn.Module):
    """Regression of a file's number; its batches carry no ids."""

    def __init__(self, upstream_dim, downstream_expert, expdir, **others):
        super().__init__()
        self.files = sorted(Path(downstream_expert["datarc"]["folder"]).glob("*.wav"))
        self.batch_size = downstream_expert["datarc"]["batch_size"]
        self.linear = torch.nn.Linear(upstream_dim, 1)

    def get_dataloader(self, split):
        samples = [(soundfile.read(file, dtype="float32")[0], n) for n, file in enumerate(self.files)]
        return DataLoader(samples, batch_size=self.batch_size, collate_fn=lambda batch: tuple(zip(*batch)))

    def forward(self, split, features, numbers, records, **others):
        found = torch.stack([self.linear(one).mean() for one in features])
        error = (found - torch.tensor(numbers, device=found.device)).abs()
        records["mae"] += error.tolist()
        return error.mean()

    def log_records(self, split, records, logger, global_step, **others):
        logger.add_scalar(f"loudness/{split}-mae", np.mean(records["mae"]), global_step=global_step)
        return []
'''
CONFIG = {
    "runner": {
        **dict.fromkeys(("total_steps", "log_step", "eval_step", "save_step"), 2),
        **{"gradient_clipping": 1.0, "gradient_accumulate_steps": 1, "max_keep": 1, "eval_dataloaders": ["dev"]},
    },
    "optimizer": {"name": "TorchOptim", "torch_optim_name": "Adam", "lr": 1e-3},
    "downstream_expert": {"datarc": {"folder": None, "batch_size": 3}},
}


@pytest.fixture
def registry(monkeypatch) -> Registry:
    """The tasks, which are after the test as they were before."""
    monkeypatch.setattr(tasks.TASKS, "_tasks", dict(tasks.TASKS))
    return tasks.TASKS


@pytest.fixture
def loudness(tmp_path, monkeypatch) -> Task:
    """A task whose expert is in a package of the user's own, and its audio."""
    package = tmp_path / "site" / "loud_package"
    package.mkdir(parents=True)
    (package / "__init__.py").touch()
    (package / "expert.py").write_text(EXPERT)
    monkeypatch.syspath_prepend(package.parent)
    (tmp_path / "data").mkdir()
    for number in range(4):
        wave = 0.01 * (number + 1) * np.random.default_rng(number).standard_normal(8000 + 77 * number)
        soundfile.write(tmp_path / "data" / f"{number}.wav", wave, 16000)
    yield Task(
        code="LOUD",
        title="loudness",
        downstream="loudness",
        metrics=(Metric("mae", "mae", higher_is_better=False, unit="", scale=1.0),),
        config=CONFIG,
        expert="loud_package.expert:Loudness",
        roots=(DataRoot("config.downstream_expert.datarc.folder", "wav files"),),
        id_position=None,
    )
    for name in [one for one in sys.modules if one.startswith("loud_package")]:
        del sys.modules[name]


@pytest.mark.usefixtures("bridge")
@pytest.mark.parametrize("as_file", [False, True])
def test_a_downstream_of_ones_own_is_trained_and_scored_under_conditions(registry, loudness, tmp_path, as_file):
    if as_file:
        (tmp_path / "loud.yaml").write_text(yaml.safe_dump(CONFIG))
        loudness = replace(loudness, config=tmp_path / "loud.yaml")
    registry.register(loudness)
    data = f"config.downstream_expert.datarc.folder='{tmp_path / 'data'}'"
    assert main(["-m", "train", "-u", "fbank", "-d", "LOUD", "-p", str(tmp_path / "exp"), "-o", data]) == 0
    assert "s3prl.downstream.loudness.expert" not in sys.modules
    conditions = ["--condition", "clean", "--condition", "noise:snr_db=0,noise=white"]
    assert main(["-m", "evaluate", "-e", str(tmp_path / "exp"), *conditions]) == 0
    records = {record.condition: record for record in read_record_files(tmp_path / "exp" / "records").values()}
    clean, noisy = records["clean"], records["noise:snr_db=0,noise=white"]
    assert (clean.task, clean.status, clean.items_scored, clean.non_standard) == ("LOUD", "ok", 4, [])
    assert clean.main_metric.value != noisy.main_metric.value and noisy.manifest_digest != "none"
    # No names, so no results of single items; the score stands all the same, and another batch size hears the same.
    assert all(read_outcomes(path, one) is None for path, one in read_record_files(tmp_path / "exp/records").items())
    again = ["-o", "config.downstream_expert.datarc.batch_size=1", "--records", str(tmp_path / "again"), *conditions]
    assert main(["-m", "evaluate", "-e", str(tmp_path / "exp"), *again]) == 0
    other = {record.condition: record for record in read_record_files(tmp_path / "again").values()}
    assert other[noisy.condition].manifest_digest == noisy.manifest_digest


def test_data_that_is_not_there_is_asked_for(registry, loudness, tmp_path, capsys):
    registry.register(loudness)
    assert main(["-m", "train", "-u", "fbank", "-d", "LOUD", "-p", str(tmp_path / "exp")]) == 2
    assert "LOUD (loudness) needs data that is not there" in capsys.readouterr().err


@pytest.mark.usefixtures("bridge")
@pytest.mark.parametrize("higher_is_better", [False, True])
def test_without_a_development_set_the_best_of_the_stated_checkpoints_counts(
    registry, loudness, tmp_path, higher_is_better
):
    """As SUPERB reports speaker verification: the best on the clean test set of those at every 20,000 steps."""
    metric = replace(loudness.metric, higher_is_better=higher_is_better)
    registry.register(replace(loudness, metrics=(metric,), best_of_every=2))
    settings = {"total_steps": 6, "save_step": 1, "eval_step": 100, "max_keep": 10, "eval_dataloaders": []}
    options = [f"config.runner.{key}={value}" for key, value in settings.items()]
    options += [f"config.downstream_expert.datarc.folder='{tmp_path / 'data'}'", "config.optimizer.lr=0.5"]
    new = ["-u", "fbank", "-d", "LOUD", "-p", str(tmp_path / "exp"), "-o", ",,".join(options)]
    assert main(["-m", "train", *new]) == 0
    tried = {one.step: one.main_metric.value for one in read_record_files(tmp_path / "exp" / "candidates").values()}
    assert set(tried) == {2, 4, 6} and len(set(tried.values())) == 3
    assert main(["-m", "evaluate", "-e", str(tmp_path / "exp")]) == 0
    (record,) = read_record_files(tmp_path / "exp" / "records").values()
    assert record.main_metric.value == (max if higher_is_better else min)(tried.values())
    assert tried[record.step] == record.main_metric.value


class EntryPoint:
    """What `importlib.metadata` finds."""

    def __init__(self, found: object) -> None:
        self.name, self.value, self.found = "mine", "package:TASK", found

    def load(self) -> object:
        if isinstance(self.found, Exception):
            raise self.found
        return self.found


def test_packages_bring_tasks_and_bad_ones_are_told(loudness, monkeypatch, caplog):
    other, third = replace(loudness, code="LOUD2"), replace(loudness, code="LOUD3")
    found = [loudness, lambda: [other, third], ImportError("no such module"), "a string", replace(loudness, code="ic")]
    monkeypatch.setattr("robustdistiller.eval.tasks.registry.entry_points", lambda group: map(EntryPoint, found))
    registry = Registry([tasks.TASKS["IC"]])
    with caplog.at_level(logging.WARNING):
        assert list(registry) == ["IC", "LOUD", "LOUD2", "LOUD3"]
    told = [record.getMessage() for record in caplog.records]
    assert len(told) == 3 and told[0] == "task mine of package:TASK cannot be used: no such module"
    assert "there is a task IC already" in told[2]
    assert len(registry) == 4 and len(caplog.records) == 3, "told once"


def test_tasks_that_make_no_sense_are_refused(loudness):
    with pytest.raises(ValueError, match="LOUD: corruption must be waveforms, recordings, mixture or none, found 'x'"):
        replace(loudness, corruption="x")
    with pytest.raises(ValueError, match="LOUD needs at least one metric"):
        replace(loudness, metrics=())
    with pytest.raises(ValueError, match="there is a task KS already"):
        tasks.register(replace(loudness, code="ks"))


@pytest.mark.parametrize("code", sorted(tasks.TASKS))
def test_tasks_can_be_sent_to_other_processes(code):
    assert pickle.loads(pickle.dumps(tasks.get(code))) == tasks.get(code)


@pytest.mark.parametrize(
    ("code", "item", "speaker"),
    [
        ("KS", "yes/0a7c2a8d_nohash_0.wav", "0a7c2a8d"),
        ("KS", "_silence_/1.wav", "_silence_/1.wav"),
        ("IC", "speakers/2BqVo8kVB2Skwgyb/x.wav", "2BqVo8kVB2Skwgyb"),
        ("SID", "id10270/5r0dWxy17C8/00001.wav", "id10270"),
        ("ER", "wav/Ses01F_impro01/Ses01F_impro01_M003.wav", "Ses01-M"),
        ("PR", "1089/134686/1089-134686-0000.flac", "1089"),
        ("SF", "test/Brian-snips-test-1.wav", "Brian"),
        ("SE", "p232_001", "p232"),
        ("SS", "61-70968-0000_8455-210777-0012", "61-70968-0000_8455-210777-0012"),
    ],
)
def test_speakers_of_items(code, item, speaker):
    assert tasks.get(code).speaker_of(item) == speaker


def test_nobody_asks_for_a_task_by_name():
    """Special cases stand in the tasks' files; the rooms around them know no code."""
    import re
    from pathlib import Path

    rooms = [path for path in Path("eval").rglob("*.py") if path.parts[1] not in ("tasks", "check")]
    asked = re.compile(r"\b(code|downstream|task)\b\"?\]?\s*(==|!=|in \()\s*\(?\"(?!SUPERB)")
    assert [str(path) for path in [*rooms, *Path("cli").rglob("*.py")] if asked.search(path.read_text())] == []
