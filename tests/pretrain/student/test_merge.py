"""Weighted means of two students, by the function and by the command."""

from __future__ import annotations

import pytest
import torch
from typer.testing import CliRunner

from robustdistiller.cli.main import app
from robustdistiller.common.settings import SettingsError
from robustdistiller.pretrain.student.merge import merge_checkpoints, merge_students
from robustdistiller.upstream import (
    EncoderConfig,
    SpeechEncoder,
    UpstreamExpert,
    checkpoint_digest,
    read_checkpoint,
    save_checkpoint,
)

SHAPE = {"prediction_layers": (2, 4), "feature_scale": True, "relative_position": True, "gated_relative_position": True}


def student(seed: int, **options) -> SpeechEncoder:
    torch.manual_seed(seed)
    encoder = SpeechEncoder(EncoderConfig.tiny(**{**SHAPE, **options}))
    with torch.no_grad():  # norms and biases start as ones and zeros, in both
        for parameter in encoder.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.1)
            parameter.view(-1)[0] = -0.0 if seed == 1 else 0.3
    return encoder


@pytest.fixture
def files(tmp_path):
    teacher = {"name": "WavLM", "sha256": "ab"}
    save_checkpoint(tmp_path / "a.ckpt", student(1), {"teacher": teacher, "recipe": "distilhubert"})
    save_checkpoint(tmp_path / "b.ckpt", student(2), {"teacher": teacher, "recipe": "robustdistiller"})
    return tmp_path


def bits(value: torch.Tensor) -> bytes:
    return value.numpy().tobytes()


@pytest.mark.parametrize("weight", [0, 1, 0.0, 1.0])
def test_the_ends_are_the_students_bit_for_bit(weight) -> None:
    a, b = student(1), student(2)
    merged, expected = merge_students(a, b, weight).state_dict(), (b if weight else a).state_dict()
    assert all(bits(value) == bits(expected[name]) for name, value in merged.items())


@pytest.mark.parametrize("weight", [0.25, 0.5, 0.9])
def test_every_weight_is_the_weighted_mean(weight) -> None:
    a, b = student(1), student(2)
    before = [{name: value.clone() for name, value in one.state_dict().items()} for one in (a, b)]
    merged = merge_students(a, b, weight)
    assert not merged.training
    for name, value in merged.state_dict().items():
        expected = (1 - weight) * before[0][name].double() + weight * before[1][name].double()
        torch.testing.assert_close(value.double(), expected, rtol=1e-6, atol=1e-9)
        assert not torch.equal(value, before[0][name]) and not torch.equal(value, before[1][name]), name
    for one, kept in zip((a, b), before, strict=True):
        assert all(torch.equal(value, kept[name]) for name, value in one.state_dict().items())


def test_counters_are_not_averaged() -> None:
    a, b = (
        student(seed, position_batch_norm=True, relative_position=False, gated_relative_position=False)
        for seed in (1, 2)
    )
    b.transformer.position.batch_norm.num_batches_tracked.fill_(7)
    b.transformer.position.batch_norm.running_mean.fill_(1.0)
    norm = merge_students(a, b).transformer.position.batch_norm
    assert norm.num_batches_tracked == 0 and (norm.running_mean == 0.5).all()


def test_dropout_may_differ_and_is_the_first_ones() -> None:
    merged = merge_students(student(1, dropout=0.0), student(2, dropout=0.3, feature_grad_mult=0.1))
    assert (merged.config.dropout, merged.config.feature_grad_mult) == (0.0, 1.0)


