"""Every SUPERB task of s3prl, on a toy corpus in its official layout: trained, scored clean and corrupted, recorded."""

from __future__ import annotations

import re

import pytest

from robustdistiller.eval import tasks
from robustdistiller.eval.results.files import read_record_files
from robustdistiller.eval.results.item_scores import read_outcomes
from robustdistiller.eval.run.launcher import main
from robustdistiller.eval.submit import choose, find_experiments, pack
from robustdistiller.upstream.s3prl.bridge import sox_path

pytestmark = pytest.mark.usefixtures("bridge")

RUNNER = {f"config.runner.{key}": 2 for key in ("total_steps", "eval_step", "save_step", "log_step")}
# Heads that learn their toy task, so that the numbers compared are not all zero.
LONGER = {f"config.runner.{key}": 60 for key in ("total_steps", "eval_step", "save_step", "log_step")}
LEARNT = {code: {**LONGER, "config.optimizer.lr": 0.02} for code in ("KS", "IC", "SID")}
CONDITIONS = ["clean", "noise:snr_db=0,noise=white", "noise+reverb:snr_db=5"]
# What s3prl prints of the headline metric, and what it is multiplied with in the record.
PRINTED = {
    "KS": (r"test acc: (\S+)", 100),
    "IC": (r"test acc: (\S+)", 100),
    "SID": (r"test acc: (\S+)", 100),
    "ER": (r"test acc: (\S+)", 100),
    "ASR": (r"test-clean wer: (\S+)", 1),
    "PR": (r"test per: (\S+)", 100),
    "SF": (r"test slot_type_f1: (\S+)", 100),
    "ASV": (r"sv-voxceleb1/test-EER: (\S+)", 100),
    "SD": (r"mode test acc \S+ der (\S+)", 100),
    "SE": (r"Average pesq of 2 utts is (\S+)", 1),
    "SE2": (r"Average pesq of 2 utts is (\S+)", 1),
    "SS": (r"Average si_sdr of 2 utts: (\S+)", 1),
    "SS2": (r"Average si_sdr of 2 utts: (\S+)", 1),
}


@pytest.mark.parametrize("code", [*PRINTED, "QbE"])
def test_task_under_conditions(code, toy_corpora, toy_student, rir_folder, tmp_path, capsys):
    task = tasks.get(code)
    if task.needs_sox and sox_path() is None:
        pytest.skip("sox is not installed: s3prl trims silence and resamples with it")
    settings = {**toy_corpora.build(code, tmp_path / "data"), **RUNNER, **LEARNT.get(code, {})}
    folder = tmp_path / "exp"
    new = ["-u", "robustdistiller_local", "-k", str(toy_student), "-d", code, "-p", str(folder)]
    new += ["-o", toy_corpora.as_option(settings)]
    conditions = [part for condition in CONDITIONS for part in ("--condition", condition)] + ["--rir", str(rir_folder)]
    if task.trainable:
        assert main(["-m", "train", *new]) == 0
        workers = toy_corpora.as_option({key: value for key, value in settings.items() if "num_workers" in key})
        capsys.readouterr()
        assert main(["-m", "evaluate", "-e", str(folder), "-o", workers, *conditions]) == 0
    else:
        assert main(["-m", "evaluate", *new, *conditions]) == 0
    printed = capsys.readouterr().out
    files = read_record_files(folder / "records")
    records = {record.condition: record for record in files.values()}
    assert set(records) == {"clean", "noise:snr_db=0,noise=white", "noise+reverb:snr_db=5"}
    assert {(r.status, r.split, r.task) for r in records.values()} == {("ok", task.splits[0], code)}
    assert len({r.items_scored for r in records.values()}) == 1 and records["clean"].items_scored > 1
    assert len({r.manifest_digest for r in records.values()}) == len({r.audio_digest for r in records.values()}) == 3
    if code == "SD":
        assert all(0 < r.value("der") == min(r.scoring["rates"].values()) for r in records.values())
        assert {r.scoring["reference"] for r in records.values()} == {"rttm"}
    if code in PRINTED:
        pattern, scale = PRINTED[code]
        values = [float(value) * scale for value in re.findall(pattern, printed)]  # in the order of the conditions
        name = next(metric.name for metric in task.metrics if metric.key is not None)
        recorded = [records[condition].value(name) for condition in ("clean", *CONDITIONS[1:])]
        assert recorded == pytest.approx(values, abs=1e-4 if code in ("SE", "SE2", "SS", "SS2") else 1e-9)
    else:
        # Of the ground truth's two queries that are said at all, s3prl searches one.
        assert {(r.scoring["queries"], r.scoring["queries_searched"]) for r in records.values()} == {(2, 1)}
        assert all(r.value("mtwv") in (0.0, 0.5) for r in records.values())
    # Intervals and paired tests need the results of single items; reading them checks that they add up to the score.
    items = [read_outcomes(path, record) for path, record in files.items()]
    if code in ("ASV", "QbE"):  # scored in pairs
        assert items == [None] * 3
    else:
        assert len({one.ids for one in items}) == 1 and len(items[0].ids) == records["clean"].items_scored
        assert task.metric.name in items[0].metrics
    # The same folder as SUPERB's archive, scored again from there.
    if task.submission:
        packed = pack(choose(find_experiments(folder)), tmp_path / "predict.zip")
        (place,) = packed.tasks
        assert place == task.submission.folder.format(fold="fold1")
        scores = packed.tasks[place]["metrics"]
        assert {name: records["clean"].value(name) for name in scores} == pytest.approx(scores, abs=1e-4)
        assert list(scores) == list(task.submission.metrics) and task.metric.name in scores
