"""The one-line form of a condition."""

import collections
from pathlib import Path

import numpy as np
import pytest

from robustdistiller.acoustics import Condition, Range


@pytest.mark.parametrize(
    "text",
    [
        "clean",
        "noise:snr_db=5",
        "noise:snr_db=-2.5,noise=pink",
        "noise:snr_db=0,noise=babble,speech=/data/speech,talkers=6",
        'noise:snr_db=0,noise="/data/rain, heavy/a=b.wav"',
        "reverb",
        "reverb:rt60_s=0.6",
        "noise+reverb:snr_db=10,rt60_s=0.6",
        "noise+reverb:snr_db=10,rt60_s=0.65,noise=/n,rir=C:\\rooms,reverb_level=direct",
        "noise+reverb:snr_db=10..20,rt60_s=0.4..0.8,side=test",
        "noise+reverb+codec:snr_db=10,speech_level=active,drr_db=-5..5,codec=opus,bitrate_kbps=12",
        "talker+music+noise+clipping:snr_db=0,sir_db=-5..5,overlap_share=0.5,music_snr_db=3,noise=white",
    ],
)
def test_canonical_form_and_dict_read_back(text):
    condition = Condition.parse(text)
    assert str(condition) == text
    assert Condition.parse(str(condition)) == condition
    assert Condition.from_dict(condition.to_dict()) == condition


def test_spelling_variants_have_one_form():
    variants = [
        "noise+reverb: rt60_s=0.60 , snr_db=10.0",
        "noise+reverb:snr_db=10,rt60_s=6e-1,",
        " noise+reverb:snr_db=1e1,rt60_s=.6 ",
    ]
    assert {str(Condition.parse(text)) for text in variants} == {"noise+reverb:snr_db=10,rt60_s=0.6"}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("noize:snr_db=5", r"unknown condition 'noize'.*did you mean 'noise'"),
        ("", r"unknown condition ''"),
        ("noise:snr=5", r"unknown key 'snr' .*did you mean 'snr_db'"),
        ("reverb:snr_db=5", r"unknown key 'snr_db' in condition 'reverb'; did you mean 'drr_db'"),
        ("clean:snr_db=5", r"known: none"),
        ("noise", r"noise needs snr_db, as in 'noise:snr_db=5'"),
        ("noise:snr_db=loud", r"snr_db must be a number, or a range as in 10..20, found 'loud'"),
        ("noise:snr_db=nan", r"snr_db must be between -40 and 100, found nan"),
        ("noise:snr_db=500", r"snr_db must be between"),
        ("reverb:rt60_s=0", r"rt60_s must be between 0.05 and 10"),
        ("noise:snr_db=5,snr_db=6", r"snr_db is given twice"),
        ("noise:snr_db=20..10", r"snr_db must rise from its lower to its upper end as in 10..20, found 20..10"),
        ("noise:snr_db=1.5..10", r"whole numbers, found 1.5..10"),
        ("noise:snr_db=10..loud", r"snr_db must be a number, or a range as in 10..20, found '10..loud'"),
        ("reverb:rt60_s=0.4..20", r"rt60_s must be between 0.05 and 10, found 20"),
        ("noise:snr_db=5,side=left", r"side must be test, found 'left'"),
        ("noise:snr_db", r"expected key=value at 'snr_db'"),
        ("noise:snr_db=5,noise=", r"noise must be a path or a name"),
        ('noise:snr_db=5,noise="a', r"expected key=value"),
        ("noise:snr_db=5,talkers=3", r"belong to noise=babble"),
        ("noise:snr_db=5,noise=babble,talkers=0", r"talkers must be between 1"),
        ("noise+noise:snr_db=5", r"'noise\+noise' names an effect twice"),
        ("noise+clean:snr_db=5", r"condition 'noise\+clean' joins clean to effects; clean stands alone"),
        ("noise+codec:snr_db=5,codec=mp4", r"codec must be one of mp3, opus, mulaw, telephone, found 'mp4'"),
        ("codec:codec=mulaw,bitrate_kbps=16", r"codec mulaw takes no bitrate_kbps"),
        ("codec:codec=mp3,bitrate_kbps=200", r"codec mp3 takes 8 to 160, found bitrate_kbps=200"),
        ("clipping:clipped_share=1", r"clipped_share must be between 0 and 0.9, found 1"),
        ("noise:snr_db=5,noise=babble,talkers=2.5", r"talkers must be a whole number"),
        ("noise:snr_db=5,speech_level=loud", r"speech_level must be one of rms, active"),
        ("reverb:reverb_level=loud", r"reverb_level must be one of rms, direct, file"),
    ],
)
def test_mistakes_are_refused_with_what_was_expected(text, message):
    with pytest.raises(ValueError, match=message):
        Condition.parse(text)


