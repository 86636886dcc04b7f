"""Heads on disk: which one is evaluated, what its note says, half-written files, names that are hard to type."""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch
import yaml

from robustdistiller.acoustics import Condition
from robustdistiller.common.locks import locked
from robustdistiller.eval import tasks
from robustdistiller.eval.results.files import read_records, record_files
from robustdistiller.eval.run.errors import RunError
from robustdistiller.eval.run.evaluate import evaluate_head
from robustdistiller.eval.run.head_checkpoint import find_head, head_digest, read_checkpoint
from robustdistiller.eval.run.head_note import HeadNote
from robustdistiller.eval.run.launcher import main
from robustdistiller.eval.run.making import made_of, require_own
from robustdistiller.eval.run.specs import HeadSpec, Upstream
from robustdistiller.eval.run.train import train_head
from robustdistiller.eval.sweep.engine import BEGUN_FILE
from robustdistiller.eval.sweep.work import Evaluate
from robustdistiller.upstream import EncoderConfig, SpeechEncoder, export_checkpoint, save_checkpoint
from tests.waiting import wait_until

NOISE = "noise:snr_db=5,noise=white"


@pytest.fixture
def spec(head_spec, tmp_path):
    """Of a head for intents."""
    return head_spec("IC", tmp_path / "head")


def test_checkpoints_of_one_training_are_cells_of_their_own(spec, tmp_path):
    train_head(spec)
    at = {
        step: evaluate_head(spec, checkpoint=spec.folder / f"states-{step}.ckpt", records=tmp_path / "records")[0]
        for step in (5, 10)
    }
    assert [(one.step, one.status) for one in at.values()] == [(5, "ok"), (10, "ok")]
    assert len(read_records(tmp_path / "records")) == 2
    for step, record in at.items():  # none of them stands for another
        (again,) = evaluate_head(spec, checkpoint=spec.folder / f"states-{step}.ckpt", records=tmp_path / "records")
        assert again == record
        assert record.head_digest == head_digest(read_checkpoint(spec.folder / f"states-{step}.ckpt"))


def test_an_evaluation_that_is_put_back_into_the_queue_goes_on(spec, tmp_path):
    """Everything was to be run again: what this job has done is not."""
    train_head(spec)
    records = tmp_path / "records"
    evaluate_head(spec, records=records)
    (path,) = record_files(records)
    work = Evaluate(spec, {"test": (Condition(), Condition.parse(NOISE))}, {"records": records, "policy": "rerun"})
    for began, again in (("2020-01-01T00:00:00+00:00", False), ("2120-01-01T00:00:00+00:00", True)):
        job, written = tmp_path / began[:4], path.stat().st_mtime_ns
        job.mkdir()
        (job / BEGUN_FILE).write_text(began)
        assert work(job) == {"units": 2} and len(read_records(records)) == 2
        assert (path.stat().st_mtime_ns != written) == again
    new = tmp_path / "new"
    new.mkdir()
    work(new)
    assert (new / BEGUN_FILE).read_text() >= read_records(records)[0].start_utc[:10]


def test_a_head_that_is_decoded_with_a_language_model_is_the_one_without(head_spec, tmp_path, monkeypatch):
    """Its best checkpoint is chosen without, too, as the head of ASR is; decoding takes hours in a real training."""
    decoded = []

    class Decoder:
        def __init__(self, *_):
            pass

        def decode(self, log_probs):
            decoded.append(len(log_probs))
            return [[{"words": ["THE", "CAT"]}]]

    plain = head_spec("ASR", tmp_path / "ASR")
    monkeypatch.setattr("s3prl.downstream.asr.w2l_decoder.W2lKenLMDecoder", Decoder)
    monkeypatch.setattr("robustdistiller.eval.run.specs.require", lambda task: None)
    arguments = {"decoder_type": "kenlm", **{name: str(tmp_path) for name in ("kenlm_model", "lexicon")}}
    settings = {f"downstream_expert.datarc.decoder_args.{key}": value for key, value in arguments.items()}
    spec = head_spec("ASR", tmp_path / "ASR-LM", settings, task=tasks.get("ASR-LM"))
    assert train_head(spec).head_digest == train_head(plain).head_digest and decoded == []
    (record,) = evaluate_head(spec)
    assert len(decoded) == record.items_scored and record.task == "ASR-LM"


