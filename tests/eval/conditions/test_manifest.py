"""Manifests: saved, replayed to the last bit, refused when anything differs."""

from __future__ import annotations

import gzip
import json
import shutil

import numpy as np
import pytest
import soundfile
from torch.utils.data import DataLoader

from robustdistiller.acoustics import Condition, corrupt_utterance
from robustdistiller.eval import tasks
from robustdistiller.eval.conditions.loader import ConditionLoader
from robustdistiller.eval.conditions.manifest import (
    Manifest,
    ManifestError,
    condition_of,
    find_manifests,
)
from robustdistiller.eval.conditions.replay import ReplayedCorruptor
from robustdistiller.eval.conditions.sources import Sources
from robustdistiller.eval.results.identity import condition_digest
from robustdistiller.eval.run.record_fields import condition_fields

UTTERANCES = {
    f"utt-{n}": (0.1 * np.random.default_rng(n).standard_normal(4000 + n)).astype(np.float32) for n in range(4)
}


def collate(samples):
    return zip(*samples)


def corruptor_for(text, *folders, seed=0):
    condition = Condition.parse(text)
    noise, rir, speech = (*map(str, folders), None, None, None)[:3]
    sources = Sources(*((one,) if one else () for one in (noise, rir, speech)))
    return sources.corruptors([condition], seed)[condition]


def evaluate(corruptor):
    """The corrupted audio of the utterances, and the loader."""
    samples = [(wave, 0, name) for name, wave in UTTERANCES.items()]
    view = ConditionLoader(DataLoader(samples, batch_size=3, collate_fn=collate), corruptor, tasks.get("IC"))
    audio = {name: np.asarray(wave).tobytes() for waves, _, names in view for name, wave in zip(names, waves)}
    return audio, view


def save(path, text, corruptor):
    audio, view = evaluate(corruptor)
    header = {"split": "test", "condition": Condition.parse(text).label, "seed": corruptor.seed, "sources": {}}
    return audio, view, view.manifest(**header).save(path)


@pytest.mark.parametrize(
    "text", ["noise:snr_db=0..20", "noise+reverb:snr_db=5", "noise:snr_db=5,noise=babble", "noise:snr_db=5,noise=pink"]
)
def test_replay_is_bit_identical_whatever_is_drawn_now(text, noise_folder, rir_folder, tmp_path):
    folders = (noise_folder, rir_folder, noise_folder)
    audio, view, path = save(tmp_path / "m.jsonl.gz", text, corruptor_for(text, *folders))
    other = corruptor_for(text, *folders, seed=9)
    assert evaluate(other)[0] != audio  # what this library draws by itself has changed
    replayed, again = evaluate(ReplayedCorruptor(Manifest.load(path), other, path))
    assert replayed == audio
    assert again.manifest_digest() == view.manifest_digest() == Manifest.load(path).digest


def test_what_an_earlier_release_drew_is_a_cell_of_its_own(noise_folder, tmp_path):
    """From the same sources with the same seed, but not what is drawn now: neither number stands for the other."""
    condition, sources = Condition.parse("noise:snr_db=0..20"), Sources(noise=(str(noise_folder),))

    def cell(corruptor):
        found = condition_fields(condition, corruptor, sources)
        return condition_digest(found["condition"], found["sources"], found["corruption_seed"])

    (live,) = sources.corruptors([condition]).values()
    manifest = evaluate(live)[1].manifest(
        split="test", condition=condition.label, sources=sources.describe(condition, live)
    )
    assert cell(ReplayedCorruptor(manifest, live, "new.jsonl.gz")) == cell(live)
    manifest.utterances["utt-1"] = {**manifest.utterances["utt-1"], "snr_db": 3.0}
    assert cell(ReplayedCorruptor(manifest, live, "old.jsonl.gz")) != cell(live)


def test_equal_content_gives_equal_files(noise_folder, tmp_path):
    text = "noise:snr_db=5"
    first = save(tmp_path / "a.jsonl.gz", text, corruptor_for(text, noise_folder))[2]
    second = save(tmp_path / "b.jsonl.gz", text, corruptor_for(text, noise_folder))[2]
    assert first.read_bytes() == second.read_bytes()
    manifest = Manifest.load(first)
    assert condition_of(manifest) == Condition.parse(text)
    assert str(noise_folder) not in gzip.decompress(first.read_bytes()).decode()  # it can be published


