"""Several teachers at once, of several kinds, and a teacher that is no speech encoder of ours."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from robustdistiller.pretrain import SettingsError, distill, load_config
from robustdistiller.pretrain.data.roots import load_teacher
from robustdistiller.pretrain.student.build import build_student, with_training_options
from robustdistiller.pretrain.training import stages
from robustdistiller.pretrain.training.log import read_history
from robustdistiller.pretrain.training.step import Distiller
from robustdistiller.upstream import EncoderConfig, SpeechEncoder, load_encoder, save_checkpoint


@pytest.fixture(scope="module")
def whisper(tmp_path_factory) -> Path:
    """A small Whisper with random weights, as transformers saves it."""
    from transformers import WhisperConfig, WhisperModel

    shape = {"d_model": 24, "encoder_layers": 3, "encoder_attention_heads": 4, "encoder_ffn_dim": 48}
    shape |= {"decoder_layers": 1, "decoder_attention_heads": 2, "decoder_ffn_dim": 32, "vocab_size": 51}
    shape |= dict.fromkeys(("pad_token_id", "bos_token_id", "eos_token_id", "decoder_start_token_id"), 1)
    path = tmp_path_factory.mktemp("whisper") / "folder"
    with torch.random.fork_rng():
        torch.manual_seed(0)
        WhisperModel(WhisperConfig(**shape)).save_pretrained(path)
    return path


@pytest.fixture(scope="module")
def conv_teacher(tmp_path_factory) -> Path:
    """Wider than Whisper; frames every 320 samples."""
    strides = ((12, 10, 5), (12, 3, 2), (12, 3, 2), (12, 3, 2), (12, 3, 2), (12, 2, 2), (12, 2, 2))
    shape = EncoderConfig.tiny(conv_layers=strides, num_layers=4)
    path = tmp_path_factory.mktemp("conv") / "teacher.ckpt"
    with torch.random.fork_rng():
        torch.manual_seed(1)
        save_checkpoint(path, SpeechEncoder(shape), {})
    return path


def overrides(corpus, first: Path, out_dir: Path, *more: str) -> list[str]:
    return [
        *(f"teacher.checkpoint={first}", f"data.speech={corpus.speech}", f"data.noise={corpus.noise}"),
        *(f"data.rir={corpus.rir}", f"out_dir={out_dir}", "data.num_workers=0", "data.max_samples=24000"),
        *("trainer.accelerator=cpu", "trainer.batch_size=5", "trainer.max_steps=2", "trainer.log_every_steps=1"),
        *("objectives.enhancement.weight=0", "validation.every_steps=2"),
        *more,
    ]


def test_each_teacher_has_targets_and_maps_of_its_own(corpus, whisper, conv_teacher, tmp_path: Path) -> None:
    recipe = tmp_path / "two.yaml"
    recipe.write_text(
        "base: robustdistiller\n"
        "student: {num_layers: 3}\n"
        "targets: {match: layers, layers: [projected, 2], student_layers: [projected, 2], cache: {}}\n"
        f"teachers: {{whisper: {{checkpoint: '{whisper}', layers: [1, [2, 3]], student_layers: [1, 3]}}}}\n"
    )
    distill(load_config(recipe, overrides(corpus, conv_teacher, tmp_path / "run")))
    line = read_history(tmp_path / "run" / "history.csv")[-1]
    names = [name for name in line if name.startswith("l1_layer")]
    assert names == ["l1_layerprojected", "l1_layer2", "l1_layerwhisper:1", "l1_layerwhisper:2-3"]
    assert all(line[name] > 0 for name in names)
    state = torch.load(next((tmp_path / "run" / "checkpoints").glob("distil-*2.ckpt")), weights_only=True)["model"]
    assert state["targets.1.maps.0.weight"].shape == (24, 16) and state["targets.0.maps.1.weight"].shape == (16, 16)
    assert load_encoder(tmp_path / "run" / "student.ckpt").config.embed_dim == 16


def test_whisper_frames_lie_beside_the_students(corpus, whisper, conv_teacher, tmp_path: Path) -> None:
    more = (f"student.checkpoint={conv_teacher}", "targets.match=layers", "targets.layers=[3]", "student.num_layers=2")
    options = overrides(corpus, whisper, tmp_path, *more[:3], "targets.student_layers=[2]")
    config = load_config("robustdistiller", options)
    teacher, _ = load_teacher(config.teacher)
    student = with_training_options(build_student(config, teacher), config.student)
    distiller = Distiller(config, {"": teacher}, student)
    assert distiller.teachings[0].shift == 1  # its frame 1 is around sample 320, our frame 0 around 199.5
    lengths = torch.tensor([8000, 5001])
    waveforms = torch.randn(2, 8000) * (torch.arange(8000) < lengths[:, None])
    states = teacher(waveforms, lengths, layers=[3]).hidden_states[3]
    from robustdistiller.pretrain.data.dataset import Batch
    from robustdistiller.pretrain.data.sampler import Position

    (targets,), _ = distiller.teach(Batch(Position(), ("a", "b"), waveforms, lengths))
    frames = int(student.num_frames(8000))
    assert targets.shape[1] == frames
    common = distiller.frame_lengths(lengths).tolist()
    for row, count in enumerate(common):
        assert count == student.num_frames(int(lengths[row]))
        torch.testing.assert_close(targets[row, :count], states[row, 1 : count + 1])


def test_a_student_is_distilled_from_whisper_with_a_cache(corpus, whisper, conv_teacher, tmp_path: Path) -> None:
    more = (f"student.checkpoint={conv_teacher}", "targets.match=layers", "targets.layers=[1,3]")
    more = (*more, "targets.student_layers=[2,4]", "targets.cache={}", "trainer.max_steps=12", "optim.lr=5e-3")
    distill(load_config("robustdistiller", overrides(corpus, whisper, tmp_path, *more)))
    lines = read_history(tmp_path / "history.csv")
    first, last = (sum(line["loss"] for line in part) for part in (lines[:3], lines[-3:]))
    assert last < first and len(lines) == 12


def test_of_teachers_only_those_of_our_kind_are_compiled(corpus, whisper, conv_teacher, tmp_path, monkeypatch) -> None:
    compiled = []
    monkeypatch.setattr(stages, "check_compiler", lambda device: None)
    monkeypatch.setattr(stages, "compile_layers", compiled.append)
    more = (f"student.checkpoint={conv_teacher}", "targets.match=layers", "targets.layers=[1,3]")
    more = (*more, "targets.student_layers=[2,4]", "trainer.max_steps=1", "trainer.compile=true")
    distill(load_config("robustdistiller", overrides(corpus, whisper, tmp_path, *more)))
    assert [type(one).__name__ for one in compiled] == ["SpeechEncoder"]


def test_layers_that_a_further_teacher_lacks_are_named_as_its_own(corpus, whisper, conv_teacher, tmp_path) -> None:
    more = ("targets.match=layers", "targets.layers=[2]", "targets.student_layers=[2]", "student.num_layers=2")
    more = (*more, f"teachers.other.checkpoint={conv_teacher}", "teachers.other.layers=[9]")
    more = (*more, "teachers.other.student_layers=[1]", "trainer.max_steps=1")
    with pytest.raises(SettingsError, match=r"^teachers\.other\.layers: the teacher has layers 0 to"):
        distill(load_config("robustdistiller", overrides(corpus, conv_teacher, tmp_path, *more)))


def test_groups_and_units_of_whisper_are_found(corpus, whisper, conv_teacher, tmp_path: Path) -> None:
    more = (
        f"student.checkpoint={conv_teacher}",
        "targets.match=layers",
        "targets.layers=auto",
        "targets.groups.count=2",
    )
    more = (*more, "targets.groups.calibration_utterances=8", "targets.student_layers=[2,4]", "objectives.units=1")
    more = (*more, "targets.units={layer: 2, count: 5, calibration_utterances: 8}")
    distill(load_config("robustdistiller", overrides(corpus, whisper, tmp_path, *more)))
    assert read_history(tmp_path / "history.csv")[-1]["units"] > 0
    assert len(json.loads((tmp_path / "groups.json").read_text())["groups"]) == 2


def test_whisper_is_no_student(corpus, whisper, conv_teacher, tmp_path: Path) -> None:
    more = (f"student.checkpoint={whisper}", "targets.match=layers", "targets.layers=[1]")
    with pytest.raises(SettingsError, match=r"student\.checkpoint: .*Whisper"):
        distill(load_config("robustdistiller", overrides(corpus, conv_teacher, tmp_path, *more)))


def test_frames_at_other_times_are_refused_before_the_first_step(corpus, conv_teacher, tmp_path: Path) -> None:
    strides = ((12, 10, 5), (12, 8, 4), (12, 8, 8))
    save_checkpoint(tmp_path / "s.ckpt", SpeechEncoder(EncoderConfig.tiny(conv_layers=strides)), {})
    more = (f"student.checkpoint={tmp_path / 's.ckpt'}", "targets.match=layers", "targets.layers=[1]")
    with pytest.raises(SettingsError, match=r"student has a frame every 160 samples.*teacher has a frame every 320"):
        distill(load_config("robustdistiller", overrides(corpus, conv_teacher, tmp_path / "run", *more)))
    assert not (tmp_path / "run" / "checkpoints").exists()
