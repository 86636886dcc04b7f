"""Parameters and multiply-accumulate operations (MACs) of an upstream."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from robustdistiller.common.audio import SAMPLE_RATE_HZ
from robustdistiller.eval.cost.protocol import AUDIO_S, UTTERANCES, noise, utterance
from robustdistiller.upstream import UpstreamExpert
from robustdistiller.upstream.model.cost import NOT_COUNTED, counted_macs, used_parameters
from robustdistiller.upstream.s3prl.onnx_expert import OnnxExpert

_WITHOUT_HEADS = {"no_pred": True}
_ANALYTIC = "counted from the configuration: another runtime keeps its operations to itself"


def count_parameters(upstream: nn.Module) -> dict[str, int | None]:
    """Parameters: ``stored``, ``used`` for hidden states, and ``used_without_heads`` where there are prediction heads.

    A parameter is used if a hidden state depends on it, which its gradient tells; None where the upstream keeps none.
    """
    if isinstance(upstream, OnnxExpert):  # what a file holds is what it needs
        return {"stored": upstream.num_parameters, "used": upstream.num_parameters, "used_without_heads": None}
    stored = sum(weight.numel() for weight in upstream.parameters())
    counts: dict[str, int | None] = {"stored": stored, "used": 0 if stored == 0 else None, "used_without_heads": None}
    if stored == 0 or not hasattr(upstream, "get_downsample_rates"):
        return counts
    waveform = [noise(SAMPLE_RATE_HZ)]
    counts["used"] = used_parameters(upstream, lambda: upstream(waveform)["hidden_states"])
    if _has_heads(upstream):
        counts["used_without_heads"] = used_parameters(
            upstream, lambda: upstream(waveform, **_WITHOUT_HEADS)["hidden_states"]
        )
    return counts


def count_macs(upstream: nn.Module, durations_s: Sequence[float], librispeech: str | None = None) -> dict[str, Any]:
    """MACs of fixed lengths and of SUPERB's 32 utterances, as in :attr:`Profile.macs`."""
    superb: Counter[str] = Counter()
    for name in UTTERANCES:
        superb.update(_macs(upstream, utterance(name, librispeech)))
    return {
        "tool": _ANALYTIC if isinstance(upstream, OnnxExpert) else "torch.utils.flop_counter.FlopCounterMode, halved",
        "tool_version": torch.__version__,
        "not_counted": NOT_COUNTED,
        "superb": {
            "utterances": len(UTTERANCES),
            "audio_s": AUDIO_S,
            "audio": "LibriSpeech test-clean" if librispeech else "noise of the same lengths",
            **superb,
        },
        "lengths": [
            {"duration_s": duration_s, **_macs(upstream, noise(round(duration_s * SAMPLE_RATE_HZ)))}
            for duration_s in durations_s
        ],
    }


def _macs(upstream: nn.Module, waveform: Tensor) -> dict[str, int]:
    if isinstance(upstream, OnnxExpert):
        return {"macs": upstream.macs(len(waveform) / SAMPLE_RATE_HZ)}
    found = {"macs": counted_macs(upstream, [waveform])}
    if _has_heads(upstream):
        found["without_heads"] = counted_macs(upstream, [waveform], **_WITHOUT_HEADS)
    return found


def _has_heads(upstream: nn.Module) -> bool:
    return isinstance(upstream, UpstreamExpert) and upstream.encoder.heads is not None
