"""With the cache, unchanged s3prl trains the same head and prints the same score, and computes nothing twice."""

from __future__ import annotations

import re

import pytest
import torch
from torch.utils.data import DataLoader

from robustdistiller.common.array_store import ArrayStore
from robustdistiller.eval import tasks
from robustdistiller.eval.results.files import read_records
from robustdistiller.eval.run.cache import wrapper
from robustdistiller.eval.run.cache.loaders import announcing
from robustdistiller.eval.run.cache.wrapper import CachedUpstream
from robustdistiller.eval.run.head_checkpoint import read_checkpoint
from robustdistiller.eval.run.head_note import HeadNote
from robustdistiller.eval.run.launcher import main
from robustdistiller.eval.run.quick import Quick
from robustdistiller.upstream import UpstreamExpert
from robustdistiller.upstream.s3prl import bridge
from robustdistiller.upstream.s3prl.bridge import sox_path

pytestmark = pytest.mark.usefixtures("bridge")

# Twice over the toy training sets; the development set is scored in between.
RUNNER = {
    "config.runner.total_steps": 6,
    **{f"config.runner.{key}": 3 for key in ("eval_step", "save_step", "log_step")},
}
CONDITIONS = ["--condition", "clean", "--condition", "noise:snr_db=0,noise=white"]
MEANS = ("KS", "IC", "SID", "ER")
CROPPED = ("KS", "SID", "ASV")


class Run:
    """A head trained and evaluated, and what the cache said."""

    def __init__(self, code, corpus, student, folder, caplog, *options: str, evaluating: tuple[str, ...] = ()) -> None:
        settings, toy = {**corpus[0], **RUNNER}, corpus[1]
        self.folder = folder
        new = ["-u", "robustdistiller_local", "-k", str(student), "-d", code, "-p", str(folder)]
        new += ["-o", toy.as_option(settings)]
        workers = toy.as_option({key: value for key, value in settings.items() if "num_workers" in key})
        caplog.clear()
        if tasks.get(code).trainable:
            assert main(["-m", "train", *new, *options]) == 0
            new = ["-e", str(folder / "states-6.ckpt"), "-o", workers]
        self.training = said(caplog)
        caplog.clear()
        assert main(["-m", "evaluate", *new, *CONDITIONS, *options, *evaluating]) == 0
        self.evaluation = said(caplog)
        self.records = {record.condition: record for record in read_records(folder / "records")}
        states = folder / "states-6.ckpt"
        self.states = read_checkpoint(states) if states.is_file() else {}

    @property
    def scores(self) -> dict[str, list]:
        return {name: [metric.value for metric in record.metrics] for name, record in self.records.items()}

    def distances(self, condition: str) -> list[float]:
        """Numbers of the file that s3prl writes for query by example."""
        folder = self.folder if condition == "clean" else next((self.folder / "conditions").iterdir())
        return [float(x) for x in re.findall(r'score="([^"]+)"', (folder / "benchmark.stdlist.xml").read_text())]


def said(caplog) -> tuple[int, int] | None:
    """Utterances computed, and asked for."""
    found = re.search(r"features of (\d+) utterances computed for (\d+) asked for", caplog.text)
    return (int(found[1]), int(found[2])) if found else None


