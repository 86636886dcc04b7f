"""Manifests of the first version: what it drew is drawn today, and what it replayed sounds as it did."""

from pathlib import Path

import numpy as np
import pytest
import soundfile

from robustdistiller.acoustics import AudioSource, Corruptor, RIRSource
from robustdistiller.eval.conditions.manifest import Manifest, ManifestError, digest_of
from robustdistiller.eval.conditions.replay import ReplayedCorruptor

HERE = Path(__file__).parent / "first_version"
RATE_HZ = 16000
CONDITIONS = {
    "both": "noise+reverb:snr_db=0..20,rt60_s=0.3..0.5",
    "white": "noise:snr_db=5,noise=white",
    "pink": "noise:snr_db=-3.5,noise=pink",
    "babble": "noise:snr_db=10,noise=babble,talkers=3",
    "reverb": "reverb:reverb_level=direct",
}


@pytest.fixture
def sources(tmp_path, monkeypatch):
    """The recordings that the manifests were made with."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    rng = np.random.default_rng(11)
    for folder in ("noise", "rir", "speech"):
        (tmp_path / folder).mkdir()
    for name, length in (("long", 9000), ("short", 700)):
        soundfile.write(tmp_path / "noise" / f"{name}.wav", 0.1 * rng.standard_normal(length), RATE_HZ)
    for rt60_s in (0.3, 0.4, 0.8):
        taps = round(RATE_HZ * rt60_s)
        tail = rng.standard_normal(taps) * 10 ** (-3 * np.arange(taps) / RATE_HZ / rt60_s)
        tail[0] = 8.0
        soundfile.write(tmp_path / "rir" / f"room{rt60_s}.wav", 0.1 * np.concatenate([np.zeros(60), tail]), RATE_HZ)
    for talker in range(4):
        samples = 0.1 * rng.standard_normal(3000 + 500 * talker)
        soundfile.write(tmp_path / "speech" / f"talker{talker}.wav", samples, RATE_HZ)
    return {
        "noise": AudioSource.from_path(tmp_path / "noise"),
        "rir": RIRSource.from_path(tmp_path / "rir"),
        "speech": AudioSource.from_path(tmp_path / "speech"),
    }


@pytest.fixture(scope="module")
def utterances():
    rng = np.random.default_rng(12)
    return {f"utt-{n}": (0.1 * rng.standard_normal(1500 + 400 * n)).astype(np.float32) for n in range(4)}


@pytest.mark.parametrize("name", CONDITIONS)
def test_the_same_is_drawn_and_a_replay_sounds_the_same(sources, utterances, name):
    live = Corruptor(CONDITIONS[name], **sources, seed=7)
    manifest = Manifest.load(HERE / f"{name}.jsonl.gz")
    drawn = {utterance: live.draw(utterance, len(wave)) for utterance, wave in utterances.items()}
    for utterance, one in drawn.items():
        assert {"num_samples": len(utterances[utterance]), **one} == manifest.utterances[utterance]
    assert digest_of(drawn) == manifest.digest  # so that records of both versions are of the same cell
    replayed = ReplayedCorruptor(manifest, Corruptor(CONDITIONS[name], **sources, seed=1), "the old one")
    with np.load(HERE / "heard.npz") as heard:
        assert str(heard[f"digest/{name}"]) == manifest.digest
        for utterance, wave in utterances.items():
            found = replayed.apply(wave, replayed.draw(utterance, len(wave)))[:400]
            before = heard[f"{name}/{utterance}"]
            assert np.abs(found - before).max() < 1e-5 * np.abs(before).max()
    assert "not compared to the bit" in replayed.compare({"utt-0": {"audio": "0"}})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"operation": "noise+rever"}, r"utterance 'utt-0': parameters: unknown effect 'rever'; did you mean 'reverb'"),
        ({"snr": 3}, r"unknown key 'snr' in parameters"),
        ({"operation": "noise+reverb"}, r"operation 'noise\+reverb' needs rir"),
        ({"operation": 3}, r"utterance 'utt-0'"),
    ],
)
def test_a_broken_manifest_is_refused_before_anything_is_heard(sources, change, message):
    manifest = Manifest.load(HERE / "white.jsonl.gz")
    manifest.utterances["utt-0"] |= change
    with pytest.raises(ManifestError, match=message):
        ReplayedCorruptor(manifest, Corruptor(CONDITIONS["white"], **sources))
