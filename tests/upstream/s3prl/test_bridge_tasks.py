"""Stock s3prl, through the bridge, trains and evaluates every task on toy corpora in the official layouts."""

from __future__ import annotations

import builtins
import math
import pickle
import sys
from pathlib import Path

import pytest
from tensorboardX import SummaryWriter

from robustdistiller.eval import tasks
from robustdistiller.eval.check import toy_corpora
from robustdistiller.eval.tasks import configs as task_configs
from robustdistiller.upstream.s3prl import bridge
from tests.language_model import asr_language_model

# The utterances of each toy test split, as the registry names them.
TEST_IDS = {
    "KS": {f"{folder}-cafe_nohash_0.wav" for folder in ("yes", "no", "_unknown_", "_silence_")},
    "IC": {"test0", "test1", "test2"},
    "SID": {f"{speaker}-video3-{number:05d}" for speaker in ("id10001", "id10002") for number in range(2)},
    "ER": {f"Ses01F_impro01_F{index:03d}" for index in range(5)},
    "ASR": {"13-7-0000", "13-7-0001"},
    "PR": {"13-7-0000", "13-7-0001"},
    "SF": {f"{speaker}-snips-test-{index}" for speaker in ("Brian", "Emma") for index in range(2)},
    "ASV": {f"{speaker}-video1-{number:05d}" for speaker in ("id10270", "id10271") for number in range(2)},
    "SD": {"test0", "test1"},
    "QbE": {f"quesst14_{kind}_{index}" for kind in ("eval", "utterances") for index in range(2)},
    **{code: {"test0", "test1"} for code in ("SE", "SE2", "SS", "SS2")},
}
RANGES = {"pesq": (0.5, 4.7), "si_sdr_improvement": (-60, 60), "wer": (0, math.inf), "per": (0, math.inf)}


@pytest.fixture(scope="module")
def entry(tmp_path_factory: pytest.TempPathFactory):
    bridge.install(tmp_path_factory.mktemp("cache"))
    import s3prl.run_downstream

    return s3prl.run_downstream


@pytest.fixture
def scalars(monkeypatch: pytest.MonkeyPatch) -> dict[str, float]:
    logged: dict[str, float] = {}
    monkeypatch.setattr(
        SummaryWriter, "add_scalar", lambda _self, tag, value, **_kw: logged.update({tag: float(value)})
    )
    return logged


def test_every_task_but_translation_has_a_toy_corpus():
    assert set(TEST_IDS) == set(toy_corpora.BUILDERS) == set(tasks.TASKS) - {"ASR-LM", "ST"}


