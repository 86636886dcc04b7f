"""What runs, what is reused, what is chosen, and what happens when something fails. No s3prl in here."""

from __future__ import annotations

import errno
import json
import shutil
import zipfile
from pathlib import Path

import numpy as np
import pytest
import soundfile

from robustdistiller.eval.report.board import leaderboard
from robustdistiller.eval.results.files import record_files, write_record
from robustdistiller.eval.results.record import Metric
from robustdistiller.eval.run.cache.plan import CachePlan
from robustdistiller.eval.run.specs import Upstream
from robustdistiller.eval.sweep import Sweep, SweepError, TaskEntry, sweep
from tests.records import example_record

from .conftest import NOISE, change, records, trainings, why


def test_heads_are_chosen_on_dev_and_every_cell_becomes_a_record(config, go, engine):
    result = go(config).result
    assert result.failures == [] and len(trainings(engine)) == 6
    found = records(config)
    assert sorted(found) == [(label, c) for label in ("fbank", "other") for c in ("clean", NOISE)]
    for record in found.values():
        assert record.learning_rate == 1e-2
        assert record.selection["dev_score"] == 70.0 and record.selection["metric"] == "accuracy"
        tried = {one["learning_rate"]: one["dev_score"] for one in record.selection["tried"]}
        assert tried == {1e-1: 20.0, 1e-2: 70.0, 1e-3: 50.0}
    assert {(r.label, r.condition) for r in result.records} == set(found)
    # One evaluation for all conditions of a head, after all of its trainings.
    assert [t for t in engine.done if "evaluating" in t and "fbank" in t] == ["fbank / IC / seed 1337: evaluating"]

    assert go(config).result.failures == []
    assert engine.done == []
    assert [line[:23] for line in why(config)] == ["reused: accuracy 75.00%"] * 4


def test_upstreams_whose_rates_differ_stand_in_one_table(config, one, go, engine):
    go(one)
    engine.dev[1e-3] = 90.0
    go(config)
    found = records(config)
    assert (found["fbank", "clean"].learning_rate, found["other", "clean"].learning_rate) == (1e-2, 1e-3)
    go(change(one, learning_rates=[1e-2]))
    board = leaderboard([config.out], published=False)
    assert len(board.groups) == 1 and not any("different rules" in note for note in board.notes), "the rate is free"


def test_a_choice_says_what_was_tried_and_where_the_head_is(one, go):
    go(one)
    (path,) = Path(one.out).glob("heads/*/*/choice.json")
    choice = json.loads(path.read_text())
    assert (choice["learning_rate"], choice["head"]) == (1e-2, "lr-0.01/dev-best.ckpt")
    assert (path.parent / choice["head"]).is_file()
    assert [tried["dev_score"] for tried in choice["tried"]] == [20.0, 70.0, 50.0]
    assert len({tried["head"] for tried in choice["tried"]}) == 3


def test_a_number_of_another_layer_is_not_reused(one, tmp_path):
    """Without a head, nothing but the layer tells the two apart."""
    qbe = TaskEntry("QbE", data={"dataset_root": str(tmp_path / "corpus")})
    whole = change(one, tasks=[qbe], conditions=["clean"])
    found = {"task": "QbE", "downstream": "quesst14_dtw", "split": "eval", "rules_digest": "", "learning_rate": None}
    write_record(f"{one.out}/records", example_record(**found, metrics=[Metric("mtwv", 0.01, higher_is_better=True)]))
    assert why(whole)[0].startswith("reused: mtwv 0.0100")
    third = change(whole, upstreams=[Upstream("fbank", layer=3)])
    assert why(third) == ["runs: it has no record"]
    of_third = example_record(**found, settings={"upstream_layer_selection": 3}, head_digest="ba" * 32)
    write_record(f"{one.out}/records", of_third)
    assert why(third)[0].startswith("reused") and why(whole)[0].startswith("reused: mtwv 0.0100")


def test_policies_old_words_included(config, go, engine):
    assert go(change(config, policy="only-cache")).result.records == [] and engine.done == []
    assert set(why(change(config, policy="show"))) == {"skipped: it has no record, and the policy is to run nothing"}
    engine.failing_conditions = {NOISE}
    assert len(go(config).result.failures) == 2
    assert records(config)["fbank", NOISE].reason == "RuntimeError: a file vanished"
    assert records(config)["fbank", "clean"].status == "ok", "the other condition went on"

    engine.failing_conditions = set()
    assert go(change(config, policy="only-missing")).result.failures == []
    assert engine.done == [f"{label} / IC / seed 1337: evaluating" for label in ("fbank", "other")]
    (conditions,) = engine.works["fbank / IC / seed 1337: evaluating"].cells.values()
    assert [condition.label for condition in conditions] == [NOISE]

    assert go(change(config, policy="always")).result.failures == []
    assert len(engine.done) == 2 + 6 + 2
    assert all(work.fresh for title, work in engine.works.items() if "training" in title)
    assert len(records(config)) == 4