def test_two_processes_do_not_train_in_one_folder(spec, caplog):
    trained = train_head(spec)
    with ThreadPoolExecutor() as another:
        with locked(spec.folder / ".lock"):
            with pytest.raises(RunError, match="another process trains a head here; wait for it or stop it"):
                train_head(spec, resume=False)
            waiting = another.submit(train_head, spec)
            wait_until(lambda: waiting.done() or "waiting for another process" in caplog.text)
            assert not waiting.done()
        assert waiting.result() == trained


def test_the_threads_of_a_process_do_not_change_a_head(head_spec, tmp_path):
    """The last digits depend on them: processes of a pool had other heads than a single process."""
    before, found = torch.get_num_threads(), set()
    try:
        for threads in (1, 3):
            torch.set_num_threads(threads)
            spec = head_spec("SID", tmp_path / str(threads), upstream=Upstream("robustdistiller_mini"), threads=1)
            found.add(train_head(spec).head_digest)
            assert torch.get_num_threads() == threads
            assert evaluate_head(spec)[0].threads == HeadNote.read(spec.folder).threads == 1
    finally:
        torch.set_num_threads(before)
    assert len(found) == 1


def test_a_head_goes_on_where_this_package_is_installed_anew(head_spec, tmp_path, monkeypatch):
    """Its vocabularies are then in another folder; a note of an earlier version says in which they were."""
    before = head_spec("PR", tmp_path / "head")
    key = "downstream_expert.text.vocab_file"
    path = Path(before.config["downstream_expert"]["text"]["vocab_file"])
    installed = tmp_path / "other environment"
    shutil.copytree(path.parents[1], installed)
    HeadNote(made=made_of(before)).write(before.folder)
    monkeypatch.setattr("robustdistiller.eval.tasks.configs._folder", lambda: installed)
    after = head_spec("PR", tmp_path / "head")
    require_own(after)
    HeadNote(made={**made_of(before), key: str(path)}).write(before.folder)
    require_own(after)

    HeadNote(made=made_of(before)).write(before.folder)
    (installed / "vocabularies" / path.name).write_text("OTHER PHONEMES")
    with pytest.raises(RunError, match=f"holds a head with {key}"):
        require_own(after)


def test_a_finished_head_is_not_trained_again_and_another_one_is_refused(spec):
    trained = train_head(spec)
    stamps = {path: path.stat().st_mtime_ns for path in spec.folder.glob("*.ckpt")}
    assert train_head(spec) == trained
    assert {path: path.stat().st_mtime_ns for path in spec.folder.glob("*.ckpt")} == stamps
    for changed, message in (
        (dataclasses.replace(spec, seed=8), "holds a head with seed 1337, asked for is 8"),
        (dataclasses.replace(spec, config={**spec.config, "optimizer": {**spec.config["optimizer"], "lr": 1.0}}), "lr"),
    ):
        for use in (train_head, evaluate_head):  # its records would tell of settings that it never had
            with pytest.raises(RunError, match=message):
                use(changed)
    moved = {**spec.config, "runner": {**spec.config["runner"], "log_step": 1}}  # what is printed is no part of a head
    assert train_head(dataclasses.replace(spec, config=moved)) == trained


@pytest.mark.parametrize("name", ["dev-best.ckpt", "states-10.ckpt"])
def test_a_cut_head_is_named_in_one_sentence_and_trained_again(name, spec, tmp_path, capsys, caplog):
    whole = train_head(spec)
    path = spec.folder / name
    if name == "dev-best.ckpt":  # as if the development set had chosen one
        path.write_bytes((spec.folder / "states-10.ckpt").read_bytes())
    path.write_bytes(path.read_bytes()[:5000])
    assert main(["-m", "evaluate", "-e", str(path)]) == 2
    error = capsys.readouterr().err
    assert f"{path} cannot be read" in error and "train the head again" in error and "Traceback" not in error
    again = train_head(spec)
    assert again.head_digest == whole.head_digest and again.dev_score == whole.dev_score
    assert str(path) in caplog.text
    assert evaluate_head(spec)[0].status == "ok"


