"""The shipped pack: split by hash, hold-outs, labels and transcripts."""

from __future__ import annotations

import csv
import hashlib
import math
from collections import Counter

import pytest

from robustdistiller.mini import data_dir
from robustdistiller.mini.bopomofo import parse_syllable
from robustdistiller.mini.pack import SYLLABLE_VOICE, is_speech, read_audio, read_pack, split_of
from robustdistiller.mini.prompt_text import normalise


@pytest.fixture(scope="module")
def utterances():
    return read_pack(data_dir())


def test_every_row_of_the_table_is_read_once(utterances):
    with (data_dir() / "speech.tsv").open(encoding="utf-8") as stream:
        rows = [line.split("\t") for line in stream.read().splitlines()[1:]]
    assert len(utterances) == len(rows) == 3335
    assert len({utterance.utterance_id for utterance in utterances}) == 3335
    assert [utterance.utterance_id for utterance in utterances] == [row[3] for row in rows]


def test_split_follows_the_hash_of_the_id_alone(utterances):
    for utterance in utterances:
        rank = int(hashlib.md5(utterance.utterance_id.encode()).hexdigest()[:2], 16) % 10
        tests = {0, 2, 3} if utterance.voice == SYLLABLE_VOICE else {0, 2}
        assert utterance.split == ("dev" if rank == 1 else "test" if rank in tests else "train")


def test_other_packs_hold_out_a_tenth_each():
    splits = Counter(split_of(f"utterance-{number}", "someone") for number in range(4000))
    assert splits["dev"] / 4000 == pytest.approx(0.1, abs=0.02)
    assert splits["test"] / 4000 == pytest.approx(0.1, abs=0.02)


def test_syllable_test_is_large_enough_for_three_points(utterances):
    kept = [utterance for utterance in utterances if utterance.voice == SYLLABLE_VOICE and utterance.split == "test"]
    assert math.sqrt(0.25 / len(kept)) < 0.03
    assert len(kept) == 349


def test_pieces_have_the_length_of_the_table_and_three_are_silent(utterances):
    chosen = [utterance for utterance in utterances if utterance.voice in (SYLLABLE_VOICE, "psphinx_cards")]
    pieces = list(read_audio(chosen))
    assert all(len(samples) == utterance.num_samples for utterance, samples in pieces)
    silent = {utterance.text for utterance, samples in pieces if not is_speech(utterance, samples)}
    assert silent == {"ㄏㄡ2", "ㄏㄡ3", "ㄏㄡ4"}
    assert len(pieces) == len(chosen)


def test_every_syllable_parses_and_neutral_tone_is_the_short_one(utterances):
    by_tone: dict[str, list[int]] = {}
    for utterance in utterances:
        if utterance.voice == SYLLABLE_VOICE:
            by_tone.setdefault(parse_syllable(utterance.text).tone, []).append(utterance.num_samples)
    assert len(by_tone["neutral"]) == 11
    assert max(by_tone.pop("neutral")) < min(min(lengths) for lengths in by_tone.values())
    assert sorted(by_tone) == ["tone1", "tone2", "tone3", "tone4"]


@pytest.mark.parametrize("text", ["", "2", "ㄓX", "ㄓㄨㄢ5", "ㄢㄓ"])
def test_what_is_no_syllable_is_refused(text):
    with pytest.raises(ValueError, match="not a bopomofo syllable"):
        parse_syllable(text)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("Press 6 to play the next message.", "PRESS SIX TO PLAY THE NEXT MESSAGE"),
        ('a polite "don\'t call" menu', "A POLITE DON'T CALL MENU"),
        ("Please re-enter it...", "PLEASE RE ENTER IT"),
        ("dial 500", None),
        ("visit www.asterisk.org.", None),
        ("IAX (note)", None),
        ("", None),
    ],
)
def test_prompt_text(text, words):
    assert normalise(text) == words


def test_licences_name_every_recording_of_the_pack(utterances):
    licences = (data_dir() / "LICENSES.md").read_text(encoding="utf-8")
    for name in {utterance.path.stem for utterance in utterances}:
        known = "psphinx-en-*" if name.startswith("psphinx") else name
        assert known in licences, f"{name} is not in LICENSES.md"
    with (data_dir() / "noise.tsv").open(encoding="utf-8", newline="") as stream:
        sources = {row["source"] for row in csv.DictReader(stream, delimiter="\t")}
    assert all(source in licences for source in sources)
    assert "rir.flac" in licences


def test_a_folder_without_a_pack_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"speech\.tsv"):
        read_pack(tmp_path)
    (tmp_path / "speech.tsv").write_text((data_dir() / "speech.tsv").read_text(encoding="utf-8"), encoding="utf-8")
    with pytest.raises(FileNotFoundError, match=r"asterisk-en-Allison\.ogg"):
        read_pack(tmp_path)
