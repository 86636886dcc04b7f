"""Several processes, accumulated batches, recomputed and compiled layers: the same training as without."""

from __future__ import annotations

import csv
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

from robustdistiller.pretrain import SettingsError, distill
from robustdistiller.pretrain.data.dataset import BatchRequest, BatchStream
from robustdistiller.pretrain.training import launch as acceleration
from robustdistiller.pretrain.training import stages as run
from robustdistiller.pretrain.training.build import build
from robustdistiller.pretrain.training.callbacks import read_history
from robustdistiller.pretrain.training.launch import check_compiler, check_launcher, compile_layers
from robustdistiller.upstream import SpeechEncoder, load_encoder, read_checkpoint
from tests.waiting import HANG_S

from .conftest import TEACHER, assert_equal_states, last_checkpoint, run_overrides

WITHOUT_DROPOUT = (
    "student.dropout=0",
    "student.attention_dropout=0",
    "student.activation_dropout=0",
    "objectives.enhancement.weight=0",
    "trainer.log_every_steps=1",
)


class BothParts(BatchStream):
    """For one process: what two processes get at the same time, in one batch."""

    def __init__(self, *args):
        super().__init__(*args[:-3], 2, 0, 1)

    def __iter__(self):
        requests = super().__iter__()
        for one, other in zip(requests, requests):
            passes = (*one.passes, *other.passes)
            yield BatchRequest(one.position, (*one.cuts, *other.cuts), passes, other.resume_at)


class Halves(BatchStream):
    """Each batch as two."""

    def __init__(self, *args):
        super().__init__(*args[:-3], 1, 0, 1)

    def __iter__(self):
        for request in super().__iter__():
            position, half = request.position, len(request.cuts) // 2
            for part, cuts in enumerate((request.cuts[:half], request.cuts[half:])):
                place = replace(position, batches=2 * position.batches + part)
                yield BatchRequest(place, cuts, request.passes[: len(cuts)], request.resume_at)


def students(*out_dirs: Path) -> list[dict[str, torch.Tensor]]:
    return [read_checkpoint(out_dir / "student.ckpt").state_dict for out_dir in out_dirs]