def test_head_counts_written_in_two_ways_are_one_shape() -> None:
    a, b = student(1), student(2, num_heads=(2, 2), ffn_dim=(32, 32))
    merge_students(a, b.train(), 0.5)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_heads": 4}, r"differ in num_heads \(2 and 4\), so"),
        ({"ffn_dim": (32, 30), "num_buckets": 64}, r"differ in ffn_dim \(32 and \(32, 30\)\), num_buckets"),
        ({"activation": "relu"}, r"activation \(gelu and relu\)"),
        ({"first_state": "layer_input"}, r"first_state \(auto and layer_input\)"),
        ({"conv_layers": ((16, 10, 5), (16, 64, 64))}, "differ in conv_layers, so"),
        (
            {"prediction_layers": (2,), "embed_dim": 32, "num_layers": 1, "feature_norm": False},
            r"differ in feature_norm \(True and False\), embed_dim \(16 and 32\), num_layers \(2 and 1\) and 1 more",
        ),
    ],
)
def test_students_of_other_shapes_are_refused(options, message) -> None:
    with pytest.raises(SettingsError, match=message):
        merge_students(student(1), student(2, **options))


@pytest.mark.parametrize("weight", [-0.1, 1.5, float("nan")])
def test_weights_outside_are_refused(weight) -> None:
    with pytest.raises(SettingsError, match=r"weight is .*, expected 0 .* to 1"):
        merge_students(student(1), student(2), weight)


def run(*arguments):
    result = CliRunner().invoke(app, ["merge", *map(str, arguments)])
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result


def test_the_command_writes_an_upstream_that_names_its_sources(files) -> None:
    result = run(files / "a.ckpt", files / "b.ckpt", "--weight", 0.25, "--out", files / "new" / "c.ckpt")
    assert result.exit_code == 0, result.output
    assert result.output.strip() == str(files / "new" / "c.ckpt")
    checkpoint = read_checkpoint(files / "new" / "c.ckpt")
    notes = checkpoint.metadata
    assert notes["merged"]["weight"] == 0.25
    digests = [checkpoint_digest(files / name) for name in ("a.ckpt", "b.ckpt")]
    assert [source["sha256"] for source in notes["merged"]["sources"]] == digests
    assert [source["name"] for source in notes["merged"]["sources"]] == ["a.ckpt", "b.ckpt"]
    assert notes["teacher"]["name"] == "WavLM" and "recipe" not in notes and checkpoint.is_student
    speech = torch.randn(2000)
    states = UpstreamExpert(files / "new" / "c.ckpt")([speech])["hidden_states"]
    expected = merge_students(student(1), student(2), 0.25)
    for found, state in zip(states, expected(speech[None]).upstream_states(expected.config), strict=True):
        torch.testing.assert_close(found, state, rtol=1e-4, atol=1e-5)
    assert all(torch.equal(value, expected.state_dict()[name]) for name, value in checkpoint.state_dict.items())


def test_equal_sources_give_equal_bytes(files) -> None:
    paths = [merge_checkpoints(str(files / "a.ckpt"), str(files / "b.ckpt"), files / name) for name in ("c", "d")]
    assert paths[0].read_bytes() == paths[1].read_bytes()


def test_what_the_command_cannot_do_is_one_sentence(files) -> None:
    save_checkpoint(files / "other.ckpt", student(3, num_heads=4), {})
    for arguments, message in (
        (["a.ckpt", "other.ckpt", "--out", "c.ckpt"], "differ in num_heads"),
        (["a.ckpt", "absent.ckpt", "--out", "c.ckpt"], "absent.ckpt"),
        (["a.ckpt", "b.ckpt", "--out", "b.ckpt"], "exists already; choose another name, or give --overwrite"),
        (
            ["a.ckpt", "b.ckpt", "--out", "b.ckpt", "--overwrite"],
            "b.ckpt is one of the students to merge; give another",
        ),
        (["a.ckpt", "b.ckpt", "--out", "."], "is a folder, expected a file; choose another name"),
        (["a.ckpt", "b.ckpt", "--out", "c.ckpt", "--weight", "2"], "weight is 2.0, expected 0"),
    ):
        places = [str(files / one) if one.endswith(".ckpt") or one == "." else one for one in arguments]
        result = run(*places)
        assert result.exit_code == 2 and message in result.output and "Traceback" not in result.output
        assert result.output.count("\n") == 1
        assert not (files / "c.ckpt").exists()
    assert run(files / "a.ckpt", files / "b.ckpt", "--out", files / "other.ckpt", "--overwrite").exit_code == 0
