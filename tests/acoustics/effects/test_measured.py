"""What each effect does, measured on what comes out."""

import numpy as np
import pytest
import soundfile

from robustdistiller.acoustics import (
    AudioSource,
    Corruptor,
    RIRSource,
    active_speech_level,
    corrupt_utterance,
    measure_drr_db,
    measure_rt60_s,
)
from robustdistiller.acoustics.effects import EFFECTS, Recordings
from robustdistiller.acoustics.effects.codec import encode

RATE_HZ = 16000


def db(first, second):
    """Ratio of the energies."""
    return 10 * np.log10(np.sum(np.square(first, dtype=np.float64)) / np.sum(np.square(second, dtype=np.float64)))


def spectrum(wave):
    """Hz, and dB of a long wave."""
    size = 1600
    frames = np.lib.stride_tricks.sliding_window_view(wave, size)[:: size // 2] * np.hanning(size)
    power = np.square(np.abs(np.fft.rfft(frames))).mean(axis=0)
    return np.fft.rfftfreq(size, 1 / RATE_HZ), 10 * np.log10(power + 1e-20)


def apply(name, wave, **parameters):
    return EFFECTS[name].apply(wave, parameters, Recordings())


@pytest.fixture
def speech(make_speech):
    return make_speech(40_001)


@pytest.mark.parametrize("snr_db", [-5, 0, 20])
@pytest.mark.parametrize("noise", ["", ",noise=white", ",noise=pink", ",noise=brown", ",noise=babble"])
@pytest.mark.parametrize("room", ["", "+reverb"])
def test_snr_is_that_of_the_distorted_speech(sources, speech, snr_db, noise, room):
    noisy = corrupt_utterance(speech, Corruptor(f"noise{room}:snr_db={snr_db}{noise}", **sources), "utt")
    wet = corrupt_utterance(speech, Corruptor("reverb", **sources), "utt") if room else speech
    assert db(wet, noisy - wet) == pytest.approx(snr_db, abs=0.01)


def test_two_sounds_are_each_set_against_the_speech_alone(sources, speech):
    given = {**sources, "music": sources["noise"]}
    text = "noise+music+talker:snr_db=-10,music_snr_db=3,sir_db=0,overlap_share=1"
    corruptor = Corruptor(text, **given)
    drawn = corruptor.draw("utt", len(speech))
    for name, ratio_db in (("noise", -10), ("music", 3), ("talker", 0)):
        sound = EFFECTS[name].sound(speech, drawn, corruptor.recordings)
        assert db(speech, sound) == pytest.approx(ratio_db, abs=0.01)
    total = sum(EFFECTS[name].sound(speech, drawn, corruptor.recordings) for name in ("noise", "music", "talker"))
    np.testing.assert_allclose(corruptor.apply(speech, drawn), speech + total, atol=1e-6)


@pytest.mark.parametrize("share", [0.1, 0.5, 1.0])
def test_an_interfering_talker_overlaps_a_part_at_its_ratio(sources, speech, share):
    corruptor, begins = Corruptor(f"talker:sir_db=-3,overlap_share={share}", **sources), set()
    for index in range(40):
        added = corrupt_utterance(speech, corruptor, f"utt-{index}") - speech
        at = corruptor.draw(f"utt-{index}", len(speech))["talker"]
        inside = slice(at["begin"], at["begin"] + at["num_samples"])
        assert at["num_samples"] == round(share * len(speech))
        assert not added[: inside.start].any() and not added[inside.stop :].any()
        level = np.sqrt(np.mean(np.square(added[inside]))) / np.sqrt(np.mean(np.square(speech)))
        assert 20 * np.log10(level) == pytest.approx(3, abs=0.01)
        begins.add(at["begin"])
    assert len(begins) > 30 or share == 1


def test_the_active_level_leaves_pauses_out(sources, make_speech):
    """Twice the pauses: the usual SNR counts them as signal, that of the active level does not."""
    speech = make_speech(48_000)
    paused = np.concatenate([np.zeros(48_000, np.float32), speech])
    found = {}
    for level in ("rms", "active"):
        corruptor = Corruptor(f"noise:snr_db=10,noise=white,speech_level={level}")
        added = corrupt_utterance(paused, corruptor, "utt") - paused
        found[level] = db(speech, added[48_000:])  # over the half in which somebody speaks
    level, share = active_speech_level(paused)
    assert found["rms"] == pytest.approx(13, abs=0.1)
    assert found["active"] == pytest.approx(10 + 10 * np.log10(np.mean(np.square(speech)) / level**2), abs=0.1)
    assert 0.3 < share < 0.6 and found["active"] < found["rms"] - 2


@pytest.mark.parametrize("scale", [1e-4, 1.0])
def test_active_speech_level_of_a_tone_that_is_on_for_a_known_time(scale):
    """A tone of 2 of 8 s: active for these and 0.2 s more, at any level; a tone throughout has its own level."""
    time_s = np.arange(8 * RATE_HZ) / RATE_HZ
    tone = scale * np.sin(2 * np.pi * 1000 * time_s)
    level, share = active_speech_level(np.where((time_s > 3) & (time_s < 5), tone, 0))
    assert share == pytest.approx(2.2 / 8, abs=0.01)
    assert 20 * np.log10(level / (scale * np.sqrt(0.5))) == pytest.approx(-10 * np.log10(1.1), abs=0.2)
    assert active_speech_level(tone)[0] == pytest.approx(scale * np.sqrt(0.5), rel=0.01)


@pytest.mark.parametrize("drr_db", [-10, 0, 12])
def test_direct_to_reverberant_ratio_and_reverberation_time(sources, drr_db):
    click = np.zeros(2 * RATE_HZ, np.float32)
    click[1000] = 1.0
    corruptor = Corruptor(f"reverb:drr_db={drr_db},rt60_s=0.45,reverb_level=file", **sources)
    heard = corrupt_utterance(click, corruptor, "utt")
    assert measure_drr_db(heard) == pytest.approx(drr_db, abs=0.05)
    assert int(np.abs(heard[990:1100]).argmax()) == 10 or drr_db < 0  # the direct path stays where it was
    assert measure_rt60_s(corrupt_utterance(click, Corruptor("reverb:rt60_s=0.45", **sources), "utt")) == pytest.approx(
        0.45, rel=0.1
    )


@pytest.mark.parametrize(("level", "change_db"), [("rms", 0), ("direct", None), ("file", None)])
def test_level_after_reverberation(sources, speech, level, change_db):
    heard = corrupt_utterance(speech, Corruptor(f"reverb:rt60_s=0.6,reverb_level={level}", **sources), "utt")
    if change_db is not None:
        assert db(heard, speech) == pytest.approx(change_db, abs=1e-3)
    click = np.zeros(4000, np.float32)
    click[100] = 0.5
    peak = corrupt_utterance(click, Corruptor(f"reverb:rt60_s=0.6,reverb_level={level}", **sources), "utt")[100]
    assert {"direct": 0.5, "file": 0.4}.get(level, peak) == pytest.approx(peak, rel=1e-3)


@pytest.mark.parametrize("gain_db", [-30, 6.5])
def test_gain(speech, gain_db):
    assert db(apply("gain", speech, gain_db=gain_db), speech) == pytest.approx(gain_db, abs=1e-3)


@pytest.mark.parametrize("share", [0, 0.001, 0.2, 0.9])
@pytest.mark.parametrize("scale", [1e-3, 1, 50])
def test_clipping_cuts_off_the_loudest_share(speech, share, scale):
    wave = scale * (speech + np.float32(1e-4) * np.random.default_rng(1).standard_normal(len(speech), np.float32))
    heard = apply("clipping", wave, clipped_share=share)
    changed = heard != wave
    assert changed.mean() == pytest.approx(share, abs=1e-4)
    limit = np.abs(heard).max()
    assert np.abs(wave[~changed]).max() <= limit
    if changed.any():
        np.testing.assert_allclose(np.abs(heard[changed]), limit)


@pytest.mark.parametrize("cutoff_hz", [500, 3400, 7900])
def test_low_pass_at_its_cut_off(cutoff_hz):
    noise = np.random.default_rng(0).standard_normal(20 * RATE_HZ).astype(np.float32)
    hz, before = spectrum(noise)
    loss_db = before - spectrum(apply("low_pass", noise, cutoff_hz=cutoff_hz))[1]
    assert np.abs(loss_db[hz < cutoff_hz - 130]).max() < 0.1
    assert loss_db[np.abs(hz - cutoff_hz).argmin()] == pytest.approx(6, abs=1)
    if cutoff_hz < 7500:
        assert loss_db[hz > cutoff_hz + 150].min() > 55


@pytest.mark.parametrize("cutoff_hz", [200, 500, 3000])
def test_high_pass_at_its_cut_off(cutoff_hz):
    noise = np.random.default_rng(0).standard_normal(20 * RATE_HZ).astype(np.float32)
    hz, before = spectrum(noise)
    loss_db = before - spectrum(apply("high_pass", noise, low_cutoff_hz=cutoff_hz))[1]
    assert np.abs(loss_db[hz > cutoff_hz + 130]).max() < 0.1
    assert loss_db[np.abs(hz - cutoff_hz).argmin()] == pytest.approx(6, abs=1)
    assert loss_db[hz < cutoff_hz - 150].min() > 55
    with pytest.raises(ValueError, match="low_cutoff_hz must be below 8000, found 9000"):
        Corruptor("high_pass:low_cutoff_hz=9000")


@pytest.mark.parametrize("rate_hz", [2000, 8000, 11025, 16000, 48000])
def test_resampling_leaves_nothing_above_half_of_the_lower_rate(rate_hz):
    noise = np.random.default_rng(0).standard_normal(10 * RATE_HZ + 1).astype(np.float32)
    heard = apply("resampling", noise, rate_hz=rate_hz)
    hz, before = spectrum(noise)
    loss_db = before - spectrum(heard)[1]
    assert np.abs(loss_db[(hz > 50) & (hz < 0.44 * rate_hz)]).max() < 0.5
    assert rate_hz >= RATE_HZ or loss_db[hz > 0.53 * rate_hz].min() > 55


@pytest.mark.parametrize(("delay_s", "echo_db"), [(0.05, -6), (0.3, -20)])
def test_echo_comes_when_and_as_loud_as_it_should(delay_s, echo_db):
    click = np.zeros(8000, np.float32)
    click[1000] = -0.5
    heard = apply("echo", click, echo_delay_s=delay_s, echo_db=echo_db)
    at = 1000 + round(delay_s * RATE_HZ)
    assert np.flatnonzero(heard).tolist() == [1000, at]
    assert 20 * np.log10(heard[at] / heard[1000]) == pytest.approx(echo_db, abs=1e-4)


@pytest.mark.parametrize(("share", "burst"), [(0.05, 1), (0.2, 3), (0.4, 8), (0.9, 10)])
def test_packets_are_lost_as_often_and_as_many_in_a_row_as_asked_for(share, burst):
    corruptor = Corruptor(f"packet_loss:lost_share={share},burst_packets={burst}")
    wave = np.ones(20 * RATE_HZ - 7, np.float32)
    lost, bursts = 0, 0
    for index in range(40):
        heard = corrupt_utterance(wave, corruptor, f"utt-{index}")
        gone = np.array([not heard[start : start + 320].any() for start in range(0, len(wave), 320)])
        assert (heard == np.repeat(~gone, 320)[: len(wave)]).all()  # whole packets, and nothing else
        lost += gone.sum()
        bursts += np.count_nonzero(np.diff(np.r_[0, gone.astype(int)]) == 1)
    assert lost / 40_000 == pytest.approx(share, rel=0.15)
    assert lost / bursts == pytest.approx(burst, rel=0.15)


@pytest.mark.parametrize(("share", "burst", "longer"), [(0.9, 1, 9), (0.8, 2, 4), (0.6, 1, 1.5)])
def test_a_large_share_of_packets_is_lost_in_longer_bursts(share, burst, longer):
    """One packet arrives between two bursts: with two lost in a row, more than two thirds cannot be lost."""
    corruptor = Corruptor(f"packet_loss:lost_share={share},burst_packets={burst}")
    lost, bursts = 0, 0
    for index in range(40):
        packets = np.array(corruptor.draw(f"utt-{index}", 20 * RATE_HZ)["lost_packets"])
        lost += len(packets)
        bursts += 1 + np.count_nonzero(np.diff(packets) > 1)
    assert lost / 40_000 == pytest.approx(share, rel=0.05)
    assert lost / bursts == pytest.approx(longer, rel=0.1)


@pytest.mark.parametrize(("codec", "rates_kbps"), [("mp3", (16, 32, 64)), ("opus", (8, 16, 64)), ("mulaw", (None,))])
@pytest.mark.parametrize("scale", [1, 30])
def test_codecs_lose_what_their_rate_takes(codec, rates_kbps, scale):
    """A sweep below 3 kHz comes back in place, the better the higher the rate; beyond full scale it is not cut off."""
    time_s = np.arange(2 * RATE_HZ) / RATE_HZ
    sweep = np.hanning(len(time_s)) * np.sin(2 * np.pi * 300 * time_s * (1 + 2 * time_s))
    wave = (scale * (0.3 * sweep + 0.01 * np.random.default_rng(0).standard_normal(len(sweep)))).astype(np.float32)
    rates = [{} if kbps is None else {"bitrate_kbps": kbps} for kbps in rates_kbps]
    found_db = [db(wave, apply("codec", wave, codec=codec, **rate) - wave) for rate in rates]
    assert found_db == sorted(found_db)
    assert found_db[0] > 3 and found_db[-1] > 15
    assert len(rates) == 1 or found_db[-1] > found_db[0] + 5


@pytest.mark.parametrize(("asked_kbps", "kbps"), [(8, 8), (20, 16), (32, 32), (100, 96)])
def test_mp3_takes_the_step_at_or_below_what_is_asked_for(asked_kbps, kbps):
    noise = 0.1 * np.random.default_rng(0).standard_normal(10 * RATE_HZ).astype(np.float32)
    assert len(encode("mp3", noise, asked_kbps)) * 8 / 10 / 1000 == pytest.approx(kbps, rel=0.02)


def test_a_telephone_has_its_band():
    noise = 0.1 * np.random.default_rng(0).standard_normal(10 * RATE_HZ).astype(np.float32)
    hz, before = spectrum(noise)
    loss_db = before - spectrum(apply("codec", noise, codec="telephone"))[1]
    assert np.abs(loss_db[(hz > 450) & (hz < 3250)]).max() < 1
    assert loss_db[(hz > 20) & (hz < 200)].min() > 25  # down to the noise of mu-law
    assert loss_db[hz > 4100].min() > 40


def test_a_telephone_at_a_rate_below_its_band_passes_what_is_there():
    rate_hz = 6000
    noise = 0.1 * np.random.default_rng(0).standard_normal(10 * rate_hz).astype(np.float32)
    sent = EFFECTS["codec"].apply(noise, {"codec": "telephone"}, Recordings(sample_rate_hz=rate_hz))
    hz, before = spectrum(noise)
    hz, loss_db = hz * rate_hz / RATE_HZ, before - spectrum(sent)[1]
    assert len(sent) == len(noise) and np.abs(loss_db[(hz > 450) & (hz < 2600)]).max() < 1
    assert loss_db[(hz > 20) & (hz < 200)].min() > 25


@pytest.fixture
def mixed(tmp_path):
    """Noises of which only one can be used, and one that is silent for a long time."""

    def write(name, samples):
        soundfile.write(tmp_path / f"{name}.wav", np.asarray(samples, np.float32), RATE_HZ, subtype="FLOAT")

    write("silent", np.zeros(32_000))
    write("below-16-bit", np.full(32_000, 1e-6))
    write("shorter-than-a-frame", 0.1 * np.ones(399))
    write("mostly-silent", np.r_[np.zeros(150_000), 0.1 * np.random.default_rng(0).standard_normal(10_000)])
    return tmp_path


def test_noises_that_are_none_are_passed_over_and_listed(mixed, speech, caplog):
    corruptor, starts = Corruptor("noise:snr_db=3", noise=AudioSource.from_path(mixed)), set()
    for index in range(60):
        drawn = corruptor.draw(f"utt-{index}", len(speech))
        assert drawn["noise"]["names"] == ["mostly-silent.wav"]
        added = corruptor.apply(speech, drawn) - speech
        assert db(speech, added) == pytest.approx(3, abs=0.02)
        starts |= set(drawn["noise"]["starts"])
    assert 150_000 in starts  # where the part was silent, it begins with the next sound
    assert set(corruptor.recordings.noise.skipped) == {"silent.wav", "below-16-bit.wav", "shorter-than-a-frame.wav"}
    assert caplog.text.count("it is silent") == 2 and caplog.text.count("less than 25 ms") == 1


def test_nothing_to_draw_from_is_said(mixed, speech):
    corruptor = Corruptor("noise:snr_db=3", noise=AudioSource.from_path(mixed / "silent.wav"))
    with pytest.raises(ValueError, match=r"none can be used; first: 'silent.wav' .*it is silent"):
        corrupt_utterance(speech, corruptor, "utt")


def test_a_noise_that_is_cut_short_is_refused(tmp_path, speech):
    noise = np.random.default_rng(0).standard_normal(3 * RATE_HZ) / 8
    soundfile.write(tmp_path / "a.mp3", noise, RATE_HZ)
    whole = (tmp_path / "a.mp3").read_bytes()
    (tmp_path / "a.mp3").write_bytes(whole[: len(whole) * 6 // 10])
    corruptor = Corruptor("noise:snr_db=3", noise=AudioSource.from_path(tmp_path))
    with pytest.raises(ValueError, match=r"a\.mp3 is cut short"):
        corrupt_utterance(speech, corruptor, "utt")


def test_rooms_are_read_from_a_path_in_the_condition(library, speech):
    corruptor = Corruptor(f"reverb:rt60_s=0.6,rir={library / 'rir'}")
    assert isinstance(corruptor.recordings.rir, RIRSource)
    assert corruptor.draw("utt", len(speech))["rir"]["name"] == "room0.6.wav"
