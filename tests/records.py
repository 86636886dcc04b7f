"""A small valid record, which tests change."""

from __future__ import annotations

from typing import Any

from robustdistiller.eval.results.record import NO_CHECKPOINT, Metric, Record


def example_record(**changes: Any) -> Record:
    """The record, with changes."""
    values = {
        "upstream": "fbank",
        "checkpoint_digest": NO_CHECKPOINT,
        "checkpoint_digest_of": "none",
        "parameters": 0,
        "task": "IC",
        "downstream": "fluent_commands",
        "head_digest": "ab" * 32,
        "rules_digest": "cd" * 32,
        "condition": "clean",
        "metrics": [Metric("accuracy", 75.0, higher_is_better=True, unit="%")],
        "items_expected": 4,
        "items_scored": 4,
        "learning_rate": 1e-3,
        "seed": 1337,
        "versions": {"torch": "2.11.0"},
        "device": "cpu",
        "start_utc": "2025-01-01T00:00:00+00:00",
        "duration_s": 1.0,
        "non_standard": [],
    }
    return Record(**{**values, **changes})


def published_value(published, system: str, task: str, metric: str, condition: str = "clean") -> float | None:
    """One verified number under SUPERB's protocol; None where there is none."""
    found = published.of(system, over_tasks=task == "SUPERB")
    wanted = task, metric, condition
    return next((one.value for one in found if (one.task, one.metric, one.condition) == wanted), None)
