"""The examples of one file run; those that pages include run there, too."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest
import torch

from robustdistiller.acoustics import Range
from robustdistiller.acoustics.effects import Recordings
from robustdistiller.upstream import EncoderConfig, SpeechEncoder, save_checkpoint

EXAMPLES = Path(__file__).parents[2] / "examples"
EXPORT = Path(__file__).parents[2] / "upstream" / "export"


def example(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, EXAMPLES / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize(
    "path",
    [EXAMPLES / "own_task.py", EXAMPLES / "transformers_student.py", EXPORT / "example_onnx.py"],
    ids=lambda p: p.name,
)
def test_without_arguments_an_example_says_how_it_is_called(path: Path) -> None:
    pytest.importorskip("onnxruntime")
    done = subprocess.run([sys.executable, str(path)], capture_output=True, text=True, check=False)
    assert done.returncode == 1 and f"{path.name} " in done.stderr and "Traceback" not in done.stderr


def test_the_effect_silences_the_drawn_beginning() -> None:
    effect = example("own_effect").CutStart(missing_s=Range(0.1, 0.1))
    wave, recordings = np.ones(4001, np.float32), Recordings()
    parameters = effect.draw(np.random.default_rng(0), len(wave), recordings)
    heard = effect.apply(wave, parameters, recordings)
    assert not heard[:1600].any() and heard[1600:].all() and len(heard) == len(wave)


def test_the_objective_counts_valid_frames_only() -> None:
    predictions = torch.tensor([[[3.0], [7.0]], [[0.5], [0.0]]])
    valid = torch.tensor([[True, False], [True, True]])
    step = SimpleNamespace(predictions=[predictions], targets=[torch.zeros(2, 2, 1)], valid=valid)
    value = example("own_objective").Huber(delta=1.0)(step)
    assert value.tolist() == pytest.approx([(2.5 + 0.125 + 0.0) / 3])


def test_transformers_gives_the_features_of_the_student(tmp_path: Path) -> None:
    pytest.importorskip("transformers")
    config = EncoderConfig.tiny(num_layers=1, feature_norm=False, projection=True, prediction_layers=(4,))
    encoder, waveforms = SpeechEncoder(config).eval(), torch.randn(1, 5001, generator=torch.Generator().manual_seed(0))
    save_checkpoint(tmp_path / "student.ckpt", encoder, {})
    found = example("transformers_student").features(tmp_path / "student.ckpt", tmp_path / "folder", waveforms)
    with torch.no_grad():
        torch.testing.assert_close(found, encoder(waveforms).hidden_states[-1], atol=1e-4, rtol=1e-4)
