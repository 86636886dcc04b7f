"""Features that are no numbers: a head is neither trained nor scored on them, and the sentence names the utterance."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from torch import nn

from robustdistiller.eval.results.files import read_records
from robustdistiller.eval.run.errors import RunError
from robustdistiller.eval.run.evaluate import evaluate_head
from robustdistiller.eval.run.specs import Upstream
from robustdistiller.eval.run.train import train_head


class LogEnergy(nn.Module):
    """A front end without a floor under its logarithm: silence is minus infinity."""

    def get_downsample_rates(self, key: str) -> int:
        return 320

    def forward(self, waveforms):
        padded = nn.utils.rnn.pad_sequence(waveforms, batch_first=True)
        frames = padded[:, : padded.shape[1] // 320 * 320].unflatten(1, (-1, 320))
        return {"hidden_states": [torch.stack([frames.square().mean(-1).log(), frames.mean(-1)], dim=-1)]}


@pytest.fixture
def spec(head_spec, tmp_path):
    """Of a head for intents on that front end; its corpus is the test's own."""
    return head_spec("IC", tmp_path / "head", upstream=Upstream("log_energy", module=LogEnergy()))


def fall_silent(spec, split: str) -> None:
    """The last tenth of a second of an utterance becomes digital silence."""
    root = Path(spec.config["downstream_expert"]["datarc"]["file_path"])
    path = root / f"wavs/speakers/spk1/{split}1.wav"
    wave, rate_hz = soundfile.read(path)
    wave[-rate_hz // 10 :] = 0
    soundfile.write(path, wave, rate_hz)
    assert not np.any(soundfile.read(path)[0][-1600:])


@pytest.mark.parametrize("cache", [False, True])
def test_training_stops_at_the_utterance(cache, spec, tmp_path):
    if cache:
        spec = dataclasses.replace(spec, features=dataclasses.replace(spec.features, folder=str(tmp_path / "cache")))
    fall_silent(spec, "train")
    with pytest.raises(RunError, match=r"log_energy gives features that are not finite, in \d+ of \d+ frames of utter"):
        train_head(spec)


def test_the_condition_that_holds_it_fails_and_the_others_have_a_score(spec, tmp_path):
    train_head(spec)
    fall_silent(spec, "test")
    with pytest.raises(RunError, match=r"features that are not finite.*samples zero, peak 0\.\d+"):
        evaluate_head(spec, ["clean", "noise:snr_db=10,noise=white"], records=tmp_path / "records")
    found = {one.condition: one for one in read_records(tmp_path / "records")}
    assert found["clean"].status == "failed" and "not finite" in found["clean"].reason
    assert [one.status for name, one in found.items() if name != "clean"] == ["ok"]
