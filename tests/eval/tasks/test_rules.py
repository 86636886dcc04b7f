"""What makes a run non-standard is found and named, and nothing else is."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from robustdistiller.eval import tasks
from robustdistiller.eval.report.board import leaderboard
from robustdistiller.eval.report.tables import clean_grid
from robustdistiller.eval.results.files import read_record, write_record
from robustdistiller.eval.results.record import RecordError
from robustdistiller.eval.tasks import configs as task_configs
from robustdistiller.eval.tasks import rules
from robustdistiller.eval.tasks.rules import split
from tests.eval.report import boards
from tests.records import example_record


def deviations(task: tasks.Task, *run: object, **told: str) -> list[str]:
    return rules.deviations(task, split(task, *run, **told))


def run_of(code: str, **changes: object) -> dict:
    """A task's shipped configuration with every data root given and some keys changed (``__`` for the dots)."""
    task = tasks.get(code)
    config = task_configs.load_config(task)
    for root in task.roots:
        names = task.rules.files.get(root.key.removeprefix("config."), ("x",))
        value = [f"/data/{name}" for name in names] if root.is_list else "/data/x"
        change(config, root.key.removeprefix("config."), value)
    for key, value in changes.items():
        change(config, key.replace("__", "."), value)
    return config


def change(config: dict, key: str, value: object) -> None:
    *parents, last = key.split(".")
    for part in parents:
        config = config.setdefault(part, {})
    config[last] = value


@pytest.mark.parametrize("code", sorted(tasks.TASKS))
def test_the_shipped_configuration_is_standard_and_its_speed_may_be_chosen(code):
    second = ["SE2 is s3prl's second recipe, not SUPERB's", "SS2 is s3prl's second recipe, not SUPERB's"]
    expected = [phrase for phrase in second if phrase.startswith(code + " ")]
    config = run_of(code)
    assert deviations(tasks.get(code), config, {}) == expected
    for section in config["downstream_expert"].values():
        if isinstance(section, dict) and "num_workers" in section:
            section["num_workers"] = 17
    if tasks.get(code).trainable:
        kept = {"save_step": 4000, "max_keep": 50} if code == "ASV" else {"save_step": 9, "max_keep": 3}
        config["runner"] |= {"log_step": 7, **kept}
        config["optimizer"]["lr"] = 0.123
        config["runner"]["eval_dataloaders"] = [s for s in config["runner"]["eval_dataloaders"] if s != "test"]
    assert deviations(tasks.get(code), config, {"upstream_layer_selection": None}) == expected


@pytest.mark.parametrize(
    ("code", "changes", "phrase"),
    [
        ("KS", {"runner__total_steps": 10}, "runner.total_steps is 10, not 200000"),
        ("KS", {"downstream_expert__datarc__batch_size": 64}, "utterances_per_update is 64, not 32"),
        ("SID", {"runner__gradient_accumulate_steps": 1}, "utterances_per_update is 8, not 32"),
        ("ASV", {"runner__save_step": 50_000}, "every 50000 steps, the last 20, not all at multiples of 20000, of"),
        ("ASV", {"runner__max_keep": 18}, "checkpoints are kept every 10000 steps, the last 18, not all at multiples"),
        ("IC", {"optimizer__torch_optim_name": "SGD"}, "optimizer.torch_optim_name is SGD, not Adam"),
        ("IC", {"scheduler__name": "linear"}, "scheduler.name is linear, not left out"),
        ("IC", {"runner__eval_dataloaders": ["test"]}, "runner.eval_dataloaders is [], not ['dev']"),
        ("ASR", {"downstream_expert__datarc__train": ["train-clean-360"]},
         "downstream_expert.datarc.train is ['train-clean-360'], not ['train-clean-100']"),
        ("ASR", {"specaug": {}}, "specaug.apply_time_warp is None, not True"),
        ("ASR", {"downstream_expert__datarc__dict_path": "/none.dict"}, "dict_path has other contents than"),
        ("ER", {"downstream_expert__datarc__test_fold": "fold6"}, "test_fold is fold6, not one of fold1, fold2, fold3"),
        ("PR", {"downstream_expert__corpus__lexicon": ["/a/mine.txt"]}, "lexicon names mine.txt, not librispeech-"),
        ("SF", {"downstream_expert__corpus__test_speakers": ["Emma"]}, "test_speakers is ['Emma'], not ['Brian'"),
        ("SS", {"downstream_expert__datarc__src": ["mix_both"]}, "datarc.src is ['mix_both'], not ['mix_clean']"),
    ],
)  # fmt: skip
def test_each_change_is_named(code, changes, phrase):
    found = deviations(tasks.get(code), run_of(code, **changes), {})
    assert any(phrase in one for one in found), found
    assert deviations(tasks.get(code), run_of(code), {}) == []


