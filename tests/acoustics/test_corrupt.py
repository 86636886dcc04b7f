"""What corruption does, measured on what comes out: ratios, alignment, reverberation, levels, padding."""

import json
import math

import numpy as np
import pytest
import torch

from robustdistiller.acoustics import (
    AudioSource,
    Condition,
    CorruptionParameters,
    CorruptionPolicy,
    Corruptor,
    NoiseParameters,
    RIRParameters,
    RIRSource,
    colored_noise,
    corrupt,
    corrupt_utterance,
    measure_rt60_s,
)
from robustdistiller.acoustics.apply import _corrupt_together
from robustdistiller.acoustics.synthesis import TABLE_SAMPLES, stretches_of_white_noise

RATE_HZ = 16000


def padded(utterances, value=0.0):
    lengths = torch.tensor([len(one) for one in utterances.values()])
    batch = torch.full((len(utterances), int(lengths.max()) + 777), value)
    for row, one in zip(batch, utterances.values()):
        row[: len(one)] = torch.from_numpy(one)
    return batch, lengths


def corrupted_batch(corruptor, utterances, padding=0.0, apply=corrupt):
    waveforms, lengths = padded(utterances, padding)
    parameters = [corruptor.draw(name, len(one)) for name, one in utterances.items()]
    return waveforms, lengths, apply(waveforms, lengths, corruptor.prepare(parameters, lengths.tolist())), parameters


def apply_together(waveforms, lengths, batch):
    """The path of accelerators, on the CPU."""
    return _corrupt_together(waveforms, batch)


def ratio_db(signal, noise):
    return 10 * math.log10(float(signal.double().square().sum() / noise.double().square().sum()))


@pytest.mark.parametrize("apply", [corrupt, apply_together])
@pytest.mark.parametrize("noise", ["white", "pink", "brown", "babble", None])
@pytest.mark.parametrize("snr_db", [-5, 0, 20])
def test_snr_is_what_was_asked_for_in_a_padded_batch(sources, utterances, noise, snr_db, apply):
    corruptor = Corruptor(Condition("noise", snr_db=snr_db, noise=noise), **sources)
    waveforms, lengths, noisy, _ = corrupted_batch(corruptor, utterances, apply=apply)
    measured = [ratio_db(clean[:n], (out - clean)[:n]) for clean, out, n in zip(waveforms, noisy, lengths, strict=True)]
    np.testing.assert_allclose(measured, snr_db, atol=0.02)


def test_the_measurement_would_notice_an_snr_over_the_padded_row(sources, make_speech):
    utterances = {"short": make_speech(4000), "long": make_speech(64000)}
    waveforms, lengths, noisy, _ = corrupted_batch(Corruptor("noise:snr_db=10,noise=white"), utterances)
    clean, added, length = waveforms[0], (noisy - waveforms)[0], int(lengths[0])
    # The same noise continued over the padding, at a gain from the energies of the whole row, misses by 12 dB.
    row_noise = torch.randn(len(clean), generator=torch.Generator().manual_seed(0))
    row_noise *= (clean.square().mean() / row_noise.square().mean() / 10).sqrt()
    assert abs(ratio_db(clean[:length], added[:length]) - 10) < 0.1
    assert abs(ratio_db(clean[:length], row_noise[:length]) - 10) > 5


@pytest.mark.parametrize("apply", [corrupt, apply_together])
def test_noise_plus_reverb_refers_to_the_reverberant_speech(sources, utterances, apply):
    both = Corruptor("noise+reverb:snr_db=7,rt60_s=0.6", **sources)
    _, lengths, noisy, parameters = corrupted_batch(both, utterances, apply=apply)
    _, _, reverberant, same_rooms = corrupted_batch(Corruptor("reverb:rt60_s=0.6", **sources), utterances, apply=apply)
    assert [one.rir for one in parameters] == [one.rir for one in same_rooms]
    for wet, out, n in zip(reverberant, noisy, lengths, strict=True):
        assert abs(ratio_db(wet[:n], (out - wet)[:n]) - 7) < 0.02
    _, _, only_noise, same_noise = corrupted_batch(Corruptor("noise:snr_db=7", **sources), utterances)
    assert [one.noise for one in parameters] == [one.noise for one in same_noise]
    assert not torch.equal(only_noise, noisy)


