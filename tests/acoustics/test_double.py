"""Mode double of the policy, views, and what the new operations do inside a batch."""

import collections
import json
import math

import numpy as np
import pytest
import torch

from robustdistiller.acoustics import (
    CorruptionParameters,
    CorruptionPolicy,
    Corruptor,
    NoiseParameters,
    corrupt,
    corrupt_utterance,
    pitch_shift,
)
from robustdistiller.acoustics.apply import _corrupt_together
from robustdistiller.acoustics.band import hz_to_mel

RATE_HZ = 16000
DOUBLE = CorruptionPolicy(mode="double", snr_db=(10, 19))
NO_NOISE = {"file_noise_weight": 0.0, "white_noise_weight": 0.0}
ONLY = {
    "pitch_shift": {"reverb_weight": 0.0, "band_reject_weight": 0.0, "no_distortion_weight": 0.0},
    "band_reject": {"reverb_weight": 0.0, "pitch_shift_weight": 0.0, "no_distortion_weight": 0.0},
}


def together(waveforms, lengths, batch):
    """The path of accelerators, on the CPU."""
    return _corrupt_together(waveforms, batch)


def plans(policy, count=8000, step=None):
    generator = np.random.default_rng(3)
    return [policy.plan(generator, step) for _ in range(count)]


def apply_batch(corruptor, utterances, padding=0.0, apply=corrupt):
    lengths = torch.tensor([len(one) for one in utterances.values()])
    waveforms = torch.full((len(utterances), int(lengths.max()) + 500), padding)
    for row, one in zip(waveforms, utterances.values()):
        row[: len(one)] = torch.from_numpy(one)
    parameters = [corruptor.draw(name, len(one)) for name, one in utterances.items()]
    batch = corruptor.prepare(parameters, lengths.tolist())
    return waveforms, lengths, apply(waveforms, lengths, batch), batch


def test_noise_and_distortion_are_drawn_uniformly_and_independently():
    drawn = plans(DOUBLE, 16000)
    noises = collections.Counter(plan.noise_kind for plan in drawn)
    shares = {"file": 0.5, "white": 0.25, None: 0.25}  # MUSAN and WHAM! are both files
    assert {kind: pytest.approx(count / 16000, abs=0.012) for kind, count in noises.items()} == shares
    joint = collections.Counter((plan.noise_kind, plan.operation.removeprefix("noise+")) for plan in drawn)
    assert len(joint) == 12
    for (kind, _), count in joint.items():
        assert count / 16000 == pytest.approx(shares[kind] / 4, abs=0.01)
    noisy = [plan for plan in drawn if plan.has_noise]
    snrs = collections.Counter(plan.snr_db for plan in noisy)
    assert set(snrs) == set(map(float, range(10, 20)))
    assert max(snrs.values()) < 1.15 * len(noisy) / 10
    assert all(plan.snr_db is None for plan in drawn if not plan.has_noise)


def test_pitch_and_band_are_drawn_from_their_ranges():
    drawn = plans(DOUBLE)
    cents = [plan.pitch_cents for plan in drawn if plan.pitch_cents is not None]
    assert all("pitch_shift" in plan.operation for plan in drawn if plan.pitch_cents is not None)
    assert -500 <= min(cents) < -480
    assert 480 < max(cents) <= 500
    assert np.std(cents) == pytest.approx(1000 / math.sqrt(12), rel=0.04)
    bands = [[hz_to_mel(edge) for edge in plan.band_hz] for plan in drawn if plan.band_hz is not None]
    widths = [high - low for low, high in bands]
    assert -0.2 < min(widths) < 3
    assert 147 < max(widths) < 150.2
    assert np.mean(widths) == pytest.approx(75, rel=0.05)
    assert np.mean(bands) == pytest.approx(hz_to_mel(8000) / 2, rel=0.04)
    assert all(0 <= plan.band_hz[0] <= plan.band_hz[1] <= 8000 for plan in drawn if plan.band_hz is not None)


