"""Several processes, accumulated batches, recomputed and compiled layers: the same training as without."""

from __future__ import annotations

import csv
import os
import re
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

from robustdistiller.pretrain import SettingsError, distill, load_config
from robustdistiller.pretrain.data.sampler import BatchRequest, BatchStream
from robustdistiller.pretrain.data.speech import speech_cuts
from robustdistiller.pretrain.training import launch as acceleration
from robustdistiller.pretrain.training import stages
from robustdistiller.pretrain.training.build import make_distiller
from robustdistiller.pretrain.training.launch import check_compiler, check_launcher, compile_layers
from robustdistiller.pretrain.training.log import read_history
from robustdistiller.upstream import SpeechEncoder, load_encoder, read_checkpoint
from tests.waiting import HANG_S

from ..conftest import TEACHER, assert_equal_states, last_checkpoint, run_overrides

WITHOUT_DROPOUT = (
    "student.dropout=0",
    "student.attention_dropout=0",
    "student.activation_dropout=0",
    "objectives.enhancement.weight=0",
    "trainer.log_every_steps=1",
)
PROGRAM = """
import os, sys, typer
from robustdistiller.cli.distill import distill
if os.environ["RANK"] == "1":  # what the second machine sees in the place of a folder of the first
    sys.argv = [one.replace(*os.environ.get("ELSEWHERE", ",").split(",")) for one in sys.argv]
typer.run(distill)
"""
#: What torchrun does on one machine, without importing PyTorch once for itself and once for every process.
FORKED = """
import os, signal, sys
import robustdistiller.pretrain.training.stages
from lightning_fabric.utilities.rank_zero import rank_zero_only
processes, program = int(sys.argv[1]), sys.argv[2]
sys.argv = sys.argv[2:]
left = set()
for rank in range(processes):
    pid = os.fork()
    if pid == 0:
        os.environ.update(RANK=str(rank), LOCAL_RANK=str(rank))
        os.environ.update(WORLD_SIZE=str(processes), LOCAL_WORLD_SIZE=str(processes))
        os.environ.update(GROUP_RANK="0", TORCHELASTIC_RUN_ID="forked", MASTER_ADDR="127.0.0.1")
        rank_zero_only.rank = rank  # from the environment, as that module is imported
        exec(compile(open(program).read(), program, "exec"), {"__name__": "__main__"})
        sys.exit()
    left.add(pid)
statuses = []
while left:
    pid, status = os.wait()
    left.discard(pid)
    statuses.append(status)
    for other in left if status else ():
        os.kill(other, signal.SIGTERM)
sys.exit(any(statuses))
"""


@pytest.fixture
def torchrun(tmp_path: Path):
    """Run the command in several processes, of torchrun itself or quicker; returns what they said."""
    script = tmp_path / "distill.py"
    script.write_text(PROGRAM)

    def start(recipe: str, overrides: list[str], code: int = 0, itself: bool = False) -> str:
        launcher = ["-c", FORKED, "2", str(script)]
        if itself:
            launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2", str(script)]
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = str(free.getsockname()[1])
        command = [sys.executable, *launcher, recipe, *overrides, "trainer.devices=2"]
        environment = {**os.environ, **({} if itself else {"MASTER_PORT": port})}
        result = subprocess.run(command, capture_output=True, text=True, timeout=HANG_S, env=environment)
        assert (result.returncode == 0) == (code == 0), result.stderr
        return result.stderr

    return start


def students(*out_dirs: Path) -> list[dict[str, torch.Tensor]]:
    return [read_checkpoint(out_dir / "student.ckpt").state_dict for out_dir in out_dirs]