def test_label_is_free_of_paths():
    condition = Condition.parse("noise+reverb:snr_db=5,noise=/data/musan,rir=/data/rirs,rt60_s=0.5")
    assert condition.label == "noise+reverb:snr_db=5,rt60_s=0.5"
    assert Condition.parse("noise:snr_db=5,noise=babble,speech=/x").label == "noise:snr_db=5,noise=babble"


def test_however_a_chain_is_written_it_is_one_condition():
    texts = ("reverb+codec+noise:snr_db=5", "codec+noise+reverb:snr_db=5", "noise+reverb+codec:snr_db=5.0")
    assert len({Condition.parse(text) for text in texts}) == 1
    assert list(Condition.parse(texts[0]).effects) == ["reverb", "noise", "codec"]


def test_numbers_may_be_given_in_every_form():
    forms = ["5..10", (5, 10), [5, 10], Range(5.0, 10.0)]
    assert len({Condition("noise", snr_db=form) for form in forms}) == 1
    for wrong in (True, (1, 2, 3), None, {}):
        with pytest.raises(ValueError, match="snr_db"):
            Condition("noise", snr_db=wrong)


def test_a_path_may_be_a_path():
    given = Condition("noise", snr_db=5, noise=Path("/data/rain, heavy"))
    assert given == Condition.parse(str(given)) and given["noise"] == "/data/rain, heavy"


def test_a_range_draws_numbers_of_all_of_it():
    noise = Condition.parse("noise:snr_db=10..20,noise=white").effects["noise"]
    drawn = [noise.settled(np.random.default_rng(seed)).snr_db.low for seed in range(400)]
    assert set(drawn) == set(map(float, range(10, 21)))
    counts = collections.Counter(drawn)
    assert min(counts.values()) > 15 and max(counts.values()) < 65
    echo = Condition.parse("echo:echo_delay_s=0.1..0.2,echo_db=-6").effects["echo"]
    settled = [echo.settled(np.random.default_rng(seed)) for seed in range(400)]
    delays = [one.echo_delay_s.low for one in settled]
    assert {one.echo_db for one in settled} == {Range(-6.0, -6.0)} and len(set(delays)) > 250
    assert 0.1 <= min(delays) < 0.101 and 0.199 < max(delays) <= 0.2


def test_titles_are_for_people():
    assert Condition.parse("noise:snr_db=5,noise=babble,talkers=3").title == "babble 5 dB, 3 talkers"
    assert Condition.parse("noise+codec:snr_db=-5,noise=white,codec=opus,bitrate_kbps=8").title == (
        "white noise -5 dB + codec opus 8 kbit/s"
    )
    assert Condition.parse("clipping:clipped_share=0.05").title == "clipping 5 %"
    assert (
        Condition.parse("talker+packet_loss:sir_db=0,burst_packets=3").title
        == "talker 0 dB + packet loss 3 burst packets"
    )
    assert Condition.parse("reverb:rt60_s=0.4..0.8,drr_db=3").title == "reverb 0.4 to 0.8 s 3 dB"
