"""What is made is what s3prl reads and what its own scripts make; nothing is made twice, and nothing by halves."""

from __future__ import annotations

import json
import random
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
import torchaudio

from robustdistiller.acoustics.audio.files import read_audio
from robustdistiller.eval.data import PrepareError, build, run
from robustdistiller.eval.data.librimix import development_set
from robustdistiller.eval.results.files import read_records
from robustdistiller.eval.run.launcher import main
from robustdistiller.eval.tasks.scoring.diarization import read_reference
from tests.language_model import asr_language_model

from .downloads import libri2mix, snips_mp3, voicebank, voxceleb1

pytestmark = pytest.mark.usefixtures("bridge")


def made(plan):
    return run(plan, progress=False)


# Equal to what is made by hand


def test_length_tables_are_those_written_by_hand(toy_corpora, look_at, tmp_path):
    toy_corpora.build("ASR", tmp_path / "data")
    by_hand = {f"len_for_bucket/{path.name}": path for path in (tmp_path / "data" / "buckets").iterdir()}
    plan = look_at("ASR", tmp_path / "data")
    assert sorted(made(plan)) == sorted(by_hand) and len(by_hand) >= 3
    for name, path in by_hand.items():
        assert (tmp_path / "out" / name).read_text() == path.read_text()
    assert not (tmp_path / "out" / ".work").exists()


def test_what_lies_beside_what_is_made_stays(toy_corpora, look_at, tmp_path):
    """The folder may be one that people work in."""
    toy_corpora.build("ASR", tmp_path / "data")
    mine = tmp_path / "out" / ".work" / "notes.txt"
    mine.parent.mkdir(parents=True)
    mine.write_text("mine")
    assert made(look_at("ASR", tmp_path / "data"))
    assert [path.name for path in mine.parent.iterdir()] == ["notes.txt"]


def test_the_letter_lexicon_is_spelled_from_the_language_model(toy_corpora, look_at, tmp_path):
    toy_corpora.build("ASR", tmp_path / "data")
    asr_language_model(tmp_path)
    model = tmp_path / "2-gram.arpa"
    plan = look_at("ASR-LM", libri_root=tmp_path / "data", kenlm_model=model)
    made(plan)
    by_hand = (tmp_path / "lexicon.lst").read_text()
    assert Path(plan.settings["config.downstream_expert.datarc.decoder_args.lexicon"]).read_text() == by_hand
    binary = tmp_path / "model.bin"
    binary.write_bytes(b"\xffmmap lm\x00")
    plan = look_at("ASR-LM", libri_root=tmp_path / "data", kenlm_model=binary)
    assert not plan.ok, "a binary model holds no text to spell from"


def test_emotion_lists_are_s3prls_own(toy_corpora, look_at, tmp_path):
    toy_corpora.build("ER", tmp_path / "data")
    by_hand = tmp_path / "by_hand"
    (tmp_path / "data" / "meta_data").rename(by_hand)  # s3prl wrote it into the corpus
    hidden = tmp_path / "data" / "Session1" / "dialog" / "EmoEvaluation" / "._Ses01F_impro01.txt"
    hidden.write_bytes(b"\x00\x05\x16\x07\xff")  # such files are in the release
    evaluation = hidden.with_name("Ses01F_impro01.txt")
    evaluation.write_text(evaluation.read_text() + "[7.0 - 7.5]\tno label\n")
    made(look_at("ER", tmp_path / "data"))
    assert not (tmp_path / "data" / "meta_data").exists()
    lists = sorted(path.relative_to(by_hand) for path in by_hand.rglob("*.json"))
    assert len(lists) >= 4
    for name in lists:
        assert json.loads((tmp_path / "out/meta_data" / name).read_text()) == json.loads((by_hand / name).read_text())


def test_separation_lists_are_read_by_s3prl(look_at, tmp_path):
    from s3prl.downstream.separation_stft.dataset import SeparationDataset

    plan = look_at("SS", librimix=libri2mix(tmp_path))
    made(plan)
    there = {path.name for path in (tmp_path / "out").iterdir()}
    assert there == {".lock", "dev_1000", "prepared.json", "test", "train"}
    data = SeparationDataset(plan.settings["config.downstream_expert.loaderrc.train_dir"])
    assert data.recolist == ["103-1240-0000_1034-121119-0001", "103-1240-0002_1040-133433-0003"]
    first = data.reco2path[data.recolist[0]]
    assert {kind: Path(path).parts[-3:-1] for kind, path in first.items()} == {
        kind: ("train-100", kind) for kind in ("mix_clean", "s1", "s2")
    }
    second = look_at("SS2", librimix=tmp_path / "Libri2Mix")
    dev = "config.downstream_expert.loaderrc.dev_dir"
    assert second.settings[dev].endswith("/dev"), "all of dev"
    made(second)  # both development sets lie in one folder
    chosen = {code: Path(look_at(code, librimix=tmp_path / "out").settings[dev]).name for code in ("SS", "SS2")}
    assert chosen == {"SS": "dev_1000", "SS2": "dev"}


