"""The teacher's training script on a few utterances: pool, masks, both stages, going on after an interruption."""

from __future__ import annotations

import csv

import numpy as np
import pytest
import torch

from research.mini_teacher import __main__ as train_teacher
from research.mini_teacher import conv_stage
from research.mini_teacher.labels import mfcc_features
from research.mini_teacher.mel_stage import MelModel
from research.mini_teacher.pool import SHORT_CROP_SAMPLES, build_pool, num_frames
from research.mini_teacher.steps import mask_spans
from robustdistiller.mini import data_dir
from robustdistiller.mini.pack import read_audio, read_pack
from robustdistiller.upstream import SpeechEncoder, load_encoder, read_checkpoint
from robustdistiller.upstream.checkpoints.safe_load import safe_load

SIZES = ["--mel-steps=3", "--conv-steps=4", "--save-every=2", "--num-clusters=8", "--feature-clusters=6"]
BATCH = ["--batch-samples=36000", "--crop-samples=12000", "--short-share=0.5"]


@pytest.fixture(scope="module")
def pack(tmp_path_factory):
    """A pack of some 50 short utterances, with the shipped recordings linked."""
    folder = tmp_path_factory.mktemp("pack")
    (folder / "speech").symlink_to(data_dir() / "speech")
    with (data_dir() / "speech.tsv").open(encoding="utf-8", newline="") as stream:
        header, *lines = stream.read().splitlines()
    lines = [line for line in lines if line.startswith(("gcin-zh", "psphinx"))]
    (folder / "speech.tsv").write_text("\n".join([header, *lines[:50], *lines[-10:]]) + "\n", encoding="utf-8")
    return folder


@pytest.fixture
def train(pack, monkeypatch):
    """Runs the script on the small pack."""
    monkeypatch.setattr(train_teacher, "data_dir", lambda: pack)
    monkeypatch.setattr(conv_stage, "CLUSTER_SECONDS", 9)

    def run(folder, *more):
        return train_teacher.main([f"--work={folder / 'work'}", f"--out={folder / 'out'}", *SIZES, *BATCH, *more])

    return run


def test_pool_holds_training_utterances_only(pack, tmp_path):
    pool = build_pool([pack], tmp_path, 0.5, 0.5)
    utterances = [utterance for utterance in read_pack(pack) if utterance.split == "train"]
    assert len(pool.lengths) == len(utterances) < len(read_pack(pack))
    for index, (_, samples) in enumerate(read_audio(utterances)):
        assert np.array_equal(pool.audio[pool.starts[index] :][: pool.lengths[index]], samples[: pool.lengths[index]])
    assert pool.weights.sum() == pytest.approx(1)
    assert pool.weights[[voice == "gcin_5" for voice in pool.voices]].sum() == pytest.approx(0.5)


def test_crops_lie_on_the_frame_grid_and_labels_belong_to_them(pack, tmp_path):
    pool = build_pool([pack], tmp_path, 0.5, 0.5)
    for short_share, samples in ((0.0, 12000), (1.0, SHORT_CROP_SAMPLES)):
        waveforms, frames = pool.draw(np.random.default_rng(0), 36000, 12000, short_share)
        assert waveforms.shape[1] == samples
        for waveform, frame in zip(waveforms, frames):
            expected = pool.audio[frame * 320 :][:samples].astype(np.float32) / 32768
            assert np.array_equal(waveform.numpy(), expected)
    # A frame's features depend on its own 400 samples and, through the deltas, on eight 10 ms frames on either side.
    features = mfcc_features(pool)
    assert features.shape == (len(pool.audio) // 320, 39)
    assert np.isfinite(features).all()


def test_frames_agree_with_the_encoder():
    encoder = SpeechEncoder(conv_stage.teacher_config())
    for samples in (400, 719, 720, 4400, 48000):
        assert num_frames(samples) == encoder.num_frames(samples)
        assert MelModel(5)(torch.zeros(1, samples))[0].shape[1] == num_frames(samples)


def test_masks_cover_what_was_asked_for():
    mask = mask_spans(np.random.default_rng(0), 200, 149, 0.05).numpy()
    assert mask.mean() == pytest.approx(1 - 0.95**10, abs=0.03)
    assert mask.any(1).all()
    assert (~mask).any(1).all()
    short = mask_spans(np.random.default_rng(0), 500, 3, 0.9)
    assert short.any(1).all()
    assert (~short).any(1).all()


def test_masked_input_changes_only_through_the_mask():
    torch.manual_seed(0)
    model = conv_stage.TrainedEncoder(8, 6).eval()
    waveforms, mask = torch.randn(1, 12000), torch.zeros(1, num_frames(12000), dtype=torch.bool)
    with torch.no_grad():
        plain = model.encoder(waveforms).hidden_states[-1]
        assert torch.equal(model(waveforms, mask)[2], model.mfcc_head(plain))
        mask[0, 5:15] = True
        assert not torch.allclose(model(waveforms, mask)[2], model.mfcc_head(plain), atol=1e-3)


def test_script_writes_a_teacher_and_its_log(train, tmp_path):
    path = train(tmp_path)
    assert path == tmp_path / "out" / "teacher.ckpt"
    content, _ = safe_load(path)
    assert {key: content["metadata"][key] for key in ("seed", "conv_steps", "corruption")} == {
        "seed": 1,
        "conv_steps": 4,
        "corruption": "none (dry speech)",
    }
    assert all(value.dtype == torch.float16 for value in content["state_dict"].values())
    assert load_encoder(path).count_parameters() == SpeechEncoder(conv_stage.teacher_config()).count_parameters()
    with (tmp_path / "out" / "log.csv").open() as stream:
        rows = list(csv.DictReader(stream))
    assert [(row["stage"], row["step"]) for row in rows] == [("mel", "0"), ("mel", "2"), ("conv", "0"), ("conv", "3")]
    assert all(float(row["loss"]) > 0 for row in rows)


def test_a_second_run_starts_from_a_checkpoint(train, tmp_path):
    first = read_checkpoint(train(tmp_path)).state_dict
    (tmp_path / "work" / "conv_state.pt").unlink()
    path = tmp_path / "out" / "teacher.ckpt"
    path.rename(tmp_path / "first.ckpt")
    second = read_checkpoint(train(tmp_path, f"--init={tmp_path / 'first.ckpt'}")).state_dict
    name = "transformer.layers.0.up.weight"
    random = SpeechEncoder(conv_stage.teacher_config()).state_dict()[name]
    assert 0 < (second[name] - first[name]).abs().mean() < 0.1 * (random - first[name]).abs().mean()
    with (tmp_path / "out" / "log.csv").open() as stream:
        assert [row["stage"] for row in csv.DictReader(stream)][-1] == "continued"


def test_interrupted_training_goes_on_as_if_it_had_not_been(train, tmp_path, monkeypatch):
    whole = read_checkpoint(train(tmp_path / "whole")).state_dict
    export = conv_stage.export

    def interrupted(average, options, step):
        raise KeyboardInterrupt

    monkeypatch.setattr(conv_stage, "export", interrupted)
    with pytest.raises(KeyboardInterrupt):
        train(tmp_path / "parts")
    assert torch.load(tmp_path / "parts" / "work" / "conv_state.pt", weights_only=True)["step"] == 2
    monkeypatch.setattr(conv_stage, "export", export)
    parts = read_checkpoint(train(tmp_path / "parts")).state_dict
    assert all(torch.equal(whole[name], parts[name]) for name in whole)