@pytest.mark.parametrize("code", [*MEANS, "ASR", "PR", "SF", "ASV", "SD", "SS2", "QbE"])
def test_same_head_same_score(code, toy_corpora, toy_student, tmp_path, caplog) -> None:
    if tasks.get(code).needs_sox and sox_path() is None:
        pytest.skip("sox is not installed: s3prl trims silence and resamples with it")
    caplog.set_level("INFO")
    corpus = (toy_corpora.build(code, tmp_path / "data"), toy_corpora)
    stock = Run(code, corpus, toy_student, tmp_path / "stock", caplog)
    options = ["--feature-cache", str(tmp_path / "cache")]
    keeping = ("--feature-cache-conditions", "--read-ahead-s", "10")
    cold = Run(code, corpus, toy_student, tmp_path / "cold", caplog, *options, evaluating=keeping)
    warm = Run(code, corpus, toy_student, tmp_path / "warm", caplog, *options)
    assert stock.training is None and stock.evaluation is None
    for run in (cold, warm):
        for part in ("Featurizer", "Downstream"):
            ours, theirs = run.states.get(part, {}), stock.states.get(part, {})
            assert ours.keys() == theirs.keys()
            for name, value in ours.items():
                assert torch.allclose(value.float(), theirs[name].float(), rtol=1e-4, atol=1e-5), name
        for condition, values in run.scores.items():
            if code == "QbE":  # s3prl computes no score: its distances stand in a file
                assert len(run.distances(condition)) > 1
                assert run.distances(condition) == pytest.approx(stock.distances(condition), rel=1e-4)
            else:
                assert values == pytest.approx(stock.scores[condition], rel=1e-4 if code == "SS2" else 1e-9)
        kept = {r.feature_cache.get("evaluation") for r in run.records.values()}
        assert kept == {"means float32" if code in MEANS else "frames float32"}
        assert {r.rules_digest for r in run.records.values()} == {r.rules_digest for r in stock.records.values()}
    if tasks.get(code).trainable:  # the second epoch, and the second head, find what the first one computed
        computed, asked = cold.training
        assert 0 < computed < asked
        if code not in CROPPED:
            assert warm.training[0] == 0
    assert warm.evaluation[0] == 0 and warm.evaluation[1] >= cold.evaluation[0] > 0


def test_the_comparison_can_fail(toy_corpora, toy_student, tmp_path, caplog, monkeypatch) -> None:
    """Features of other waveforms give another head."""
    caplog.set_level("INFO")
    corpus = (toy_corpora.build("IC", tmp_path / "data"), toy_corpora)
    stock = Run("IC", corpus, toy_student, tmp_path / "stock", caplog)
    monkeypatch.setattr(wrapper, "waveform_key", lambda wav: b"0123456789abcdef")
    wrong = Run("IC", corpus, toy_student, tmp_path / "wrong", caplog, "--feature-cache", str(tmp_path / "cache"))
    name = "model.post_net.linear.weight"
    assert not torch.allclose(wrong.states["Downstream"][name], stock.states["Downstream"][name], rtol=1e-4, atol=1e-5)


def test_half_precision_is_noted(toy_corpora, toy_student, tmp_path, caplog) -> None:
    caplog.set_level("INFO")
    corpus = (toy_corpora.build("PR", tmp_path / "data"), toy_corpora)
    options = ["--feature-cache", str(tmp_path / "cache"), "--feature-cache-dtype", "fp16"]
    half = Run("PR", corpus, toy_student, tmp_path / "half", caplog, *options)
    noted = {"training": "frames float16", "evaluation": "frames float16"}
    assert all(record.feature_cache == noted for record in half.records.values())


def test_half_precision_gives_the_same_from_disk_as_at_first(toy_student, tmp_path) -> None:
    bridge.install()
    from s3prl.upstream.interfaces import Featurizer

    upstream = UpstreamExpert(toy_student).eval()
    featurizer = Featurizer(upstream, upstream_device="cpu")
    store = ArrayStore(tmp_path, (3, None, 16), "float16")
    exact, half = CachedUpstream(upstream, featurizer), CachedUpstream(upstream, featurizer, store)
    wavs = [torch.randn(16000), torch.randn(7777)]
    first, again, wanted = (one(wavs)["hidden_states"] for one in (half, half, exact))
    for layer in range(3):
        assert torch.equal(first[layer], again[layer])
        difference = (first[layer] - wanted[layer]).abs().max()
        assert 0 < difference <= 2**-10 * wanted[layer].abs().max()


def test_what_is_announced_of_a_quick_look_is_its_part(toy_student, tmp_path, caplog) -> None:
    bridge.install()
    from s3prl.upstream.interfaces import Featurizer

    caplog.set_level("INFO")
    upstream = UpstreamExpert(toy_student).eval()
    store = ArrayStore(tmp_path, (3, None, 16), "float32")
    cached = CachedUpstream(upstream, Featurizer(upstream, upstream_device="cpu"), store)
    loader = DataLoader([(torch.zeros(16000),)] * 40, batch_size=8, collate_fn=lambda samples: tuple(zip(*samples)))
    announcing(Quick().part_of_all(lambda split: loader), cached)("train")
    assert "split train, about 4 utterances" in caplog.text


