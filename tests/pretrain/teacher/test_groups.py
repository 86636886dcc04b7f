"""Groups of a teacher's layers: a teacher whose groups are known, what the result depends on, files, refusals."""

from __future__ import annotations

import dataclasses
import json
import logging
from itertools import chain
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

from robustdistiller.common.settings import read
from robustdistiller.common.written import to_plain
from robustdistiller.pretrain import SettingsError
from robustdistiller.pretrain.data.reading import read_cut
from robustdistiller.pretrain.data.speech import speech_cuts
from robustdistiller.pretrain.teacher.groups.find import GroupsConfig, LayerGroups, find_groups
from robustdistiller.pretrain.teacher.groups.similarity import LinearCKA
from robustdistiller.upstream import SpeechEncoder, load_encoder


@pytest.fixture(scope="module")
def cuts(corpus, tmp_path_factory) -> list:
    return speech_cuts([str(corpus.speech)], tmp_path_factory.mktemp("manifests"))[0].listed


@pytest.fixture
def teacher(teacher_path) -> SpeechEncoder:
    return load_encoder(teacher_path)


def make_blocks(teacher: SpeechEncoder, *changing: int) -> None:
    """All layers but those named (from 1) pass on what they get; those turn it into something else."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for number, layer in enumerate(teacher.transformer.layers, start=1):
            for linear in (layer.attention.out_proj, layer.down):
                linear.weight.zero_()
                linear.bias.zero_()
            if number in changing:
                layer.up.weight.copy_(torch.randn(layer.up.weight.shape, generator=generator))
                layer.down.weight.copy_(20 * torch.randn(layer.down.weight.shape, generator=generator))


@pytest.mark.parametrize("similarity", ["cka", "cosine", "cca"])
def test_the_groups_of_a_teacher_made_of_blocks_are_found(teacher, cuts, similarity) -> None:
    make_blocks(teacher, 1, 4)
    found = find_groups(teacher, cuts, GroupsConfig(similarity, count=2))
    assert found.groups == [[1, 2, 3], [4, 5]] and found.layers == [1, 2, 3, 4, 5]
    assert found.similarity_within([1, 2, 3]) > 0.99 > 0.9 > found.similarity_between()
    make_blocks(teacher, 1, 2, 3)
    assert find_groups(teacher, cuts, GroupsConfig(similarity, count=3)).groups == [[1], [2], [3, 4, 5]]


def test_the_similarity_is_that_of_the_utterances_one_by_one(teacher, cuts) -> None:
    found = find_groups(teacher, cuts, GroupsConfig(calibration_utterances=7))
    cka, teacher = LinearCKA(), teacher.eval()
    chosen = [cut for cut in cuts if cut.id in found.measured_on["ids"]]
    for cut in chosen:
        with torch.no_grad():
            cka.update(teacher(torch.from_numpy(read_cut(cut))[None]).hidden_states[1:])
    assert len(chosen) == 7
    np.testing.assert_allclose(found.similarity, cka.matrix(), atol=1e-5)
    assert found.measured_on["frames"] == cka.frames
    assert found.measured_on["seconds"] == pytest.approx(sum(cut.duration for cut in chosen), abs=1e-3)


def test_the_draw_depends_on_seed_and_ids_and_not_on_order(teacher, cuts) -> None:
    config = GroupsConfig(calibration_utterances=5)
    found = find_groups(teacher, cuts, config)
    shuffled = [cuts[index] for index in torch.randperm(len(cuts), generator=torch.Generator().manual_seed(1)).tolist()]
    again = find_groups(teacher, shuffled, config)
    assert again.measured_on == found.measured_on
    np.testing.assert_array_equal(again.similarity, found.similarity)
    assert find_groups(teacher, cuts, config, seed=1).measured_on["ids"] != found.measured_on["ids"]
    # One utterance more or less changes at most one of those drawn.
    fewer = find_groups(teacher, [cut for cut in cuts if cut.id != found.measured_on["ids"][0]], config)
    assert len({*fewer.measured_on["ids"]} & {*found.measured_on["ids"]}) == 4


def test_the_teacher_is_left_as_it_was(teacher, cuts) -> None:
    before = {name: value.clone() for name, value in teacher.state_dict().items()}
    teacher.train()  # its dropout would show in the similarities
    found = find_groups(teacher, cuts, GroupsConfig(calibration_utterances=3))
    assert teacher.training
    again = find_groups(teacher.eval(), cuts, GroupsConfig(calibration_utterances=3))
    np.testing.assert_array_equal(again.similarity, found.similarity)
    assert not teacher.training
    assert all(torch.equal(value, before[name]) for name, value in teacher.state_dict().items())
    assert all(weight.grad is None and weight.requires_grad for weight in teacher.parameters())


def test_layers_can_be_chosen(teacher, cuts) -> None:
    with_input = find_groups(teacher, cuts, GroupsConfig(include_layer_0=True, calibration_utterances=3))
    assert with_input.layers == [0, 1, 2, 3, 4, 5] and with_input.groups[0][0] == 0
    some = find_groups(teacher, cuts, GroupsConfig(layers=(5, 2, 3), count=2, calibration_utterances=3))
    assert some.layers == [2, 3, 5] and sorted(chain(*some.groups)) == [2, 3, 5]
    rows = [2, 3, 5]
    np.testing.assert_allclose(some.similarity, with_input.similarity[np.ix_(rows, rows)], atol=1e-6)


def test_runs_of_layers(teacher, cuts) -> None:
    for count in range(1, 6):
        found = find_groups(teacher, cuts, GroupsConfig(contiguous=True, count=count, calibration_utterances=3))
        assert list(chain(*found.groups)) == [1, 2, 3, 4, 5] and len(found.groups) == count


def test_only_the_first_seconds_of_a_long_utterance_are_heard(teacher, tmp_path) -> None:
    soundfile.write(tmp_path / "long.wav", np.random.default_rng(0).normal(0, 0.1, 16000 * 17), 16000)
    cuts, _ = speech_cuts([str(tmp_path / "long.wav")], tmp_path)
    assert find_groups(teacher, cuts).measured_on["seconds"] == 15.0


def test_saved_and_loaded(teacher, cuts, tmp_path) -> None:
    config = GroupsConfig(layers=(1, 2, 4), count=2, calibration_utterances=3)
    found = find_groups(teacher, cuts, config, teacher_notes={"name": "tiny"})
    found.save(tmp_path / "groups.json")
    loaded = LayerGroups.load(tmp_path / "groups.json")
    for field in dataclasses.fields(LayerGroups):
        expected, got = getattr(found, field.name), getattr(loaded, field.name)
        if isinstance(expected, np.ndarray):
            np.testing.assert_array_equal(got, expected)
            assert got.dtype == expected.dtype and got.shape == expected.shape
        else:
            assert got == expected
    assert loaded.measured_on["teacher"] == {"name": "tiny"}
    (tmp_path / "other.json").write_text(json.dumps({"groups": []}))
    for name in ("other.json", "absent.json"):
        with pytest.raises(SettingsError, match=f"{name} cannot be read as layer groups"):
            LayerGroups.load(tmp_path / name)


def test_the_override_is_a_setting() -> None:
    groups = LayerGroups([[1, 2], [3]], [1, 2, 3], np.eye(3), np.zeros((2, 4)), GroupsConfig(), {})
    assert groups.override() == "targets.layers=[[1,2],[3]]"
    assert np.isnan(LayerGroups([[1]], [1], np.eye(1), np.zeros((0, 4)), GroupsConfig(), {}).similarity_between())


def test_the_section_is_built_from_settings() -> None:
    config = read(GroupsConfig, {"similarity": "cca", "count": 4, "layers": [1, 2, 3, 4]})
    assert config == GroupsConfig("cca", count=4, layers=(1, 2, 3, 4))
    assert read(GroupsConfig, to_plain(config)) == config


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"count": 0}, "targets.groups.count: found 0, expected at least 1"),
        ({"calibration_utterances": 0}, "calibration_utterances: found 0"),
        ({"linkage": "ward"}, "linkage: found 'ward', expected 'average', 'complete' or 'single'"),
        ({"similarity": "rsa"}, "similarity: found 'rsa', expected 'cka', 'cosine' or 'cca'"),
    ],
)
def test_settings_that_cannot_be(values, message) -> None:
    with pytest.raises(SettingsError, match=message):
        read(GroupsConfig, values, "targets.groups")


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (GroupsConfig(count=6), r"6 groups of 5 layers \(1, 2, 3, 4, 5\): expected a count from 1 to 5"),
        (GroupsConfig(layers=(4, 7, 9)), r"no layer 7, 9; expected 0 \(the input of the first\) to 5"),
        (GroupsConfig(layers=(1, 2, 2, 3)), "names a layer twice"),
        (GroupsConfig(layers=(1, 2), count=3), r"3 groups of 2 layers \(1, 2\)"),
    ],
)
def test_layers_that_are_not_there_are_refused(teacher, cuts, config, message) -> None:
    with pytest.raises(SettingsError, match=message):
        find_groups(teacher, cuts, config)


def test_speech_that_is_no_use_is_refused_or_passed_over(teacher, tmp_path: Path, caplog) -> None:
    noise = np.random.default_rng(0).normal(0, 0.1, 16000)
    for name in ("good", "gone"):
        soundfile.write(tmp_path / f"{name}.wav", noise, 16000)
    soundfile.write(tmp_path / "short.wav", noise[:300], 16000)
    cuts, _ = speech_cuts([str(tmp_path)], tmp_path / "manifests")
    (tmp_path / "gone.wav").unlink()
    with caplog.at_level(logging.WARNING):
        found = find_groups(teacher, cuts)
    assert [name.rpartition("/")[2] for name in found.measured_on["ids"]] == ["good.wav"]
    assert "gone.wav" in caplog.text and "2 utterances, 64 were asked for" in caplog.text
    (tmp_path / "good.wav").unlink()
    with pytest.raises(SettingsError, match="none of the 2 utterances drawn"):
        find_groups(teacher, cuts)
    with pytest.raises(SettingsError, match="none of 1 utterances has the 400 samples"):
        find_groups(teacher, [cut for cut in cuts if "short" in cut.id])


def test_too_little_speech_for_cca_and_broken_teachers_are_refused(teacher, cuts) -> None:
    short = [cut for cut in cuts if "syllable" in cut.id]
    with pytest.raises(
        SettingsError, match=r"on 1 utterances: CCA of .* directions needs at least .* give more speech"
    ):
        find_groups(teacher, short, GroupsConfig("cca"))
    with torch.no_grad():
        teacher.transformer.layers[2].down.bias.fill_(torch.nan)
    with pytest.raises(SettingsError, match=r"layers 1, 2, 3, 4, 5 cannot be compared: state 2 .* NaN"):
        find_groups(teacher, cuts)