def test_a_training_that_cannot_go_on_exactly_begins_anew_and_says_so(spec, caplog):
    whole = train_head(spec)
    for path in spec.folder.glob("*.ckpt"):  # as s3prl itself writes them
        states = torch.load(path, weights_only=True)
        del states["Optimizer"]["robustdistiller"]
        torch.save(states, path)
    note = HeadNote.read(spec.folder)
    note.finished = False
    note.write(spec.folder)
    (spec.folder / "states-10.ckpt").unlink()
    assert train_head(spec).head_digest == whole.head_digest
    assert "training begins anew: the checkpoint does not say where" in caplog.text
    assert HeadNote.read(spec.folder).resumed_at == []


def test_other_options_or_weights_of_the_upstream_are_refused(head_spec, tmp_path):
    """A folder of the Hugging Face layout and an options file, both written over between training and evaluation."""
    options, model = tmp_path / "options.yaml", tmp_path / "model-v1.2"
    options.write_text("padding: masked\n")
    config = EncoderConfig(embed_dim=24, num_layers=1, num_heads=2, ffn_dim=32, position_groups=4)

    def save_model(seed: int) -> None:
        torch.manual_seed(seed)
        save_checkpoint(tmp_path / "student.ckpt", SpeechEncoder(config), {})
        export_checkpoint(tmp_path / "student.ckpt", model, "huggingface", overwrite=True)

    save_model(0)
    upstream = Upstream("robustdistiller_local", str(model), str(options))
    spec = head_spec("IC", tmp_path / "head", upstream=upstream)
    train_head(spec)
    assert HeadNote.read(spec.folder).upstream["options"] == "padding: masked\n"
    (record,) = evaluate_head(spec)
    assert record.upstream_options == "padding: masked\n"
    options.write_text("padding: reference\n")
    with pytest.raises(RunError, match="was trained on robustdistiller_local with the options 'padding: masked"):
        evaluate_head(spec)
    options.write_text("padding: masked\n")
    save_model(1)
    with pytest.raises(RunError, match=r"was trained on .*model-v1\.2 with SHA-256"):
        evaluate_head(spec)


def test_a_fine_tuned_upstream_is_known_by_the_weights_that_are_evaluated(spec):
    tuned = dataclasses.replace(spec, s3prl={"upstream_trainable": True})
    train_head(tuned)
    (record,) = evaluate_head(tuned)
    assert record.checkpoint_digest_of == "tensors"
    frozen = HeadNote.read(tuned.folder).upstream
    assert (frozen["weights_of"], frozen["weights"] == record.checkpoint_digest) == ("file", False)
    states = read_checkpoint(find_head(tuned.folder))
    assert states["Upstream"] and states["Args"].upstream_trainable


def test_predictions_stay_in_their_conditions_folder_in_any_order(spec):
    train_head(spec)
    noise = "noise:snr_db=-20,noise=white"

    def predictions() -> dict[str, str]:
        found = {"clean": spec.folder / "test_predict.csv"}
        found["noise"] = next((spec.folder / "conditions").glob("noise*")) / "test_predict.csv"
        return {name: path.read_text() for name, path in found.items()}

    evaluate_head(spec, ["clean", noise], policy="rerun")
    in_order = predictions()
    for path in (spec.folder / "test_predict.csv", *spec.folder.glob("conditions/*/test_predict.csv")):
        path.write_text("of somebody else\n")
    evaluate_head(spec, [noise, "clean"], policy="rerun")
    assert predictions() == in_order
    assert "of somebody else" not in "".join(in_order.values())


