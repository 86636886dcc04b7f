"""Times an upstream and watches its memory; called in a process of its own, for memory is that of a whole process."""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping
from typing import Any

import psutil
import torch
from torch import Tensor

from robustdistiller.common.audio import SAMPLE_RATE_HZ
from robustdistiller.eval.cost.protocol import AUDIO_S, UTTERANCES, noise, utterance
from robustdistiller.upstream.contract import open_upstream

_EVERY_S = 0.002


class PeakMemory:
    """The most memory that this process holds within a ``with`` block; of a GPU, that PyTorch has allocated there.

    Attributes:
        peak_bytes: after the block.
        method: how it is measured, in words.
    """

    def __init__(self, device: str) -> None:
        self.device, self.on_gpu, self.peak_bytes = device, device.startswith("cuda"), 0
        sampled = f"resident memory of a process of its own, every {1000 * _EVERY_S:g} ms"
        self.method = "torch.cuda.max_memory_allocated" if self.on_gpu else sampled
        self._ended = threading.Event()
        self._sampler = threading.Thread(target=self._sample, daemon=True)

    def __enter__(self) -> PeakMemory:
        if self.on_gpu:
            torch.cuda.synchronize(self.device)
            torch.cuda.reset_peak_memory_stats(self.device)
        else:
            self._sampler.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self.on_gpu:
            self.peak_bytes = torch.cuda.max_memory_allocated(self.device)
        else:
            self._ended.set()
            self._sampler.join()

    def _sample(self) -> None:
        process, last = psutil.Process(), False
        while not last:
            last = self._ended.wait(_EVERY_S)
            self.peak_bytes = max(self.peak_bytes, process.memory_info().rss)


def time_upstream(settings: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Seconds and memory for fixed lengths and for SUPERB's 32 utterances.

    Args:
        settings: ``name``, ``checkpoint``, ``options``, ``device``, ``threads``, ``durations_s``, ``repeats``,
            ``librispeech``; ``superb``, false to leave SUPERB's utterances out.

    Returns:
        One entry for each length, and one for the 32 utterances, as in :attr:`Profile.runs` without real-time factor.
    """
    torch.set_num_threads(settings["threads"])
    device = settings["device"]
    with PeakMemory(device) as loading:
        upstream = open_upstream(settings["name"], settings["checkpoint"], settings["options"]).eval().to(device)
        if hasattr(upstream, "accelerate"):  # as the launcher runs it
            upstream.accelerate()
    shared = {
        "device": torch.cuda.get_device_name(device) if loading.on_gpu else "cpu",
        "threads": None if loading.on_gpu else settings["threads"],
        "loaded_memory_bytes": loading.peak_bytes,
        "memory_method": loading.method,
    }

    def seconds_of(waveform: Tensor) -> float:
        started = time.perf_counter()
        upstream([waveform])
        if loading.on_gpu:
            torch.cuda.synchronize(device)
        return time.perf_counter() - started

    runs = []
    with torch.no_grad():
        for duration_s in sorted(settings["durations_s"]):
            waveform = noise(round(duration_s * SAMPLE_RATE_HZ)).to(device)
            with PeakMemory(device) as memory:
                seconds_of(waveform)  # not timed: whatever is made once
            seconds = [seconds_of(waveform) for _ in range(settings["repeats"])]
            length = {"what": f"{duration_s:g} s", "audio_s": duration_s, "seconds": seconds}
            runs.append({**length, "peak_memory_bytes": memory.peak_bytes, **shared})
        if settings.get("superb", True):
            with PeakMemory(device) as memory:
                total = sum(seconds_of(utterance(name, settings["librispeech"]).to(device)) for name in UTTERANCES)
            whole = {"what": "superb", "audio_s": AUDIO_S, "seconds": [total]}
            runs.append({**whole, "peak_memory_bytes": memory.peak_bytes, **shared})
    return runs
