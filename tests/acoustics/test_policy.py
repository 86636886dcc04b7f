"""Policies: weighted tables, the curriculum, and policies of the first version."""

import collections
import json

import numpy as np
import pytest

from robustdistiller.acoustics import Condition, CorruptionPolicy, Corruptor
from robustdistiller.acoustics.first_version import without_modes

DOUBLE = CorruptionPolicy.from_dict({"mode": "double", "snr_db": [10, 19]})


def drawn(policy, count=8000, step=None):
    rng = np.random.default_rng(3)
    return [policy.choose(rng, step) for _ in range(count)]


def settled_snrs(conditions):
    rng = np.random.default_rng(4)
    return [one.effects["noise"].settled(rng).snr_db.low for one in conditions if "noise" in one.effects]


def test_default_policy_is_the_released_recipe():
    chosen = drawn(CorruptionPolicy())
    shares = collections.Counter(one.kind for one in chosen)
    assert all(abs(shares[kind] / len(chosen) - 0.25) < 0.02 for kind in ("clean", "noise", "reverb", "noise+reverb"))
    noisy = [one for one in chosen if "noise" in one.effects]
    counts = collections.Counter(settled_snrs(noisy))
    assert set(counts) == set(map(float, range(21)))
    assert max(counts.values()) < 1.4 * len(noisy) / 21
    kinds = collections.Counter(one.get("noise") for one in noisy)
    assert set(kinds) == {"white", None} and abs(kinds["white"] / len(noisy) - 0.3) < 0.03


def test_tables_are_drawn_independently():
    chosen = drawn(DOUBLE, 16000)
    joint = collections.Counter(
        (one.get("noise") if "noise" in one.effects else "none", *sorted(set(one.effects) - {"noise"}))
        for one in chosen
    )
    shares = {None: 0.5, "white": 0.25, "none": 0.25}  # MUSAN and WHAM! are both files
    assert len(joint) == 12
    for (kind, *_), count in joint.items():
        assert count / 16000 == pytest.approx(shares[kind] / 4, abs=0.01)
    assert set(settled_snrs(chosen)) == set(map(float, range(10, 20)))


def test_curriculum_slides_the_ratios_and_brings_in_what_distorts():
    policy = CorruptionPolicy([{"noise:snr_db=0..20": 1, "music": 1, "clean": 2}, {"reverb": 1, "codec": 1}], 100)
    for step, lowest, share in [(0, 20, 0.0), (50, 10, 0.5), (100, 0, 1.0), (1000, 0, 1.0), (None, 0, 1.0)]:
        chosen = drawn(policy, 4000, step)
        assert min(one["snr_db"].low for one in chosen if "noise" in one.effects) == lowest
        music = [one.effects["music"].music_snr_db for one in chosen if "music" in one.effects]
        assert {(one.low, one.high) for one in music} == {(15 - lowest_of(step), 15.0)}
        assert sum("reverb" in one.effects or "codec" in one.effects for one in chosen) / 4000 == pytest.approx(
            share, abs=0.03
        )
        assert sum("noise" in one.effects for one in chosen) / 4000 == pytest.approx(0.25, abs=0.03)


@pytest.mark.parametrize("text", ["talker:sir_db=-4.6..4.6", "talker:sir_db=7.5", "noise:snr_db=2.5,noise=white"])
def test_a_curriculum_stays_within_ratios_that_are_no_whole_numbers(text):
    policy, whole = CorruptionPolicy([{text: 1}], 100), Condition.parse(text)
    key, own = whole.options[0]
    for step in range(101):
        ratio = policy.choose(np.random.default_rng(0), step).get(key)
        assert own.low <= ratio.low <= ratio.high == own.high


def lowest_of(step):
    return {0: 0, 50: 5}.get(step, 10)


def test_what_is_needed_is_what_may_be_drawn():
    assert CorruptionPolicy().needs == {"noise", "rir"} == DOUBLE.needs
    assert CorruptionPolicy([{"noise:snr_db=5,noise=white": 1, "reverb": 0}]).needs == frozenset()
    assert CorruptionPolicy([{"talker": 1, "music": 1}]).needs == {"speech", "music"}
    with pytest.raises(ValueError, match="needs room impulse responses and none were given"):
        Corruptor(CorruptionPolicy([{"reverb": 1}]))


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (
            {"tables": [{"noise:snr=5": 1}]},
            r"tables\[0\]: unknown key 'snr' in condition 'noise'",
        ),
        ({"tables": [{"clean": 1}, {"noize": 1}]}, r"tables\[1\]: unknown condition 'noize'; did you mean 'noise'"),
        ({"tables": [{"clean": 0}]}, r"tables\[0\]: one weight must be above 0"),
        ({"tables": [{"clean": -1, "reverb": 3}]}, r"the weight of clean must be 0 or more, found -1"),
        ({"tables": []}, r"tables: found none, expected one or more"),
        ({"tables": [{"reverb": 1}, {"noise+reverb:snr_db=5": 1}]}, r"tables\[1\]: reverb is in tables\[0\] too"),
        ({"tables": [{"noise:snr_db=5,noise=/data/musan": 1}]}, r"noise means nothing in a policy"),
        ({"tables": [{"noise:snr_db=5,noise=white,side=test": 1}]}, r"side means nothing in a policy"),
        ({"table": [{"clean": 1}]}, r"unknown key 'corruption.table'; did you mean 'tables'"),
        ({"curriculum_steps": -1}, r"curriculum_steps must be between"),
        ({"clean_probability": 0.5}, r"must add up to 1, found 1.25"),
        ({"snr_db": [20, 0]}, r"snr_db must rise"),
        ({"mode": "duoble"}, r"unknown mode 'duoble' in a policy of the first version; did you mean 'double'"),
        ({"white_noise_probability": 0.5, "tables": [{"clean": 1}]}, r"of the first version and cannot change tables"),
    ],
)
def test_mistakes_are_refused(values, message):
    with pytest.raises(ValueError, match=message):
        CorruptionPolicy.from_dict(values)


