"""How long a sweep may take, by how long work like it took."""

from __future__ import annotations

import math
import time
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from robustdistiller.eval.sweep.cells import Group, Head
from robustdistiller.eval.sweep.engine import Job, Outcome
from robustdistiller.eval.sweep.plan import GroupPlan


class Timings:
    """How long pieces of work took: what the earlier jobs of a sweep's groups say, and what is added."""

    def __init__(self, groups: Iterable[Group]) -> None:
        self._took: dict[tuple, list[tuple[float, int]]] = defaultdict(list)
        for group in groups:
            for rate in group.learning_rates:
                self.add("training", group, Outcome.read(Head(group, rate).job_folder))
            self.add("evaluating", group, Outcome.read(group.jobs / "evaluate"))

    def add(self, doing: str, group: Group, outcome: Outcome | None) -> None:
        """Learn from a job of a group that ended; in its result it says how many ``units`` it did, steps or cells."""
        if outcome is not None and outcome.state == "done" and outcome.result.get("units"):
            for upstream in (group.system.place, ""):
                self._took[doing, group.task.name, upstream].append((outcome.wall_s, outcome.result["units"]))

    def expected_s(self, doing: str, group: Group, units: int) -> float | None:
        """Seconds that work may take: as that of the same upstream took, else as that of any; None when none did."""
        known = (self._took.get((doing, group.task.name, upstream)) for upstream in (group.system.place, ""))
        took = next(filter(None, known), None)
        if took is None:
            return None
        return units * sum(seconds for seconds, _ in took) / sum(done for _, done in took)


@dataclass(frozen=True)
class Estimate:
    """How long work may take.

    Attributes:
        known_s: seconds of the jobs that can be timed, as if done one after the other.
        longest_s: of those that wait for one another, however many run side by side.
        unknown: jobs that nothing is known about.
        jobs: all of them.
    """

    known_s: float
    longest_s: float
    unknown: int
    jobs: int

    def text(self, slots: int) -> str:
        """One line for the user, where so many jobs run side by side.

        >>> Estimate(7200.0, 900.0, unknown=1, jobs=3).text(slots=2)
        'about 1 h 0 min with 2 at a time, and 1 of 3 jobs of which none like them has run yet'
        >>> Estimate(0.0, 0.0, 3, 3).text(1)
        'unknown: no job like these has run yet'
        """
        if not self.jobs:
            return "nothing to run"
        if self.unknown == self.jobs:
            return "unknown: no job like these has run yet"
        text = f"about {duration(max(self.known_s / slots, self.longest_s))} with {slots} at a time"
        more = f", and {self.unknown} of {self.jobs} jobs of which none like them has run yet"
        return text + (more if self.unknown else "")


def estimate(plans: Iterable[GroupPlan], timings: Timings, since_s: Mapping[Job, float] | None = None) -> Estimate:
    """Time what is to be done by what was done."""
    now_s, since_s = time.monotonic(), since_s or {}
    times: list[float | None] = []
    trained_s: dict[Group | None, float] = {}  # when the heads of a group, and of its leader before, are trained
    longest_s = 0.0
    for plan in plans:
        group, first = plan.group, plan.train[:1]
        training = [timings.expected_s("training", group, head.spec.total_steps) for head in first] * len(plan.train)
        evaluating = [timings.expected_s("evaluating", group, len(plan.run))] if plan.run else []
        jobs = [*training, *evaluating]
        for number, job in enumerate(plan.running[: len(jobs)]):
            if jobs[number] is not None:
                jobs[number] = max(0.0, jobs[number] - (now_s - since_s.get(job, now_s)))
        times += jobs
        left_s = [one or 0.0 for one in jobs]
        trained_s[group] = max(left_s[: len(training)], default=0.0) + trained_s.get(group.leader, 0.0)
        longest_s = max(longest_s, trained_s[group] + sum(left_s[len(training) :]))
    known = [one for one in times if one is not None]
    return Estimate(sum(known), longest_s, len(times) - len(known), len(times))


def duration(seconds: float) -> str:
    """Seconds in the units that suit them.

    >>> duration(42), duration(3700), duration(200000)
    ('42 s', '1 h 2 min', '2 d 7 h')
    """
    if seconds < 90:
        return f"{math.ceil(seconds)} s"
    minutes = round(seconds / 60)
    if minutes < 60:
        return f"{minutes} min"
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours < 48 else f"{hours // 24} d {hours % 24} h"
