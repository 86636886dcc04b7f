"""Units of a teacher: the nearest centroid, finding them on speech, and the file they are kept in."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from lhotse.testing.dummies import dummy_cut, dummy_recording

from robustdistiller.pretrain import SettingsError
from robustdistiller.pretrain.teacher import units as module
from robustdistiller.pretrain.teacher.units import TeacherUnits, UnitsConfig, find_units
from robustdistiller.upstream import EncoderConfig, SpeechEncoder


@pytest.mark.parametrize("chunk", [16, 16_384])
def test_assignment_is_the_nearest_centroid_in_any_shape_and_precision(monkeypatch, chunk: int) -> None:
    monkeypatch.setattr(module, "_CHUNK_FRAMES", chunk)
    x = 20 * torch.randn(2, 237, 6, generator=torch.Generator().manual_seed(0))
    states, units = x.half().float(), TeacherUnits(x[0, :5].clone(), 1, {})
    expected = torch.cdist(states.double(), units.centroids.double()).argmin(-1)
    assert torch.equal(units.assign(states), expected) and expected.unique().numel() == 5
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
    found = find_units(teacher.train(), cuts, config, seed=1)
    assert found.centroids.shape == (4, 16) and (found.count, found.layer) == (4, 1)
    assert teacher.training and len(found.made_from["ids"]) == 3
    again = find_units(teacher, cuts[::-1], config, seed=1)
    assert torch.equal(found.centroids, again.centroids) and found.centroids.dtype == torch.float32
    distances = [find_units(teacher, cuts, UnitsConfig(layer=1, count=count)).made_from for count in (2, 20)]
    assert distances[0]["mean_squared_distance"] > 1.2 * distances[1]["mean_squared_distance"] > 0
    found.save(tmp_path / "deep" / "units.npz")
    kept = TeacherUnits.load(tmp_path / "deep" / "units.npz")
    assert torch.equal(kept.centroids, found.centroids) and kept.layer == 1
    assert kept.made_from == found.made_from


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