def test_every_option_of_the_mode_changes_what_is_planned():
    base = {"mode": "double", "babble_weight": 0.5, "curriculum_steps": 20}
    reference = plans(CorruptionPolicy(**base), 400, step=10)
    changes = {
        "snr_db": (10, 19),
        "talkers": (2, 3),
        "reverb_level": "direct",
        "curriculum_steps": 10,
        "mode": "single",
        "file_noise_weight": 1.0,
        "white_noise_weight": 2.0,
        "babble_weight": 1.0,
        "no_noise_weight": 2.0,
        "reverb_weight": 2.0,
        "pitch_shift_weight": 2.0,
        "band_reject_weight": 2.0,
        "no_distortion_weight": 2.0,
        "pitch_cents": (-100, 100),
        "band_width_mel": (50, 100),
        "band_range_hz": (300, 3000),
    }
    assert set(changes) == set(CorruptionPolicy(**base).to_dict())
    for option, value in changes.items():
        if option == "mode":
            other = CorruptionPolicy(curriculum_steps=20)
        else:
            other = CorruptionPolicy(**{**base, option: value})
        assert plans(other, 400, step=10) != reference, option


def test_curriculum_slides_the_snr_and_brings_in_every_distortion():
    policy = CorruptionPolicy(mode="double", snr_db=(0, 20), curriculum_steps=100)
    for step, lowest, share in [(0, 20, 0.0), (50, 10, 0.375), (100, 0, 0.75), (None, 0, 0.75)]:
        drawn = plans(policy, 4000, step)
        assert min(plan.snr_db for plan in drawn if plan.has_noise) == lowest
        distorted = sum(plan.operation not in ("clean", "noise") for plan in drawn) / 4000
        assert distorted == pytest.approx(share, abs=0.03)
        assert sum(plan.has_noise for plan in drawn) / 4000 == pytest.approx(0.75, abs=0.03)


def test_what_is_needed_follows_the_weights():
    def needs(**options):
        policy = CorruptionPolicy(mode="double", **options)
        return policy.has_noise, policy.needs_noise_files, policy.needs_speech, policy.needs_rirs

    assert needs() == (True, True, False, True)
    assert needs(file_noise_weight=0.0) == (True, False, False, True)
    assert needs(babble_weight=1.0, reverb_weight=0.0) == (True, True, True, False)
    assert needs(**NO_NOISE) == (False, False, False, True)
    without = {**NO_NOISE, "reverb_weight": 0.0}
    corruptor = Corruptor(CorruptionPolicy(mode="double", **without))
    drawn = {corruptor.draw(f"utt-{index}", 100).operation for index in range(100)}
    assert drawn == {"clean", "pitch_shift", "band_reject"}


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"mode": "triple"}, r"mode must be one of single, double, found 'triple'"),
        (
            {"mode": "double", "white_noise_probability": 0.5},
            r"white_noise_probability belongs to mode 'single' and has",
        ),
        ({"pitch_cents": [-100, 100]}, r"pitch_cents belongs to mode 'double' and has no effect in mode 'single'"),
        ({"mode": "double", "reverb_weight": -1}, r"reverb_weight must be between 0"),
        ({"mode": "double", **NO_NOISE, "no_noise_weight": 0}, r"one of file_noise_weight, .* must be above 0"),
        ({"mode": "double", **ONLY["pitch_shift"], "pitch_shift_weight": 0}, r"one of reverb_weight, .* above 0"),
        ({"mode": "double", "pitch_cents": [-1300, 0]}, r"pitch_cents must be between -1200 and 1200"),
        ({"mode": "double", "pitch_cents": [5, -5]}, r"pitch_cents must be \(lowest, highest\)"),
        ({"mode": "double", "band_width_mel": [0, 2000]}, r"more than half of the 2840 mel of band_range_hz"),
        ({"mode": "double", "band_range_hz": [0, 100]}, r"more than half of the"),
        (
            {"mode": "double", "reverb_wieght": 1},
            r"unknown key 'corruption.reverb_wieght'.*did you mean 'reverb_weight'",
        ),
    ],
)
def test_mistakes_are_refused(values, message):
    with pytest.raises(ValueError, match=message):
        CorruptionPolicy.from_dict(values)


def test_bands_beyond_the_sampling_rate_are_refused():
    with pytest.raises(ValueError, match=r"band_range_hz must end at half the sampling rate, 4000 Hz, or below"):
        Corruptor(CorruptionPolicy(mode="double", **NO_NOISE, **ONLY["band_reject"]), sample_rate_hz=8000)


def test_dicts_read_back_and_a_single_mode_policy_keeps_its_name_in_records():
    for policy in (DOUBLE, CorruptionPolicy(snr_db=(3, 9))):
        assert CorruptionPolicy.from_dict(json.loads(json.dumps(policy.to_dict()))) == policy
    assert "mode" not in CorruptionPolicy().to_dict()
    assert DOUBLE.to_dict()["mode"] == "double"
    assert not [key for key in DOUBLE.to_dict() if key.endswith("_probability")]


