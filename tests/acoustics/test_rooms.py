"""Impulse responses: direct path, reverberation time, choice of rooms."""

import json
from types import SimpleNamespace

import numpy as np
import pytest
import soundfile

from robustdistiller.acoustics import (
    AudioSource,
    Corruptor,
    RIRSource,
    corrupt_utterance,
    direct_path_index,
    measure_rt60_s,
    rooms,
)

RT60S = (0.2, 0.3, 0.45, 0.6, 0.8)


@pytest.mark.parametrize("rt60_s", [0.15, 0.3, 0.6, 1.2, 2.0])
@pytest.mark.parametrize("noise_floor", [0, 1e-4, 1e-3])
def test_reverberation_time_of_responses_that_decay_at_a_known_rate(rt60_s, noise_floor, make_room):
    room = make_room(rt60_s, seed=3)
    room = room + 0.1 * noise_floor * np.random.default_rng(0).standard_normal(len(room))
    assert measure_rt60_s(room) == pytest.approx(rt60_s, rel=0.05)
    assert measure_rt60_s(room, 8000) == pytest.approx(2 * rt60_s, rel=0.05)


def test_reverberation_time_of_what_hardly_decays_is_unknown():
    assert measure_rt60_s(np.random.default_rng(0).standard_normal(8000)) is None
    assert measure_rt60_s(np.ones(10)) is None


def test_direct_path_is_found_before_a_stronger_reflection():
    response = np.zeros(1000)
    response[[100, 300, 500]] = [0.4, -1.0, 0.3]
    assert direct_path_index(response) == 100
    assert int(np.argmax(np.abs(response))) == 300
    response[97:100] = [0.02, -0.05, 0.1]  # the rising edge of a band-limited direct sound
    assert direct_path_index(response) == 100
    with pytest.raises(ValueError, match="silent"):
        direct_path_index(np.zeros(10))


def test_every_channel_is_a_response_aligned_to_its_own_direct_path(sources):
    rir = sources["rir"]
    first, second = rir.read("two-channels.wav", 0), rir.read("two-channels.wav", 1)
    for response in (first, second):
        assert direct_path_index(response) == rir.lead == 40
    assert len(first) - len(second) == 380  # the file gives both the same length
    with pytest.raises(ValueError, match="2 channels"):
        rir.read("two-channels.wav", 2)


def test_rooms_are_chosen_by_their_measured_time(sources):
    rir = sources["rir"]
    assert {name for name, _ in rir.select(0.46)} == {"room0.45.wav"}
    assert set(rir.select(0.3)) == {("room0.3.wav", 0), ("two-channels.wav", 0), ("two-channels.wav", 1)}
    assert {name for name, _ in rir.select(0.25, 0.5)} == {"room0.3.wav", "two-channels.wav", "room0.45.wav"}
    with pytest.raises(ValueError, match=r"no impulse response with rt60_s=1..2 among 7"):
        rir.select(1, 2)
    drawn = Corruptor("reverb:rt60_s=0.4..0.65", rir=rir)
    names = {drawn.draw(f"utt-{n}", 100)["rir"]["name"] for n in range(40)}
    assert names == {"room0.45.wav", "room0.6.wav"}
    with pytest.raises(ValueError, match=r"noise:snr_db=5,noise=white,side=test: side belongs to trials"):
        Corruptor("noise:snr_db=5,noise=white,side=test")
    with pytest.raises(ValueError, match=r"no impulse response within 15% of rt60_s=1.5 among 7; .*0\.2, .*0\.8"):
        rir.select(1.5)
    with pytest.raises(ValueError, match=r"rt60_s=1.5"):
        Corruptor("reverb:rt60_s=1.5", rir=rir)


def test_measured_times_are_remembered_until_the_file_changes(tmp_path, monkeypatch, make_room):
    folder, cache = tmp_path / "rir", tmp_path / "times"
    folder.mkdir()
    for rt60_s in RT60S:
        soundfile.write(folder / f"{rt60_s}.wav", make_room(rt60_s), 16000, subtype="FLOAT")
    calls = SimpleNamespace(count=0)

    def counted(*arguments):
        calls.count += 1
        return measure_rt60_s(*arguments)

    monkeypatch.setattr(rooms, "measure_rt60_s", counted)
    first = RIRSource.from_path(folder, cache_dir=cache).rt60s()
    assert calls.count == len(RT60S)
    assert RIRSource.from_path(folder, cache_dir=cache).rt60s() == first
    assert calls.count == len(RT60S)
    soundfile.write(folder / "0.2.wav", make_room(0.5), 16000, subtype="FLOAT")
    assert RIRSource.from_path(folder, cache_dir=cache).rt60s()["0.2.wav", 0] == pytest.approx(0.5, rel=0.05)
    assert calls.count == len(RT60S) + 1
    (cache_file,) = cache.iterdir()
    assert len(json.loads(cache_file.read_text())) == len(RT60S)
    cache_file.write_text("{broken")
    assert len(RIRSource.from_path(folder, cache_dir=cache).rt60s()) == len(RT60S)


