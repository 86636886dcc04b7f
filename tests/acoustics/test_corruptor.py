"""Draws and what is made of them: alignment, reverberation time, noises, and what is refused."""

import math

import numpy as np
import pytest
import soundfile
import torch

from robustdistiller.acoustics import (
    AudioSource,
    Condition,
    CorruptionPolicy,
    Corruptor,
    corrupt_utterance,
    measure_rt60_s,
)
from robustdistiller.acoustics.effects.noise import colored_noise

RATE_HZ = 16000


@pytest.mark.parametrize("level", ["rms", "direct", "file"])
def test_reverberation_is_aligned_and_its_level_is_as_documented(sources, utterances, level):
    corruptor, rir, names = Corruptor(Condition("reverb", reverb_level=level), **sources), sources["rir"], set()
    for utterance, dry in utterances.items():
        n, drawn = len(dry), corruptor.draw(utterance, len(dry))["rir"]
        out = corrupt_utterance(dry, corruptor, utterance)
        response = rir.read(drawn["name"], drawn["channel"]).astype(np.float64)
        full = np.convolve(dry, response)[rir.lead : rir.lead + n]  # computed the plain way
        expected = full if level == "file" else full / response[rir.lead]
        if level == "rms":
            expected *= np.sqrt(np.sum(dry**2) / np.sum(expected**2))
            assert np.sum(out**2) == pytest.approx(np.sum(dry**2), rel=1e-4)
        np.testing.assert_allclose(out, expected, atol=2e-6 * np.abs(expected).max())
        # Direct sound at lag 0: the strongest correlation of wet with dry.
        spectrum = np.fft.rfft(out, 2 * n) * np.fft.rfft(dry, 2 * n).conj()
        assert int(np.argmax(np.abs(np.fft.irfft(spectrum, 2 * n)))) == 0
        names.add((drawn["name"], drawn["channel"]))
    assert len(names) > 3


def test_clean_changes_nothing_and_gives_a_copy(utterances):
    wave = utterances["utt-3"]
    heard = corrupt_utterance(wave, Corruptor("clean"), "utt-3")
    assert np.array_equal(heard, wave) and not np.shares_memory(heard, wave)


def test_the_same_noise_and_room_at_every_ratio_alone_and_together(sources):
    both = Corruptor("noise+reverb:snr_db=7,rt60_s=0.6", **sources).draw("utt", 16000)
    assert both["noise"] == Corruptor("noise:snr_db=-3", **sources).draw("utt", 16000)["noise"]
    assert both["noise"] == Corruptor("noise+codec:snr_db=0..20", **sources).draw("utt", 16000)["noise"]
    assert both["rir"] == Corruptor("reverb:rt60_s=0.6", **sources).draw("utt", 16000)["rir"]


def test_without_alignment_the_lag_would_show(sources, make_speech):
    speech = make_speech(16000)
    unaligned = np.convolve(speech, sources["rir"].source.read("room0.6.wav"))[:16000]
    spectrum = np.fft.rfft(unaligned, 32000) * np.fft.rfft(speech, 32000).conj()
    assert int(np.argmax(np.fft.irfft(spectrum, 32000))) == 50


@pytest.mark.parametrize("rt60_s", [0.2, 0.3, 0.45, 0.6, 0.8])
def test_reverberation_time_of_the_applied_response(sources, rt60_s):
    impulse = torch.zeros(2 * RATE_HZ)
    impulse[0] = 1.0
    for index in range(4):
        applied = corrupt_utterance(impulse, Corruptor(f"reverb:rt60_s={rt60_s}", **sources), f"utt-{index}").numpy()
        assert np.argmax(np.abs(applied)) == 0
        assert measure_rt60_s(applied) == pytest.approx(rt60_s, rel=0.15)
        # Independently of the Schroeder fit: how fast the energy of 20 ms frames falls.
        frames = np.log10(np.square(applied[: int(rt60_s * 50) * 320]).reshape(-1, 320).mean(axis=1))[1:-1]
        slope_db_per_s = 10 * np.polyfit(0.02 * np.arange(len(frames)), frames, 1)[0]
        assert -60 / slope_db_per_s == pytest.approx(rt60_s, rel=0.15)