def test_nothing_is_moved_aside_and_the_newest_number_counts(one, go, engine):
    go(one)
    files = set(record_files(one.out))
    engine.salt = "other weights"
    again = go(change(one, policy="rerun"))
    assert files < set(record_files(one.out)) and not (Path(one.out) / "superseded").exists()
    heads = {record.head_digest for record in again.result.records}
    assert len(heads) == 1 and why(one) == ["reused: accuracy 75.00%" + why(one)[0][23:]] * 2


@pytest.mark.parametrize("anew", ["rerun", "code"])
def test_a_head_that_was_half_made_anew_is_not_taken_for_the_earlier_one(one, go, engine, tmp_path, monkeypatch, anew):
    source = tmp_path / "upstream.py"
    source.write_text("old")
    engine.code = [str(source)]
    go(one)

    def killed(job):
        with zipfile.ZipFile(job.work.head.folder / "dev-best.ckpt", "w") as file:
            file.writestr("data.pkl", "the best of the first steps")
        raise KeyboardInterrupt

    monkeypatch.setattr(engine, "training", killed)
    source.write_text("new" if anew == "code" else "old")
    with pytest.raises(KeyboardInterrupt):
        go(change(one, policy="rerun" if anew == "rerun" else "reuse"))
    monkeypatch.undo()
    result = go(change(one, conditions=[*one.conditions, "noise:snr_db=0,noise=white"])).result
    assert result.failures == [] and "fbank / IC / seed 1337: training, learning rate 0.1" in engine.done
    assert len({record.head_digest for record in result.records}) == 1


def test_a_failed_rate_is_tried_once_more_and_then_left_alone(one, go, engine):
    engine.fails = {"learning rate 0.01": "RuntimeError: out of memory"}
    first = go(one)
    assert first.result.failures == ["fbank / IC / seed 1337, learning rate 0.01: RuntimeError: out of memory"]
    record = records(one)["fbank", "clean"]
    assert record.learning_rate == 1e-3 and record.selection["tried"][1]["reason"] == "RuntimeError: out of memory"
    assert why(one)[0].startswith("reused"), "there is a number"
    assert [head.learning_rate for plan in Sweep(one).plans.values() for head in plan.train] == [1e-2]

    go(one)
    assert engine.done == ["fbank / IC / seed 1337: training, learning rate 0.01"]
    go(one)
    assert engine.done == [], "it fails whenever it is tried"

    engine.fails = {}
    go(change(one, policy="rerun"))
    assert {r.learning_rate for r in Sweep(one).run().records} == {1e-2}


def test_a_rate_that_fails_once_only_may_still_win(one, go, engine):
    engine.fails = {"learning rate 0.01": "OSError: the disk was full"}
    go(one)
    engine.fails = {}
    assert go(one).result.failures == []
    assert [title.split(": ")[1] for title in engine.done] == ["training, learning rate 0.01", "evaluating"]
    assert {record.learning_rate for record in Sweep(one).run().records} == {1e-2}


def test_without_any_head_the_cells_say_so_and_others_go_on(config, go, engine):
    engine.fails = {"fbank / IC / seed 1337: training": "ValueError: bad"}
    go(config)
    assert records(config)["other", "clean"].status == "ok"
    record = records(config)["fbank", NOISE]
    assert record.status == "failed" and record.reason.startswith(
        "there is no head to evaluate (learning rate 0.1: Val"
    )
    assert (record.checkpoint_digest, record.parameters) == ("cd" * 32, 7), "the same system as when it works"
    engine.fails = {}
    assert go(config).result.failures == []
    assert {record.status for record in go(config).result.records} == {"ok"}


def test_an_upstream_that_breaks_the_contract_trains_nothing(config, go, engine):
    engine.fails = {"fbank: looking": "the upstream breaks the contract (rate): 3"}
    go(config)
    assert not any("fbank / IC" in title for title in engine.done)
    assert records(config)["fbank", "clean"].reason == "fbank was not tried: the upstream breaks the contract (rate): 3"
    assert records(config)["other", "clean"].status == "ok"


def test_two_entries_of_one_upstream_are_two_upstreams(config, go, engine):
    entries = [Upstream("fbank", label=f"layer {layer}", layer=layer) for layer in (0, 1)]
    assert go(change(config, upstreams=entries)).result.failures == []
    assert [title for title in engine.done if "looking" in title] == [
        f"layer {n}: looking at the upstream" for n in (0, 1)
    ]
    assert {r.label for r in go(change(config, upstreams=entries)).result.records} == {"layer 0", "layer 1"}


