"""The check says what is there, names what is missing, and tells a subset from a broken download."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from robustdistiller.eval import tasks
from robustdistiller.eval.data import PrepareError, look, recipe_of
from robustdistiller.eval.data.plan import DIFFERS, MISSING, NOT_OFFICIAL, OK

from .conftest import INPUTS
from .downloads import audio, libri2mix, snips_mp3, text, voicebank, voxceleb1

pytestmark = pytest.mark.usefixtures("bridge")

#: A file whose loss must be found, by task, as a pattern in the toy corpus; and what must be said of it.
NEEDED = {
    "KS": ("train/_background_noise_/hum.wav", "_background_noise_ no wav files"),
    "IC": ("wavs/speakers/spk0/test0.wav", "audio of test 1 are not there: wavs/speakers/spk0/test0.wav"),
    "SID": ("dev/wav/id10001/video3/00001.wav", "audio of part 3 1 are not there: id10001/video3/00001.wav"),
    "ASR": ("LibriSpeech/dev-clean/*/7/*.trans.txt", "transcripts of dev-clean 2 files without a line: 12-7-0000"),
    "PR": ("lexicon-2.txt", "lexicon-2.txt no file"),
    "SF": ("all.iob.snips.txt", "labels not there"),
    "ASV": ("test/wav/id10270/video1/00000.wav", "audio of the trials 1 are not there: id10270/video1/00000.wav"),
    "SD": ("dev/segments", "dev no segments"),
    "QbE": ("eval_queries/quesst14_eval_1.wav", "1 are not there: eval_queries/quesst14_eval_1.wav"),
    "SE": ("test/noisy/test1.wav", "/test/noisy/test1.wav they moved since"),
    "SE2": ("train/clean/wav.scp", "train/clean/wav.scp not there"),
    "SS": ("test/s2/test0.wav", "/test/s2/test0.wav they moved since"),
    "SS2": ("dev/mix_clean/dev0.wav", "/dev/mix_clean/dev0.wav they moved since"),
}


def states(plan) -> dict[str, str]:
    return {finding.what: finding.state for finding in plan.findings}


def missing(plan) -> str:
    return "\n".join(f"{f.what} {f.found} {f.fix}" for f in plan.findings if f.state == MISSING)


@pytest.mark.parametrize("code", sorted(INPUTS))
def test_a_corpus_in_order_passes_and_a_part_of_it_is_told_from_the_whole(code, toy_corpora, look_at, tmp_path):
    toy_corpora.build(code, tmp_path / "data")
    plan = look_at(code, tmp_path / "data")
    assert plan.ok, missing(plan)
    assert not (tmp_path / "out").exists(), "looking writes nothing"
    counted = [f for f in plan.findings if f.fix == NOT_OFFICIAL]
    assert all(f.state == DIFFERS and f.found.split()[0] != f.expected.split()[0] for f in counted)
    assert len(counted) >= (0 if code == "QbE" else 2)
    given = {root.key for root in plan.task.roots}
    assert set(plan.settings) == given


@pytest.mark.parametrize("code", sorted(NEEDED))
def test_a_lost_file_is_named(code, toy_corpora, look_at, tmp_path):
    toy_corpora.build(code, tmp_path / "data")
    pattern, sentence = NEEDED[code]
    (lost,) = (tmp_path / "data").glob(pattern)
    lost.unlink()
    plan = look_at(code, tmp_path / "data")
    said = missing(plan)
    assert not plan.ok and sentence in said and "\n" not in said, said


@pytest.mark.parametrize("code", sorted(tasks.TASKS))
def test_no_folder_at_all_is_one_sentence(code, look_at, tmp_path):
    first = next(iter(recipe_of(tasks.get(code)).inputs))
    plan = look_at(code, **{first: tmp_path / "nowhere"})
    sentences = [f for f in plan.findings if f.state == MISSING and "nowhere" in f.what]
    assert len(sentences) == 1 and sentences[0].found == "no such folder" and sentences[0].fix and not plan.ok


def test_the_folder_around_the_corpus_may_be_given_too(toy_corpora, look_at, tmp_path):
    toy_corpora.build("ASR", tmp_path / "data")
    plan = look_at("ASR", libri_root=tmp_path / "data")
    assert plan.settings["config.downstream_expert.datarc.libri_root"] == str(tmp_path / "data" / "LibriSpeech")


# What s3prl would find out later, or never


def test_words_without_pronunciation_are_listed_before_anything_starts(toy_corpora, look_at, tmp_path):
    toy_corpora.build("PR", tmp_path / "data")
    plan = look_at("PR", tmp_path / "data", lexicon=tmp_path / "data" / "lexicon-1.txt")
    assert "words of train-clean-100 3 of 6 have no pronunciation: A, IT'S, MAT" in missing(plan)


def test_a_lexicon_that_git_lfs_did_not_fetch(toy_corpora, look_at, tmp_path):
    toy_corpora.build("PR", tmp_path / "data")
    pointer = text(tmp_path / "lexicon.txt", "version https://git-lfs.github.com/spec/v1", "oid sha256:00", "size 7")
    assert "git lfs pull" in missing(look_at("PR", tmp_path / "data", lexicon=pointer))


def test_phonemes_that_the_head_does_not_have(toy_corpora, look_at, tmp_path):
    toy_corpora.build("PR", tmp_path / "data")
    strange = text(tmp_path / "strange.txt", "THE DH QX9")
    assert "Unknown phoneme 'QX9' for the word 'THE'" in missing(look_at("PR", tmp_path / "data", lexicon=strange))


def test_intents_that_training_never_saw(toy_corpora, look_at, tmp_path):
    toy_corpora.build("IC", tmp_path / "data")
    table = tmp_path / "data" / "data" / "test_data.csv"
    table.write_text(table.read_text().replace("kitchen", "cellar"))
    assert "location of test cellar" in missing(look_at("IC", tmp_path / "data"))


def test_background_noise_too_short_to_cut_a_second_from(toy_corpora, look_at, tmp_path):
    toy_corpora.build("KS", tmp_path / "data")
    audio(tmp_path / "data" / "train" / "_background_noise_" / "short.wav", 0.5)
    assert "shorter ones: short.wav" in missing(look_at("KS", tmp_path / "data"))


def test_the_training_set_given_as_the_test_set(toy_corpora, look_at, tmp_path):
    toy_corpora.build("KS", tmp_path / "data")
    plan = look_at("KS", tmp_path / "data", speech_commands_test_root=tmp_path / "data" / "train")
    assert "also _background_noise_, bird" in missing(plan)


def test_the_test_set_is_found_beside_the_training_set(toy_corpora, look_at, tmp_path):
    toy_corpora.build("KS", tmp_path / "data")
    shutil.move(tmp_path / "data" / "train", tmp_path / "data" / "speech_commands_v0.01")
    plan = look_at("KS", speech_commands_root=tmp_path / "data" / "speech_commands_v0.01")
    assert "test set not given and not beside it" in missing(
        plan
    ) and "mkdir speech_commands_test_set_v0.01" in missing(plan)
    shutil.move(tmp_path / "data" / "test", tmp_path / "data" / "speech_commands_test_set_v0.01")
    assert look_at("KS", speech_commands_root=tmp_path / "data" / "speech_commands_v0.01").ok


def test_slots_that_are_no_class_and_a_class_too_many(toy_corpora, look_at, tmp_path):
    toy_corpora.build("SF", tmp_path / "data")
    assert states(look_at("SF", tmp_path / "data"))["slots.txt"] == DIFFERS  # ends with an empty line
    (tmp_path / "data" / "slots.txt").write_text("O\ngenre")
    assert states(look_at("SF", tmp_path / "data"))["slots.txt"] == DIFFERS  # one, not 39
    (tmp_path / "data" / "slots.txt").write_text("O\nartist")
    assert "slots.txt not genre" in missing(look_at("SF", tmp_path / "data"))


def test_audio_at_another_rate_where_s3prl_does_not_resample(toy_corpora, look_at, tmp_path):
    toy_corpora.build("SF", tmp_path / "data")
    audio(tmp_path / "data" / "test" / "Emma-snips-test-0.wav", 0.5, 22050)
    assert "audio of test another rate: Emma-snips-test-0.wav" in missing(look_at("SF", tmp_path / "data"))


def test_the_lists_of_the_first_voxceleb_release(look_at, tmp_path):
    root = voxceleb1(tmp_path / "vox", "plain")
    text(root / "voxceleb1_test_v2.txt", "1 Eartha_Kitt/x/00001.wav Eartha_Kitt/y/00002.wav")
    said = missing(look_at("ASV", file_path=root))
    assert "2 are not there: Eartha_Kitt/x/00001.wav" in said and "take voxceleb1_test_v2.txt" in said
    text(root / "iden_split.txt", "1 id20001/video/00001.wav")
    assert "id20001, which s3prl has no class for" in missing(look_at("SID", file_path=root))
    text(root / "iden_split.txt", "id10001/video/00001.wav")
    assert "take the official list" in missing(look_at("SID", file_path=root))


def test_libri2mix_in_the_mode_of_another_task(look_at, tmp_path):
    root = libri2mix(tmp_path)
    shutil.rmtree(root / "wav16k" / "min")
    assert "make it at 16 kHz in mode min" in missing(look_at("SS", librimix=root))
    assert look_at("SD", librimix=root).ok


def test_mixtures_without_one_of_their_parts(look_at, tmp_path):
    root = libri2mix(tmp_path)
    next((root / "wav16k" / "min" / "dev" / "s2").iterdir()).unlink()
    assert "dev/s2 not these: 84-121123-" in missing(look_at("SS", librimix=root))


def test_times_of_speech_are_asked_for_and_compared_with_the_mixtures(look_at, tmp_path):
    root = libri2mix(tmp_path)
    times = tmp_path / "metadata" / "LibriSpeech"
    file = times / "dev_clean.rttm"
    file.write_text(file.read_text().replace("121123-0002", "121123-0009"))
    assert "1 utterances are not in it: 84-121123-0002" in missing(look_at("SD", librimix=root))
    file.write_text("SPEAKER 121123-0002 1 now\n")
    assert "dev_clean.rttm line 1: 'SPEAKER 121123-0002 1 now' take the file of LibriMix" in missing(
        look_at("SD", librimix=root)
    )
    shutil.move(times, tmp_path / "elsewhere")
    said = missing(look_at("SD", librimix=root))
    assert "times of speech not given" in said and "--root rttm=FOLDER" in said
    assert "dev_clean.rttm" in missing(look_at("SD", librimix=root, rttm=tmp_path / "elsewhere"))


def test_noisy_without_clean(look_at, tmp_path):
    root = voicebank(tmp_path / "vb", 16000)
    (root / "clean_testset_wav_16k" / "p232_001.wav").unlink()
    assert "not both of p232_001.wav" in missing(look_at("SE", voicebank=root))
    shutil.rmtree(root / "noisy_trainset_28spk_wav_16k")
    assert "unpack noisy_trainset_28spk_wav.zip" in missing(look_at("SE", voicebank=root))


def test_paths_that_s3prl_cannot_take(look_at, tmp_path):
    root = voicebank(tmp_path / "my corpora", 16000)
    assert "move the corpus to a path without blanks" in missing(look_at("SE", voicebank=root))
    root = voxceleb1(tmp_path / "a,,b", "plain")
    assert "s3prl's -o cannot hold such a path" in missing(look_at("ASV", file_path=root))


def test_speech_translation_says_that_it_has_not_been_run(look_at, tmp_path):
    plan = look_at("ST", data=tmp_path)
    first = plan.findings[0]
    assert first.found.startswith("this task has not been run with this package") and first.state == DIFFERS
    assert "prepare_covo.sh" in missing(plan) and "fairseq-fixed" in missing(plan)
    for name in ("train.tsv", "dev.tsv", "test.tsv", "config.yaml", "spm-src_text.model", "spm-src_text.txt"):
        (tmp_path / name).touch()
    assert look_at("ST", data=tmp_path).ok and states(look_at("ST", data=tmp_path))["train.tsv"] == OK


def test_labels_of_snips_are_asked_for(look_at, tmp_path):
    source = snips_mp3(tmp_path / "data")
    assert look_at("SF", path=source).ok
    shutil.move(tmp_path / "data" / "SNIPS", tmp_path / "labels")
    assert "--root labels=FOLDER" in missing(look_at("SF", path=source))
    assert look_at("SF", path=source, labels=tmp_path / "labels").ok


def test_inputs_are_checked(tmp_path):
    with pytest.raises(PrepareError, match="SD has no root 'rtm'; did you mean 'rttm'"):
        look(tasks.get("SD"), {"rtm": [tmp_path]}, tmp_path)
    with pytest.raises(PrepareError, match=r"PR needs ROOT \(LibriSpeech"):
        look(tasks.get("PR"), {"lexicon": [tmp_path]}, tmp_path)
    root = voxceleb1(tmp_path / "vox", "plain")
    Path(root / "iden_split.txt").write_bytes(b"\xff\xfe1")
    with pytest.raises(ValueError, match=r"iden_split.txt is no text file .*; expected UTF-8"):
        look(tasks.get("SID"), {"file_path": [root]}, tmp_path)


@pytest.mark.parametrize(
    ("code", "name"),
    [
        ("IC", "data/test_data.csv"),
        ("ER", "Session3/dialog/EmoEvaluation/Ses03F_impro01.txt"),
        ("ASR", "LibriSpeech/dev-clean/12/7/12-7.trans.txt"),
        ("PR", "lexicon-2.txt"),
        ("SF", "slots.txt"),
        ("SD", "dev/segments"),
        ("QbE", "scoring/groundtruth_quesst14_eval/quesst14_eval.rttm"),
    ],
)
@pytest.mark.parametrize("content", [b"", b"\xff\xfe\x00", b"word\n"])
def test_text_that_is_damaged_is_named(code, name, content, toy_corpora, look_at, tmp_path):
    toy_corpora.build(code, tmp_path / "data")
    (tmp_path / "data" / name).write_bytes(content)
    try:
        told = " ".join(f"{one.what} {one.found}" for one in look_at(code, tmp_path / "data").findings)
    except ValueError as error:
        told = str(error)
        assert "no text file" in told
    if content.startswith(b"\xff"):
        assert Path(name).name in told or "none: " in told


def test_query_by_example_without_ground_truth_cannot_be_scored(toy_corpora, look_at, tmp_path):
    toy_corpora.build("QbE", tmp_path / "data")
    assert states(look_at("QbE", tmp_path / "data"))["groundtruth_quesst14_eval"] == OK
    shutil.rmtree(tmp_path / "data" / "scoring" / "groundtruth_quesst14_eval")
    plan = look_at("QbE", tmp_path / "data")
    assert plan.ok and states(plan)["groundtruth_quesst14_eval"] == DIFFERS