@pytest.mark.parametrize(("color", "db_per_octave"), [("white", 0), ("pink", -3.01), ("brown", -6.02)])
def test_spectral_slope_of_the_added_noise(color, db_per_octave):
    silence = torch.full((10 * RATE_HZ,), 1e-3)
    noisy = corrupt_utterance(silence, Corruptor(f"noise:snr_db=0,noise={color}"), "utt")
    power = (noisy - silence).double().numpy()
    power = np.abs(np.fft.rfft(power)) ** 2
    hz = np.fft.rfftfreq(len(silence), 1 / RATE_HZ)
    octaves = np.array([power[(hz >= low) & (hz < 2 * low)].mean() for low in (62.5, 125, 250, 500, 1000, 2000)])
    slope = np.polyfit(np.arange(6), 10 * np.log10(octaves), 1)[0]
    assert slope == pytest.approx(db_per_octave, abs=0.25)
    below, above = power[(hz > 0) & (hz < 10)].mean(), power[(hz > 10) & (hz < 20)].mean()
    assert abs(10 * math.log10(below / above)) < 2  # flat below 20 Hz, no drift


def test_colored_noise_has_unit_power_for_any_length():
    for color in ("white", "pink", "brown"):
        power = [np.mean(colored_noise(color, 16000, seed) ** 2) for seed in range(30)]
        assert np.mean(power) == pytest.approx(1, abs=0.1)
        assert [len(colored_noise(color, n, 0)) for n in (1, 2, 3, 997)] == [1, 2, 3, 997]
        assert color == "white" or abs(colored_noise(color, 16000, 0).mean()) < 1e-6


def test_babble_is_a_sum_of_equally_loud_talkers(sources, library, make_speech):
    corruptor = Corruptor("noise:snr_db=0,noise=babble,talkers=3", **sources)
    parameters = corruptor.draw("utt", 16000)
    assert len(set(parameters["noise"]["names"])) == 3
    talkers = [
        sources["speech"].read(*part, 16000)
        for part in zip(parameters["noise"]["names"], parameters["noise"]["starts"])
    ]
    expected = sum(talker / np.sqrt(np.mean(talker**2)) for talker in talkers)
    speech = torch.from_numpy(make_speech(16000, 9))
    added = (corrupt_utterance(speech, corruptor, "utt") - speech).numpy()
    np.testing.assert_allclose(added / added.std(), expected / expected.std(), atol=1e-3)
    many = Corruptor("noise:snr_db=0,noise=babble,talkers=20", **sources).draw("utt", 16000)
    assert len(many["noise"]["names"]) == 20  # more than there are recordings


def test_long_noise_is_cropped_anywhere_and_short_noise_repeated(library, make_speech):
    corruptor = Corruptor("noise:snr_db=0", noise=AudioSource.from_path(library / "noise" / "long.wav"))
    starts = [corruptor.draw(f"utt-{index}", 16000)["noise"]["starts"][0] for index in range(300)]
    assert 0 <= min(starts) < 1000
    assert 47000 < max(starts) <= 48000
    short = Corruptor("noise:snr_db=0", noise=AudioSource.from_path(library / "noise" / "short.flac"))
    speech = torch.from_numpy(make_speech(16000))
    added = corrupt_utterance(speech, short, "utt") - speech
    np.testing.assert_allclose(added[4800:9600], added[:4800], atol=1e-6)


def test_nothing_is_clipped():
    loud = 0.9 * torch.ones(16000)
    assert corrupt_utterance(loud, Corruptor("noise:snr_db=-10,noise=white"), "utt").abs().max() > 5


def test_types_are_kept(make_speech):
    waveform = make_speech(8000)
    corruptor = Corruptor("noise:snr_db=0,noise=white")
    assert corrupt_utterance(waveform.astype(np.float64), corruptor, "utt").dtype == np.float32
    from_tensor = corrupt_utterance(torch.from_numpy(waveform), corruptor, "utt")
    assert torch.equal(from_tensor, torch.from_numpy(corrupt_utterance(waveform, corruptor, "utt")))


