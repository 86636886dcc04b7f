"""Distillation on a device that is not there; apart from its test, whose process does not need it."""

from __future__ import annotations

from typing import Any
from unittest import mock

from robustdistiller.pretrain import distill, load_config
from robustdistiller.pretrain.training import launch, loop
from tests.pretended_device import fabric_there, pretended


def distilled_there(runs: dict[str, list[str]]) -> dict[str, list[str]]:
    """Distil on the device; returns where the steps waited for it, by recipe."""
    found: dict[str, list[str]] = {}
    steps = loop.Training.steps

    def watched(self: Any, batches: Any) -> Any:
        reports = steps(self, batches)
        while True:
            waits.clear()
            report = next(reports, None)
            found[recipe] += waits
            if report is None:
                return
            yield report

    with (
        mock.patch.object(launch, "Fabric", fabric_there),
        mock.patch.object(loop.Training, "steps", watched),
        pretended() as waits,
    ):
        for recipe, overrides in runs.items():
            found[recipe] = []
            distill(load_config(recipe, overrides))
    return found
