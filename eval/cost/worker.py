"""Times an upstream and watches its memory, in a process of its own (``-m robustdistiller.eval.cost.worker``).

Memory is a matter of whole processes: what another part of a program once used would count, too. The settings come as
JSON on standard input, results go out as one JSON object per line; whatever the upstream prints goes to standard error.
"""

from __future__ import annotations

import json
import os
import re
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from robustdistiller.eval.cost.protocol import SAMPLE_RATE_HZ, UTTERANCES, noise, utterance
from robustdistiller.upstream.contract import open_upstream

_STATUS, _RESET = Path("/proc/self/status"), Path("/proc/self/clear_refs")


class Memory:
    """Peak memory of this process, or of its GPU.

    On Linux the kernel's high-water mark of the process, reset before each measurement; elsewhere `getrusage`, which
    only ever rises. (On Linux `getrusage` is no use: a process starts with the mark of the one that started it.)

    Args:
        device: ``cpu`` or ``cuda``.

    Example:
        >>> Memory("cpu").peak_bytes() > 10_000_000
        True
    """

    def __init__(self, device: str) -> None:
        self.on_gpu = device.startswith("cuda")
        self.device = device
        if self.on_gpu:
            self.method = "torch.cuda.max_memory_allocated, reset before each length"
        elif _kilobytes("VmHWM"):
            self.method = "VmHWM of a process of its own, reset before each length"
        else:
            self.method = "getrusage ru_maxrss of a process of its own"

    def reset(self) -> None:
        """Begin to measure."""
        if self.on_gpu:
            torch.cuda.synchronize(self.device)
            torch.cuda.reset_peak_memory_stats(self.device)
        elif self.method.startswith("VmHWM"):
            try:
                _RESET.write_text("5", encoding="ascii")
            except OSError:  # then it only ever rises, too
                self.method = "VmHWM of a process of its own"

    def peak_bytes(self) -> int:
        """The most since the last `reset`."""
        if self.on_gpu:
            return torch.cuda.max_memory_allocated(self.device)
        if self.method.startswith("VmHWM"):
            return 1024 * _kilobytes("VmHWM")
        import resource  # not on Windows

        most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return most if sys.platform == "darwin" else 1024 * most


def _kilobytes(name: str) -> int:
    text = _STATUS.read_text(encoding="ascii") if _STATUS.is_file() else ""
    found = re.search(rf"^{name}:\s*(\d+) kB", text, re.MULTILINE)
    return int(found[1]) if found else 0


def run(settings: dict[str, Any], write: Callable[[dict[str, Any]], None]) -> None:
    """Measure as `settings` say.

    Args:
        settings: ``name``, ``checkpoint``, ``options``, ``device``, ``threads``, ``durations_s``, ``repeats``,
            ``librispeech``; ``superb``, false to leave SUPERB's utterances out.
        write: called with each result: what was measured, seconds of each repetition, peak memory.
    """
    torch.set_num_threads(settings["threads"])
    device, memory = settings["device"], Memory(settings["device"])
    upstream = open_upstream(settings["name"], settings["checkpoint"], settings["options"]).eval().to(device)
    if hasattr(upstream, "accelerate"):  # as the launcher runs it
        upstream.accelerate()
    memory.reset()
    write({"what": "loaded", "peak_memory_bytes": memory.peak_bytes(), "memory_method": memory.method})

    def timed(waveform: Tensor) -> float:
        if memory.on_gpu:
            torch.cuda.synchronize(device)
        started = time.perf_counter()
        upstream([waveform])
        if memory.on_gpu:
            torch.cuda.synchronize(device)
        return time.perf_counter() - started

    with torch.no_grad():
        for duration_s in sorted(settings["durations_s"]):
            waveform = noise(round(duration_s * SAMPLE_RATE_HZ)).to(device)
            upstream([waveform])  # whatever is made once
            memory.reset()
            seconds = [timed(waveform) for _ in range(settings["repeats"])]
            write({"what": f"{duration_s:g} s", "duration_s": duration_s, "seconds": seconds, **_memory(memory)})
        if not settings.get("superb", True):
            return
        memory.reset()
        seconds = []
        for name in UTTERANCES:
            seconds.append(timed(utterance(name, settings["librispeech"]).to(device)))
            write({"what": "utterance"})
        write({"what": "superb", "seconds": [sum(seconds)], **_memory(memory)})


def _memory(memory: Memory) -> dict[str, Any]:
    return {"peak_memory_bytes": memory.peak_bytes(), "memory_method": memory.method}


def main() -> None:
    """Read settings, write results."""
    settings = json.load(sys.stdin)
    results = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # what an upstream prints is no result
    run(settings, lambda result: print(json.dumps(result), file=results, flush=True))


if __name__ == "__main__":
    main()