def test_the_development_set_is_the_one_s3prls_script_draws():
    names = [f"utterance-{number}" for number in range(3000)]
    random.seed(7)  # as the script does
    drawn = sorted(names)
    random.shuffle(drawn)
    assert development_set(names[::-1]) == sorted(drawn[:1000])


def test_diarization_folders_hold_who_speaks_when(look_at, tmp_path):
    from s3prl.downstream.diarization.dataset import DiarizationDataset

    plan = look_at("SD", librimix=libri2mix(tmp_path))
    made(plan)
    folder = plan.settings["config.downstream_expert.loaderrc.dev_dir"]
    data = DiarizationDataset("dev", folder, frame_shift=320, chunk_size=2000, num_speakers=2)
    assert len(data) == 2 and set(data.data.reco2dur.values()) == {2.0}
    # From the times in downloads.py: the first mixture's voices speak at 0.25 to 0.75 and 1 to 1.25 s, and 0.5 s later.
    samples, labels = data[0]
    assert len(samples) == 32000
    expected = np.zeros((100, 2), int)
    for speaker, times in enumerate(([(0.25, 0.75), (1.0, 1.25)], [(0.75, 1.25), (1.5, 1.75)])):
        for begin, end in times:
            expected[int(np.rint(begin * 50)) : int(np.rint(end * 50)), speaker] = 1
    speakers = sorted(["84", "174"])  # s3prl's columns are in the order of their names
    assert np.array_equal(labels[:, speakers.index("84")], expected[:, 0])
    assert np.array_equal(labels[:, speakers.index("174")], expected[:, 1])
    rttm = Path(folder, "rttm").read_text().splitlines()
    assert rttm[0].split("\t")[:8] == [
        "SPEAKER",
        "84-121123-0000_174-50561-0001",
        "1",
        "0.25",
        "0.5",
        "<NA>",
        "<NA>",
        "84",
    ]
    turns, source = read_reference(folder)
    first = {(turn.speaker, turn.onset_s, turn.offset_s) for turn in turns["84-121123-0000_174-50561-0001"]}
    assert source == "rttm" and len(first) == 4
    assert first == {("84", 0.25, 0.75), ("84", 1.0, 1.25), ("174", 0.75, 1.25), ("174", 1.5, 1.75)}
    again = look_at("SD", librimix=tmp_path / "out")  # what was made passes as prepared folders
    assert again.ok and not again.steps


def test_two_voices_with_equal_times_stay_two(look_at, tmp_path):
    from s3prl.downstream.diarization.dataset import KaldiData

    root = libri2mix(tmp_path)
    file = tmp_path / "metadata" / "LibriSpeech" / "dev_clean.rttm"
    file.write_text(file.read_text().replace(" 0.75 0.5 ", " 0.25 0.5 "))
    made(look_at("SD", librimix=root))
    data = KaldiData(str(tmp_path / "out" / "dev"))
    for segments in data.segments.values():
        assert {data.utt2spk[segment["utt"]] for segment in segments} == {"84", "174"}


def test_enhancement_lists_leave_two_speakers_for_development(look_at, tmp_path):
    plan = look_at("SE", voicebank=voicebank(tmp_path / "vb", 16000))
    made(plan)
    names = {
        split: [line.split()[0] for line in (tmp_path / "out" / split / "noisy" / "wav.scp").read_text().splitlines()]
        for split in ("train", "dev", "test")
    }
    assert names == {
        "train": ["p227_001", "p228_004"],
        "dev": ["p226_001", "p287_002"],
        "test": ["p232_001", "p257_003"],
    }
    assert not (tmp_path / "out" / "wav16k").exists(), "audio at 16 kHz stays where it is"


def test_the_48_khz_download_becomes_what_the_benchmark_uses(look_at, tmp_path):
    root = voicebank(tmp_path / "vb", 48000)
    made(look_at("SE", voicebank=root))
    line = (tmp_path / "out" / "test" / "clean" / "wav.scp").read_text().splitlines()[0]
    samples, rate_hz = soundfile.read(line.split()[1], dtype="float32")
    original, _ = soundfile.read(root / "clean_testset_wav" / "p232_001.wav", dtype="float32")
    resampled = torchaudio.transforms.Resample(48000, 16000)(torch.from_numpy(original)).numpy()
    assert rate_hz == 16000 and len(samples) == 8000
    np.testing.assert_array_equal(samples, resampled)