def test_a_dead_evaluation_is_recorded(config, go, engine):
    engine.silent = True
    assert len(go(config).result.failures) == 4
    assert {record.reason for record in records(config).values()} == {"its process was killed by signal 9"}


def test_a_longer_grid_trains_what_is_new_and_numbers_are_of_one_head(one, go, engine):
    go(change(one, learning_rates=[1e-1, 1e-3]))
    assert records(one)["fbank", "clean"].learning_rate == 1e-3
    go(one)
    assert trainings(engine) == ["fbank / IC / seed 1337: training, learning rate 0.01"]
    assert {record.learning_rate for record in Sweep(one).run().records} == {1e-2}
    go(change(one, learning_rates=[1e-1, 1e-3]))
    assert engine.done == [], "the numbers of the shorter grid's head are still there"


def test_deleting_heads_that_lost_costs_nothing(one, go, engine):
    go(one)
    more = change(one, conditions=[*one.conditions, "noise:snr_db=0,noise=white"])
    for head in Path(one.out).glob("heads/*/*/lr-*"):
        if head.name != "lr-0.01":
            shutil.rmtree(head)
    go(more)
    assert engine.done == ["fbank / IC / seed 1337: evaluating"]


def test_of_heads_that_are_all_gone_the_one_that_won_is_trained_again(one, go, engine):
    go(one)
    shutil.rmtree(Path(one.out) / "heads")
    assert go(one).result.failures == [] and engine.done == [], "the records know which head won"
    go(change(one, conditions=[*one.conditions, "noise:snr_db=0,noise=white"]))
    assert engine.done == [
        "fbank / IC / seed 1337: training, learning rate 0.01",
        "fbank / IC / seed 1337: evaluating",
    ]


def test_half_a_head_is_trained_again(one, go, engine):
    go(one)
    (head,) = Path(one.out).glob("heads/*/*/lr-0.01/dev-best.ckpt")
    head.write_bytes(head.read_bytes()[:40])
    go(change(one, conditions=[*one.conditions, "noise:snr_db=0,noise=white"]))
    assert engine.done[0] == "fbank / IC / seed 1337: training, learning rate 0.01"
    assert len(Sweep(one).run().records) == 2


@pytest.mark.parametrize(("search", "count"), [("once", 3 + 2), ("every", 9)])
def test_a_rate_is_searched_once_or_with_every_seed(one, go, engine, search, count):
    seeds = change(one, seeds=[1, 2, 3], search=search)
    assert go(seeds).result.failures == []
    assert len(trainings(engine)) == count
    found = go(seeds).result.records
    assert engine.done == [] and {(r.seed, r.learning_rate) for r in found} == {(1, 1e-2), (2, 1e-2), (3, 1e-2)}
    for record in found:
        assert [tried["learning_rate"] for tried in record.selection["tried"]] == [1e-1, 1e-2, 1e-3]


def test_a_rate_that_was_found_before_is_taken_over_by_new_seeds(one, go, engine):
    go(change(one, seeds=[1]))
    go(change(one, seeds=[1, 2]))
    assert trainings(engine) == ["fbank / IC / seed 2: training, learning rate 0.01"]


def test_seeds_without_a_leader_s_rate_fail_and_say_why(one, go, engine):
    engine.fails = {"seed 1: training": "ValueError: bad"}
    failures = go(change(one, seeds=[1, 2])).result.failures
    assert "fbank / IC / seed 2 / clean: no learning rate was chosen: fbank / IC / seed 1 has no head" in failures


def test_another_label_or_folder_name_is_no_other_cell(one, go, engine, tmp_path):
    folder = tmp_path / "noise"
    folder.mkdir()
    soundfile.write(folder / "a.wav", 0.1 * np.random.default_rng(0).standard_normal(16000), 16000)
    noisy = change(one, conditions=["noise:snr_db=5"], noise=[str(folder)])
    go(noisy)
    folder.rename(tmp_path / "moved")
    renamed = change(noisy, upstreams=[Upstream("fbank", label="new name")], noise=[str(tmp_path / "moved")])
    assert go(renamed).result.failures == [] and engine.done == []


def test_other_noise_is_another_cell_and_both_stay(one, go, engine, tmp_path):
    for number, name in enumerate(("musan", "urban")):
        (tmp_path / name).mkdir()
        noise = 0.1 * np.random.default_rng(number).standard_normal(16000 + 800 * number)
        soundfile.write(tmp_path / name / "a.wav", noise, 16000)
    musan, urban = (change(one, conditions=["noise:snr_db=5"], noise=[str(tmp_path / n)]) for n in ("musan", "urban"))
    go(musan)
    go(urban)
    assert engine.done == ["fbank / IC / seed 1337: evaluating"]
    go(musan)
    assert engine.done == [] and len(record_files(one.out)) == 2


