"""s3prl's own ``main``, on values in the place of a command line."""

from __future__ import annotations

import contextlib
import copy
import importlib
import sys
from argparse import Namespace
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest import mock

import torch

from robustdistiller.eval.conditions.train_condition import TrainingPlan
from robustdistiller.eval.run.head_note import HeadNote
from robustdistiller.eval.run.s3prl_runner import HeadRunner
from robustdistiller.eval.run.specs import HeadSpec
from robustdistiller.upstream.s3prl import bridge
from robustdistiller.upstream.s3prl.entries import register


def run_s3prl(
    spec: HeadSpec,
    mode: str,
    *,
    training: TrainingPlan | None = None,
    note: HeadNote | None = None,
    evaluation: Callable[[HeadRunner], None] | None = None,
    **settings: Any,
) -> HeadRunner:
    """Run s3prl's own ``main`` on a head.

    Of its module, three names are replaced during the call: what reads the command line, the runner's class, and
    ``hack_isinstance``, which would replace ``builtins.isinstance`` for old versions of PyTorch.
    """
    bridge.install()
    register()
    from s3prl import run_downstream
    from s3prl.downstream.runner import Runner

    class S3prlRunner(HeadRunner, Runner):
        pass

    runners: list[HeadRunner] = []

    def runner(args: Namespace, config: dict[str, Any]) -> HeadRunner:
        runners.append(S3prlRunner(args, config, spec, training, note, evaluation))
        return runners[-1]

    args = spec.arguments(mode, **settings)
    config = spec.quick.shorten(spec.config) if spec.quick and mode == "train" else copy.deepcopy(dict(spec.config))

    def arguments() -> tuple[Namespace, dict[str, Any], list[str]]:
        copied = args.upstream_model_config  # beside the head, where it is a file
        return args, config, [copied] if copied and Path(copied).is_file() else []

    # Some packages that experts import draw from Python's generator, once in a process. s3prl seeds first and imports
    # then; a head must not depend on what was imported before.
    if spec.task is None or not spec.task.expert:
        with contextlib.suppress(ModuleNotFoundError):
            importlib.import_module(f"s3prl.downstream.{args.downstream}.expert")
    Path(args.expdir).mkdir(parents=True, exist_ok=True)
    device = torch.device(args.device)
    _place_modules(f"s3prl.downstream.{args.downstream}", device)
    # s3prl asks PyTorch for a GPU without looking at its device.
    gpus = mock.patch("torch.cuda.is_available", lambda: False) if device.type == "cpu" else contextlib.nullcontext()
    current = torch.cuda.device(device) if device.type == "cuda" else contextlib.nullcontext()  # where `.cuda()` leads
    replaced = {"get_downstream_args": arguments, "hack_isinstance": lambda: None, "Runner": runner}
    threads_before = torch.get_num_threads()
    torch.set_num_threads(spec.threads or threads_before)
    try:
        with current, gpus, mock.patch.multiple(run_downstream, **replaced):
            run_downstream.main()
    finally:
        torch.set_num_threads(threads_before)
    return runners[0]


def _place_modules(package: str, device: torch.device) -> None:
    """SE and SS look for the first GPU when they are imported, and keep it for the life of the process."""
    for name, module in list(sys.modules.items()):
        if name.startswith(f"{package}.") and isinstance(getattr(module, "device", None), torch.device):
            module.device = device
