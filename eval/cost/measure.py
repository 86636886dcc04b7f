"""Profiles an upstream: counts in this process, times and memory in processes of their own."""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime, timezone
from typing import Any

import torch
from torch import Tensor, nn

from robustdistiller.eval.cost.protocol import AUDIO_S, SAMPLE_RATE_HZ, UTTERANCES, noise, utterance
from robustdistiller.eval.cost.record import Profile
from robustdistiller.eval.run.run_info import describe_machine, identify_weights, read_options
from robustdistiller.upstream import ModelName, UpstreamExpert
from robustdistiller.upstream.contract import open_upstream
from robustdistiller.upstream.model.cost import NOT_COUNTED, counted_macs
from robustdistiller.upstream.s3prl.onnx_expert import OnnxExpert

DURATIONS_S = (1.0, 5.0, 10.0, 20.0)
_WITHOUT_HEADS = {"no_pred": True}
_ANALYTIC = "counted from the configuration: another runtime keeps its operations to itself"


class ProfileError(RuntimeError):
    """An upstream that could not be profiled; the message is one sentence."""


@dataclass(frozen=True)
class ProfileSettings:
    """What to measure.

    Attributes:
        name, checkpoint, options: the upstream, as given to ``-u``, ``-k`` and ``-g``.
        label: name in tables; empty for the checkpoint's or the upstream's.
        durations_s: fixed lengths.
        repeats: of each length.
        devices: ``cpu``, ``cuda``.
        threads: of the CPU, each measured.
        librispeech: folder with ``test-clean``; without it, noise of the same lengths.

    Example:
        >>> settings = ProfileSettings("fbank", devices=("cpu",), threads=(1, 2))
        >>> settings.steps  # 32 + 4 counts; twice 4 lengths and 32 utterances
        108
    """

    name: str
    checkpoint: str | None = None
    options: str | None = None
    label: str = ""
    durations_s: tuple[float, ...] = DURATIONS_S
    repeats: int = 5
    devices: tuple[str, ...] = ("cpu",)
    threads: tuple[int, ...] = (1,)
    librispeech: str | None = None

    @property
    def places(self) -> list[tuple[str, int]]:
        """Device and threads of each measurement."""
        return [(device, threads) for device in self.devices for threads in (self.threads if device == "cpu" else (1,))]

    @property
    def steps(self) -> int:
        """How many pieces of work there are, for a progress bar."""
        each = len(self.durations_s) + len(UTTERANCES)
        return each * (1 + len(self.places))


def profile_upstream(settings: ProfileSettings, on_step: Callable[[str], None] = lambda _: None) -> Profile:
    """Measure everything.

    Args:
        settings: what to measure.
        on_step: called after each piece of work with what comes next, `settings.steps` times in all.

    Raises:
        ContractError: the upstream does not load.
        ProfileError: it fails while it is timed, or does not take one waveform of a length.
        FileNotFoundError, ValueError: LibriSpeech is not as the protocol needs it.

    Example:
        >>> profile_upstream(ProfileSettings("robustdistiller_mini", librispeech="nowhere"))
        Traceback (most recent call last):
        FileNotFoundError: nowhere/test-clean/672/122797/672-122797-0033.flac is not there; ...
    """
    start_utc = datetime.now(timezone.utc).isoformat(timespec="seconds")
    for name in UTTERANCES:  # before anything long
        utterance(name, settings.librispeech)
    upstream = open_upstream(settings.name, settings.checkpoint, settings.options).eval()
    digest, digest_of = identify_weights(upstream, getattr(upstream, "checkpoint_path", None) or settings.checkpoint)
    profile = Profile(
        upstream=settings.name,
        label=settings.label
        or (ModelName.parse(settings.checkpoint, strict=False).label if settings.checkpoint else settings.name),
        checkpoint=ModelName.short_of(settings.checkpoint),
        checkpoint_digest=digest,
        checkpoint_digest_of=digest_of,
        upstream_options=read_options(settings.options),
        parameters=count_parameters(upstream),
        macs=_count_macs(upstream, settings, on_step),
        runs=[],
        machine=describe_machine("cpu"),
        start_utc=start_utc,
    )
    del upstream
    for device, threads in settings.places:
        profile.runs.extend(_time(settings, device, threads, on_step))
    return profile


def count_parameters(upstream: nn.Module) -> dict[str, int | None]:
    """Parameters: ``stored``, ``used`` for hidden states, and ``used_without_heads`` where there are prediction heads.

    A parameter is used if a hidden state depends on it, which its gradient tells; None where the upstream keeps none.

    Example:
        >>> count_parameters(nn.Linear(2, 3))["stored"]
        9
    """
    if isinstance(upstream, OnnxExpert):  # what a file holds is what it needs
        return {"stored": upstream.num_parameters, "used": upstream.num_parameters, "used_without_heads": None}
    stored = sum(weight.numel() for weight in upstream.parameters())
    counts: dict[str, int | None] = {"stored": stored, "used": 0 if stored == 0 else None, "used_without_heads": None}
    if stored == 0 or not hasattr(upstream, "get_downsample_rates"):
        return counts
    waveform = [noise(SAMPLE_RATE_HZ)]
    counts["used"] = _used(upstream, lambda: upstream(waveform)["hidden_states"])
    if _has_heads(upstream):
        counts["used_without_heads"] = _used(upstream, lambda: upstream(waveform, **_WITHOUT_HEADS)["hidden_states"])
    return counts


