"""Encoders of every shape on a device other than the CPU: nothing is left behind, and nothing waited for."""

from __future__ import annotations

import contextlib
from typing import Any

import torch

from robustdistiller.upstream import EncoderConfig, SpeechEncoder
from robustdistiller.upstream.model.streaming import ChunkedEncoder, ChunkOptions
from robustdistiller.upstream.s3prl.entries import open_entry
from tests.pretended_device import DEVICE, call_with_device, pretended

SHAPES: dict[str, dict[str, Any]] = {
    "base": {},
    "large": {"conv_norm": "layer", "norm_first": True, "normalize_waveform": True},
    "wavlm": {"relative_position": True, "gated_relative_position": True},
    "heads": {"prediction_layers": [1, 2]},
    "log-mel": {"front_end": "log_mel", "conv_layers": [[16, 3, 2], [16, 3, 1]]},
    "sew": {"squeeze": 2},
    "fithubert": {"squeeze": 2, "squeeze_by": "conv"},
    "data2vec": {"position_depth": 2},
    "mhubert": {"position_batch_norm": True},
}


def tried(shapes: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """All that is asked below, in one process that knows the device."""
    return {
        "encoders": {name: encoded_there(changes) for name, changes in shapes.items()},
        "upstream": heard_there("robustdistiller_mini"),
        "faults": [left_behind(what) for what in ("weights", "numpy", "answer")],
    }


def encoded_there(changes: dict[str, Any]) -> dict[str, Any]:
    """Largest difference to the CPU, of the whole and of chunks, and where the device was waited for."""
    torch.manual_seed(0)
    encoder = SpeechEncoder(EncoderConfig.tiny().replace(**changes)).eval()
    waveforms, lengths = 0.1 * torch.randn(3, 9000), torch.tensor([9000, 8007, 700])
    ways = {"whole": encoder}
    with contextlib.suppress(ValueError):  # shapes that have no chunks
        ways["chunks"] = ChunkedEncoder(encoder, ChunkOptions(chunk_frames=8, look_ahead_frames=2))
    with torch.no_grad():
        expected = {way: module(waveforms, lengths).hidden_states for way, module in ways.items()}
        with pretended() as waits:
            there = {way: module.to(DEVICE)(waveforms.to(DEVICE), lengths) for way, module in ways.items()}
            found = {"waits": list(waits)}
            states = {way: [state.cpu() for state in one.hidden_states] for way, one in there.items()}
    for way, expect in expected.items():
        found[way] = max(float((a - b).abs().max()) for a, b in zip(states[way], expect, strict=True))
    return found


def heard_there(name: str) -> list[str]:
    """Where the device is waited for when an upstream of s3prl's hears two utterances on it."""
    with pretended() as waits, torch.no_grad():
        upstream = open_entry(name).eval().to(DEVICE)
        waits.clear()
        states = upstream([torch.randn(9000).to(DEVICE), torch.randn(16000).to(DEVICE)])["hidden_states"]
        assert {str(state.device) for state in states} == {DEVICE}
        return list(waits)


def left_behind(what: str) -> str:
    """What is said of a fault that must not go unnoticed, or where it waits."""
    with pretended() as waits:
        x = torch.randn(2, 3).to(DEVICE)
        try:
            if what == "weights":
                torch.nn.Linear(3, 3)(x)
            elif what == "numpy":
                x.numpy()
            else:
                x.sum().item()
        except (RuntimeError, TypeError) as error:
            return str(error)
        return f"waits {len(waits)} times"


def test_encoders_and_upstreams_compute_the_same_on_another_device_and_never_wait():
    found = call_with_device(f"{__name__}:tried", SHAPES)
    weights, numpy, answer = found["faults"]
    assert "expected all tensors on one device" in weights and "numpy reads" in numpy and answer == "waits 1 times"
    assert found["upstream"] == []
    for name, one in found["encoders"].items():
        assert one.pop("waits") == [] and max(one.values()) < 1e-5, name
    assert sum("chunks" in one for one in found["encoders"].values()) == 7
