"""``run_downstream.py``: unchanged s3prl downstreams on this project's upstreams, evaluated under conditions.

The launcher installs the bridge, registers the upstreams, and calls s3prl's own ``main`` with three of its names
replaced for the duration of the call: the argument parser (s3prl's options plus ours), ``Runner`` (a subclass that
evaluates under conditions) and ``hack_isinstance`` (which would replace ``builtins.isinstance`` for old PyTorch).
"""

from __future__ import annotations

import argparse
import dataclasses
import logging
import os
import re
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import torch

from robustdistiller.acoustics import Condition, SourceSpec
from robustdistiller.acoustics.condition import SOURCES
from robustdistiller.common.errors import run_command
from robustdistiller.common.names import did_you_mean
from robustdistiller.eval import tasks
from robustdistiller.eval.conditions.manifest import ManifestError, condition_of, find_manifests
from robustdistiller.eval.conditions.replay import ReplayedCorruptor
from robustdistiller.eval.conditions.sources import Sources
from robustdistiller.eval.conditions.suite import SuiteError, load_suites
from robustdistiller.eval.conditions.train_condition import TrainingPlan, write_note
from robustdistiller.eval.results.record import RecordError
from robustdistiller.eval.run.cache import CacheError, CachePlan
from robustdistiller.eval.run.head_checkpoint import LaunchError, check_origin, find_head, write_origin
from robustdistiller.eval.run.options import parser_class
from robustdistiller.eval.run.runner import ConditionRunner, EvaluationPlan
from robustdistiller.eval.tasks.configs import check_roots, vocabulary_paths, write_config
from robustdistiller.eval.tasks.needs import require
from robustdistiller.upstream import CheckpointError
from robustdistiller.upstream.s3prl import bridge
from robustdistiller.upstream.s3prl.entries import entry_of, find_checkpoint, register

logger = logging.getLogger(__name__)