@pytest.mark.parametrize("apply", [corrupt, apply_together])
def test_padding_takes_no_part_and_comes_out_zero(sources, utterances, apply):
    corruptor = Corruptor(CorruptionPolicy(), seed=5, **sources)
    _, lengths, reference, parameters = corrupted_batch(corruptor, utterances, apply=apply)
    assert {one.operation for one in parameters} == {"clean", "noise", "reverb", "noise+reverb"}
    for dirt in (5.0, math.nan):
        assert torch.equal(corrupted_batch(corruptor, utterances, padding=dirt, apply=apply)[2], reference)
    for row, n in zip(reference, lengths, strict=True):
        assert not row[n:].any()
        assert row[:n].any()


def test_snr_and_operation_vary_within_a_batch(sources, utterances):
    corruptor = Corruptor(CorruptionPolicy(), seed=5, **sources)
    *_, parameters = corrupted_batch(corruptor, utterances)
    assert len({one.snr_db for one in parameters}) > 4
    assert len({one.operation for one in parameters}) == 4


def test_clean_changes_nothing(utterances):
    waveforms, _, out, _ = corrupted_batch(Corruptor("clean"), utterances)
    assert torch.equal(out, waveforms)
    assert out.data_ptr() != waveforms.data_ptr()


@pytest.mark.parametrize("apply", [corrupt, apply_together])
@pytest.mark.parametrize("level", ["rms", "direct", "file"])
def test_reverberation_is_aligned_and_its_level_is_as_documented(sources, utterances, level, apply):
    corruptor = Corruptor(Condition("reverb", reverb_level=level), **sources)
    waveforms, lengths, wet, parameters = corrupted_batch(corruptor, utterances, apply=apply)
    assert len({one.rir for one in parameters}) > 3
    rir = sources["rir"]
    for dry, out, n, one in zip(waveforms.numpy(), wet.numpy(), lengths.tolist(), parameters, strict=True):
        response = rir.read(one.rir.name, one.rir.channel).astype(np.float64)
        full = np.convolve(dry[:n], response)[rir.lead : rir.lead + n]  # computed the plain way
        expected = full if level == "file" else full / response[rir.lead]
        if level == "rms":
            expected *= np.sqrt(np.sum(dry[:n] ** 2) / np.sum(expected**2))
            assert np.sum(out**2) == pytest.approx(np.sum(dry[:n] ** 2), rel=1e-4)
        np.testing.assert_allclose(out[:n], expected, atol=2e-6 * np.abs(expected).max())
        # Direct sound at lag 0: the strongest correlation of wet with dry.
        spectrum = np.fft.rfft(out[:n], 2 * n) * np.fft.rfft(dry[:n], 2 * n).conj()
        assert int(np.argmax(np.abs(np.fft.irfft(spectrum, 2 * n)))) == 0


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


def test_white_noise_of_training_is_white_gaussian_and_new_for_every_utterance(make_speech):
    corruptor = Corruptor(CorruptionPolicy(0, 1, 0, 0, white_noise_probability=1.0), seed=-3)
    ids = [f"utt-{index}" for index in range(20)]
    parameters = [corruptor.draw(name, 40_000) for name in ids]
    assert len({one.noise.starts for one in parameters}) == 20
    assert {len(one.noise.starts) for one in parameters} == {2} and not any(one.noise.names for one in parameters)
    stored = [CorruptionParameters.from_dict(json.loads(json.dumps(one.to_dict()))) for one in parameters]
    other = Corruptor(CorruptionPolicy(0, 1, 0, 0, white_noise_probability=1.0), seed=8)
    noise = other.prepare(stored, [40_000] * 20).noise.double()
    assert torch.equal(noise, corruptor.prepare(parameters, [40_000] * 20).noise.double())
    assert noise.pow(4).mean() == pytest.approx(3, abs=0.05) and noise.pow(3).mean() == pytest.approx(0, abs=0.02)
    assert noise.square().mean(dim=1).sub(1).abs().max() < 1e-6
    for lag in (1, 2, 7, 160, 320):  # no sample knows of another
        assert abs((noise[:, lag:] * noise[:, :-lag]).mean()) < 0.005
    between = noise @ noise.T / 40_000 - torch.eye(20)
    assert between.abs().max() < 0.03
    # Of one stretch only, neighbours would now and then hear the same samples again.
    near = stretches_of_white_noise(40_000, 0, (100, 5_000)) * stretches_of_white_noise(40_000, 0, (100, 900_000))
    assert abs(near.mean()) == pytest.approx(1, abs=0.05)
    # Where the long noise ends, it goes on from its beginning.
    end = stretches_of_white_noise(30, 0, (TABLE_SAMPLES - 10,))
    np.testing.assert_array_equal(end[10:], stretches_of_white_noise(20, 0, (0,)))