def test_each_split_of_a_condition_has_its_manifest(head_spec, tmp_path):
    spec = head_spec("IC", tmp_path / "head")
    train_head(spec)
    for split in ("test", "dev"):
        evaluate_head(spec, ["noise:snr_db=5,noise=white"], split=split)
    (folder,) = (spec.folder / "conditions").iterdir()
    assert sorted(path.name for path in folder.glob("*.jsonl.gz")) == [
        "manifest-dev.jsonl.gz",
        "manifest-test.jsonl.gz",
    ]


def test_paths_are_values_whatever_is_in_them(head_spec, toy_corpora, toy_student, tmp_path):
    name = "lr=0.01,step=8/run #3/a: b/it's [1]/100 % ä"
    student = tmp_path / name / "student.ckpt"
    student.parent.mkdir(parents=True)
    student.write_bytes(toy_student.read_bytes())
    corpus = toy_corpora.build("IC", tmp_path / name / "corpus")
    upstream = Upstream("robustdistiller_local", str(student))
    spec = head_spec("IC", tmp_path / name / "head", corpus, upstream=upstream)
    head = train_head(spec)
    assert head.folder == spec.folder and (spec.folder / "head.json").is_file()
    assert evaluate_head(spec)[0].status == "ok"
    # As a command line: -o takes whatever has no ',,' in it.
    root = f"config.downstream_expert.datarc.file_path={corpus['config.downstream_expert.datarc.file_path']}"
    moved = f"{root},,args.expdir={tmp_path / name / 'moved'}"
    assert main(["-m", "evaluate", "-e", str(spec.folder), "-o", moved, "--records", str(tmp_path / "records")]) == 0
    assert read_records(tmp_path / "records")[0].items_scored == 3
    assert (tmp_path / name / "moved" / "test_predict.csv").is_file()


def test_notes_of_earlier_versions_are_read(spec, tmp_path):
    train_head(spec)
    note = HeadNote.read(spec.folder)
    (spec.folder / "head.json").unlink()
    old = {"upstream": "robustdistiller_local", "checkpoint": spec.upstream.checkpoint}
    (spec.folder / "upstream.json").write_text(json.dumps({**old, "digest": note.upstream["weights"]}))
    training = {"train_condition": "reverb", "sources": {}, "seed": 0}
    (spec.folder / "train-condition.json").write_text(json.dumps(training))
    (spec.folder / "feature-cache.json").write_text(json.dumps({"features": "frames float16"}))
    (spec.folder / "selection.json").write_text(json.dumps({"learning_rate": 0.1, "tried": []}))
    lines = [json.dumps(one) for one in note.dev_scores]
    (spec.folder / "dev-scores.jsonl").write_text("\n".join([*lines, '{"split": "dev", "st']))
    (record,) = evaluate_head(spec, checkpoint=find_head(spec.folder), records=tmp_path / "records")
    assert record.train_condition == "reverb" and record.selection["learning_rate"] == 0.1
    assert record.feature_cache == {"training": "frames float16"}
    assert HeadNote.read(spec.folder).dev_score(spec.task) is not None
    (spec.folder / "upstream.json").write_text(json.dumps({**old, "digest": "ab" * 32}))
    with pytest.raises(RunError, match="with SHA-256 abababababab"):
        evaluate_head(spec, checkpoint=find_head(spec.folder))


def test_a_head_of_recorded_noise_goes_on_and_is_evaluated(spec, toy_corpora, tmp_path):
    for number, name in enumerate(("cafe", "street", "bus")):
        toy_corpora.write(tmp_path / name / "one.wav", pitch_hz=300 + number)
    toy_corpora.write(tmp_path / "moved" / "one.wav", pitch_hz=300)

    def under(*names: str) -> HeadSpec:
        conditions = [Condition.parse(f"noise:snr_db=5,noise={tmp_path / name}") for name in names]
        return dataclasses.replace(spec, train_conditions=tuple(conditions))

    trained = train_head(under("cafe", "street"))
    assert train_head(under("moved", "street")) == trained  # the same audio, whatever its folder is called
    (record,) = evaluate_head(under("cafe", "street"))
    assert (record.head_digest, record.train_condition) == (trained.head_digest, "noise:snr_db=5 | noise:snr_db=5")
    for other in (("bus", "street"), ("cafe", "bus"), ("cafe",), ()):
        with pytest.raises(RunError, match=r"was trained under 'noise:snr_db=5 \| noise:snr_db=5' so far"):
            train_head(under(*other))