def test_a_head_that_does_not_average_gets_frames(toy_corpora, toy_student, tmp_path, caplog) -> None:
    caplog.set_level("INFO")
    settings = toy_corpora.build("IC", tmp_path / "data")
    settings["config.downstream_expert.modelrc.UtteranceLevel.pooling"] = "AttentivePooling"
    stock = Run("IC", (settings, toy_corpora), toy_student, tmp_path / "stock", caplog)
    options = ["--feature-cache", str(tmp_path / "cache")]
    kept = Run("IC", (settings, toy_corpora), toy_student, tmp_path / "kept", caplog, *options)
    assert kept.scores == stock.scores
    assert {r.feature_cache["training"] for r in kept.records.values()} == {"frames float32"}
    assert "Feature cache: split train, about" in caplog.text or kept.training


def test_corrupted_audio_leaves_nothing_unless_asked_for(toy_corpora, toy_student, tmp_path, caplog) -> None:
    """Otherwise fifteen conditions fill the limit with features that are read once."""
    caplog.set_level("INFO")
    corpus = (toy_corpora.build("IC", tmp_path / "data"), toy_corpora)
    options = ["--feature-cache", str(tmp_path / "cache")]
    first = Run("IC", corpus, toy_student, tmp_path / "first", caplog, *options)
    second = Run("IC", corpus, toy_student, tmp_path / "second", caplog, *options)
    assert first.evaluation == second.evaluation == (3, 6)  # s3prl scores the clean test set while it trains


def test_an_upstream_that_pads_is_cached_by_length(toy_corpora, toy_student, tmp_path, caplog) -> None:
    """s3prl's padding reaches into the features of shorter utterances; they are the same at the same length."""
    caplog.set_level("INFO")
    settings = toy_corpora.build("IC", tmp_path / "data")
    options = tmp_path / "reference.yaml"
    options.write_text("padding: reference\n", encoding="utf-8")
    padding = ("-g", str(options))
    stock = Run("IC", (settings, toy_corpora), toy_student, tmp_path / "stock", caplog, *padding)
    kept = [*padding, "--feature-cache", str(tmp_path / "cache")]
    cold = Run("IC", (settings, toy_corpora), toy_student, tmp_path / "cold", caplog, *kept)
    assert "by padding" in caplog.text
    assert cold.scores == stock.scores
    for name, value in cold.states["Downstream"].items():
        assert torch.allclose(value, stock.states["Downstream"][name], rtol=1e-4, atol=1e-5), name


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--feature-cache", "c", "--feature-cache-gb", "0"], "the limit must be above 0 GB, found 0"),
        (["--read-ahead-s", "-1"], "expected 0 or more seconds, found -1"),
        (["--feature-cache", "c", "-f"], "features change while -f trains the upstream"),
    ],
)
def test_what_makes_no_sense_is_refused(options, message, toy_corpora, toy_student, tmp_path, capsys) -> None:
    corpus = toy_corpora.as_option(toy_corpora.build("IC", tmp_path / "data"))
    command = ["-m", "train", "-u", "robustdistiller_local", "-k", str(toy_student), "-d", "IC", "-p", str(tmp_path)]
    assert main([*command, "-o", corpus, *options]) == 2
    assert message in capsys.readouterr().err


def test_a_head_on_half_precision_is_not_taken_for_one_on_full_precision(toy_corpora, toy_student, tmp_path) -> None:
    settings = toy_corpora.as_option({**toy_corpora.build("PR", tmp_path / "data"), **RUNNER})
    folder, cache = tmp_path / "exp", ["--feature-cache", str(tmp_path / "cache")]
    new = ["-m", "train", "-u", "robustdistiller_local", "-k", str(toy_student), "-d", "PR", "-p", str(folder)]
    noted = []
    for options in ([*cache, "--feature-cache-dtype", "fp16"], cache):
        assert main([*new, "-o", settings, *options]) == 0
        noted.append(HeadNote.read(folder).features)
    assert noted == ["frames float16", "frames float32"]