def test_babble_is_a_sum_of_equally_loud_talkers(sources, library, make_speech):
    corruptor = Corruptor("noise:snr_db=0,noise=babble,talkers=3", **sources)
    parameters = corruptor.draw("utt", 16000)
    assert len(set(parameters.noise.names)) == 3
    talkers = [sources["speech"].read(*part, 16000) for part in zip(parameters.noise.names, parameters.noise.starts)]
    expected = sum(talker / np.sqrt(np.mean(talker**2)) for talker in talkers)
    speech = torch.from_numpy(make_speech(16000, 9))
    added = (corrupt_utterance(speech, corruptor, "utt") - speech).numpy()
    np.testing.assert_allclose(added / added.std(), expected / expected.std(), atol=1e-3)
    many = Corruptor("noise:snr_db=0,noise=babble,talkers=20", **sources).draw("utt", 16000)
    assert len(many.noise.names) == 20  # more than there are recordings


def test_long_noise_is_cropped_anywhere_and_short_noise_repeated(library, make_speech):
    corruptor = Corruptor("noise:snr_db=0", noise=AudioSource.from_path(library / "noise" / "long.wav"))
    starts = [corruptor.draw(f"utt-{index}", 16000).noise.starts[0] for index in range(300)]
    assert 0 <= min(starts) < 1000
    assert 47000 < max(starts) <= 48000
    short = Corruptor("noise:snr_db=0", noise=AudioSource.from_path(library / "noise" / "short.flac"))
    speech = torch.from_numpy(make_speech(16000))
    added = corrupt_utterance(speech, short, "utt") - speech
    np.testing.assert_allclose(added[4800:9600], added[:4800], atol=1e-6)


def test_silent_speech_stays_silent(sources):
    silence = torch.zeros(16000)
    for apply in (corrupt, apply_together):
        for text in ("noise:snr_db=0,noise=white", "reverb", "noise+reverb:snr_db=0"):
            *_, out, _ = corrupted_batch(Corruptor(text, **sources), {"a": silence.numpy()}, apply=apply)
            assert not out.any()


def write(path, samples):
    import soundfile

    soundfile.write(path, samples, RATE_HZ, subtype="FLOAT")
    return AudioSource.from_path(path)


def test_silent_noise_is_skipped_or_refused(tmp_path, caplog, make_speech):
    speech = make_speech(16000)
    mostly_silent = np.zeros(160000, np.float32)
    mostly_silent[150000:] = 0.1
    corruptor = Corruptor("noise:snr_db=3", noise=write(tmp_path / "mostly.wav", mostly_silent))
    for index in range(5):
        added = corrupt_utterance(speech, corruptor, f"utt-{index}") - speech
        assert 10 * np.log10(np.sum(speech**2) / np.sum(added**2)) == pytest.approx(3, abs=0.02)
    dead = write(tmp_path / "dead.wav", np.zeros(32000))
    with pytest.raises(ValueError, match=r"dead\.wav.* is silent; remove it"):
        corrupt_utterance(speech, Corruptor("noise:snr_db=3", noise=dead), "utt")
    policy = CorruptionPolicy(0, 1, 0, 0, white_noise_probability=0)
    training = Corruptor(policy, noise=dead)
    for _ in range(2):
        np.testing.assert_array_equal(corrupt_utterance(speech, training, "utt"), speech)
    assert caplog.text.count("is silent") == 1


@pytest.mark.parametrize("num_samples", [1, 2, 39, 800])
@pytest.mark.parametrize("text", ["noise:snr_db=3,noise=brown", "noise+reverb:snr_db=3", "noise:snr_db=3,noise=babble"])
def test_very_short_utterances(sources, make_speech, num_samples, text):
    speech = make_speech(num_samples + 3000)[3000:] + np.float32(0.01)
    corruptor = Corruptor(text, **sources)
    for apply in (corrupt, apply_together):
        *_, out, _ = corrupted_batch(corruptor, {"utt": speech}, apply=apply)
        assert torch.isfinite(out).all()
        assert out[0, :num_samples].any()


def test_nothing_is_clipped():
    loud = 0.9 * torch.ones(16000)
    assert corrupt_utterance(loud, Corruptor("noise:snr_db=-10,noise=white"), "utt").abs().max() > 5