def test_an_unwritable_cache_is_only_slower(tmp_path, sources, caplog):
    (tmp_path / "file").touch()
    rir = RIRSource(sources["rir"].source, cache_dir=tmp_path / "file" / "below")
    assert len(rir.rt60s()) == 7
    assert "measured again next time" in caplog.text


def test_a_dead_microphone_of_an_array_is_passed_over_and_told(tmp_path, caplog):
    taps = np.zeros((8000, 3))
    taps[100:, (0, 2)] = (0.5 * 0.999 ** np.arange(7900) * np.random.default_rng(0).standard_normal(7900))[:, None]
    soundfile.write(tmp_path / "array.wav", taps, 16000, subtype="FLOAT")
    rirs = RIRSource.from_path(tmp_path, cache_dir=tmp_path / "cache")
    rng = np.random.default_rng(0)
    assert {rirs.pick(rng) for _ in range(50)} == {("array.wav", 0), ("array.wav", 2)}
    assert caplog.text.count("channel 1 of response 'array.wav'") == 1 and "silent" in caplog.text
    rt60s = rirs.rt60s()
    assert rt60s["array.wav", 1] is None and rt60s["array.wav", 0] == pytest.approx(0.43, abs=0.05)
    assert {rirs.pick(rng, 0.1, 1.0) for _ in range(50)} == {("array.wav", 0), ("array.wav", 2)}


def test_nothing_but_silent_responses_is_refused_by_name(tmp_path):
    soundfile.write(tmp_path / "dead.wav", np.zeros(5000), 16000)
    rirs = RIRSource.from_path(tmp_path, cache_dir=tmp_path / "cache")
    with pytest.raises(ValueError, match=r"all are silent, e\.g\. channel 0 of .*dead\.wav"):
        rirs.pick(np.random.default_rng(0))
    with pytest.raises(ValueError, match=r"dead\.wav .*silent; remove it"):  # a manifest may still name it
        rirs.read("dead.wav")


@pytest.mark.parametrize("file_hz", [8000, 44100, 48000])
@pytest.mark.parametrize("level", ["file", "direct", "rms"])
def test_gain_does_not_depend_on_the_rate_of_a_response(tmp_path, file_hz, level):
    """One tap of 0.8 is a gain of 0.8 at any rate: speech below the limits of both rates comes out so."""
    taps = np.zeros(file_hz // 10)
    taps[file_hz // 50] = 0.8
    soundfile.write(tmp_path / "room.wav", taps, file_hz, subtype="FLOAT")
    time_s = np.arange(16000) / 16000
    wave = sum(np.sin(2 * np.pi * hz * time_s) for hz in (300, 800, 1700, 2600)).astype(np.float32)
    corruptor = Corruptor(f"reverb:reverb_level={level}", rir=RIRSource.from_path(tmp_path))
    heard = corrupt_utterance(wave, corruptor, "a")
    # The peak of an impulse without what the resampler's slope takes away is 4 % lower than its gain.
    expected, tolerance = {"file": (0.8, 0.01), "rms": (1, 0.01), "direct": (1, 0.06)}[level]
    gain = np.std(heard[2000:-2000]) / np.std(wave[2000:-2000])
    assert gain == pytest.approx(expected, rel=tolerance)


@pytest.mark.parametrize("rt60", [(), (0.05, 9.0)])
def test_rooms_are_drawn_by_weight(library, tmp_path, rt60):
    plain = RIRSource.from_path(library / "rir", cache_dir=tmp_path)
    names = plain.source.names
    source = AudioSource(plain.source.pieces, weights=[9.0] + [1.0 / (len(names) - 1)] * (len(names) - 1))
    weighted, rng = RIRSource(source, tmp_path), np.random.default_rng(0)
    usable = {name for name, _ in weighted.select(*rt60)} if rt60 else set(names)
    assert names[0] in usable and len(usable) > 1
    found = [weighted.pick(rng, *rt60) for _ in range(1000)]
    assert [name for name, _ in found].count(names[0]) >= 860
    assert {name for name, _ in found} <= usable
