"""What holds for every effect: length, silence, extremes, draws that JSON holds, and nothing that depends on others."""

import json
import pickle

import numpy as np
import pytest

from robustdistiller.acoustics import EFFECTS, Condition, Corruptor, check_parameters, corrupt_utterance

RATE_HZ = 16000
CHAINS = {
    **{name: f"{name}:snr_db=5" if name == "noise" else name for name in EFFECTS},
    **{f"noise {kind}": f"noise:snr_db=0..20,noise={kind}" for kind in ("white", "pink", "brown", "babble")},
    **{f"codec {kind}": f"codec:codec={kind}" for kind in ("mp3", "opus", "mulaw", "telephone")},
    "opus 6": "codec:codec=opus,bitrate_kbps=6",
    "mp3 16": "codec:codec=mp3,bitrate_kbps=16",
    "drr": "reverb:drr_db=-5..5,rt60_s=0.2..0.7",
    "several": "noise+reverb+codec:snr_db=10,codec=opus",
    "all": "+".join(EFFECTS) + ":snr_db=0..20",
}


@pytest.fixture(params=CHAINS)
def corruptor(request, sources):
    return Corruptor(CHAINS[request.param], **sources, music=sources["noise"], seed=3)


def signals(length):
    speech = np.random.default_rng(length).standard_normal(length).astype(np.float32)
    return {
        "speech": 0.1 * speech,
        "silence": np.zeros(length, np.float32),
        "DC": np.full(length, 0.25, np.float32),
        "full scale": np.where(speech > 0, 1, -1).astype(np.float32),
        "beyond full scale": 30 * speech,
        "barely there": 1e-6 * speech,
    }


@pytest.mark.parametrize("length", [1, 2, 39, 400, 5001, 16000])
def test_the_length_stays_and_everything_is_a_number(corruptor, length):
    for what, wave in signals(length).items():
        before = wave.copy()
        heard = corrupt_utterance(wave, corruptor, "utt")
        assert heard.shape == (length,) and heard.dtype == np.float32, what
        assert np.isfinite(heard).all(), what
        np.testing.assert_array_equal(wave, before)
        if what == "silence":
            assert np.abs(heard).max() < 2e-3  # codecs may hiss


def test_what_is_drawn_is_plain_and_replays_to_the_bit(corruptor, sources):
    wave = signals(9000)["speech"]
    for index in range(8):
        drawn = corruptor.draw(f"utt-{index}", len(wave), epoch=index)
        stored = check_parameters(json.loads(json.dumps(drawn)))
        assert stored == drawn
        other = Corruptor(corruptor.what, **sources, music=sources["noise"], seed=99)
        assert other.apply(wave, stored).tobytes() == corruptor.apply(wave, drawn).tobytes()


def test_nothing_depends_on_what_was_heard_before(corruptor):
    wave = signals(8000)["speech"]
    alone = corrupt_utterance(wave, pickle.loads(pickle.dumps(corruptor)), "utt-5")
    for index in range(6):
        heard = corrupt_utterance(wave, corruptor, f"utt-{index}")
    assert heard.tobytes() == alone.tobytes()


def test_timing_stays(corruptor):
    """A burst in the middle is heard there; silence before it stays silent, but for what is added."""
    if set(corruptor.what.effects) & {"noise", "music", "talker", "pitch_shift", "packet_loss"}:
        pytest.skip("something else sounds, the burst may be lost, or a window is smeared")
    wave = np.zeros(RATE_HZ, np.float32)
    wave[8000:9600] = 0.1 * np.hanning(1600) * np.random.default_rng(0).standard_normal(1600)
    heard = corrupt_utterance(wave, corruptor, "utt")
    lag = np.argmax(np.correlate(heard, wave, "full")) - (len(wave) - 1)
    assert abs(lag) <= 1
    assert np.abs(heard[:7000]).max() < 0.01 * np.abs(heard).max()


def test_effects_act_in_the_order_in_which_sound_travels(sources):
    """However a chain is written; what is added later does not change what was drawn before."""
    one, two = (Condition.parse(text) for text in ("codec+reverb+noise:snr_db=5", "noise+reverb+codec:snr_db=5"))
    assert (
        one == two and list(one.effects) == ["reverb", "noise", "codec"] and str(one) == "noise+reverb+codec:snr_db=5"
    )
    wave = signals(8000)["speech"]
    chain = Corruptor(one, **sources)
    drawn = chain.draw("utt", len(wave))
    parts = [Corruptor(text, **sources) for text in ("reverb", "noise:snr_db=5", "codec")]
    step_by_step = wave
    for part in parts:
        alone = part.draw("utt", len(wave))
        assert {key: value for key, value in alone.items() if key != "operation"}.items() <= drawn.items()
        step_by_step = part.apply(step_by_step, alone)
    np.testing.assert_allclose(chain.apply(wave, drawn), step_by_step, atol=1e-6)
    other_order = parts[2].apply(wave, parts[2].draw("utt", len(wave)))
    assert np.abs(parts[0].apply(other_order, parts[0].draw("utt", len(wave))) - step_by_step).max() > 1e-3


@pytest.mark.parametrize("name", EFFECTS)
def test_what_an_effect_draws_is_what_it_says(name, sources):
    drawn = Corruptor(CHAINS[name], **sources, music=sources["noise"]).draw("utt", 8000)
    keys = EFFECTS[name].keys
    assert {key for key in keys if not key.endswith("?")} <= set(drawn) - {"operation"} <= {k.rstrip("?") for k in keys}
    owners = [other for other in EFFECTS if set(EFFECTS[other].keys) & (set(keys) - {"speech_level?"})]
    assert owners == [name]  # several effects share one mapping