def test_types_are_kept(utterances, make_speech):
    waveform = make_speech(8000)
    corruptor = Corruptor("noise:snr_db=0,noise=white")
    assert corrupt_utterance(waveform.astype(np.float64), corruptor, "utt").dtype == np.float32
    assert torch.equal(
        corrupt_utterance(torch.from_numpy(waveform), corruptor, "utt"),
        torch.from_numpy(corrupt_utterance(waveform, corruptor, "utt")),
    )
    batch = corruptor.prepare([corruptor.draw("utt", 8000)], [8000])
    half = corrupt(torch.from_numpy(waveform)[None].half(), None, batch)
    assert half.dtype == torch.float16


def test_accelerator_path_agrees_with_the_cpu(sources, utterances):
    corruptor = Corruptor(CorruptionPolicy(), seed=5, **sources)
    _, _, rows, parameters = corrupted_batch(corruptor, utterances)
    _, _, together, _ = corrupted_batch(corruptor, utterances, apply=apply_together)
    assert len({one.rir for one in parameters}) > 4
    assert float((rows - together).abs().max()) < 2e-6 * float(rows.abs().max())


def test_mistakes_are_refused(sources, library):
    with pytest.raises(ValueError, match=r"needs noise files .*noise=PATH \(or white, pink, brown\)"):
        Corruptor("noise:snr_db=0")
    with pytest.raises(ValueError, match="needs room impulse responses"):
        Corruptor(CorruptionPolicy(), noise=sources["noise"])
    with pytest.raises(ValueError, match="needs speech to mix babble from"):
        Corruptor("noise:snr_db=0,noise=babble")
    with pytest.raises(ValueError, match="at 8000 Hz cannot be used at 16000 Hz"):
        Corruptor("noise:snr_db=0", noise=AudioSource.from_path(library / "noise", sample_rate_hz=8000))
    with pytest.raises(FileNotFoundError, match="whitee does not exist"):
        Corruptor("noise:snr_db=0,noise=whitee")
    corruptor = Corruptor("noise:snr_db=0,noise=white")
    for waveform, message in [
        (np.zeros(0), r"'utt-7' must be \(samples,\)"),
        (np.zeros((2, 5)), r"'utt-7' must be \(samples,\) with samples, found \(2, 5\)"),
        (np.array([0.1, np.nan]), r"'utt-7' has NaN"),
    ]:
        with pytest.raises(ValueError, match=message):
            corrupt_utterance(waveform, corruptor, "utt-7")
    with pytest.raises(ValueError, match="'utt-8' has no samples"):
        corruptor.draw("utt-8", 0)
    parameters = corruptor.draw("utt", 100)
    batch = corruptor.prepare([parameters], [100])
    with pytest.raises(ValueError, match="1 parameters were given for 2"):
        corruptor.prepare([parameters], [100, 100])
    with pytest.raises(ValueError, match=r"lengths \[90\] differ .*\[100\]"):
        corrupt(torch.zeros(1, 100), torch.tensor([90]), batch)
    with pytest.raises(ValueError, match=r"lengths \[120\] differ"):
        corrupt(torch.zeros(1, 120), None, batch)
    with pytest.raises(ValueError, match="1 rows of at most 100 samples"):
        corrupt(torch.zeros(2, 100), None, batch)
    with pytest.raises(ValueError, match="floating point"):
        corrupt(torch.zeros(1, 100, dtype=torch.int16), None, batch)
    with pytest.raises(ValueError, match=r"use \.to\(\)"):
        corrupt(torch.zeros(1, 100), None, batch.to("meta"))
    with pytest.raises(ValueError, match="source was given"):
        corruptor.prepare([CorruptionParameters("reverb", rir=RIRParameters("room"))], [100])
    with pytest.raises(ValueError, match="source was given"):
        corruptor.prepare([CorruptionParameters("noise", 0.0, NoiseParameters("file", None, ("a",), (0,)))], [100])


def test_condition_paths_bring_their_own_sources(library):
    text = f"noise+reverb:snr_db=5,rt60_s=0.6,noise={library / 'noise'},rir={library / 'rir'}"
    corruptor = Corruptor(text, seed=4)
    assert isinstance(corruptor.rir, RIRSource)
    described = corruptor.describe()
    assert described["what"] == text
    assert described["seed"] == 4
    assert set(described["sources"]) == {"noise", "rir"}
    assert all(len(digest) == 64 for digest in described["sources"].values())
