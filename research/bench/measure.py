"""Measuring two ways of doing the same thing side by side."""

from __future__ import annotations

import gc
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import torch


@dataclass(frozen=True)
class Comparison:
    """Two ways of doing the same work, timed in turns.

    Attributes:
        part: what the work is.
        ours: name of our way.
        peer: name of the other way, what people use today.
        ours_s: seconds of each round.
        peer_s: seconds of the peer in the same rounds.
        equal: how it was checked that both give the same, and how far they differ.
        target: ratio to reach; None where there is none.
        notes: further numbers, e.g. of memory (units in their names).

    >>> Comparison("add", "tensor", "loop", (1.0, 1.0, 2.0), (4.0, 5.0, 6.0), equal="0").ratio
    4.0
    """

    part: str
    ours: str
    peer: str
    ours_s: tuple[float, ...]
    peer_s: tuple[float, ...]
    equal: str
    target: float | None = None
    notes: Mapping[str, float | str] = field(default_factory=dict)

    @property
    def ratios(self) -> list[float]:
        """How many times faster ours is, by round."""
        return sorted(peer / ours for ours, peer in zip(self.ours_s, self.peer_s))

    @property
    def ratio(self) -> float:
        """Median over rounds: what disturbs the machine disturbs both ways of a round."""
        return statistics.median(self.ratios)

    @property
    def met(self) -> bool | None:
        """Whether the target is reached."""
        return None if self.target is None else self.ratio >= self.target


@dataclass(frozen=True)
class Series:
    """A cost against a size.

    Attributes:
        part: what grows.
        x_name: the size, with its unit.
        y_name: the cost, with its unit.
        x: sizes.
        y: cost at each, one list of repetitions a size.
        note: what the slope means.

    >>> round(Series("step", "batch", "step_s", (1, 2, 4), ((1.0,), (2.0,), (4.0,))).exponent, 6)
    1.0
    """

    part: str
    x_name: str
    y_name: str
    x: tuple[float, ...]
    y: tuple[tuple[float, ...], ...]
    note: str = ""

    @property
    def medians(self) -> list[float]:
        """Median cost at each size."""
        return [statistics.median(values) for values in self.y]

    @property
    def exponent(self) -> float:
        """Slope of log cost over log size, least squares: 0 is flat, 1 is proportional."""
        x, y = (torch.tensor(values, dtype=torch.float64).log() for values in (self.x, self.medians))
        x = x - x.mean()
        return float((x * y).sum() / (x * x).sum())


def alternate(
    ways: Mapping[str, Callable[[], object]],
    rounds: int = 5,
    warm_up: int = 1,
    device: str = "cpu",
    clock: Callable[[], float] = time.perf_counter,
) -> dict[str, tuple[float, ...]]:
    """Times ways in turns: each round runs every way once, in an order that is turned around from round to round.

    Args:
        ways: name to what is timed.
        rounds: how often.
        warm_up: untimed rounds before.
        device: waited for before and after each call, so that what a GPU still does is counted where it belongs.
        clock: what is read, in seconds; see `work_clock`.

    Returns:
        seconds of each round by way.

    >>> times = alternate({"one": lambda: 1, "two": lambda: 2}, rounds=3)
    >>> {name: len(seconds) for name, seconds in times.items()}
    {'one': 3, 'two': 3}
    """
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for way in [way for _ in range(warm_up) for way in ways.values()]:
        way()
    for number in range(rounds):
        order: Sequence[str] = list(ways) if number % 2 == 0 else list(reversed(ways))
        for name in order:
            gc.collect()
            seconds[name].append(_timed(ways[name], device, clock))
    return {name: tuple(values) for name, values in seconds.items()}


def work_clock(device: str) -> Callable[[], float]:
    """Seconds of work: processor time of this process on a CPU, time on the wall elsewhere.

    On a machine that others use too, processor time is steadier. It counts all threads together.

    >>> work_clock("cpu") is time.process_time
    True
    """
    return time.process_time if device == "cpu" else time.perf_counter


def _timed(way: Callable[[], object], device: str, clock: Callable[[], float]) -> float:
    _wait(device)
    started = clock()
    way()
    _wait(device)
    return clock() - started


def _wait(device: str) -> None:
    if device != "cpu":
        torch.accelerator.synchronize(device)
