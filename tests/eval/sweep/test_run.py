"""What runs, what is reused, what is chosen, and what happens when something fails. No s3prl in here."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
import soundfile

from robustdistiller.eval.report.board import leaderboard
from robustdistiller.eval.results.files import read_records
from robustdistiller.eval.sweep import SweepError, estimate, expand, heard_of, make_plan
from robustdistiller.eval.sweep.live import progress_table

NOISE = "noise:snr_db=5,noise=white"


def records(config):
    return {(r.label, r.condition): r for r in read_records(Path(config.out) / "records")}


def why(config):
    groups = expand(config)
    plans = make_plan(groups, config.policy, heard_of(config, groups[0].conditions))
    return [decision.why for plan in plans for decision in plan.decisions.values()]


def change(config, **values):
    return dataclasses.replace(config, **values)


def test_heads_are_chosen_on_dev_and_every_cell_becomes_a_record(config, go, executor):
    assert go(config).exit_code == 0
    assert len([title for title in executor.done if "training" in title]) == 6
    found = records(config)
    assert sorted(found) == [(label, c) for label in ("fbank", "other") for c in ("clean", NOISE)]
    for record in found.values():
        assert record.learning_rate == 1e-2
        assert record.selection["dev_score"] == 70.0 and record.selection["metric"] == "accuracy"
        tried = {one["learning_rate"]: one["dev_score"] for one in record.selection["tried"]}
        assert tried == {1e-1: 20.0, 1e-2: 70.0, 1e-3: 50.0}
    # One evaluation for all conditions of a head, after all of its trainings.
    assert [t for t in executor.done if "evaluating" in t and "fbank" in t] == ["fbank / IC / seed 1337: evaluating"]
    assert len(leaderboard([config.out], published=False).groups) == 1

    assert go(config).exit_code == 0
    assert executor.done == []
    assert [line[:23] for line in why(config)] == ["reused: accuracy 75.00%"] * 4


def test_upstreams_whose_rates_differ_stand_in_one_table_and_other_grids_do_not(config, go, executor):
    go(change(config, upstreams=config.upstreams[:1]))
    executor.dev[1e-3] = 0.9
    go(config)
    found = records(config)
    assert (found["fbank", "clean"].learning_rate, found["other", "clean"].learning_rate) == (1e-2, 1e-3)
    assert len(leaderboard([config.out], published=False).groups) == 1
    go(change(config, upstreams=config.upstreams[:1], learning_rates=[1e-2]))
    board = leaderboard([config.out], published=False)
    assert len(board.groups) == 1 and not any("different rules" in note for note in board.notes), "the rate is free"


def test_policies(config, go, executor):
    assert go(change(config, policy="show")).exit_code == 0 and executor.done == []
    assert set(why(change(config, policy="show"))) == {"skipped: it has no record, and the policy is to run nothing"}
    executor.failing_conditions = {NOISE}
    assert go(config).exit_code == 1
    assert records(config)["fbank", NOISE].reason == "RuntimeError: a file vanished"
    assert records(config)["fbank", "clean"].status == "ok", "the other condition went on"

    executor.failing_conditions = set()
    assert go(config).exit_code == 0
    assert executor.done == [f"{label} / IC / seed 1337: evaluating" for label in ("fbank", "other")]
    calls = json.loads(next(Path(config.out).glob("jobs/fbank-none/*/evaluate/job.json")).read_text())["work"]["calls"]
    assert [value for option, value in zip(calls[0], calls[0][1:]) if option == "--condition"] == [NOISE]

    assert go(change(config, policy="rerun")).exit_code == 0
    assert len(executor.done) == 2 + 6 + 2
    assert len(list(Path(config.out).glob("superseded/**/*.json"))) >= 4 and len(records(config)) == 4


def test_a_failed_head_is_named_tried_again_and_its_number_replaced(config, go, executor):
    executor.fails = {"learning rate 0.01": "RuntimeError: out of memory"}
    one = change(config, upstreams=config.upstreams[:1])
    sweep = go(one)
    assert sweep.exit_code == 1
    assert sweep.failures == ["fbank / IC / seed 1337, learning rate 0.01: RuntimeError: out of memory"]
    record = records(one)["fbank", "clean"]
    assert record.learning_rate == 1e-3 and record.selection["tried"][1]["reason"] == "RuntimeError: out of memory"
    assert why(one)[0] == "runs: its head was chosen without learning rate 0.01, which failed"

    executor.fails = {}
    assert go(one).exit_code == 0
    assert [t.split(": ")[1] for t in executor.done] == ["training, learning rate 0.01", "evaluating"]
    assert records(one)["fbank", "clean"].learning_rate == 1e-2
    old = [json.loads(p.read_text())["learning_rate"] for p in Path(one.out).glob("superseded/**/*.json")]
    assert old == [1e-3, 1e-3]


def test_without_any_head_the_cells_say_so_and_others_go_on(config, go, executor):
    executor.fails = {"fbank / IC / seed 1337: training": "ValueError: bad"}
    sweep = go(config)
    assert sweep.exit_code == 1 and records(config)["other", "clean"].status == "ok"
    record = records(config)["fbank", NOISE]
    assert record.status == "failed" and record.reason.startswith(
        "there is no head to evaluate (learning rate 0.1: Val"
    )
    assert "skipped: its record is failed" in why(change(config, policy="show"))[0]
    executor.fails = {}
    assert go(config).exit_code == 0
    assert {record.status for record in records(config).values()} == {"ok"}


def test_an_upstream_that_breaks_the_contract_trains_nothing(config, go, executor):
    executor.fails = {"fbank: looking": "the upstream breaks the contract (rate): 3"}
    assert go(config).exit_code == 1
    assert not any("fbank / IC" in title for title in executor.done)
    assert records(config)["fbank", "clean"].reason == "fbank was not tried: the upstream breaks the contract (rate): 3"
    assert records(config)["other", "clean"].status == "ok"


def test_a_dead_evaluation_is_recorded(config, go, executor):
    executor.silent = True
    sweep = go(config)
    assert sweep.exit_code == 1 and len(sweep.failures) == 4
    assert {record.reason for record in records(config).values()} == {"its process was killed by signal 9"}


def test_a_longer_grid_reuses_heads_and_a_lost_head_brings_no_mixture(config, go, executor):
    go(change(config, learning_rates=[1e-1, 1e-3]))
    assert records(config)["fbank", "clean"].learning_rate == 1e-3
    go(config)
    assert len([t for t in executor.done if "training" in t]) == 2, "one new rate, two upstreams"
    assert {record.learning_rate for record in records(config).values()} == {1e-2}
    assert len(records(config)) == len(list(Path(config.out, "records").rglob("*.json"))) == 4

    # A cell is missing, and so are the heads: they are trained again, and the finished cell must not stay beside.
    one = change(config, upstreams=config.upstreams[:1])
    for path in Path(config.out).glob("records/fbank-none/**/noise*/*.json"):
        path.unlink()
    for path in Path(config.out).glob("heads/fbank-none/*/*/*"):
        path.unlink()
    executor.dev[1e-1] = 0.9
    sweep = go(one)
    assert sweep.exit_code == 0
    assert any("belongs to another head" in line for line in sweep.said)
    assert {records(one)["fbank", c].learning_rate for c in ("clean", NOISE)} == {1e-1}


def test_other_audio_in_the_noise_folder_is_another_cell(config, go, tmp_path):
    folder = tmp_path / "noise"
    folder.mkdir()
    soundfile.write(folder / "a.wav", 0.1 * np.random.default_rng(0).standard_normal(16000), 16000)
    noisy = change(config, conditions=["noise:snr_db=5"], noise=[str(folder)])
    groups = expand(noisy)
    before = heard_of(noisy, groups[0].conditions)
    soundfile.write(folder / "a.wav", 0.1 * np.random.default_rng(1).standard_normal(24000), 16000)
    after = heard_of(noisy, groups[0].conditions)
    assert before.keys() == after.keys() == set(groups[0].conditions) and before != after


def test_ctrl_c_stops_the_executor_and_a_second_sweep_is_refused(config, go, executor):
    def interrupted(job):
        with pytest.raises(SweepError, match="in use by another run"):
            go_again(config)
        raise KeyboardInterrupt

    go_again = go
    executor.train = interrupted
    with pytest.raises(KeyboardInterrupt):
        go(config)
    assert executor.stopped
    del executor.train
    executor._ended.clear()
    assert go(config).exit_code == 0


def test_time_is_estimated_from_what_ran_before(config, go):
    one = change(config, upstreams=config.upstreams[:1])
    groups = expand(config)
    heard = heard_of(config, groups[0].conditions)
    assert estimate(make_plan(groups, "reuse", heard), config.root).unknown == 8
    go(one)
    found = estimate(make_plan(groups, "reuse", heard), config.root)
    # Three heads of ten steps at 2 s, two cells of 3 s, known from the other upstream.
    assert (found.known_s, found.unknown, found.pieces) == (66.0, 0, 4)
    assert found.text(2) == "about 33 s with 2 at a time"


def test_live_table_counts_what_does_not_fit(config, go, executor):
    executor.fails = {"fbank: looking": "no [frames]"}
    sweep = go(config)
    table = progress_table(list(sweep.progress.values()), 5.0, rows=1)
    assert table.row_count == 1 and str(table.caption) == "5 s, 1 failed, 1 done; 1 more rows"
    states = {p.group.upstream.label: (p.state, p.trained, p.finished) for p in sweep.progress.values()}
    assert states == {"fbank": ("failed", 0, 0), "other": ("done", 3, 2)}


def test_features_are_kept_for_all_jobs_of_an_upstream(config, go, tmp_path):
    config = dataclasses.replace(config, feature_cache="auto", feature_cache_gb=2, read_ahead_s=30)
    go(config)
    wanted = ["--feature-cache", str(tmp_path / "out" / "features"), "--feature-cache-dtype", "fp32"]
    wanted += ["--feature-cache-gb", "2", "--read-ahead-s", "30"]
    jobs = [json.loads(path.read_text()) for path in (tmp_path / "out" / "jobs").rglob("job.json")]
    calls = [job["work"]["options"] for job in jobs if job["kind"] == "train"]
    calls += [call for job in jobs if job["kind"] == "evaluate" for call in job["work"]["calls"]]
    assert len(calls) == 2 * 3 + 2
    for call in calls:
        start = call.index("--feature-cache")
        assert call[start : start + len(wanted)] == wanted
