"""Heads of a few steps on toy corpora, said in types."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from robustdistiller.eval import tasks
from robustdistiller.eval.run.launcher import main
from robustdistiller.eval.run.specs import HeadSpec, Upstream
from robustdistiller.eval.tasks.configs import load_config
from robustdistiller.upstream.s3prl.expert import UpstreamExpert

STEPS = {"total_steps": 12, "eval_step": 4, "save_step": 5, "log_step": 6, "max_keep": 2}
LAUNCHED = {"total_steps": 4, "eval_step": 2, "save_step": 2, "log_step": 2, "max_keep": 1}


@pytest.fixture
def head_spec(toy_corpora, toy_student, bridge, tmp_path_factory) -> Callable[..., HeadSpec]:
    """A function that says a head of twelve steps: of a task, in a folder, with other settings of s3prl's."""
    corpora: dict[str, dict[str, Any]] = {}

    def build(code: str, folder: Path, settings: dict[str, Any] | None = None, **others: Any) -> HeadSpec:
        if code not in corpora:
            corpora[code] = toy_corpora.build(code, tmp_path_factory.mktemp(code))
        task = tasks.get(code)
        config = load_config(task)
        steps = {f"config.runner.{key}": value for key, value in STEPS.items()} if task.trainable else {}
        for key, value in {**corpora[code], **steps, **(settings or {})}.items():
            node = config
            *parents, last = key.removeprefix("config.").split(".")
            for part in parents:
                node = node.setdefault(part, {})
            node[last] = value
        upstream = Upstream("robustdistiller_local", str(toy_student))
        return HeadSpec(**{"upstream": upstream, "task": task, "config": config, "folder": folder, **others})

    return build


@pytest.fixture(scope="module")
def option(toy_corpora, tmp_path_factory) -> str:
    """The ``-o`` of a four-step training on the toy intent corpus."""
    corpus = toy_corpora.build("IC", tmp_path_factory.mktemp("ic"))
    runner = {f"config.runner.{key}": value for key, value in LAUNCHED.items()}
    return toy_corpora.as_option({**corpus, **runner, "config.optimizer.lr": 0.01})


@pytest.fixture(scope="module")
def head(option, toy_student, tmp_path_factory, bridge) -> Path:
    """A head trained by the launcher, without the CPU kernels that it asks for: they round differently."""
    folder = tmp_path_factory.mktemp("exp") / "ic"
    command = ["-m", "train", "-u", "robustdistiller_local", "-k", str(toy_student), "-d", "IC", "-p", str(folder)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(UpstreamExpert, "accelerate", lambda self: None)
        assert main([*command, "-o", option]) == 0
    return folder


def evaluate(head: Path, *arguments: str) -> int:
    return main(["-m", "evaluate", "-e", str(head / "states-4.ckpt"), *arguments])