def test_mistakes_are_refused(sources, library):
    with pytest.raises(ValueError, match=r"needs noise files .*noise=PATH \(or white, pink, brown\)"):
        Corruptor("noise:snr_db=0")
    with pytest.raises(ValueError, match="needs room impulse responses"):
        Corruptor(CorruptionPolicy(), noise=sources["noise"])
    with pytest.raises(ValueError, match="needs speech to mix babble from"):
        Corruptor("noise:snr_db=0,noise=babble")
    with pytest.raises(ValueError, match="needs music and none were given"):
        Corruptor("music")
    with pytest.raises(ValueError, match="at 8000 Hz cannot be used at 16000 Hz"):
        Corruptor("noise:snr_db=0", noise=AudioSource.from_path(library / "noise", sample_rate_hz=8000))
    with pytest.raises(FileNotFoundError, match="whitee does not exist"):
        Corruptor("noise:snr_db=0,noise=whitee")
    corruptor = Corruptor("noise:snr_db=0,noise=white")
    for waveform, message in [
        (np.zeros(0), r"'utt-7' must be \(samples,\)"),
        (np.zeros((2, 5)), r"'utt-7' must be \(samples,\) with samples, found \(2, 5\)"),
        (np.array([0.1, np.nan]), r"'utt-7' has NaN"),
        (torch.tensor([0.1, math.inf]), r"'utt-7' has NaN or infinite"),
    ]:
        with pytest.raises(ValueError, match=message):
            corrupt_utterance(waveform, corruptor, "utt-7")
    with pytest.raises(ValueError, match="'utt-8' has no samples"):
        corruptor.draw("utt-8", 0)
    wave = np.ones(100, np.float32)
    for drawn in (
        {"operation": "reverb", "rir": {"name": "room", "channel": 0, "level": "rms"}},
        {"operation": "noise", "snr_db": 0.0, "noise": {"kind": "file", "names": ["a"], "starts": [0]}},
    ):
        with pytest.raises(ValueError, match="source was given"):
            corruptor.apply(wave, drawn)


def test_condition_paths_bring_their_own_sources(library):
    text = f"noise+reverb:snr_db=5,rt60_s=0.6,noise={library / 'noise'},rir={library / 'rir'}"
    described = Corruptor(text, seed=4).describe()
    assert described["what"] == text
    assert described["seed"] == 4
    assert set(described["sources"]) == {"noise", "rir"}
    assert all(len(digest) == 64 for digest in described["sources"].values())


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("noise:snr_db=5,noise={}/musan", {"noise/a.wav"}),
        ("noise:snr_db=5,noise=babble,talkers=1,speech={}/musan", {"speech/b.wav"}),
        ("music:music={}/musan", {"music/c.wav"}),
        ('noise:snr_db=5,noise="{}/musan,only=music"', {"music/c.wav"}),
        ('noise:snr_db=5,noise="{}/musan,kind=folder"', {"noise/a.wav", "speech/b.wav", "music/c.wav"}),
        ("reverb:rir={}/RIRS_NOISES", {"simulated_rirs/smallroom/Room001/Room001-00001.wav"}),
        ("noise:snr_db=5,noise={}/RIRS_NOISES", {"pointsource_noises/d.wav"}),
    ],
)
def test_a_path_in_a_condition_takes_of_a_corpus_what_serves_it(text, expected, tmp_path):
    """As the same path given beside it: voices are no noise, noises are no rooms."""
    room = "simulated_rirs/smallroom/Room001/Room001-00001.wav"
    files = {"musan": ("noise/a.wav", "speech/b.wav", "music/c.wav"), "RIRS_NOISES": (room, "pointsource_noises/d.wav")}
    for corpus, names in files.items():
        for name in names:
            (tmp_path / corpus / name).parent.mkdir(parents=True)
            soundfile.write(tmp_path / corpus / name, 0.1 * np.random.default_rng(0).standard_normal(1600), RATE_HZ)
    corruptor = Corruptor(text.format(tmp_path))
    (kind,) = corruptor.what.needs
    assert set(corruptor.source(kind).names) == expected


def test_noise_that_is_added_first_is_in_the_room_too(sources):
    """By hand: speech and noise together are what is reverberated, and the ratio is that of the dry speech."""
    wave = np.random.default_rng(0).standard_normal(8000).astype(np.float32)
    both = Corruptor("noise+reverb:snr_db=3,noise=white,noise_added=first", **sources)
    drawn = both.draw("utt-1", len(wave))
    noisy = Corruptor("noise:snr_db=3,noise=white", **sources).apply(wave, {**drawn, "operation": "noise"})
    expected = Corruptor("reverb", **sources).apply(noisy, {"operation": "reverb", "rir": drawn["rir"]})
    np.testing.assert_array_equal(both.apply(wave, drawn), expected)
    assert list(both.what.effects) == ["noise", "reverb"] and Condition.parse(str(both.what)) == both.what
    usual = Corruptor("noise+reverb:snr_db=3,noise=white", **sources)
    assert usual.draw("utt-1", len(wave))["noise"] == {key: drawn["noise"][key] for key in ("kind", "seed")}
    assert not np.array_equal(usual.apply(wave, usual.draw("utt-1", len(wave))), expected)
