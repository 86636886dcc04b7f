"""What is scored: SUPERB's tasks as s3prl runs them, tasks of the user's own, their rules, and scores over them."""

from robustdistiller.eval.tasks.base import Task
from robustdistiller.eval.tasks.csv_task import csv_task
from robustdistiller.eval.tasks.parts import DataRoot, Metric, OfficialScore, Rules, ScoringError
from robustdistiller.eval.tasks.registry import TASKS, get, identify, official_split, register, short_name

__all__ = [
    "TASKS",
    "DataRoot",
    "Metric",
    "OfficialScore",
    "Rules",
    "ScoringError",
    "Task",
    "csv_task",
    "get",
    "identify",
    "official_split",
    "register",
    "short_name",
]
