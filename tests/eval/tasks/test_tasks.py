"""The task registry agrees with the shipped configurations, and both with s3prl's own code."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path

import pytest
import yaml

from robustdistiller.eval import tasks
from robustdistiller.eval.tasks import configs as task_configs
from robustdistiller.eval.tasks.parts import lookup
from robustdistiller.upstream.s3prl import bridge

EXPERT = "config.downstream_expert"
S3PRL = Path(importlib.util.find_spec("s3prl").submodule_search_locations[0])

# What the benchmark prescribes: steps, learning rate, utterances per update.
RECIPES = {
    "KS": (200_000, 1e-4, 32),
    "IC": (200_000, 1e-4, 32),
    "SID": (200_000, 1e-4, 8 * 4),
    "ER": (30_000, 1e-4, 4 * 8),
    "ASR": (200_000, 1e-4, 32),
    "ASR-LM": (200_000, 1e-4, 32),
    "PR": (100_000, 1e-2, 16 * 2),
    "SF": (200_000, 1e-4, 32),
    "ASV": (200_000, 1e-4, 10 * 5),
    "SD": (30_000, 1e-4, 8 * 4),
    "SE": (150_000, 1e-4, 8),
    "SE2": (100_000, 1e-3, 8),
    "SS": (150_000, 1e-4, 8),
    "SS2": (150_000, 1e-3, 8),
}


def leaves(node: object, path: tuple[str, ...] = ()) -> list[tuple[str, ...]]:
    if isinstance(node, dict):
        return [leaf for key, value in node.items() for leaf in leaves(value, (*path, key))]
    return [path]


@pytest.mark.parametrize("code", sorted(RECIPES))
def test_configs_hold_the_benchmarks_recipe(code):
    config = task_configs.load_config(tasks.get(code))
    expert = config["downstream_expert"]
    sizes = {
        value
        for section in ("datarc", "corpus", "loaderrc")
        for key, value in (expert.get(section) or {}).items()
        if key in ("batch_size", "train_batch_size", "train_batchsize")
    }
    assert len(sizes) == 1
    batch = sizes.pop() * config["runner"]["gradient_accumulate_steps"]
    assert (config["runner"]["total_steps"], config["optimizer"]["lr"], batch) == RECIPES[code]


@pytest.mark.parametrize("code", sorted(tasks.TASKS))
def test_every_option_of_a_config_is_read_by_s3prl(code):
    task = tasks.get(code)
    folders = [task.downstream, *(["asr"] if task.downstream == "ctc" else [])]
    files = [S3PRL / "downstream" / name for name in ("runner.py", "model.py", "specaug.py")]
    files += [S3PRL / "optimizers.py", S3PRL / "schedulers.py"]
    files += [file for folder in folders for file in (S3PRL / "downstream" / folder).glob("*.py")]
    files += Path(bridge.__file__).parent.glob("ctc_corpus.py")
    source = "\n".join(file.read_text(encoding="utf-8") for file in files)
    # Handed over as a whole: to the optimiser, or to fairseq (ST).
    passed_on = {"torch_optim_name", "lr"} | ({"config_yaml", "bpe"} if code == "ST" else set())
    passed_on |= {"generatorrc", "modelrc", "taskrc", "criterionrc", "asrrc"} if code == "ST" else set()
    unread = [
        ".".join(path)
        for path in leaves(task_configs.load_config(task))
        if not passed_on & set(path)
        and not re.search(rf"\b{re.escape(path[-1])}\b", source)
        # names of splits and speakers lists are looked up by the split
        and not re.fullmatch(r"(dev|test)-(clean|other)|(train|valid|test)_speakers|(train|dev|test)_dir", path[-1])
    ]
    assert unread == []


@pytest.mark.parametrize("code", sorted(tasks.TASKS))
def test_entry_fits_its_config_and_its_expert(code):
    task = tasks.get(code)
    config = task_configs.load_config(task)
    assert (S3PRL / "downstream" / task.downstream / "expert.py").is_file()
    assert tasks.identify(task.downstream, config) is task
    assert task_configs.missing_roots(task, config) == list(task.roots), "data roots are left to the user"
    empty = {".".join(("config", *path)) for path in leaves(config) if lookup(config, ".".join(path)) is None}
    user_given = {root.key for root in task.roots}
    optional = {"frame_shift", "train_meta_data", "max_workers", "silence_frame", "kenlm_model", "lexicon"}
    assert {key for key in empty - user_given if key.split(".")[-1] not in optional} == set()
    for path in task_configs.vocabulary_paths(task).values():
        assert Path(path).is_absolute() and Path(path).is_file()
    assert task.metrics and task.splits and task.corruption in ("waveforms", "recordings", "mixture", "none")
    assert set(task.item_counts) <= set(task.splits)


def test_no_config_is_left_out():
    folder = task_configs._folder()
    used = [*(task.config for task in tasks.TASKS.values()), "csv"]  # of tables of one's own
    assert sorted(file.stem for file in folder.glob("*.yaml")) == sorted(used)


def test_vocabularies_have_the_sizes_of_the_published_heads():
    from s3prl.downstream.asr.dictionary import Dictionary
    from s3prl.downstream.ctc.text import load_text_encoder

    key = f"{EXPERT}.text.vocab_file"
    assert len(Dictionary.load(task_configs.vocabulary_paths(tasks.get("ASR"))[f"{EXPERT}.datarc.dict_path"])) == 32
    assert load_text_encoder("word", task_configs.vocabulary_paths(tasks.get("PR"))[key]).vocab_size == 71 + 3
    characters = load_text_encoder("character", task_configs.vocabulary_paths(tasks.get("SF"))[key])
    assert characters.vocab_size == 28 + 3
    assert 2 not in characters.encode("IT'S A TEST"), "no character of it is unknown"


def test_written_config_is_what_was_loaded(tmp_path: Path):
    task = tasks.get("PR")
    path = task_configs.write_config(task, tmp_path / "new" / "exp")
    assert yaml.safe_load(path.read_text()) == task_configs.load_config(task)
    assert [file.name for file in path.parent.iterdir()] == ["pr.yaml"], "no temporary file stays"


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"runner: [", "is not YAML: while parsing"),
        (b"\xff\xfe\x00", "is not YAML: 'utf-8' codec"),
        (b"runner: {}", "expected s3prl's settings runner, optimizer and downstream_expert"),
    ],
)
def test_a_config_that_is_none_is_named(content, said, tmp_path: Path):
    (tmp_path / "head.yaml").write_bytes(content)
    with pytest.raises(ValueError, match=rf"head\.yaml:? {said}"):
        task_configs.read_config(tmp_path / "head.yaml")


def test_names():
    assert tasks.get("ic") is tasks.get("fluent_commands") is tasks.TASKS["IC"]
    assert tasks.get("asr").code == "ASR"
    with pytest.raises(ValueError, match="'ctc' serves several tasks: say -d PR or -d SF"):
        tasks.get("ctc")
    with pytest.raises(ValueError, match=r"unknown task 'fluent_comands'; did you mean 'fluent_commands'"):
        tasks.get("fluent_comands")
    with pytest.raises(ValueError, match=r"unknown task 'xyzzy'; known: PR, SID"):
        tasks.get("xyzzy")


def test_identify_tells_shared_downstreams_apart():
    def config(section: str, **values: object) -> dict:
        return {"downstream_expert": {section: values}}

    assert tasks.identify("ctc", config("corpus", name="LibriPhone")).code == "PR"
    assert tasks.identify("ctc", config("corpus", name="common_voice")) is None
    assert tasks.identify("asr", config("datarc", decoder_args={"decoder_type": "kenlm"})).code == "ASR-LM"
    assert tasks.identify("asr", config("datarc")).code == "ASR"
    assert tasks.identify("mosei", {}) is None


def test_scores_are_scaled_and_belong_to_the_split():
    logged = {"asr/test-clean-wer": 12.5, "asr/test-clean-uer": 4.0, "asr/dev-clean-wer": 99.0}
    assert tasks.get("ASR").scores(logged, "test-clean") == {"wer": 12.5, "cer": 4.0}
    assert tasks.get("ASV").scores({"sv-voxceleb1/test-EER": 0.125}, "test") == {"eer": 12.5}
    assert tasks.get("ER").scores({"emotion-fold1/test-acc": 0.5}, "test") == {"accuracy": 50.0}
    assert tasks.get("QbE").scores({}, "eval") == {}, "s3prl computes no score for it"
    with pytest.raises(ValueError, match=r"no ASR wer for split 'test-other': expected .*'/test-other-wer', found \["):
        tasks.get("ASR").scores(logged, "test-other")


def test_utterance_ids_refuse_what_they_cannot_name():
    assert tasks.get("IC").utterance_ids((["labels"] * 2, ("a", "b")), 2) == ["a", "b"]
    with pytest.raises(ValueError, match="a batch of 3 waveforms came with 2 ids"):
        tasks.get("IC").utterance_ids((["labels"] * 2, ("a", "b")), 3)
    with pytest.raises(ValueError, match="on the test split only, found None"):
        tasks.get("SD").utterance_ids((None, None, None), 1)
    with pytest.raises(ValueError, match="ST batches carry no utterance ids"):
        tasks.get("ST").utterance_ids(({},), 1)


def test_missing_data_is_named_with_the_option_to_type(tmp_path: Path):
    task = tasks.get("PR")
    config = task_configs.load_config(task)
    config["downstream_expert"]["corpus"]["path"] = str(tmp_path / "nowhere")
    with pytest.raises(FileNotFoundError) as raised:
        task_configs.check_roots(task, config)
    lines = str(raised.value).splitlines()
    assert lines[0] == "PR (phoneme recognition, LibriSpeech) needs data that is not there:"
    assert (
        "corpus.path is given as '" in lines[1] and "nowhere', which does not exist; expected LibriSpeech" in lines[1]
    )
    assert "corpus.lexicon is not given; expected files of lines" in lines[2]
    assert lines[3].endswith("corpus.path='PATH',,config.downstream_expert.corpus.lexicon=['PATH']\"")

    (tmp_path / "lexicon.txt").touch()
    config["downstream_expert"]["corpus"] |= {"path": str(tmp_path), "lexicon": [str(tmp_path / "lexicon.txt")]}
    task_configs.check_roots(task, config)
    config["downstream_expert"]["corpus"]["lexicon"].append(str(tmp_path / "gone.txt"))
    assert [root.key for root in task_configs.missing_roots(task, config)] == [f"{EXPERT}.corpus.lexicon"]