FREE_CHANGES = [
    ("IC", {"optimizer__lr": 0.5}),
    ("IC", {"downstream_expert__datarc__file_path": "/corpora/fluent"}),
    ("KS", {"runner__gradient_accumulate_steps": 4, "downstream_expert__datarc__batch_size": 8}),
    ("IC", {"runner__save_step": 7, "runner__log_step": 3, "runner__max_keep": 9}),
    ("IC", {"downstream_expert__datarc__eval_batch_size": 1, "downstream_expert__datarc__num_workers": 0}),
    ("IC", {"runner__eval_dataloaders": ["dev"]}),
    ("ER", {"downstream_expert__datarc__pre_load": False}),
    ("ER", {"downstream_expert__datarc__test_fold": "fold4"}),
    ("SD", {"downstream_expert__datarc__frame_shift": 160}),
    ("SD", {"downstream_expert__scorerc__save_predictions": False}),
    ("PR", {"downstream_expert__corpus__lexicon": [f"/x/librispeech-lexicon-{n}-g2p.txt"
                                                   for n in ("200k", "allothers")]}),
    ("KS", {"runner__gradient_clipping": 1, "runner__fp16": False}),
    ("ASR-LM", {"downstream_expert__datarc__decoder_args__unk_weight": "-math.inf"}),
    ("IC", {"downstream_expert__modelrc__Wav2Letter": {"total_rate": 320}}),
    ("ASV", {"downstream_expert__modelrc__LossConfig__SoftmaxLoss": {"s": 1.0}}),
]  # fmt: skip
FIXED_CHANGES = [
    ("IC", {"optimizer__torch_optim_name": "SGD"}),
    ("IC", {"runner__fp16": True}),
    ("KS", {"runner__gradient_accumulate_steps": 2}),
    ("ER", {"downstream_expert__datarc__test_fold": "fold6"}),
    ("IC", {"downstream_expert__modelrc__UtteranceLevel__pooling": "AttentivePooling"}),
    ("ASV", {"downstream_expert__modelrc__LossConfig__AMSoftmaxLoss__m": 0.2}),
    ("PR", {"downstream_expert__corpus__lexicon": ["/a/mine.txt"]}),
]


@pytest.mark.parametrize(("code", "changes"), FREE_CHANGES)
def test_what_a_run_may_choose_makes_no_other_rules(code, changes):
    task = tasks.get(code)
    assert split(task, run_of(code, **changes), {}).digest == split(task, run_of(code), {}).digest
    assert deviations(task, run_of(code, **changes), {}) == []


@pytest.mark.parametrize(("code", "changes"), FIXED_CHANGES)
def test_what_the_rules_fix_makes_other_rules_and_a_phrase(code, changes):
    task = tasks.get(code)
    assert split(task, run_of(code, **changes), {}).digest != split(task, run_of(code), {}).digest
    assert len(deviations(task, run_of(code, **changes), {})) == 1


@pytest.mark.parametrize("code", sorted(tasks.TASKS))
def test_every_setting_is_on_one_side_of_the_division(code):
    found = split(tasks.get(code), run_of(code), {"upstream_layer_selection": 3})
    assert not set(found.fixed) & set(found.free)
    assert json.loads(json.dumps(found.fixed)) == found.fixed and json.loads(json.dumps(found.free)) == found.free
    assert not any("/data" in str(value) for value in (*found.fixed.values(), *found.free.values())), "no folder stays"


def test_a_block_that_the_run_selects_counts():
    """Another model than the benchmark's: its own settings make two runs differ, those of the first one do not."""

    def run(**block: object) -> dict:
        config = run_of("IC", downstream_expert__modelrc__select="DeepModel")
        config["downstream_expert"]["modelrc"]["DeepModel"] = block
        return config

    digest = split(tasks.get("IC"), run(layers=2), {}).digest
    assert split(tasks.get("IC"), run(layers=3), {}).digest != digest
    other = run(layers=2)
    other["downstream_expert"]["modelrc"]["UtteranceLevel"]["pooling"] = "AttentivePooling"
    assert split(tasks.get("IC"), other, {}).digest == digest


