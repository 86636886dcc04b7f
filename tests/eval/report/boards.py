"""Records of invented systems, with results of single items, for the tests of leaderboard and comparison."""

from __future__ import annotations

import csv
import dataclasses
import hashlib
from pathlib import Path

import numpy as np

from robustdistiller.eval.report.board import leaderboard
from robustdistiller.eval.report.cells import condition_title
from robustdistiller.eval.results.files import record_path, write_record
from robustdistiller.eval.results.item_scores import ItemScores, Outcomes, write_outcomes
from robustdistiller.eval.results.record import Metric, Record
from tests.records import example_record

CONDITIONS = {"clean": 0.9, "noise:snr_db=10": 0.7, "noise:snr_db=0": 0.4, "reverb": 0.6}
TITLES = ["clean", "noise 10 dB", "noise 0 dB", "reverb", "noise 10 dB + reverb"]
#: Changes of a record that make it one of a run under other rules.
OTHER_RULES = {"rules_digest": "12" * 32}
DIGESTS = {"teacher": "aa" * 32, "student": "bb" * 32}


def record(label: str, condition: str = "clean", value: float = 50.0, **changes) -> Record:
    """A finished record of one system."""
    items = changes.pop("items", 200)
    default = {
        "upstream": "robustdistiller_local",
        "checkpoint": "student.ckpt",
        "checkpoint_digest": DIGESTS.get(label, hashlib.sha256(label.encode()).hexdigest()),
        "checkpoint_digest_of": "file",
        "parameters": 94_700_000 if label == "teacher" else 23_500_000,
        "manifest_digest": "none" if condition == "clean" else "ee" * 32,
        "metrics": [Metric("accuracy", value, True, "%")],
        "items_expected": items,
        "items_scored": items,
    }
    return example_record(label=label, condition=condition, **{**default, **changes})


def write_answers(root: Path, label: str, gain: float = 0.0, items: int = 200, **changes) -> list[Path]:
    """Records of one system under all conditions; the same items are hard for everybody."""
    hard = np.random.default_rng(0).random(items)
    names = [f"{changes.get('prefix', 'speaker')}/{i}.wav" for i in range(items)]
    changes.pop("prefix", None)
    paths = []
    for condition, share in changes.pop("conditions", CONDITIONS).items():
        right = (hard < share + gain).astype(int)
        kept = Outcomes.sort(names, {"accuracy": ItemScores(right, np.ones(items, int))})
        one = record(label, condition, kept.metrics["accuracy"].value, items=items, **changes)
        pointer = write_outcomes(record_path(root, one).with_suffix(".npz"), kept)
        paths.append(write_record(root, dataclasses.replace(one, outcomes=pointer)))
    return paths


def _quickstart_rows() -> list[dict[str, str]]:
    with (Path(__file__).parents[3] / "results" / "quickstart" / "leaderboard.csv").open(newline="") as file:
        return [row for row in csv.DictReader(file) if row["task"] == "words"]


def quickstart_systems() -> list[str]:
    """The systems in the table beside the quickstart's records."""
    return list(dict.fromkeys(row["system"] for row in _quickstart_rows()))


def quickstart_score(upstream: str, condition: str) -> str:
    """What that table says, in %."""
    names = upstream, condition
    [found] = [row for row in _quickstart_rows() if (row["system"], condition_title(row["condition"])) == names]
    return f"{float(found['value']):.2f}"


def alone(*folders: Path, **settings):
    """The board of measured systems only."""
    return leaderboard(folders, published=False, **settings)


def cells(board, name: str) -> dict[str, object]:
    """Title of a condition to the cell of a system."""
    return {column.title: cell for column, cell in board.row(name).cells.items()}