# What -e takes from the checkpoint even when it is typed, and how s3prl lets one change it all the same.
_TAKEN_FROM_CHECKPOINT = (
    "upstream",
    "upstream_ckpt",
    "upstream_model_config",
    "downstream",
    "expdir",
    "seed",
    "config",
)


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point of the console script; returns the exit status.

    Args:
        argv: the command line without the program's name; default ``sys.argv[1:]``.

    Example:
        >>> main(["-m", "train", "-u", "fbank", "-d", "fluent_comands", "-p", "exp"])
        2
    """
    argv = list(sys.argv[1:] if argv is None else argv)
    logging.basicConfig(level=logging.INFO, format="[%(name)s] %(message)s")
    try:
        Launch(argv).run()
    except (
        *(LaunchError, RecordError, SuiteError, ManifestError, CacheError, CheckpointError, FileNotFoundError),
    ) as error:
        sys.stderr.write(f"run_downstream.py: error: {error}\n")
        return 2
    return 0


class Launch:
    """One call of the launcher.

    Args:
        argv: the command line without the program's name.
    """

    def __init__(self, argv: Sequence[str]) -> None:
        self.argv = list(argv)
        self.typed: set[str] = set()
        self.ours: dict[str, Any] = {}
        self.conditions: tuple[Condition, ...] = (Condition(),)
        self.sources = Sources()

    def run(self) -> None:
        """Parse, check, and hand over to s3prl.

        Raises:
            LaunchError, FileNotFoundError: the command line cannot run, in one sentence.
        """
        _hide_gpu_from_cpu_runs(self.argv)
        bridge.install()
        from s3prl import hub, run_downstream
        from s3prl.downstream.runner import Runner

        register()
        self.hub = hub
        stock_arguments = run_downstream.get_downstream_args

        def arguments() -> tuple[argparse.Namespace, dict, list]:
            args, config, backup = stock_arguments()
            self._check(args, config)
            return args, config, backup

        runner = type("ConditionRunner", (ConditionRunner, Runner), {})
        self.runner = runner
        with _replaced(
            run_downstream,
            argparse=SimpleNamespace(ArgumentParser=parser_class(self.argv, self._after_parsing)),
            get_downstream_args=arguments,
            hack_isinstance=lambda: None,
            Runner=runner,
        ):
            run_downstream.main()

    def _after_parsing(self, args: argparse.Namespace, typed: set[str], ours: dict[str, Any]) -> None:
        """Between s3prl's parsing and its reading of configuration or checkpoint."""
        self.typed, self.ours = typed, ours
        trains = args.mode != "evaluate" and "train_condition" in typed
        allowed = {"feature_cache", "feature_cache_dtype", "feature_cache_gb", "read_ahead_s"}
        allowed |= {"train_condition", *SOURCES, "corruption_seed"} if trains else set()
        misplaced = sorted((typed & set(ours)) - allowed) if args.mode != "evaluate" else []
        if misplaced:
            names = ", ".join("--" + name.replace("_", "-") for name in misplaced)
            raise LaunchError(f"{names} belong to -m evaluate: heads are trained on clean audio, as SUPERB does")
        if args.mode == "evaluate" and "train_condition" in typed:
            raise LaunchError("--train-condition belongs to -m train; the evaluated head's own is in its records")
        if args.upstream and not args.upstream_ckpt and args.hub == "torch":
            args.upstream, args.upstream_ckpt = entry_of(args.upstream)
        self._read_conditions()
        _choose_device(args, "device" in typed)
        if args.past_exp:
            if args.mode == "evaluate":
                args.past_exp = str(find_head(args.past_exp))
            elif not Path(args.past_exp).exists():
                raise LaunchError(f"-e {args.past_exp}: no such file or folder")
            self._warn_of_ignored(args)
        else:
            self._choose_config(args)
            if args.expname is None and args.expdir is None:
                raise LaunchError("give the experiment's folder: -p FOLDER (or -n NAME for result/downstream/NAME)")
            if args.mode == "evaluate" and not args.init_ckpt:
                logger.warning("Neither -e nor -i: the head that is evaluated has not been trained")

    def _read_conditions(self) -> None:
        """Conditions and sources of the command line and of suites."""
        ours = self.ours
        suite = load_suites(ours["suite"] or [])
        texts = ours["train_condition"] or ours["condition"] or []
        option = "--train-condition" if ours["train_condition"] else "--condition"
        try:
            typed = tuple(Condition.parse(text) for text in texts)
        except ValueError as error:
            raise LaunchError(f"{option}: {error}") from error
        self.sources = suite.sources
        found = tuple(dict.fromkeys((*typed, *suite.conditions)))
        if ours["asv_corrupt"] == "test":
            found = tuple(c if c.kind == "clean" else c.replace(side="test") for c in found)
        self.conditions = found or (() if ours["manifest"] else (Condition(),))

    def _choose_config(self, args: argparse.Namespace) -> None:
        """Supply -c for known tasks, and s3prl's name for our short task names."""
        if not args.upstream or not args.downstream:
            missing = " and ".join(
                o for o, v in (("-u UPSTREAM", args.upstream), ("-d TASK", args.downstream)) if not v
            )
            raise LaunchError(f"a new experiment needs {missing} (or -e CHECKPOINT to go on from one)")
        stock = Path("downstream") / args.downstream / "config.yaml"
        try:
            task = tasks.get(args.downstream)
        except ValueError as error:
            if args.config or stock.is_file():  # a downstream of the user's own
                return
            raise LaunchError(str(error)) from error
        args.downstream = task.downstream
        if args.config is None and not stock.is_file():
            folder = Path(args.expdir or f"result/downstream/{args.expname}")
            args.config = str(write_config(task, folder))
            logger.info("Configuration of %s (%s): %s", task.code, task.title, args.config)
        elif args.config is not None and not Path(args.config).is_file():
            raise LaunchError(f"-c {args.config}: no such file")

    def _warn_of_ignored(self, args: argparse.Namespace) -> None:
        for name in _TAKEN_FROM_CHECKPOINT:
            if name in self.typed:
                logger.warning(
                    "%s is ignored: with -e it comes from the checkpoint. To change it: -o \"args.%s='%s'\"",
                    *(name, name, getattr(args, name)),
                )

    def _check(self, args: argparse.Namespace, config: dict[str, Any]) -> None:
        """Between s3prl's reading of its settings and the start."""
        task = tasks.identify(args.downstream, config)
        if args.hub == "torch" and not hasattr(self.hub, args.upstream):
            hint = did_you_mean(args.upstream, dir(self.hub), most=3)
            raise LaunchError(f"unknown upstream {args.upstream!r}{hint} (`run_downstream.py -h` lists them under -u)")
        if task is not None:
            require(task)
            _repair_vocabularies(task, config)
            check_roots(task, config)
            if args.mode == "evaluate" and "evaluate_split" not in self.typed and "test" not in task.splits:
                args.evaluate_split = task.splits[0]
                logger.info("Evaluating split %s (others: -t %s)", task.splits[0], ", -t ".join(task.splits[1:]))
        elif self.ours["condition"] or self.ours["suite"] or self.ours["manifest"] or self.ours["train_condition"]:
            raise LaunchError(
                f"a condition needs a task this project knows ({', '.join(tasks.TASKS)}), found -d {args.downstream}"
            )
        self.runner.feature_plan = self._features(args)
        if args.mode == "evaluate":
            self.runner.plan = self._plan(args, task)
        else:
            self.runner.training = self._training(task) if self.ours["train_condition"] else None
        self._fetch_upstream(args)  # the longest check comes last, and only what follows it writes
        if args.mode == "train":
            note = self.runner.training.note() if self.runner.training else None
            write_note(args.expdir, note, resumed=bool(args.past_exp))
            write_origin(args)
        elif args.init_ckpt:
            check_origin(args)

    def _fetch_upstream(self, args: argparse.Namespace) -> None:
        if args.hub != "torch":
            return
        try:
            find_checkpoint(args.upstream, args.upstream_ckpt)
        except (FileNotFoundError, ValueError) as error:
            if args.past_exp:
                raise LaunchError(
                    f"the upstream that the head was trained on is not to be had: {error}; if it moved: "
                    "-o \"args.upstream_ckpt='NEW_NAME'\""
                ) from error
            raise LaunchError(f"-k: {error}" if args.upstream_ckpt else str(error)) from error

    def _plan(self, args: argparse.Namespace, task: tasks.Task | None) -> EvaluationPlan:
        ours = self.ours
        dump_audio, dump_folder = _dump_option(ours["dump_audio"])
        manifests = find_manifests(ours["manifest"] or [], task.code, args.evaluate_split) if task else {}
        replayed = {condition_of(manifest): path for path, manifest in manifests.items()}
        if len(replayed) < len(manifests):
            raise LaunchError(f"--manifest: several manifests of one condition: {', '.join(map(str, manifests))}")
        conditions = tuple(dict.fromkeys((*self.conditions, *replayed)))
        sided = ours["asv_corrupt"] == "test" or any("side" in condition for condition in conditions)
        if sided and (task is None or task.code != "ASV"):
            raise LaunchError("only speaker verification (ASV) has a test side; leave out --asv-corrupt and side=")
        sources = self._given_over(_with_names_of(replayed, self.sources))
        try:
            corruptors = sources.corruptors(conditions, ours["corruption_seed"])
        except ValueError as error:
            raise LaunchError(f"--condition: {error}") from error
        for condition, path in replayed.items():
            corruptors[condition] = ReplayedCorruptor(manifests[path], corruptors[condition], path)
        return EvaluationPlan(
            task=task,
            corruptors=corruptors,
            sources=sources,
            records=Path(ours["records"] or Path(args.expdir) / "records"),
            overwrite=ours["overwrite"],
            label=ours["label"],
            dump_audio=dump_audio,
            dump_folder=dump_folder,
            save_manifest=Path(ours["save_manifest"]) if ours["save_manifest"] else None,
        )

    def _features(self, args: argparse.Namespace) -> CachePlan:
        ours = self.ours
        names = ("feature_cache", "feature_cache_dtype", "feature_cache_gb", "read_ahead_s", "feature_cache_conditions")
        plan = CachePlan(*(ours[name] for name in names))
        if plan.active and args.upstream_trainable:
            raise LaunchError("--feature-cache, --read-ahead-s: features change while -f trains the upstream")
        return plan

    def _given_over(self, sources: Sources) -> Sources:
        try:
            return sources.with_given({kind: tuple(self.ours[kind] or ()) for kind in SOURCES})
        except ValueError as error:
            raise LaunchError(f"{', '.join(f'--{kind}' for kind in SOURCES if self.ours[kind])}: {error}") from error

    def _training(self, task: tasks.Task) -> TrainingPlan:
        """What the head is trained under."""
        if task.corruption == "none" or not task.trainable:
            raise LaunchError(f"--train-condition: heads of {task.code} cannot be trained on corrupted audio")
        if any("side" in condition for condition in self.conditions):
            raise LaunchError("--train-condition: only trials have a test side; leave out side=")
        sources = self._given_over(self.sources)
        try:
            corruptors = sources.corruptors(self.conditions, self.ours["corruption_seed"])
        except ValueError as error:
            raise LaunchError(f"--train-condition: {error}") from error
        described = {condition.label: sources.describe(condition, c) for condition, c in corruptors.items()}
        return TrainingPlan(corruptors, described, self.ours["corruption_seed"], task)