@pytest.mark.parametrize(
    ("extra", "phrase"),
    [
        ({"train_condition": "reverb"}, "the head was trained under reverb, not on clean audio"),
        ({"features": {"training": "frames float16"}}, "the head was given features that were kept in half precision"),
        ({"quick": "10 % of items"}, "a quick look (10 % of items), not the full task"),
    ],
)
def test_what_else_a_number_was_made_with_is_part_of_its_rules(extra, phrase):
    task, run = tasks.get("IC"), run_of("IC")
    assert deviations(task, run, {}, **extra) == [phrase]
    assert split(task, run, {}, **extra).digest != split(task, run, {}).digest
    for exact in ("means float32", "frames float32", {"training": "means float32"}, {}):
        assert split(task, run, {}, features=exact).digest == split(task, run, {}).digest


def test_what_s3prl_ships_beside_the_selected_model_is_no_difference():
    config = run_of("IC")
    config["downstream_expert"]["modelrc"]["Wav2Letter"] = {"total_rate": 320}
    config["downstream_expert"]["datarc"]["train_meta_data"] = "./nowhere"
    assert deviations(tasks.get("IC"), config, {}) == []
    config["downstream_expert"]["modelrc"]["UtteranceLevel"]["pooling"] = "AttentivePooling"
    assert len(deviations(tasks.get("IC"), config, {})) == 1
    lm = run_of("ASR-LM", downstream_expert__datarc__decoder_args__unk_weight="-math.inf")  # s3prl's spelling
    assert deviations(tasks.get("ASR-LM"), lm, {}) == []


def test_a_vocabulary_counts_by_its_content(tmp_path):
    key = "config.downstream_expert.text.vocab_file"
    shipped = Path(task_configs.vocabulary_paths(tasks.get("PR"))[key])
    copy_ = tmp_path / "phoneme.txt"
    copy_.write_text(shipped.read_text())
    assert deviations(tasks.get("PR"), run_of("PR", downstream_expert__text__vocab_file=str(copy_)), {}) == []
    copy_.write_text(shipped.read_text() + "XX\n")
    assert len(deviations(tasks.get("PR"), run_of("PR", downstream_expert__text__vocab_file=str(copy_)), {})) == 1


@pytest.mark.parametrize(
    ("code", "arguments", "phrases"),
    [
        ("IC", {"upstream_trainable": True}, ["upstream_trainable is True, not False"]),
        ("IC", {"upstream_layer_selection": 0}, ["upstream_layer_selection is 0, not None"]),
        ("QbE", {"upstream_layer_selection": 0}, []),
        ("KS", {"upstream_feature_selection": "paper"}, ["upstream_feature_selection is paper, not hidden_states"]),
        ("KS", {"upstream_feature_normalize": False, "downstream_variant": None, "seed": 3}, []),
    ],
)
def test_how_features_reach_the_head_is_part_of_the_rules(code, arguments, phrases):
    assert deviations(tasks.get(code), run_of(code), arguments) == phrases


def test_a_head_trained_in_noise_is_not_standard():
    assert deviations(tasks.get("IC"), run_of("IC"), {}, train_condition="noise:snr_db=5") == [
        "the head was trained under noise:snr_db=5, not on clean audio"
    ]


def test_records_keep_the_list(tmp_path):
    marked = example_record(non_standard=["runner.total_steps is 4, not 200000"])
    path = write_record(tmp_path, marked)
    assert read_record(path) == marked
    with pytest.raises(RecordError, match="non_standard"):
        write_record(tmp_path, example_record(non_standard={"steps": 4}))


def test_the_leaderboard_marks_what_is_not_standard(tmp_path):
    def board(name: str, **changes):
        write_record(tmp_path / name, boards.record("mine", items=3793, **changes))
        return leaderboard([tmp_path / name], published=False)

    standard = clean_grid(board("standard", non_standard=[]))
    assert standard.rows[0][3] == "50.00" and not any("‡" in note for note in standard.notes)
    assert clean_grid(board("older")).rows == standard.rows, "an older record has no mark"
    steps = "runner.total_steps is 4, not 200000"
    short = board("short", non_standard=[steps])
    marked = clean_grid(short)
    assert marked.rows[0][3] == "50.00 ‡"
    assert any(note.startswith("‡ not a standard run") for note in marked.notes)
    assert f"mine, IC: not a standard run, {steps}" in marked.notes
    assert r"50.00 \textsuperscript{\ddag}" in marked.to_latex()
    assert list(short.frame.non_standard) == [steps]
    assert steps in short.to_html() and "50.00 ‡" in short.to_html()


def test_the_reasons_of_all_seeds_are_said(tmp_path):
    for seed, reason in ((1, "a"), (2, "b")):
        write_record(tmp_path, boards.record("mine", seed=seed, non_standard=[reason]))
    (cell,) = leaderboard([tmp_path], published=False).rows[0].cells.values()
    assert cell.non_standard == ("a", "b") and cell.remark == "not a standard run: a; b"