@pytest.mark.parametrize("apply", [corrupt, together])
def test_a_mixed_batch_is_right_row_by_row(sources, utterances, apply):
    """All operations side by side: SNR against the distorted speech, padding out of it, rows as if alone."""
    utterances = {f"{name}/{copy}": one[:12000] for copy in range(3) for name, one in utterances.items()}
    corruptor = Corruptor(DOUBLE, seed=1, **sources)
    waveforms, lengths, out, batch = apply_batch(corruptor, utterances, apply=apply)
    assert {one.operation.removeprefix("noise+") for one in batch.parameters} == {
        "clean",
        "noise",
        "reverb",
        "pitch_shift",
        "band_reject",
    }
    assert torch.equal(apply_batch(corruptor, utterances, padding=math.nan, apply=apply)[2], out)
    for row, (one, n) in enumerate(zip(batch.parameters, lengths.tolist())):
        assert torch.isfinite(out[row]).all()
        assert not out[row, n:].any()
        alone = corruptor.prepare([one], [n])
        single = apply(waveforms[row : row + 1, :n], None, alone)[0]
        if apply is corrupt:
            assert torch.equal(single, out[row, :n])
        else:
            torch.testing.assert_close(single, out[row, :n], atol=2e-6 * float(single.abs().max()), rtol=0)
        if one.noise is None:
            assert batch.snr_db[row] == math.inf
            continue
        assert batch.snr_db[row] == one.snr_db
        values = {key: value for key, value in one.to_dict().items() if key not in ("noise", "snr_db")}
        values["operation"] = one.operation.removeprefix("noise").removeprefix("+") or "clean"
        distorted = corruptor.prepare([CorruptionParameters.from_dict(values)], [n])
        speech = apply(waveforms[row : row + 1, :n], None, distorted)[0].double()
        ratio = speech.square().sum() / (single.double() - speech).square().sum()
        assert 10 * math.log10(float(ratio)) == pytest.approx(one.snr_db, abs=0.02)


def test_accelerator_path_agrees_with_the_cpu(sources, utterances):
    corruptor = Corruptor(DOUBLE, seed=1, **sources)
    _, _, rows, batch = apply_batch(corruptor, utterances)
    assert {one.operation.removeprefix("noise+") for one in batch.parameters} > {"reverb", "pitch_shift", "band_reject"}
    difference = apply_batch(corruptor, utterances, apply=together)[2] - rows
    assert float(difference.abs().max()) < 2e-6 * float(rows.abs().max())


def test_pitch_shift_in_a_batch_is_the_pitch_shift(utterances):
    corruptor = Corruptor(CorruptionPolicy(mode="double", **NO_NOISE, **ONLY["pitch_shift"]))
    waveforms, lengths, out, batch = apply_batch(corruptor, utterances)
    cents = [one.pitch_cents for one in batch.parameters]
    assert len(set(cents)) > 10
    assert torch.equal(out, pitch_shift(waveforms, lengths, cents))


@pytest.mark.parametrize("apply", [corrupt, together])
def test_the_rejected_band_is_gone_and_the_rest_stays(apply):
    noise = np.random.default_rng(0).standard_normal(4 * RATE_HZ).astype(np.float32)
    corruptor = Corruptor(
        CorruptionPolicy(mode="double", **NO_NOISE, **ONLY["band_reject"], band_width_mel=(100, 150)), seed=2
    )
    for index in range(5):
        waveforms, _, out, batch = apply_batch(corruptor, {f"utt-{index}": noise}, apply=apply)
        low, high = batch.parameters[0].band_hz
        window = np.hanning(len(noise))
        before, after = (np.fft.rfft(one[0, : len(noise)].numpy() * window) for one in (waveforms, out))
        hz = np.fft.rfftfreq(len(noise), 1 / RATE_HZ)
        inside, outside = (hz >= low) & (hz <= high), (hz < low - 41) | (hz > high + 41)
        energy = [np.square(np.abs(one[inside])).sum() for one in (before, after)]
        assert 10 * math.log10(energy[0] / energy[1]) > 45  # 60 dB less what the ends of the utterance leak
        error = np.square(np.abs(after - before)[outside]).sum() / np.square(np.abs(before[outside])).sum()
        assert 10 * math.log10(error) < -45  # in amplitude and phase: nothing moved in time
        middle = int(np.argmin(np.abs(hz - (low + high) / 2)))
        assert np.abs(after[middle]) < 0.03 * np.sqrt(np.mean(np.square(np.abs(before))))