def largest_difference(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> float:
    assert one.keys() == other.keys()
    return max(float((one[name] - other[name]).abs().max()) for name in one)


@pytest.mark.parametrize("ends", [(3,), pytest.param((2, 4), marks=pytest.mark.slow)])
def test_two_processes_train_as_one_with_both_parts(
    make_config, corpus, teacher_path, tmp_path, monkeypatch, ends: tuple[int, ...]
) -> None:
    options = (
        *WITHOUT_DROPOUT,
        "trainer.batch_size=3",
        "trainer.num_buckets=1",
        "validation.every_steps=2",
        "optim.lr=1e-3",
    )
    two, one = tmp_path / "two", tmp_path / "one"
    program = "import typer; from robustdistiller.cli.distill import distill; typer.run(distill)"
    script = tmp_path / "distill.py"
    script.write_text(program)
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2", str(script)]
    overrides = [*run_overrides(corpus, teacher_path, two), *options, "trainer.devices=2"]
    for steps in ends:  # the second start continues the first
        result = subprocess.run(
            [*command, "robustdistiller", *overrides, f"trainer.max_steps={steps}"],
            capture_output=True,
            text=True,
            timeout=HANG_S,
        )
        assert result.returncode == 0, result.stderr
    assert ("continuing" in result.stderr) == (len(ends) > 1)
    monkeypatch.setattr(run, "BatchStream", BothParts)
    distill(make_config(one, *options, f"trainer.max_steps={ends[-1]}"))

    lines = [read_history(path / "history.csv") for path in (two, one)]
    assert [line["step"] for line in lines[0]] == list(range(1, ends[-1] + 1))
    for found, expected in zip(*lines):
        for name in ("loss", "l1_layer2", "l1_layer4", "cosine", "grad_norm", "lr", "audio_h"):
            assert found[name] == pytest.approx(expected[name], rel=1e-4), name
    found, expected = students(two, one)
    assert largest_difference(found, expected) < 1e-4
    tables = [list(csv.DictReader((path / "validation.csv").open())) for path in (two, one)]
    assert len(tables[0]) == len(tables[1]) == 8
    for found, expected in zip(*tables):
        assert found["condition"] == expected["condition"]
        assert float(found["cosine"]) == pytest.approx(float(expected["cosine"]), rel=1e-4)


def test_accumulated_batches_equal_a_large_one(make_config, tmp_path: Path, monkeypatch) -> None:
    speech = tmp_path / "speech"
    speech.mkdir()
    for index in range(12):
        soundfile.write(speech / f"{index}.wav", np.random.default_rng(index).normal(0, 0.1, 8_000), 16_000)
    options = (*WITHOUT_DROPOUT, f"data.speech={speech}", "trainer.batch_size=4", "trainer.max_steps=3")
    distill(make_config(tmp_path / "large", *options))
    monkeypatch.setattr(run, "BatchStream", Halves)
    distill(make_config(tmp_path / "small", *options, "trainer.accumulate=2"))
    distill(make_config(tmp_path / "other", *options))  # without accumulation, the halves are another training
    lines = [read_history(tmp_path / name / "history.csv") for name in ("small", "large", "other")]
    for small, large, other in zip(*lines):
        assert small["loss"] == pytest.approx(large["loss"], rel=1e-5)
        assert small["grad_norm"] == pytest.approx(large["grad_norm"], rel=1e-4)
        assert small["grad_norm"] != pytest.approx(other["grad_norm"], rel=3e-4)
    small, large, other = students(tmp_path / "small", tmp_path / "large", tmp_path / "other")
    assert largest_difference(small, large) < 0.1 * largest_difference(other, large)


def test_recomputed_layers_give_the_same_training(make_config, straight: Path, tmp_path: Path, monkeypatch) -> None:
    runs = []
    checkpoint = torch.utils.checkpoint.checkpoint
    from robustdistiller.upstream.model import transformer

    monkeypatch.setattr(
        transformer, "checkpoint", lambda *args, **kwargs: runs.append(1) or checkpoint(*args, **kwargs)
    )
    distill(make_config(tmp_path, "trainer.activation_checkpointing=true"))
    assert len(runs) == 6 * 2  # steps times layers, never for the teacher
    one, other = last_checkpoint(tmp_path), last_checkpoint(straight)
    for part in ("state_dict", "optimizer_states"):
        assert_equal_states(one[part], other[part], part)


def valid_predictions(encoder: SpeechEncoder, audio: torch.Tensor, lengths: torch.Tensor) -> list[torch.Tensor]:
    """Predictions without the frames past an utterance's end, which mean nothing."""
    output = encoder(audio, lengths)
    valid = torch.arange(output.predictions[0].shape[1]) < output.frame_lengths[:, None]
    return [one[valid] for one in output.predictions]


def test_compiled_layers_compute_the_same_and_new_lengths_compile_nothing() -> None:
    torch.manual_seed(0)
    shape = TEACHER.replace(dropout=0.0, attention_dropout=0.0, prediction_layers=(1, 2), num_layers=2)
    plain = SpeechEncoder(shape)
    compiled = SpeechEncoder(shape)
    compiled.load_state_dict(plain.state_dict())
    graphs = []

    def backend(graph, inputs):
        graphs.append(graph)
        return graph.forward

    compile_layers(compiled, backend=backend)
    counts = []
    for lengths in ([6_000, 4_000, 2_000], [5_000, 1_500, 900], [7_777, 7_000, 3_333]):
        lengths = torch.tensor(lengths)
        audio = torch.randn(3, int(lengths.max())) * (torch.arange(int(lengths.max())) < lengths[:, None])
        outputs = [valid_predictions(encoder, audio, lengths) for encoder in (plain, compiled)]
        torch.testing.assert_close(outputs[1], outputs[0])
        for encoder, output in zip((plain, compiled), outputs):
            encoder.zero_grad()
            sum(one.square().mean() for one in output).backward()
        gradients = [{name: w.grad for name, w in encoder.named_parameters()} for encoder in (plain, compiled)]
        torch.testing.assert_close(gradients[1], gradients[0])
        counts.append(len(graphs))
    assert counts[0] > 3 and counts[1] == counts[2]
    assert list(compiled.state_dict()) == list(plain.state_dict())
    torch._dynamo.reset()


def test_a_missing_compiler_is_named(make_config, tmp_path: Path, monkeypatch) -> None:
    def fail(function):
        raise RuntimeError("No working C++ compiler found in ('g++',)\nmore")

    monkeypatch.setattr(acceleration.torch, "compile", fail)
    with pytest.raises(SettingsError, match=r"trainer\.compile: .*for cpu .*needs a C\+\+ compiler.*said: No working"):
        check_compiler("cpu")
    with pytest.raises(SettingsError, match=r"trainer\.compile=false"):
        distill(make_config(tmp_path, "trainer.compile=true"))


@pytest.mark.slow
def test_a_compiled_run_falls_like_another(make_config, tmp_path: Path) -> None:
    options = (*WITHOUT_DROPOUT, "trainer.max_steps=4")
    distill(make_config(tmp_path / "compiled", *options, "trainer.compile=true"))
    distill(make_config(tmp_path / "plain", *options))
    for found, expected in zip(*(read_history(tmp_path / name / "history.csv") for name in ("compiled", "plain"))):
        assert found["loss"] == pytest.approx(expected["loss"], rel=1e-4)


def test_bf16_trains_and_is_validated_in_float32(make_config, tmp_path: Path) -> None:
    distill(make_config(tmp_path, "trainer.precision=bf16", "trainer.max_steps=2", "validation.every_steps=2"))
    assert all(value.dtype == torch.float32 for value in students(tmp_path)[0].values())
    assert np.isfinite([line["loss"] for line in read_history(tmp_path / "history.csv")]).all()


@pytest.mark.parametrize(
    ("variables", "message"),
    [
        ({"WORLD_SIZE": "2", "TORCHELASTIC_RUN_ID": "1"}, r"torchrun started 2 processes, but trainer\.devices=1 on"),
        ({"SLURM_NTASKS": "8", "SLURM_JOB_NAME": "distill"}, r"SLURM started 8 processes.* need 1: one process per"),
    ],
)
def test_processes_that_would_train_apart_are_refused(make_config, tmp_path, monkeypatch, variables, message) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(acceleration.SLURMEnvironment, "detect", staticmethod(lambda: "SLURM_NTASKS" in variables))
    monkeypatch.setattr(
        acceleration.TorchElasticEnvironment, "detect", staticmethod(lambda: "TORCHELASTIC_RUN_ID" in variables)
    )
    with pytest.raises(SettingsError, match=message):
        distill(make_config(tmp_path))
    check_launcher(devices=2, num_nodes=int(variables.get("SLURM_NTASKS", "2")) // 2)


def test_a_frozen_extractor_waits_for_no_gradient(make_config, teacher_path, tmp_path: Path) -> None:
    for factor in (0.0, 0.1):
        config = make_config(tmp_path, f"student.feature_grad_mult={factor}")
        module = build(config, load_encoder(teacher_path))
        assert {weight.requires_grad for weight in module.student.extractor.parameters()} == {factor > 0}
