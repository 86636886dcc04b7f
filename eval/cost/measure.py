"""Profiles an upstream: counts in this process, times and memory in processes of their own."""

from __future__ import annotations

import statistics
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from datetime import datetime, timezone
from typing import Any

from robustdistiller.common.errors import RunFailed
from robustdistiller.common.process import ProcessDied, call_apart
from robustdistiller.eval.cost.counting import count_macs, count_parameters
from robustdistiller.eval.cost.protocol import UTTERANCES, utterance
from robustdistiller.eval.cost.record import Profile
from robustdistiller.eval.run.run_info import describe_machine, identify_weights, read_options
from robustdistiller.upstream import ModelName
from robustdistiller.upstream.contract import open_upstream
from robustdistiller.upstream.device import usable_device


@dataclass(frozen=True)
class ProfileSettings:
    """What to measure.

    Attributes:
        name: entry of s3prl's hub (``-u``).
        checkpoint: ``-k``.
        options: ``-g``.
        label: name in tables; empty for the checkpoint's or the upstream's.
        durations_s: fixed lengths.
        repeats: of each length.
        devices: ``cpu``, ``cuda``.
        threads: of the CPU, each measured.
        librispeech: folder with ``test-clean``; without it, noise of the same lengths.

    Raises:
        ValueError: a length is not from 0.05 s to an hour.
    """

    name: str
    checkpoint: str | None = None
    options: str | None = None
    label: str = ""
    durations_s: tuple[float, ...] = (1.0, 5.0, 10.0, 20.0)
    repeats: int = 5
    devices: tuple[str, ...] = ("cpu",)
    threads: tuple[int, ...] = (1,)
    librispeech: str | None = None

    def __post_init__(self) -> None:
        if not self.durations_s or not all(0.05 <= duration_s < 3600 for duration_s in self.durations_s):
            raise ValueError(f"lengths of {list(self.durations_s)} s: expected one or more, from 0.05 s to an hour")

    @property
    def places(self) -> list[tuple[str, int]]:
        """Device and threads of each measurement."""
        return [(device, threads) for device in self.devices for threads in (self.threads if device == "cpu" else (1,))]


def profile_upstream(settings: ProfileSettings, on_step: Callable[[str], None] = lambda _: None) -> Profile:
    """Measure everything.

    Args:
        settings: what to measure.
        on_step: called with what is done next.

    Raises:
        ContractError: the upstream does not load.
        RunFailed: it fails while it is timed.
        FileNotFoundError, ValueError: LibriSpeech is not as the protocol needs it, or there is no such device here.
    """
    start_utc = datetime.now(timezone.utc).isoformat(timespec="seconds")
    settings = replace(settings, devices=tuple(str(usable_device(device)) for device in settings.devices))
    for name in UTTERANCES:  # before anything long
        utterance(name, settings.librispeech)
    on_step("counting parameters and MACs")
    upstream = open_upstream(settings.name, settings.checkpoint, settings.options).eval()
    digest, digest_of = identify_weights(upstream, getattr(upstream, "checkpoint_path", None) or settings.checkpoint)
    label = ModelName.parse(settings.checkpoint, strict=False).label if settings.checkpoint else settings.name
    parameters = count_parameters(upstream)
    macs = count_macs(upstream, settings.durations_s, settings.librispeech)
    del upstream
    runs = []
    for device, threads in settings.places:
        on_step(f"timing on {_place(device, threads)}")
        runs += _time(settings, device, threads)
    return Profile(
        upstream=settings.name,
        label=settings.label or label,
        checkpoint=ModelName.short_of(settings.checkpoint),
        checkpoint_digest=digest,
        checkpoint_digest_of=digest_of,
        upstream_options=read_options(settings.options),
        parameters=parameters,
        macs=macs,
        runs=runs,
        machine=describe_machine("cpu"),
        start_utc=start_utc,
    )


def _time(settings: ProfileSettings, device: str, threads: int) -> list[dict[str, Any]]:
    given = {**asdict(settings), "device": device, "threads": threads}
    environment = {"OMP_NUM_THREADS": str(threads), "MKL_NUM_THREADS": str(threads)}
    try:
        runs = call_apart("robustdistiller.eval.cost.timing:time_upstream", given, environment=environment)
    except ProcessDied as error:
        raise RunFailed(f"{settings.name} failed on {_place(device, threads)}: {error}") from error
    return [{**run, "real_time_factor": statistics.median(run["seconds"]) / run["audio_s"]} for run in runs]


def _place(device: str, threads: int) -> str:
    return f"{device}, {threads} threads" if device == "cpu" else device