def test_snips_mp3_files_become_wav_files_of_the_voices_of_each_split(look_at, tmp_path):
    plan = look_at("SF", path=snips_mp3(tmp_path / "data"))
    made(plan)
    corpus = Path(plan.settings["config.downstream_expert.corpus.path"])
    found = {split: sorted(path.stem for path in (corpus / split).iterdir()) for split in ("train", "valid", "test")}
    assert found["valid"] == [f"{voice}-snips-valid-{n}" for voice in ("Aditi", "Amy") for n in (0, 1)]
    assert [len(names) for names in found.values()] == [4, 4, 2]
    samples, rate_hz = soundfile.read(corpus / "test" / "Brian-snips-test-1.wav", dtype="float32")
    source = tmp_path / "data" / "audio_slu" / "audio_Brian" / "snips" / "snips-test-1.mp3"
    assert rate_hz == 16000 and np.abs(samples - read_audio(source, 16000)).max() < 1 / 32768
    assert (corpus / "all.iob.snips.txt").read_text() == (tmp_path / "data/SNIPS/all.iob.snips.txt").read_text()


@pytest.mark.parametrize("layout", ["plain", "unpacked", "mixed"])
def test_voxceleb_of_every_layout_is_found_by_s3prl(layout, look_at, tmp_path):
    from librosa.util import find_files

    root = voxceleb1(tmp_path / "vox", layout)
    sid = look_at("SID", file_path=root)
    made(sid)
    tree = Path(sid.settings["config.downstream_expert.datarc.file_path"])
    listed = [line.split()[1] for line in (root / "iden_split.txt").read_text().splitlines()]
    assert all(len(list(tree.glob(f"*/wav/{name}"))) == 1 for name in listed)
    assert (tree == root) == (layout == "plain")
    build.shutil.rmtree(tmp_path / "out", ignore_errors=True)
    asv = look_at("ASV", file_path=root)
    made(asv)
    tree = Path(asv.settings["config.downstream_expert.datarc.file_path"])
    trained = {Path(path).parts[-3] for path in find_files(tree / "dev" / "wav")}
    assert trained == {"id10001", "id10002"} == {folder.name for folder in (tree / "dev" / "wav").iterdir()}
    trials = [line.split() for line in (root / "voxceleb1_test_v2.txt").read_text().splitlines()]
    assert all((tree / "test" / "wav" / name).is_file() for trial in trials for name in trial[1:])
    lists = {Path(asv.settings[f"config.downstream_expert.datarc.{part}_meta_data"]) for part in ("dev", "test")}
    assert lists == {root / "voxceleb1_test_v2.txt"}


# Once, and whole


def test_what_is_there_is_kept_and_what_it_was_made_of_is_noticed(toy_corpora, look_at, tmp_path):
    toy_corpora.build("ASR", tmp_path / "data")
    made(look_at("ASR", tmp_path / "data"))
    again = look_at("ASR", tmp_path / "data")
    assert "made before" in {finding.found for finding in again.findings}
    assert made(again) == []
    toy_corpora.write(tmp_path / "data" / "LibriSpeech" / "dev-clean" / "12" / "7" / "12-7-0002.flac", 2.0)
    text = tmp_path / "data" / "LibriSpeech" / "dev-clean" / "12" / "7" / "12-7.trans.txt"
    text.write_text(text.read_text() + "12-7-0002 A CAT\n")
    assert made(look_at("ASR", tmp_path / "data")) == ["len_for_bucket/dev-clean.csv"]
    assert "12-7-0002.flac,32000" in (tmp_path / "out" / "len_for_bucket" / "dev-clean.csv").read_text()


def test_files_of_somebody_else_are_never_replaced(toy_corpora, look_at, tmp_path):
    toy_corpora.build("ER", tmp_path / "data")
    (tmp_path / "out" / "meta_data").mkdir(parents=True)
    (tmp_path / "out" / "meta_data" / "mine.txt").write_text("mine")
    with pytest.raises(PrepareError, match="was not made by this command; move it away, or choose another --out"):
        made(look_at("ER", tmp_path / "data"))
    assert (tmp_path / "out" / "meta_data" / "mine.txt").read_text() == "mine"


def test_nothing_is_made_while_something_is_missing(toy_corpora, look_at, tmp_path):
    toy_corpora.build("ASR", tmp_path / "data")
    build.shutil.rmtree(tmp_path / "data" / "LibriSpeech" / "test-clean")
    with pytest.raises(PrepareError, match="something needed is missing, so nothing was made"):
        made(look_at("ASR", tmp_path / "data"))
    assert not (tmp_path / "out").exists()