def _dump_option(values: Sequence[str] | None) -> tuple[int, Path | None]:
    """``N`` and the folder of ``--dump-audio N [FOLDER]``."""
    if not values:
        return 0, None
    number, *folder = values
    if not number.isdigit() or len(folder) > 1:
        raise LaunchError(f"--dump-audio needs a number and at most one folder, found {' '.join(values)}")
    return int(number), Path(folder[0]) if folder else None


def _with_names_of(conditions: Iterable[Condition], sources: Sources) -> Sources:
    """The sources with a place for every name that a manifest's conditions use."""
    named = {kind: dict(specs) for kind, specs in sources.named.items()}
    for condition in conditions:
        for kind in SOURCES:
            if name := condition.source(kind):
                named.setdefault(kind, {}).setdefault(name, SourceSpec())
    return dataclasses.replace(sources, named=named)


def _repair_vocabularies(task: tasks.Task, config: dict[str, Any]) -> None:
    """A head trained elsewhere names the vocabularies of that machine; put this installation's in their place."""
    for key, here in vocabulary_paths(task).items():
        *parents, last = key.removeprefix("config.").split(".")
        node: Any = config
        for part in parents:
            node = node.get(part) or {}
        there = node.get(last)
        if there and not Path(there).exists() and Path(there).name == Path(here).name:
            node[last] = here


def _choose_device(args: argparse.Namespace, typed: bool) -> None:
    if str(args.device).startswith("cuda") and not torch.cuda.is_available():
        if typed:
            raise LaunchError(f"--device {args.device}, but PyTorch finds no GPU here; use --device cpu")
        logger.info("PyTorch finds no GPU here: using --device cpu")
        args.device = "cpu"


def _hide_gpu_from_cpu_runs(argv: Sequence[str]) -> None:
    """s3prl asks torch for a GPU without looking at --device, so `--device cpu` hides it before CUDA starts."""
    joined = " ".join(argv)
    if re.search(r"--device[ =]cpu\b", joined) and not torch.cuda.is_initialized():
        os.environ["CUDA_VISIBLE_DEVICES"] = ""


@contextmanager
def _replaced(module: ModuleType, **names: Any) -> Iterator[None]:
    """Names of a module replaced within a ``with`` block."""
    before = {name: getattr(module, name) for name in names}
    try:
        for name, value in names.items():
            setattr(module, name, value)
        yield
    finally:
        for name, value in before.items():
            setattr(module, name, value)


if __name__ == "__main__":
    sys.exit(run_command("run_downstream.py", main))
