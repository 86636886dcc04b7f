"""The one-line form of a condition, and the training policy."""

import collections

import numpy as np
import pytest

from robustdistiller.acoustics import Condition, CorruptionPolicy


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
        ("reverb:snr_db=5", r"unknown key 'snr_db' in 'reverb:snr_db=5'; known: rt60_s"),
        ("clean:snr_db=5", r"known: none"),
        ("noise", r"'noise' needs snr_db, as in 'noise:snr_db=5'"),
        ("noise:snr_db=loud", r"snr_db must be a number, found 'loud'"),
        ("noise:snr_db=nan", r"snr_db must be between -40 and 100, found nan"),
        ("noise:snr_db=500", r"snr_db must be between"),
        ("reverb:rt60_s=0", r"rt60_s must be between 0.05 and 10"),
        ("noise:snr_db=5,snr_db=6", r"snr_db is given twice"),
        ("noise:snr_db=20..10", r"snr_db must rise from its lower to its upper end as in 10..20, found 20.0..10"),
        ("noise:snr_db=1.5..10", r"whole numbers, found 1.5..10"),
        ("noise:snr_db=10..loud", r"snr_db must be a number, found '10..loud'"),
        ("reverb:rt60_s=0.4..20", r"rt60_max_s must be between 0.05 and 10, found 20.0"),
        ("noise:snr_db=5,side=left", r"side must be test, found 'left'"),
        ("noise:snr_db", r"expected key=value at 'snr_db'"),
        ("noise:snr_db=5,noise=", r"noise must be a path or a name"),
        ('noise:snr_db=5,noise="a', r"expected key=value"),
        ("noise:snr_db=5,talkers=3", r"belong to noise=babble"),
        ("noise:snr_db=5,noise=babble,talkers=0", r"talkers must be between 1"),
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


def _plans(policy, count=8000, step=None):
    generator = np.random.default_rng(3)
    return [policy.plan(generator, step) for _ in range(count)]


def test_default_policy_is_the_released_recipe():
    plans = _plans(CorruptionPolicy())
    shares = collections.Counter(plan.operation for plan in plans)
    assert all(abs(shares[op] / len(plans) - 0.25) < 0.02 for op in ("clean", "noise", "reverb", "noise+reverb"))
    noisy = [plan for plan in plans if plan.has_noise]
    assert {plan.snr_db for plan in noisy} == set(map(float, range(21)))
    counts = collections.Counter(plan.snr_db for plan in noisy)
    assert max(counts.values()) < 1.4 * len(noisy) / 21
    kinds = collections.Counter(plan.noise_kind for plan in noisy)
    assert abs(kinds["white"] / len(noisy) - 0.3) < 0.03
    assert set(kinds) == {"white", "file"}


def test_every_option_of_the_policy_changes_what_is_planned():
    reference = _plans(CorruptionPolicy(), 400, step=0)
    changes = {
        "clean_probability": {"clean_probability": 0.5, "noise_probability": 0.0},
        "noise_probability": {"noise_probability": 0.5, "reverb_probability": 0.0},
        "reverb_probability": {"reverb_probability": 0.5, "noise_reverb_probability": 0.0},
        "noise_reverb_probability": {"noise_reverb_probability": 0.5, "clean_probability": 0.0},
        "snr_db": {"snr_db": (0, 10)},
        "white_noise_probability": {"white_noise_probability": 0.6},
        "babble_probability": {"babble_probability": 0.2},
        "talkers": {"talkers": (2, 3)},
        "reverb_level": {"reverb_level": "direct"},
        "curriculum_steps": {"curriculum_steps": 10},
    }
    assert set(changes) == set(CorruptionPolicy().to_dict())
    for option, values in changes.items():
        assert _plans(CorruptionPolicy(**values), 400, step=0) != reference, option


def test_curriculum_slides_the_snr_and_brings_in_reverberation():
    policy = CorruptionPolicy(curriculum_steps=100)
    shares = {}
    for step, lowest in [(0, 20), (50, 10), (100, 0), (1000, 0), (None, 0)]:
        plans = _plans(policy, 4000, step)
        assert min(plan.snr_db for plan in plans if plan.has_noise) == lowest
        assert max(plan.snr_db for plan in plans if plan.has_noise) == 20
        shares[step] = sum(plan.has_reverb for plan in plans) / len(plans)
        assert abs(sum(plan.has_noise for plan in plans) / len(plans) - 0.5) < 0.03
    assert shares[0] == 0
    assert abs(shares[50] - 0.25) < 0.03
    assert abs(shares[100] - 0.5) < 0.03
    assert shares[1000] == shares[None] == shares[100]


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"snr": [0, 5]}, r"unknown key 'corruption.snr'.*did you mean 'snr_db'"),
        ({"clean_probability": 0.5}, r"must add up to 1, found 1.25"),
        ({"clean_probability": -0.25, "noise_probability": 0.75}, r"clean_probability must be between 0 and 1"),
        ({"snr_db": [20, 0]}, r"snr_db must be \(lowest, highest\)"),
        ({"snr_db": 5}, r"corruption.snr_db: found \[5\], expected 2 values"),
        ({"snr_db": [0.5, 2]}, r"corruption.snr_db\[0\]: found 0.5, expected a whole number"),
        ({"white_noise_probability": 0.8, "babble_probability": 0.3}, r"at most 1"),
        ({"reverb_level": "loud"}, r"reverb_level must be one of"),
        ({"curriculum_steps": -1}, r"curriculum_steps must be between"),
        ([1], r"corruption: found \[1\], expected keys and values"),
    ],
)
def test_policy_mistakes_are_refused(values, message):
    with pytest.raises(ValueError, match=message):
        CorruptionPolicy.from_dict(values)


def test_policy_dict_reads_back():
    policy = CorruptionPolicy(snr_db=(5, 10), curriculum_steps=7)
    assert CorruptionPolicy.from_dict(policy.to_dict()) == policy


def test_a_range_of_snr_draws_whole_numbers_of_all_of_it():
    condition = Condition.parse("noise:snr_db=10..20,noise=white")
    drawn = [condition.plan(np.random.default_rng(seed)).snr_db for seed in range(400)]
    assert set(drawn) == set(map(float, range(10, 21)))
    counts = collections.Counter(drawn)
    assert min(counts.values()) > 15 and max(counts.values()) < 65
    with pytest.raises(ValueError, match="draws its SNR"):
        condition.plan()