@pytest.mark.parametrize("code", sorted(TEST_IDS))
def test_stock_s3prl_trains_and_evaluates(code, entry, scalars, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    task = tasks.get(code)
    if code in ("ASV", "QbE") and bridge.sox_path() is None:
        pytest.skip(f"{code} needs the program sox: {bridge.INSTALL_SOX}")
    isinstance_before = builtins.isinstance
    runners = []

    class KeptRunner(entry.Runner):
        def __init__(self, *args):
            super().__init__(*args)
            runners.append(self)

    monkeypatch.setattr(entry, "Runner", KeptRunner)

    def run(*arguments: object) -> None:
        monkeypatch.setattr(sys, "argv", ["run_downstream.py", *map(str, arguments), "--device", "cpu"])
        entry.main()

    overrides = toy_corpora.build(code, tmp_path / "data")
    config = task_configs.write_config(task, tmp_path / "exp")
    steps = {f"config.runner.{name}": 2 for name in ("total_steps", "eval_step", "save_step", "log_step")}
    option = toy_corpora.as_option({**overrides, **(steps if task.trainable else {})})
    new = ("-u", "fbank", "-d", task.downstream, "-c", config, "-p", tmp_path / "exp", "-o", option)
    split = task.splits[0]
    if task.trainable:
        run("-m", "train", *new)
        assert (tmp_path / "exp" / "states-2.ckpt").is_file()
        scalars.clear()
        run("-m", "evaluate", "-t", split, "-e", tmp_path / "exp" / "states-2.ckpt")
    else:
        run("-m", "evaluate", "-t", split, *new)

    scores = task.scores(scalars, split)
    if code == "QbE":
        assert (tmp_path / "exp" / "benchmark.stdlist.xml").read_text().count("<term ") == 2 * 2
    else:  # the benchmark's diarization error rate is computed later, from predictions
        assert ("frame_der" if code == "SD" else task.metric.name) in scores
    for name, value in scores.items():
        low, high = RANGES.get(name, (-100, 100) if name == "stoi" else (0, math.inf if "er" in name else 100))
        assert low <= value <= high, (name, value)

    ids = set()
    for waveforms, *others in runners[-1].downstream.model.get_dataloader(split):
        ids.update(task.utterance_ids(others, len(waveforms)))
    assert ids == TEST_IDS[code]
    assert builtins.isinstance is isinstance_before
    assert not task_configs.missing_roots(task, runners[-1].config)
    assert tasks.identify(task.downstream, runners[-1].config) is task


def test_an_asr_head_is_decoded_with_a_language_model(entry, scalars, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    for package in tasks.get("ASR-LM").packages:
        pytest.importorskip(package)

    def run(code: str, *arguments: object, **overrides: object) -> None:
        task = tasks.get(code)
        option = toy_corpora.as_option(
            {**corpus, **{f"config.{k.replace('__', '.')}": v for k, v in overrides.items()}}
        )
        config = task_configs.write_config(task, tmp_path / code)
        words = ("-u", "fbank", "-d", "asr", "-c", config, "-p", tmp_path / code, "-o", option, "--device", "cpu")
        monkeypatch.setattr(sys, "argv", ["run_downstream.py", *map(str, (*arguments, *words))])
        entry.main()

    corpus = toy_corpora.build("ASR", tmp_path / "data")
    run("ASR", "-m", "train", runner__total_steps=2, runner__eval_step=2, runner__save_step=2)
    corpus |= asr_language_model(tmp_path / "lm")
    scalars.clear()
    run("ASR-LM", "-m", "evaluate", "-t", "test-clean", "-i", tmp_path / "ASR" / "states-2.ckpt")
    assert tasks.get("ASR-LM").scores(scalars, "test-clean").keys() == {"wer", "cer"}
    hypotheses = (tmp_path / "ASR-LM" / "test-clean-LM-hyp.ark").read_text().split()
    assert {word for word in hypotheses if not word.startswith("13-7-")} <= {"A", "CAT", "IT'S", "MAT", "SAT", "THE"}


def test_the_kept_worker_count_reaches_every_ctc_loader(entry, tmp_path: Path):
    """Without the shim the second loader has twelve workers, because the setting was popped by the first."""
    from s3prl.downstream.ctc import data
    from s3prl.downstream.ctc.text import load_text_encoder

    root = tmp_path / "data"
    lexicon = toy_corpora.libriphone(root)[f"{toy_corpora.EXPERT}.corpus.lexicon"]
    vocabulary = task_configs.vocabulary_paths(tasks.get("PR"))[f"{toy_corpora.EXPERT}.text.vocab_file"]
    tokenizer = load_text_encoder("word", vocabulary)
    corpus = {
        "name": "libriphone",
        "path": str(root / "LibriSpeech"),
        "lexicon": lexicon,
        "test": ["test-clean"],
        "bucketing": True,
        "batch_size": 2,
        "num_workers": 0,
    }
    assert [data.load_dataset("test", tokenizer, corpus).num_workers for _ in range(2)] == [0, 0]
    unpatched = data.load_dataset.__wrapped__
    assert [unpatched("test", tokenizer, corpus).num_workers for _ in range(2)] == [0, 12]


def test_each_sid_corpus_gets_its_own_file_list(entry, tmp_path: Path):
    from s3prl.downstream.voxceleb1 import dataset

    lists = {}
    for name in ("one", "two"):
        overrides = toy_corpora.voxceleb1(tmp_path / name)
        lists[name] = (tmp_path / name, overrides[f"{toy_corpora.EXPERT}.datarc.meta_data"])
        files = dataset.SpeakerClassifiDataset("test", *lists[name]).dataset
        assert len(files) == 4 and all(file.startswith(str(tmp_path / name)) for file in files)

    unpatched = dataset.SpeakerClassifiDataset.__init__.__wrapped__
    dataset.CACHE_PATH = f"{tmp_path}/shared/"
    stale = [dataset.SpeakerClassifiDataset.__new__(dataset.SpeakerClassifiDataset) for _ in lists]
    for item, arguments in zip(stale, lists.values()):
        unpatched(item, "test", *arguments)
    assert stale[1].dataset == stale[0].dataset, "s3prl no longer mixes corpora up: the shim can go"


def test_a_list_of_files_is_there_whole_or_not_at_all(entry, tmp_path: Path, monkeypatch):
    from s3prl.downstream.voxceleb1 import dataset

    listing = toy_corpora.voxceleb1(tmp_path)[f"{toy_corpora.EXPERT}.datarc.meta_data"]
    other, write = [], pickle.dump

    def half(files, stream) -> None:
        stream.write(pickle.dumps(files)[:20])
        stream.flush()
        with monkeypatch.context() as patch:  # another process, meanwhile
            patch.setattr(dataset.pickle, "dump", write)
            other.append(dataset.SpeakerClassifiDataset("test", tmp_path, listing).dataset)
        raise KeyboardInterrupt

    monkeypatch.setattr(dataset.pickle, "dump", half)
    with pytest.raises(KeyboardInterrupt):
        dataset.SpeakerClassifiDataset("test", tmp_path, listing)
    monkeypatch.undo()
    assert other == [dataset.SpeakerClassifiDataset("test", tmp_path, listing).dataset] and len(other[0]) == 4


def test_a_listed_sid_file_that_is_missing_is_named(entry, tmp_path: Path):
    from s3prl.downstream.voxceleb1 import dataset

    toy_corpora.voxceleb1(tmp_path)
    listing = toy_corpora.text(tmp_path / "split.txt", "3 id10001/video9/00009.wav")
    with pytest.raises(FileNotFoundError, match=r"test file listed in .*split\.txt was not found as"):
        dataset.SpeakerClassifiDataset("test", tmp_path, str(listing))


@pytest.mark.skipif(bridge.sox_path() is None, reason="ASV needs the program sox")
def test_asv_lengths_follow_the_training_folder(entry, tmp_path: Path):
    from s3prl.downstream.sv_voxceleb1 import dataset

    def training_files(root: Path) -> list[str]:
        return dataset.SpeakerVerifi_train({"min_sec": 16000}, ["Voxceleb1"], [root / "dev" / "wav"], "").dataset

    toy_corpora.voxceleb1_trials(tmp_path / "one")
    assert len(training_files(tmp_path / "one")) == 4
    toy_corpora.write(tmp_path / "one" / "dev" / "wav" / "id10001" / "video2" / "00000.wav", 3.5)
    toy_corpora.write(tmp_path / "one" / "dev" / "wav" / "id10003" / "video1" / "00000.wav", 3.5)
    files = training_files(tmp_path / "one")
    assert len(files) == 6, "new speakers and videos are measured, not hidden by the cache"
    toy_corpora.voxceleb1_trials(tmp_path / "two")
    assert all(str(file).startswith(str(tmp_path / "two")) for file in training_files(tmp_path / "two"))
    assert not (Path(dataset.__file__).parent / ".wav_lengths").exists(), "nothing is written into the s3prl package"