@pytest.mark.parametrize("num_samples", [1, 2, 300, 1500])
def test_very_short_utterances(sources, make_speech, num_samples):
    speech = make_speech(num_samples + 3000)[3000:] + np.float32(0.01)
    corruptor = Corruptor(DOUBLE, **sources)
    for apply in (corrupt, together):
        *_, out, _ = apply_batch(corruptor, {f"utt-{index}": speech for index in range(24)}, apply=apply)
        assert torch.isfinite(out).all()


def test_stored_parameters_replay_the_same_bytes(sources, make_speech):
    speech = make_speech(9000)
    corruptor = Corruptor(DOUBLE, seed=3, **sources)
    for index in range(24):
        parameters = corruptor.draw(f"utt-{index}", 9000)
        loaded = CorruptionParameters.from_dict(json.loads(json.dumps(parameters.to_dict())))
        assert loaded == parameters
        replayed = Corruptor(DOUBLE, seed=99, **sources)
        out = corrupt(torch.from_numpy(speech)[None], None, replayed.prepare([loaded], [9000]))
        assert out[0].numpy().tobytes() == corrupt_utterance(speech, corruptor, f"utt-{index}").tobytes()


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"operation": "pitch_shift"}, r"'pitch_shift' needs pitch_cents"),
        ({"operation": "reverb", "rir": {"name": "a"}, "pitch_cents": 5}, r"'reverb' excludes pitch_cents"),
        ({"operation": "band_reject", "band_hz": [200, 100]}, r"band_hz must be \(lowest, highest\)"),
        ({"operation": "band_reject", "band_hz": [200]}, r"band_hz: found \[200\], expected 2 values"),
        ({"operation": "pitch_shift", "pitch_cents": 2000}, r"pitch_cents must be between -1200 and 1200"),
    ],
)
def test_broken_parameters_are_refused(values, message):
    with pytest.raises(ValueError, match=message):
        CorruptionParameters.from_dict(values)


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
    both = [(a, b) for a, b in zip(first, second) if a.noise and b.noise]
    assert len(both) > 60
    assert not [1 for a, b in both if a.noise == b.noise]
    assert abs(np.corrcoef([a.snr_db for a, _ in both], [b.snr_db for _, b in both])[0, 1]) < 0.25
    # Whether the one is noisy tells nothing about the other.
    noisy = np.array([[one.noise is not None for one in view] for view in (first, second)])
    assert abs(np.corrcoef(noisy)[0, 1]) < 0.2
    rooms = [(a.rir, b.rir) for a, b in zip(first, second) if a.rir and b.rir]
    assert sum(a == b for a, b in rooms) < 0.4 * len(rooms)
    with pytest.raises(ValueError, match="view must be 0, 1"):
        corruptor.draw("utt", 16000, view=-1)


def test_snr_of_a_batch_is_infinite_without_noise_and_moves_with_it(tmp_path, make_speech):
    corruptor = Corruptor("noise:snr_db=-3,noise=white")
    noisy = corruptor.draw("utt", 4000)
    batch = corruptor.prepare([noisy, CorruptionParameters()], [4000, 3000])
    assert batch.snr_db.tolist() == [-3.0, math.inf]
    assert batch.snr_db.dtype == torch.float32
    assert batch.to("meta").snr_db.device.type == "meta"
    assert corruptor.prepare([], []).snr_db.shape == (0,)


def test_snr_is_infinite_where_the_noise_recording_is_silent(tmp_path):
    import soundfile

    from robustdistiller.acoustics import AudioSource

    soundfile.write(tmp_path / "dead.wav", np.zeros(8000), RATE_HZ)
    policy = CorruptionPolicy(0, 1, 0, 0, white_noise_probability=0.0)
    corruptor = Corruptor(policy, noise=AudioSource.from_path(tmp_path))
    parameters = [corruptor.draw("utt", 4000), CorruptionParameters("noise", 5.0, NoiseParameters("white", seed=1))]
    assert corruptor.prepare(parameters, [4000, 4000]).snr_db.tolist() == [math.inf, 5.0]