def test_notes_of_earlier_versions_have_the_sources_of_training_by_condition(spec, toy_corpora, tmp_path):
    toy_corpora.write(tmp_path / "cafe" / "one.wav", pitch_hz=300)
    conditions = ("clean", f"noise:snr_db=5,noise={tmp_path / 'cafe'}")
    noisy = dataclasses.replace(spec, train_conditions=tuple(map(Condition.parse, conditions)))
    trained = train_head(noisy)
    note = HeadNote.read(spec.folder)
    by_condition = dict(zip(("clean", "noise:snr_db=5"), note.train_condition["sources"]))
    assert by_condition["noise:snr_db=5"]["noise"]["name"] == "cafe"
    note.train_condition["sources"] = by_condition
    note.made["train_condition"]["sources"] = {"clean": {}, "noise:snr_db=5": {"noise": "ab"}}
    note.write(spec.folder)
    assert train_head(noisy) == trained
    by_condition["noise:snr_db=5"]["noise"]["digest"] = "ab"
    note.write(spec.folder)
    with pytest.raises(RunError, match=r"was trained under 'clean \| noise:snr_db=5' so far"):
        train_head(noisy)


def test_a_quick_head_and_a_full_one_do_not_mix(spec, tmp_path):
    from robustdistiller.eval.run.quick import Quick

    quick = dataclasses.replace(spec, quick=Quick(share=0.5, steps=8), folder=tmp_path / "quick")
    assert train_head(quick).step <= 8
    (record,) = evaluate_head(quick, records=tmp_path / "records")
    whole = dataclasses.replace(quick, quick=None)  # the whole test set, of a quick head
    (full,) = evaluate_head(whole, checkpoint=find_head(quick.folder), records=tmp_path / "records")
    assert (record.items_scored, full.items_scored) == (2, 3)
    assert record.quick == full.quick == "quick: 50 % of items, 8 steps"
    with pytest.raises(RunError, match="holds a head with"):
        train_head(dataclasses.replace(spec, folder=quick.folder))


def test_ctrl_c_ends_with_130_and_the_training_goes_on(spec, toy_student, tmp_path):
    config = {**spec.config, "runner": {**spec.config["runner"], "total_steps": 100_000, "save_step": 1}}
    (tmp_path / "ic.yaml").write_text(yaml.safe_dump(config))
    command = [sys.executable, "-m", "robustdistiller.eval.run.launcher", "-m", "train", "-u", "robustdistiller_local"]
    command += ["-k", str(toy_student), "-d", "IC", "-c", str(tmp_path / "ic.yaml"), "-p", str(spec.folder)]
    environment = {**os.environ, "PYTHONUNBUFFERED": "1"}
    with (tmp_path / "log").open("w") as log:
        process = subprocess.Popen([*command, "--device", "cpu"], stdout=log, stderr=log, env=environment)
        for _ in range(1200):
            if list(spec.folder.glob("states-*.ckpt")) or process.poll() is not None:
                break
            time.sleep(0.1)
        process.send_signal(signal.SIGINT)
        assert process.wait(60) == 130
    assert "Traceback" not in (tmp_path / "log").read_text()


def test_untrained_heads_are_known_by_how_they_are_made(head_spec, tmp_path):
    if tasks.get("QbE").needs_sox and not Path("/usr/bin/sox").exists():
        pytest.skip("sox is not installed: s3prl resamples with it")
    spec = head_spec("QbE", tmp_path / "head")
    first, other = (
        evaluate_head(dataclasses.replace(spec, upstream=dataclasses.replace(spec.upstream, layer=layer)))[0]
        for layer in (0, 1)
    )
    assert first.head_digest != other.head_digest and first.rules_digest == other.rules_digest
