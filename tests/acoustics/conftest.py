"""Small recordings and rooms with known properties."""

import numpy as np
import pytest
import soundfile

from robustdistiller.acoustics import AudioSource, RIRSource

RATE_HZ = 16000
RT60S = (0.2, 0.3, 0.45, 0.6, 0.8)


def _make_room(rt60_s, seed=0, delay=50, direct=8.0):
    """A response with an exactly known reverberation time, and its direct path at ``delay``."""
    n = int(RATE_HZ * rt60_s * 1.2)
    tail = np.random.default_rng(seed).standard_normal(n) * 10 ** (-3 * np.arange(n) / RATE_HZ / rt60_s)
    tail[0] = direct
    return (0.1 * np.concatenate([np.zeros(delay), tail])).astype(np.float32)


def _make_speech(num_samples, seed=0):
    """Noise with the rhythm of syllables: pauses included, as in speech."""
    rng = np.random.default_rng(seed)
    envelope = np.clip(np.sin(2 * np.pi * 4 * np.arange(num_samples) / RATE_HZ + rng.uniform(0, 6)), 0, None)
    return (0.1 * envelope * rng.standard_normal(num_samples)).astype(np.float32)


@pytest.fixture(autouse=True)
def private_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@pytest.fixture(scope="session")
def library(tmp_path_factory):
    """Folders noise/ (lengths from 0.3 to 4 s, one stereo at 44.1 kHz, one Ogg), speech/ and rir/."""
    root = tmp_path_factory.mktemp("library")
    for folder in ("noise/deep", "speech", "rir"):
        (root / folder).mkdir(parents=True)
    rng = np.random.default_rng(5)

    def write(name, samples, rate_hz=RATE_HZ, **options):
        soundfile.write(root / name, samples, rate_hz, **options)

    write("noise/long.wav", 0.05 * rng.standard_normal(4 * RATE_HZ))
    write("noise/short.flac", 0.1 * rng.standard_normal(3 * RATE_HZ // 10))
    write("noise/deep/stereo.wav", 0.1 * rng.standard_normal((2 * 44100, 2)), 44100)
    write("noise/deep/lossy.ogg", 0.1 * rng.standard_normal(3 * RATE_HZ))
    for talker in range(8):
        write(f"speech/talker{talker}.wav", _make_speech(RATE_HZ * (1 + talker % 3), talker), subtype="FLOAT")
    for rt60_s in RT60S:
        write(f"rir/room{rt60_s}.wav", _make_room(rt60_s, seed=int(100 * rt60_s)), subtype="FLOAT")
    early, late = _make_room(0.3, 1, delay=20), _make_room(0.3, 2, delay=400)
    both = np.stack([np.pad(early, (0, len(late) - len(early))), late], axis=1)
    write("rir/two-channels.wav", both, subtype="FLOAT")
    return root


@pytest.fixture
def sources(library):
    return {
        "noise": AudioSource.from_path(library / "noise"),
        "rir": RIRSource.from_path(library / "rir"),
        "speech": AudioSource.from_path(library / "speech"),
    }


@pytest.fixture(scope="session")
def utterances():
    """Utterances of different lengths, by id."""
    return {f"utt-{index}": _make_speech(4000 + 3571 * index, 40 + index) for index in range(12)}


@pytest.fixture(scope="session")
def make_room():
    return _make_room


@pytest.fixture(scope="session")
def make_speech():
    return _make_speech
