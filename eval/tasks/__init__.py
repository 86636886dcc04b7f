"""What is scored: SUPERB's tasks as s3prl runs them, their rules, and the scores over all of them."""

from robustdistiller.eval.tasks.base import DataRoot, Metric, Task
from robustdistiller.eval.tasks.registry import TASKS, get, identify

__all__ = ["TASKS", "DataRoot", "Metric", "Task", "get", "identify"]
