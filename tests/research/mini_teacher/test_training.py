"""The training of a teacher on a few utterances: pool, masks, the three stages, and going on after a kill."""

from __future__ import annotations

import csv
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from research.mini_teacher import Recipe, make_teacher, waveform
from research.mini_teacher.__main__ import main
from research.mini_teacher.labels import mfcc_features
from research.mini_teacher.log_mel import LogMelModel
from research.mini_teacher.loop import mask_spans
from research.mini_teacher.pool import SHORT_CROP_SAMPLES, build_pool, num_frames
from robustdistiller.mini import data_dir
from robustdistiller.mini.pack import read_audio, read_pack
from robustdistiller.upstream import SpeechEncoder, load_encoder
from robustdistiller.upstream.checkpoints.safe_load import safe_load
from tests.waiting import wait_until

ROOT = Path(__file__).parents[3]
SMALL = ["--steps", "3", "4", "3", "--save-every=2", "mfcc_clusters=8", "feature_clusters=6", "cluster_seconds=9",
         "batch_samples=36000", "crop_samples=12000", "short_share=0.5"]  # fmt: skip


def small_pack(folder: Path, *voices: str) -> Path:
    """A pack of some 50 short utterances of the shipped recordings of some voices, which are linked."""
    folder.mkdir()
    (folder / "speech").symlink_to(data_dir() / "speech")
    with (data_dir() / "speech.tsv").open(encoding="utf-8", newline="") as stream:
        header, *lines = stream.read().splitlines()
    lines = [line for line in lines if line.startswith(voices)]
    (folder / "speech.tsv").write_text("\n".join([header, *lines[:50], *lines[-10:]]) + "\n", encoding="utf-8")
    return folder


@pytest.fixture(scope="module")
def pack(tmp_path_factory) -> Path:
    """In place of the shipped pack."""
    return small_pack(tmp_path_factory.mktemp("packs") / "shipped", "gcin-zh", "psphinx")


@pytest.fixture(scope="module")
def command(pack, tmp_path_factory):
    """The arguments of a training in a folder, on two small packs."""
    more = small_pack(tmp_path_factory.mktemp("packs") / "more", "asterisk")
    return lambda folder, *settings: [f"--shipped={pack}", f"--pool={more}", f"--out={folder}", *SMALL, *settings]


@pytest.fixture(scope="module")
def trained(command, tmp_path_factory) -> Path:
    """The folder of a training from start to end."""
    folder = tmp_path_factory.mktemp("trained")
    assert main(command(folder)) == 0
    return folder


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return safe_load(folder / "teacher.ckpt")[0]["state_dict"]