def test_ctrl_c_stops_the_engine_and_a_second_sweep_is_refused(config, go, engine):
    def interrupted(job):
        with pytest.raises(SweepError, match="in use by another run"):
            go_again(config)
        raise KeyboardInterrupt

    go_again, train = go, engine.training
    engine.training = interrupted
    with pytest.raises(KeyboardInterrupt):
        go(config)
    assert engine.stopped
    engine.training = train
    assert go(config).result.failures == []


@pytest.mark.parametrize(
    ("number", "expected"),
    [
        (errno.ENOLCK, "has no locks: make sure that nothing else is at work"),
        (errno.EACCES, "nothing can be written to"),
    ],
)
def test_locks_say_what_is_the_case(one, go, monkeypatch, number, expected):
    def refused(*_, **__):
        raise OSError(number, "no")

    monkeypatch.setattr("robustdistiller.common.locks.locked", refused)
    if number == errno.EACCES:
        with pytest.raises(SweepError, match=expected):
            go(one)
    else:
        run = go(one)
        assert run.result.failures == [] and any(expected in line for line in run.said)


def test_features_are_kept_for_all_jobs_of_an_upstream(config, go, engine, tmp_path):
    options = {"feature_cache": "auto", "feature_cache_gb": 2, "read_ahead_s": 30, "feature_cache_conditions": True}
    go(change(config, **options))
    plans = [work.head.features for title, work in engine.works.items() if "looking" not in title]
    assert len(plans) == 2 * 3 + 2 and len(set(plans)) == 1
    assert plans[0] == CachePlan(str(tmp_path / "out" / "features"), "fp32", 2, 30, keep_conditions=True)


def test_a_sweep_is_a_function(tmp_path, config, engine, monkeypatch):
    monkeypatch.setattr("robustdistiller.eval.sweep.run.make_engine", lambda *_: engine)
    said = []
    result = sweep(config, say=said.append)
    assert len(result.records) == 4 and said[0] == "fbank: looking at the upstream: done"
    assert [record.main_metric.value for record in sweep(config, policy="show").records] == [75.0] * 4


def test_folds_share_the_rate_of_the_first(one, go, engine, tmp_path, monkeypatch):
    monkeypatch.setattr("robustdistiller.eval.sweep.entries.task_configs.check_roots", lambda *_: None)
    override = {f"runner.{name}": 10 for name in ("total_steps", "eval_step", "save_step")}
    task = TaskEntry("ER", folds=["fold1", "fold2"], override=override)
    go(change(one, tasks=[task], conditions=["clean"]))
    assert len(trainings(engine)) == 3 + 1 and "fold2" in trainings(engine)[-1]


def test_an_old_number_is_no_excuse_for_an_evaluation_that_died(one, go, engine):
    go(one)
    engine.dev[1e-4], engine.silent = 90.0, True  # the new rate wins, and its evaluation is killed
    longer = change(one, learning_rates=[*one.learning_rates, 1e-4])
    failures = go(longer).result.failures
    assert len(failures) == 2 and all("killed by signal 9" in failure for failure in failures)


def test_what_was_there_before_a_rerun_is_no_number_of_it(one, go, engine):
    go(one)
    for path in record_files(one.out):
        record = json.loads(path.read_text())
        path.write_text(json.dumps({**record, "start_utc": "2026-01-01T00:00:00+00:00"}))
    engine.silent = True
    failures = go(change(one, policy="rerun")).result.failures
    assert len(failures) == 2 and all("killed by signal 9" in failure for failure in failures)


def test_a_record_without_its_number_is_a_failure_and_stays(one, go, engine, monkeypatch):
    """As of query by example without its ground truth."""
    none = [Metric("accuracy", None, True, "%", "there is no ground truth")]
    write = engine._write
    monkeypatch.setattr(engine, "_write", lambda *given: write(*given[:3], {**given[3], "metrics": none}))
    for _ in range(2):  # tried again each time
        failures = go(one).result.failures
        assert len(failures) == 2 and all("no accuracy: there is no ground truth" in line for line in failures)
    assert {record.status for record in records(one).values()} == {"ok"}


def test_two_models_that_s3prl_fetches_are_two_systems(one, go, engine):
    def of(model):
        return change(one, upstreams=[Upstream("hf_hubert_custom", model)], conditions=["clean"])

    go(of("org/a"))
    assert go(of("org/a")).result.failures == [] and engine.done == []
    go(of("org/b"))
    assert len(trainings(engine)) == 3 and len(record_files(one.out)) == 2
