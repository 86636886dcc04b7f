"""Units of a teacher: k-means, finding them on speech, and the file they are kept in."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from lhotse.testing.dummies import dummy_cut, dummy_recording

from robustdistiller.pretrain import SettingsError
from robustdistiller.pretrain.teacher import units as module
from robustdistiller.pretrain.teacher.units import TeacherUnits, UnitsConfig, find_units, k_means
from robustdistiller.upstream import EncoderConfig, SpeechEncoder


def _clouds(seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """Five well separated clouds of unequal size, shuffled; and which row is of which."""
    generator = torch.Generator().manual_seed(seed)
    centres = 20 * torch.randn(5, 6, generator=generator)
    labels = torch.repeat_interleave(torch.arange(5), torch.tensor([300, 20, 50, 100, 7]))
    labels = labels[torch.randperm(len(labels), generator=generator)]
    return centres[labels] + torch.randn(len(labels), 6, generator=generator), labels


@pytest.mark.parametrize("chunk", [16, 16_384])
def test_separated_clouds_are_found(monkeypatch, chunk: int) -> None:
    monkeypatch.setattr(module, "_CHUNK_FRAMES", chunk)
    x, labels = _clouds()
    centroids, distance = k_means(x, 5)
    means = torch.stack([x[labels == number].mean(0) for number in range(5)])
    order = torch.cdist(means, centroids).argmin(1)
    assert sorted(order.tolist()) == [0, 1, 2, 3, 4]
    torch.testing.assert_close(centroids[order], means, rtol=0, atol=1e-4)
    assert distance == pytest.approx(float((x - means[labels]).square().sum(1).mean()), rel=1e-4)


def test_every_pass_lowers_the_distance_and_the_seed_decides() -> None:
    x = torch.randn(500, 4, generator=torch.Generator().manual_seed(0))
    distances = [k_means(x, 20, iterations)[1] for iterations in (1, 2, 4, 8, 50)]
    assert distances == sorted(distances, reverse=True) and distances[-1] < 0.95 * distances[0]
    assert torch.equal(k_means(x, 20, seed=3)[0], k_means(x, 20, seed=3)[0])
    assert not torch.equal(k_means(x, 20, seed=3)[0], k_means(x, 20, seed=4)[0])


def test_centroids_without_rows_are_put_elsewhere(monkeypatch) -> None:
    """All centroids begin at one place; a pass later none is idle."""
    x, _ = _clouds()
    monkeypatch.setattr(module, "_first_centroids", lambda rows, count, generator: rows[:1].repeat(count, 1))
    centroids, _ = k_means(x, 5)
    assert torch.cdist(x, centroids).argmin(1).unique().numel() == 5


def test_equal_rows_do_not_break_the_start() -> None:
    centroids, distance = k_means(torch.ones(10, 3), 4)
    assert torch.isfinite(centroids).all() and distance == 0


def test_assignment_is_the_nearest_centroid_in_any_shape_and_precision() -> None:
    x, _ = _clouds()
    units = TeacherUnits(k_means(x, 5)[0], 1, {})
    states = x[:474].reshape(2, 237, 6)
    expected = torch.cdist(states.double(), units.centroids.double()).argmin(-1)
    assert torch.equal(units.assign(states), expected)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(units.assign(states), expected)
    assert torch.equal(units.assign(states.half()), expected)


@pytest.fixture
def teacher() -> SpeechEncoder:
    torch.manual_seed(0)
    shape = EncoderConfig(conv_layers=((8, 10, 5), (8, 8, 8), (8, 8, 8)), embed_dim=16, num_layers=2, num_heads=2)
    return SpeechEncoder(shape.replace(ffn_dim=32, position_groups=4, dropout=0.5))


@pytest.fixture
def cuts() -> list:
    seconds = (1.0, 0.5, 0.001, 2.0, 1.0)
    return [
        dummy_cut(index, recording=dummy_recording(index, duration=duration, with_data=True), duration=duration)
        for index, duration in enumerate(seconds)
    ]


def test_units_are_found_on_speech_whatever_its_order(teacher, cuts, tmp_path: Path) -> None:
    config = UnitsConfig(layer=1, count=4, calibration_utterances=3)
    found = find_units(teacher.train(), cuts, config, seed=1, teacher_notes={"name": "tiny"})
    assert found.centroids.shape == (4, 16) and (found.count, found.layer) == (4, 1)
    assert teacher.training and len(found.made_from["ids"]) == 3
    again = find_units(teacher, cuts[::-1], config, seed=1)
    assert torch.equal(found.centroids, again.centroids)
    found.save(tmp_path / "deep" / "units.npz")
    kept = TeacherUnits.load(tmp_path / "deep" / "units.npz")
    assert torch.equal(kept.centroids, found.centroids) and kept.layer == 1
    assert kept.made_from == found.made_from and kept.made_from["teacher"] == {"name": "tiny"}


def test_what_cannot_work_is_refused(teacher, cuts, tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"units: the teacher cannot give layer 3: .* 0 to 2"):
        find_units(teacher, cuts, UnitsConfig(layer=3))
    with pytest.raises(
        SettingsError, match=r"units: found \d+ frames in 4 readable utterances, expected .* 5000 units"
    ):
        find_units(teacher, cuts, UnitsConfig(layer=1, count=5000))
    np.savez(tmp_path / "other.npz", centroids=np.zeros(3, np.float32), layer=1, made_from="{}")
    np.save(tmp_path / "pickled.npy", np.array([{}], dtype=object), allow_pickle=True)
    (tmp_path / "text.npz").write_text("no archive")
    for name in ("other.npz", "pickled.npy", "text.npz", "none.npz"):
        with pytest.raises(SettingsError, match=name):
            TeacherUnits.load(tmp_path / name)