def test_rooms_that_are_not_there_are_refused_before_the_first_draw(sources):
    with pytest.raises(ValueError, match=r"no impulse response within 15% of rt60_s=5 among 7"):
        Corruptor(CorruptionPolicy([{"clean": 99, "reverb:rt60_s=5": 1}]), **sources)
    Corruptor(CorruptionPolicy([{"reverb": 1, "reverb:rt60_s=5": 0}]), **sources)


def test_one_utterance_has_one_speech_level():
    """Sounds of two tables meet in one utterance: what one of them says of the level would hold for both."""
    active = {"noise:snr_db=5,speech_level=active": 1, "noise:snr_db=9,speech_level=rms": 0}
    for other in ("music", "music:speech_level=rms"):
        with pytest.raises(ValueError, match="an utterance has one speech_level; give it to the sounds of all tables"):
            CorruptionPolicy([active, {other: 1}])
    CorruptionPolicy([active, {"music:speech_level=active": 1}, {"reverb": 1}])
    CorruptionPolicy([{"noise:snr_db=5,speech_level=rms": 1}, {"music": 1}])


def test_bands_beyond_the_sampling_rate_are_refused():
    with pytest.raises(ValueError, match=r"band_range_hz must end at half the sampling rate, 4000 Hz, or below"):
        Corruptor(CorruptionPolicy([{"band_reject": 1}]), sample_rate_hz=8000)
    with pytest.raises(ValueError, match=r"more than half of the 2840 mel of band_range_hz"):
        Condition.parse("band_reject:band_width_mel=0..2000")


@pytest.mark.parametrize("policy", [CorruptionPolicy(), DOUBLE, CorruptionPolicy([{"reverb": 2, "gain:gain_db=3": 1}])])
def test_dict_reads_back(policy):
    assert CorruptionPolicy.from_dict(json.loads(json.dumps(policy.to_dict()))) == policy


@pytest.mark.parametrize(
    ("old", "tables"),
    [
        (
            {"clean_probability": 0, "noise_probability": 1, "reverb_probability": 0, "noise_reverb_probability": 0},
            [{"noise:snr_db=0..20": 0.7, "noise:snr_db=0..20,noise=white": 0.3}],
        ),
        (
            {"clean_probability": 0.5, "reverb_probability": 0.0, "noise_reverb_probability": 0.25, "snr_db": [5, 5],
             "noise_probability": 0.25, "white_noise_probability": 0, "babble_probability": 1, "talkers": [2, 9],
             "reverb_level": "direct"},
            [{"clean": 0.5, "noise:snr_db=5,noise=babble,talkers=2..9": 0.25,
              "noise+reverb:snr_db=5,noise=babble,talkers=2..9,reverb_level=direct": 0.25}],
        ),
        (
            {"mode": "double", "snr_db": [10, 19], "reverb_weight": 0.0, "pitch_cents": [-100, 100]},
            [
                {"noise:snr_db=10..19": 2.0, "noise:snr_db=10..19,noise=white": 1.0, "clean": 1.0},
                {"pitch_shift:pitch_cents=-100..100": 1, "band_reject:band_width_mel=0..150,band_range_hz=0..8000": 1,
                 "clean": 1},
            ],
        ),
    ],
)  # fmt: skip
def test_policies_of_the_first_version_are_read(old, tables):
    policy = CorruptionPolicy.from_dict({**old, "curriculum_steps": 7})
    assert policy == CorruptionPolicy(tables, 7)
    # Laid over the tables of a shipped recipe, old options mean what they meant there.
    base = without_modes({key: old[key] for key in ("mode", "snr_db") if "mode" in old})["tables"]
    assert CorruptionPolicy.from_dict({**old, "tables": base, "curriculum_steps": 7}) == policy


@pytest.mark.parametrize("policy", [CorruptionPolicy(), DOUBLE])
def test_views_are_independent_draws_and_the_first_is_the_usual_one(sources, policy):
    corruptor = Corruptor(policy, seed=4, **sources)
    names = [f"utt-{index}" for index in range(300)]

    def draw(view, epoch=0):
        return [corruptor.draw(name, 16000, epoch, view=view) for name in names]

    first, second = draw(0), draw(1)
    assert first == [corruptor.draw(name, 16000) for name in names]
    assert second == draw(1)
    assert second != draw(2)
    assert second != draw(1, epoch=1)
    both = [(a, b) for a, b in zip(first, second) if "noise" in a and "noise" in b]
    assert len(both) > 60
    assert not [1 for a, b in both if a["noise"] == b["noise"]]
    assert abs(np.corrcoef([a["snr_db"] for a, _ in both], [b["snr_db"] for _, b in both])[0, 1]) < 0.25
    # Whether the one is noisy tells nothing about the other.
    noisy = np.array([["noise" in one for one in view] for view in (first, second)])
    assert abs(np.corrcoef(noisy)[0, 1]) < 0.2