def test_two_that_prepare_one_folder_do_it_one_after_the_other(toy_corpora, look_at, tmp_path, monkeypatch):
    toy_corpora.build("ASR", tmp_path / "data")
    plans, make, inside = [look_at("ASR", tmp_path / "data") for _ in range(2)], build._make, []

    def slowly(*arguments):
        inside.append(len(inside))
        time.sleep(0.05)
        make(*arguments)
        inside.pop()
        assert inside == []

    monkeypatch.setattr(build, "_make", slowly)
    with ThreadPoolExecutor(2) as pool:
        first, second = pool.map(made, plans)
    assert sorted([*first, *second]) == sorted(step.target for step in plans[0].steps) and [] in (first, second)


def test_a_table_is_whole_or_not_there(toy_corpora, look_at, tmp_path, monkeypatch):
    from robustdistiller.eval.data import librispeech

    def interrupted(path):
        raise KeyboardInterrupt

    toy_corpora.build("ASR", tmp_path / "data")
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(librispeech, "audio_info", interrupted)
        made(look_at("ASR", tmp_path / "data"))
    assert not (tmp_path / "out" / "len_for_bucket").exists() and not look_at("ASR", tmp_path / "data").made_before()
    assert len(made(look_at("ASR", tmp_path / "data"))) >= 3


def test_a_killed_conversion_goes_on_where_it_stopped(look_at, tmp_path):
    source, out = snips_mp3(tmp_path / "data", sentences=40), tmp_path / "out"
    work, finished = out / ".work", "*/result/*.wav"
    # Kills itself while it writes, as soon as five files are finished.
    program = (
        "import os, pathlib, signal, soundfile; from robustdistiller.cli.main import main; write = soundfile.write\n"
        "def write_or_die(*arguments, **options):\n"
        "    write(*arguments, **options)\n"
        f"    len(list(pathlib.Path({str(work)!r}).glob({finished!r}))) >= 5 and os.kill(os.getpid(), signal.SIGKILL)\n"
        "soundfile.write = write_or_die; main()"
    )
    command = [sys.executable, "-c", program, "prepare", "SF", str(source), "--out", str(out)]
    killed = subprocess.run(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    assert killed.returncode == -signal.SIGKILL
    done = {path.name: path.stat().st_mtime_ns for path in work.glob(finished)}
    assert 5 <= len(done) < 80 and not (out / "SNIPS").exists(), "nothing half-made stands at its place"
    made(look_at("SF", path=source))
    result = out / "SNIPS" / "train"
    assert len(list(result.iterdir())) == 80 and not (out / ".work").exists(), "no half file either"
    assert all((result / name).stat().st_mtime_ns == then for name, then in done.items())


# Enough for a training


@pytest.mark.parametrize("code", ["ASR", "SD", "SE", "SF"])
def test_a_training_on_what_was_made(code, toy_corpora, toy_student, look_at, tmp_path):
    """Two steps of unchanged s3prl, with the printed option and nothing written by hand."""
    if code == "ASR":
        toy_corpora.librispeech(tmp_path / "LibriSpeech")
        plan, small = look_at("ASR", libri_root=tmp_path), {**toy_corpora.RNN_SMALL, "datarc.batch_size": 4}
    elif code == "SD":
        plan, small = (
            look_at("SD", librimix=libri2mix(tmp_path)),
            {"modelrc.hidden_size": 8, "loaderrc.train_batchsize": 1},
        )
    elif code == "SE":
        plan = look_at("SE", voicebank=voicebank(tmp_path / "vb", 48000))
        small = {"modelrc.hidden_size": 8, "loaderrc.train_batchsize": 2}
    else:
        plan, small = (
            look_at("SF", path=snips_mp3(tmp_path / "data")),
            {"model.project_dim": 8, "model.RNNs.dim": [8, 8]},
        )
        small["corpus.batch_size"] = 2
    made(plan)
    workers = {"ASR": "datarc", "SF": "corpus"}.get(code, "loaderrc")
    small = {key if key.startswith("config.") else f"{toy_corpora.EXPERT}.{key}": v for key, v in small.items()}
    small |= {f"config.runner.{key}": 2 for key in ("total_steps", "eval_step", "save_step", "log_step")}
    small |= {f"{toy_corpora.EXPERT}.{workers}.num_workers": 0, "config.runner.gradient_accumulate_steps": 1}
    option = plan.option().removeprefix('-o "').removesuffix('"')
    folder = tmp_path / "exp"
    train = ["-m", "train", "-u", "robustdistiller_local", "-k", str(toy_student), "-d", code, "-p", str(folder)]
    assert main([*train, "-o", f"{option},,{toy_corpora.as_option(small)}"]) == 0
    assert main(["-m", "evaluate", "-e", str(folder)]) == 0
    (record,) = read_records(folder / "records")
    assert record.status == "ok" and record.items_scored == 2
    assert "runner.total_steps is 2" in record.non_standard[0]