def test_a_recording_that_differs_is_named(noise_folder, tmp_path):
    text = "noise:snr_db=5"
    _, _, path = save(tmp_path / "m.jsonl.gz", text, corruptor_for(text, noise_folder))
    used = sorted(name for _, name in Manifest.load(path).files)
    assert used == ["noise0.wav", "noise1.wav"]
    copy = shutil.copytree(noise_folder, tmp_path / "noise")
    ReplayedCorruptor(Manifest.load(path), corruptor_for(text, copy), path)  # the same recordings elsewhere will do
    for name in used:
        samples, rate = soundfile.read(copy / name)
        samples[-1] += 0.25
        soundfile.write(copy / name, samples, rate)
    with pytest.raises(ManifestError, match=r"noise/noise0\.wav differs from the noise recording 'noise0.wav' that "):
        ReplayedCorruptor(Manifest.load(path), corruptor_for(text, copy), path)
    (copy / "noise0.wav").unlink()
    with pytest.raises(ManifestError, match=r"'noise0.wav', which is not among the 1 recordings given"):
        ReplayedCorruptor(Manifest.load(path), corruptor_for(text, copy), path)


def test_another_corpus_is_noticed(noise_folder, tmp_path):
    text = "noise:snr_db=5"
    _, _, path = save(tmp_path / "m.jsonl.gz", text, corruptor_for(text, noise_folder))
    replayed = ReplayedCorruptor(Manifest.load(path), corruptor_for(text, noise_folder), "white")
    with pytest.raises(ManifestError, match=r"white \(IC, test\) has no utterance 'new'"):
        corrupt_utterance(UTTERANCES["utt-0"], replayed, "new")
    with pytest.raises(ManifestError, match="'utt-0' has 100 samples, white was made for 4000"):
        corrupt_utterance(UTTERANCES["utt-0"][:100], replayed, "utt-0")


def test_a_changed_or_broken_manifest_is_refused(noise_folder, tmp_path):
    text = "noise:snr_db=5"
    _, _, path = save(tmp_path / "m.jsonl.gz", text, corruptor_for(text, noise_folder))
    lines = gzip.decompress(path.read_bytes()).decode().splitlines()
    changed = json.loads(lines[-1])
    changed["snr_db"] = 50.0
    for broken in ([*lines[:-1], json.dumps(changed)], lines[:-1]):
        path.write_bytes(gzip.compress("\n".join(broken).encode()))
        with pytest.raises(ManifestError, match="changed or cut short after it was written"):
            Manifest.load(path)
    for content in (b"", b"no gzip", gzip.compress(b"[]"), gzip.compress(b'{"a": 1}')):
        path.write_bytes(content)
        with pytest.raises(ManifestError, match="is not a manifest of this project"):
            Manifest.load(path)
    with pytest.raises(FileNotFoundError, match="--save-manifest writes one"):
        Manifest.load(tmp_path / "none.jsonl.gz")


def test_the_manifests_of_a_task_and_split_are_found_in_a_folder(tmp_path):
    for task, split in (("IC", "test"), ("ASR", "test-clean"), ("ASR", "test-other")):
        Manifest(task, split, "noise:snr_db=5,noise=white").save(tmp_path / "all" / f"{task}-{split}.jsonl.gz")
    found = find_manifests([tmp_path / "all"], "ASR", "test-other")
    assert [path.name for path in found] == ["ASR-test-other.jsonl.gz"]
    with pytest.raises(
        ManifestError, match=r"no manifest of KS, split test, at .*; found ASR test-clean, ASR test-other"
    ):
        find_manifests([tmp_path / "all"], "KS", "test")


def test_a_replay_says_whether_it_is_the_same_to_the_bit(noise_folder, rir_folder, tmp_path, monkeypatch):
    text = "noise+reverb+clipping:snr_db=5"
    live = corruptor_for(text, noise_folder, rir_folder)
    _, view, path = save(tmp_path / "m.jsonl.gz", text, live)
    replayed = ReplayedCorruptor(Manifest.load(path), live, "m")
    assert replayed.compare(evaluate(replayed)[1].drawn) == "the same samples to the bit as in m, all 4 utterances"
    # One sample of one utterance is another one by the last bit.
    monkeypatch.setitem(UTTERANCES, "utt-2", np.nextafter(UTTERANCES["utt-2"], np.float32(1)))
    said = replayed.compare(evaluate(replayed)[1].drawn)
    assert "other samples in 1 of 4 utterances (utt-2, ...); versions: the same; audio or processor differ" in said
    replayed.manifest.versions["numpy"] = "1.0"
    assert f"versions: numpy 1.0 there, {np.__version__} here" in replayed.compare(view.drawn | {"utt-1": {}})