def _used(upstream: nn.Module, states: Callable[[], Sequence[Tensor]]) -> int | None:
    weights = list(upstream.parameters())
    wanted = [weight.requires_grad for weight in weights]
    try:
        upstream.requires_grad_(True)
        with torch.enable_grad():
            total = sum(state.float().square().sum() for state in states())
        if not total.requires_grad:
            return None
        gradients = torch.autograd.grad(total, weights, allow_unused=True)
    except RuntimeError:  # parts of it refuse gradients
        return None
    finally:
        for weight, needed in zip(weights, wanted):
            weight.requires_grad_(needed)
    return sum(weight.numel() for weight, gradient in zip(weights, gradients) if gradient is not None)


def _has_heads(upstream: nn.Module) -> bool:
    return isinstance(upstream, UpstreamExpert) and upstream.encoder.heads is not None


def _count_macs(upstream: nn.Module, settings: ProfileSettings, on_step: Callable[[str], None]) -> dict[str, Any]:
    def count(waveform: Tensor) -> dict[str, int]:
        if isinstance(upstream, OnnxExpert):
            return {"macs": upstream.macs(len(waveform) / SAMPLE_RATE_HZ)}
        found = {"macs": counted_macs(upstream, [waveform])}
        if _has_heads(upstream):
            found["without_heads"] = counted_macs(upstream, [waveform], **_WITHOUT_HEADS)
        return found

    lengths = []
    for duration_s in settings.durations_s:
        on_step(f"counting MACs of {duration_s:g} s")
        lengths.append({"duration_s": duration_s, **count(noise(round(duration_s * SAMPLE_RATE_HZ)))})
    superb: dict[str, int] = {}
    for name in UTTERANCES:
        on_step("counting MACs of SUPERB's utterances")
        for key, value in count(utterance(name, settings.librispeech)).items():
            superb[key] = superb.get(key, 0) + value
    return {
        "tool": _ANALYTIC if isinstance(upstream, OnnxExpert) else "torch.utils.flop_counter.FlopCounterMode, halved",
        "tool_version": torch.__version__,
        "not_counted": NOT_COUNTED,
        "superb": {
            "utterances": len(UTTERANCES),
            "audio_s": AUDIO_S,
            "audio": "LibriSpeech test-clean" if settings.librispeech else "noise of the same lengths",
            **superb,
        },
        "lengths": lengths,
    }


def _time(
    settings: ProfileSettings, device: str, threads: int, on_step: Callable[[str], None]
) -> Iterator[dict[str, Any]]:
    """Times and memory on one device, from a process of its own."""
    where = f"{device}, {threads} threads" if device == "cpu" else device
    given = {
        **{name: getattr(settings, name) for name in ("name", "checkpoint", "options", "repeats", "librispeech")},
        "durations_s": list(settings.durations_s),
        "device": device,
        "threads": threads,
    }
    environment = {**os.environ, "OMP_NUM_THREADS": str(threads), "MKL_NUM_THREADS": str(threads)}
    command = [sys.executable, "-m", "robustdistiller.eval.cost.worker"]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with (
        tempfile.TemporaryFile("w+", encoding="utf-8") as log,
        subprocess.Popen(command, env=environment, text=True, stderr=log, **pipes) as worker,
    ):
        with suppress(BrokenPipeError):  # it ended before it read; why is in its log
            worker.stdin.write(json.dumps(given))
            worker.stdin.close()
        loaded = 0
        for line in worker.stdout:
            result = json.loads(line)
            what = result.pop("what")
            if what == "loaded":
                loaded = result["peak_memory_bytes"]
                continue
            if what != "superb":
                on_step(f"timing on {where}")
            if what == "utterance":
                continue
            audio_s = result.get("duration_s", AUDIO_S)
            factor = statistics.median(result["seconds"]) / audio_s
            name = torch.cuda.get_device_name(device) if device.startswith("cuda") else "cpu"
            yield {
                "what": what,
                "device": name,
                "threads": threads if device == "cpu" else None,
                "audio_s": audio_s,
                "seconds": result["seconds"],
                "real_time_factor": factor,
                "peak_memory_bytes": result["peak_memory_bytes"],
                "loaded_memory_bytes": loaded,
                "memory_method": result["memory_method"],
            }
        if worker.wait():
            log.seek(0)
            last = next((line.strip() for line in reversed(log.readlines()) if line.strip()), "no message")
            raise ProfileError(f"{settings.name} failed on {where}: {last} (exit status {worker.returncode})")