def log_rows(folder: Path) -> list[dict[str, str]]:
    """The rows of a log without the clock."""
    with (folder / "log.csv").open(encoding="utf-8", newline="") as stream:
        return [{key: value for key, value in row.items() if key != "seconds"} for row in csv.DictReader(stream)]


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
        for crop, frame in zip(waveforms, frames):
            expected = pool.audio[frame * 320 :][:samples].astype(np.float32) / 32768
            assert np.array_equal(crop.numpy(), expected)
    # A frame's features depend on its own 400 samples and, through the deltas, on eight 10 ms frames on either side.
    features = mfcc_features(pool)
    assert features.shape == (len(pool.audio) // 320, 39)
    assert np.isfinite(features).all()


def test_frames_agree_with_the_encoder():
    encoder = SpeechEncoder(waveform.teacher_config())
    for samples in (400, 719, 720, 4400, 48000):
        assert num_frames(samples) == encoder.num_frames(samples)
        assert LogMelModel(5)(torch.zeros(1, samples))[0].shape[1] == num_frames(samples)


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
    model = waveform.TrainedEncoder(8, 6).eval()
    waveforms, mask = torch.randn(1, 12000), torch.zeros(1, num_frames(12000), dtype=torch.bool)
    with torch.no_grad():
        plain = model.encoder(waveforms).hidden_states[-1]
        assert torch.equal(model(waveforms, mask)[2], model.mfcc_head(plain))
        mask[0, 5:15] = True
        assert not torch.allclose(model(waveforms, mask)[2], model.mfcc_head(plain), atol=1e-3)


def test_one_command_makes_a_teacher(trained):
    content, _ = safe_load(trained / "teacher.ckpt")
    facts = content["metadata"]
    assert (facts["seed"], facts["steps"], facts["packs"]) == (1, "all", ["shipped", "more"])
    assert facts["settings"]["waveform"]["steps"] == 4
    assert all(value.dtype == torch.float16 for value in content["state_dict"].values())
    expected = SpeechEncoder(waveform.teacher_config()).count_parameters()
    assert load_encoder(trained / "teacher.ckpt").count_parameters() == expected
    rows = log_rows(trained)
    steps = [("log_mel", 0), ("log_mel", 2), ("waveform", 0), ("waveform", 3), ("spectral", 0), ("spectral", 2)]
    assert [(row["stage"], int(row["step"])) for row in rows] == steps
    assert all(float(row["loss"]) > 0 for row in rows)
    assert [bool(row["mel_loss"]) for row in rows] == [False, False, True, True, True, True]


def test_inspect_reads_the_teacher(trained):
    shown = subprocess.run(
        [sys.executable, "-m", "robustdistiller.cli", "inspect", trained / "teacher.ckpt"],
        capture_output=True, text=True, check=True,
    ).stdout  # fmt: skip
    assert "name: robustdistiller mini teacher" in shown and "5 post-norm layers 256 wide" in shown


def test_a_stage_starts_from_the_average_that_the_one_before_left(trained):
    before, after = (
        torch.load(trained / "work" / f"{name}.pt", weights_only=True) for name in ("waveform", "spectral")
    )
    name = "encoder.transformer.layers.0.up.weight"
    random = waveform.TrainedEncoder(8, 6).state_dict()[name]
    moved = (after["model"][name] - before["average"][name]).abs().mean()
    assert 0 < moved < 0.1 * (random - before["average"][name]).abs().mean()


@pytest.mark.parametrize("stage", ["log_mel", "spectral"])
def test_killed_and_started_again_gives_equal_bits(stage, trained, command, tmp_path):
    arguments = command(tmp_path)
    process = subprocess.Popen(
        [sys.executable, "-m", "research.mini_teacher", *arguments], cwd=ROOT, stderr=subprocess.DEVNULL
    )
    wait_until((tmp_path / "work" / f"{stage}.pt").is_file, process)
    process.kill()
    assert process.wait() == -signal.SIGKILL
    assert torch.load(tmp_path / "work" / f"{stage}.pt", weights_only=True)["step"] == 2
    assert main(arguments) == 0
    expected = weights(trained)
    assert all(torch.equal(value, expected[name]) for name, value in weights(tmp_path).items())
    assert log_rows(tmp_path) == log_rows(trained)


def test_another_training_in_the_folder_is_refused(trained, command, capsys):
    before = (trained / "teacher.ckpt").read_bytes()
    assert main(command(trained, "seed=2")) == 1
    said = capsys.readouterr().err
    assert "holds a training with seed 1, but seed is 2 now" in said and "another --out" in said
    assert (trained / "teacher.ckpt").read_bytes() == before


@pytest.mark.parametrize(
    ("setting", "said"),
    [
        ("waveform.steps=0", "waveform.steps is 0; expected at least 1"),
        ("waveform.stepps=3", "did you mean 'steps'?"),
        ("crop_samples=100", "crop_samples is 100; expected at least 400"),
        ("shipped_share=0.99", "at most 1 together"),
    ],
)
def test_settings_that_cannot_be_are_refused(setting, said, command, tmp_path, capsys):
    assert main(command(tmp_path, setting)) == 1
    assert said in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_a_pool_without_a_table_is_refused_before_anything_is_written(pack, tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no speech pack in .*nowhere"):
        make_teacher([pack, tmp_path / "nowhere"], tmp_path / "out", Recipe())
    assert not (tmp_path / "out").exists()