def largest_difference(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> float:
    assert one.keys() == other.keys()
    return max(float((one[name] - other[name]).abs().max()) for name in one)


def assert_same_training(found: Path, expected: Path) -> None:
    """Losses, norms and students agree as far as the order of sums allows; tables of the validation too."""
    lines = [read_history(path / "history.csv") for path in (found, expected)]
    assert [(line["stage"], line["step"]) for line in lines[0]] == [(line["stage"], line["step"]) for line in lines[1]]
    for one, other in zip(*lines):
        for name in set(one) - {"stage", "audio_s_per_s", "data_wait", "epoch"}:
            assert one[name] == pytest.approx(other[name], rel=2e-4, abs=1e-6), name
    one, other = students(found, expected)
    assert largest_difference(one, other) < 1e-4
    tables = [list(csv.DictReader((path / "validation.csv").open())) for path in (found, expected)]
    assert len(tables[0]) == len(tables[1]) > 0
    for one, other in zip(*tables):
        assert one["condition"] == other["condition"]
        assert float(one["cosine"]) == pytest.approx(float(other["cosine"]), rel=1e-4)


def test_two_processes_train_as_one_that_accumulates(corpus, teacher_path, torchrun, tmp_path: Path) -> None:
    """Utterances of unequal length, dropout, enhancement, correlations, a target cache, resumed in between."""
    options = [
        *("trainer.batch_size=3", "validation.every_steps=2", "optim.lr=1e-3", "trainer.log_every_steps=1"),
        *("objectives.cross_correlation.weight=0.01", "objectives.cross_correlation.frames=10"),
        *("objectives.cross_correlation.normalize=batch_and_time", "targets.cache={}", "targets.cache.dtype=fp32"),
    ]
    two, one = tmp_path / "two", tmp_path / "one"
    overrides = [*run_overrides(corpus, teacher_path, two), *options]
    torchrun("robustdistiller", [*overrides, "trainer.max_steps=2"], itself=True)
    assert "continuing" in torchrun("robustdistiller", [*overrides, "trainer.max_steps=4"])
    distill(
        load_config(
            "robustdistiller",
            [*run_overrides(corpus, teacher_path, one), *options, "trainer.max_steps=4", "trainer.accumulate=2"],
        )
    )
    assert_same_training(two, one)


def pruned(corpus, teacher_path: Path, out_dir: Path) -> list[str]:
    """Two stages with gates and groups of layers that are found; a step is two batches."""
    return [
        f"teacher.checkpoint={teacher_path}",
        f"data.speech={corpus.speech}",
        f"out_dir={out_dir}",
        *("data.num_workers=0", "data.min_samples=1600", "data.max_samples=40000", "trainer.accelerator=cpu"),
        *("trainer.batch_size=4", "trainer.batch_seconds=null", "trainer.log_every_steps=1", "optim.lr=1e-3"),
        *("targets.groups.count=2", "targets.groups.calibration_utterances=8", "validation.every_steps=2"),
        *("pruning.sparsity=0.4", "pruning.ramp_steps=2", "pruning.gate_lr=0.5", "trainer.max_steps=3"),
        *("stages.distil.trainer.max_steps=4", "trainer.save_every_steps=2"),
    ]


def test_a_run_stopped_in_stage_two_goes_on_with_another_number_of_processes(
    corpus, teacher_path, torchrun, tmp_path: Path
) -> None:
    """One process, stopped in the second stage, continued on two: as if one had done it all."""
    straight, moved = tmp_path / "straight", tmp_path / "moved"
    distill(load_config("skill", [*pruned(corpus, teacher_path, straight), "trainer.accumulate=2"]))

    class Break:
        def on_step_end(self, distiller, report) -> None:
            if distiller.gates is None and report.step == 3:
                raise OSError("the power went out")

    overrides = pruned(corpus, teacher_path, tmp_path / "first")
    with pytest.raises(OSError, match="power"):
        distill(load_config("skill", [*overrides, "trainer.accumulate=2"]), callbacks=[Break()])
    (tmp_path / "first").rename(moved)
    said = torchrun("skill", [*pruned(corpus, teacher_path, moved), "trainer.accumulate=1"])
    assert "distil-00000002.ckpt" in said and "stage prune of" in said
    assert_same_training(moved, straight)
    groups = [(path / "groups.json").read_text() for path in (moved, straight)]
    assert groups[0] == groups[1]


@pytest.mark.slow  # the test before has both of its stages, one of them on two processes
def test_two_processes_prune_as_one(corpus, teacher_path, torchrun, tmp_path: Path) -> None:
    two, one = tmp_path / "two", tmp_path / "one"
    torchrun("skill", [*pruned(corpus, teacher_path, two), "trainer.accumulate=1"])
    distill(load_config("skill", [*pruned(corpus, teacher_path, one), "trainer.accumulate=2"]))
    assert_same_training(two, one)


def test_a_process_without_anything_to_hear_waits_for_no_gradient(corpus, teacher_path, torchrun, tmp_path: Path):
    """What is not read is silence, whose frames are hidden from the student, too: the mask is trained everywhere."""
    speech, lists = tmp_path / "speech", tmp_path / "lists"
    shutil.copytree(corpus.speech, speech)
    speech_cuts([speech], lists)
    for file in (speech / "speaker0").iterdir():  # without a change of size and time, which would be noticed
        stamp = file.stat()
        file.write_bytes(bytes(stamp.st_size))
        os.utime(file, ns=(stamp.st_atime_ns, stamp.st_mtime_ns))
    torchrun(
        "distilhubert",
        [
            *(f"teacher.checkpoint={teacher_path}", f"data.speech={speech}", f"data.manifest_dir={lists}"),
            *("targets.layers=[2]", "student.num_layers=1", "student.mask={}", "data.num_workers=0"),
            *("trainer.accelerator=cpu", "trainer.batch_size=1", "trainer.max_steps=13", f"out_dir={tmp_path / 'run'}"),
        ],
    )
    assert len((tmp_path / "run" / "unreadable.txt").read_text().splitlines()) == 10
    assert last_checkpoint(tmp_path / "run")["progress"]["step"] == 13


def test_weights_that_get_no_gradient_are_told_before_the_first_step(corpus, teacher_path, torchrun, tmp_path: Path):
    options = ["targets.match=layers", "targets.layers=[1]", "objectives.enhancement.weight=0"]
    said = torchrun("robustdistiller", [*run_overrides(corpus, teacher_path, tmp_path / "run"), *options], code=2)
    assert re.search(r"distil: the loss does not reach 16 of .* such as student\.transformer\.layers\.1\.", said)
    assert "trainer.strategy=ddp_find_unused_parameters_true" in said and not list(tmp_path.glob("run/history.csv"))


@pytest.mark.parametrize("what", ["out_dir", pytest.param("data.noise", marks=pytest.mark.slow)])
def test_machines_with_other_folders_do_not_train_together(corpus, teacher_path, torchrun, tmp_path, monkeypatch, what):
    overrides = [*run_overrides(corpus, teacher_path, tmp_path / "run"), "trainer.batch_size=2"]
    if what == "out_dir":
        distill(load_config("robustdistiller", [*overrides, "trainer.max_steps=2"]))
        monkeypatch.setenv("ELSEWHERE", f"out_dir={tmp_path / 'run'},out_dir={tmp_path / 'other'}")
    else:
        monkeypatch.setenv("ELSEWHERE", f"data.noise={corpus.noise},data.noise={corpus.speech / 'speaker1'}")
    said = torchrun("robustdistiller", overrides, code=2)
    assert "found different " + ("checkpoints" if what == "out_dir" else "teachers, speech, noise") in said
    assert "step 4" not in said


@pytest.mark.slow
def test_a_time_limit_that_one_process_meets_is_that_of_all(corpus, teacher_path, torchrun, tmp_path, monkeypatch):
    """Where it is no failure, it is none of those which were started later."""
    monkeypatch.setenv("ELSEWHERE", "max_hours=0.0001,max_hours=1")
    overrides = [*run_overrides(corpus, teacher_path, tmp_path / "run"), "trainer.max_hours=0.0001"]
    steps = ["trainer.batch_size=2", "trainer.max_steps=99", "optim.schedule_steps=99"]
    said = torchrun("robustdistiller", [*overrides, *steps])
    assert said.count("stopped by trainer.max_hours=0.0001 at step 10 of 99") == 2


def test_accumulated_batches_equal_a_large_one(make_config, tmp_path: Path, monkeypatch) -> None:
    """Halves of a batch, one of which has three times the frames of the other."""
    speech = tmp_path / "speech"
    speech.mkdir()
    for index in range(12):
        samples = np.random.default_rng(index).normal(0, 0.1, 4_000 if index % 4 < 2 else 16_000)
        soundfile.write(speech / f"{index}.wav", samples, 16_000)

    class Halves(BatchStream):
        """Each batch of four as its short and its long two."""

        def __iter__(self):
            for request in BatchStream.__iter__(self):
                cuts = sorted(request.cuts, key=lambda cut: cut.num_samples)
                for part in (cuts[:2], cuts[2:]):
                    yield BatchRequest(request.position, tuple(part), (), request.resume_at)

    options = (*WITHOUT_DROPOUT, f"data.speech={speech}", "trainer.batch_size=4", "trainer.num_buckets=1")
    options = (*options, "trainer.max_steps=3", "corruption.tables=[{clean: 1}]", "optim.lr=1e-3")
    distill(make_config(tmp_path / "large", *options))
    monkeypatch.setattr(stages, "BatchStream", lambda *args, batches_per_step, **more: Halves(*args, **more))
    distill(make_config(tmp_path / "small", *options, "trainer.accumulate=2"))
    lines = [read_history(tmp_path / name / "history.csv") for name in ("small", "large")]
    for small, large in zip(*lines):
        for name in ("loss", "l1", "cosine", "l1_layer2"):
            assert small[name] == pytest.approx(large[name], rel=1e-5), name
        assert small["grad_norm"] == pytest.approx(large["grad_norm"], rel=1e-4)
    assert largest_difference(*students(tmp_path / "small", tmp_path / "large")) < 1e-5


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
    for part in ("model", "optimizer"):
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
        module = make_distiller(config, load_encoder(teacher_path))
        assert {weight.requires_grad for weight in module.student.extractor.parameters()} == {factor > 0}
