"""``run_downstream.py``: unchanged s3prl downstreams on this project's upstreams, evaluated under conditions.

A command line becomes the typed values that `train_head` and `evaluate_head` take, and nothing else happens here.
"""

from __future__ import annotations

import contextlib
import dataclasses
import logging
import sys
from argparse import Namespace
from collections.abc import Iterable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import yaml

from robustdistiller.acoustics import Condition, SourceSpec
from robustdistiller.acoustics.condition import SOURCES
from robustdistiller.common.errors import run_command
from robustdistiller.eval import tasks
from robustdistiller.eval.conditions.manifest import condition_of, find_manifests
from robustdistiller.eval.conditions.sources import Sources
from robustdistiller.eval.conditions.suite import load_suites
from robustdistiller.eval.run.cache.plan import CachePlan
from robustdistiller.eval.run.errors import RunError
from robustdistiller.eval.run.evaluate import AudioExamples, evaluate_head, raise_failures
from robustdistiller.eval.run.head_checkpoint import find_head, newest_states, read_checkpoint
from robustdistiller.eval.run.options import override, parse
from robustdistiller.eval.run.quick import Quick
from robustdistiller.eval.run.s3prl_main import run_s3prl
from robustdistiller.eval.run.specs import HeadSpec, Upstream
from robustdistiller.eval.run.train import train_head
from robustdistiller.eval.tasks.configs import load_config
from robustdistiller.upstream.device import usable_device

logger = logging.getLogger(__name__)

# What -e does not take from the checkpoint; as s3prl has it, but for the switch that looks for one.
_NOT_FROM_CHECKPOINT = {
    *("mode", "evaluate_split", "override", "backend", "local_rank", "past_exp", "device"),
    "auto_resume",
}
# Of `CachePlan`, in its order.
_FEATURES = ("feature_cache", "feature_cache_dtype", "feature_cache_gb", "read_ahead_s", "feature_cache_conditions")


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point of the console script; returns the exit status (see `common.errors.run_command`)."""
    logging.basicConfig(level=logging.INFO, format="[%(name)s] %(message)s")
    return run_command("run_downstream.py", partial(launch, list(sys.argv[1:] if argv is None else argv)))


def launch(argv: Sequence[str]) -> None:
    """Carry out a command line, without the program's name.

    Raises:
        ValueError, OSError: it cannot be carried out; one sentence.
        RunFailed: an evaluation failed.
        InstallationError: something that the task needs is missing.
    """
    args, typed, ours = parse(argv)
    _refuse_misplaced(args, typed, ours)
    conditions, sources = _conditions(ours)
    if args.device == "cuda" and "device" not in typed:
        args.device = str(usable_device())
        if args.device == "cpu":
            logger.info("PyTorch finds no GPU here: using --device cpu")
    usable_device(args.device)
    args, config = _settings(args, typed)
    if args.override and args.override.lower() != "none":
        override(args.override, args, config)
    spec = HeadSpec.from_s3prl(
        args,
        config,
        features=CachePlan(*(ours[name] for name in _FEATURES)),
        quick=Quick() if ours["quick"] else None,
    )
    if args.mode == "train":
        fold = spec.task.fold_of(config) if spec.task else ""
        if fold and args.downstream_variant not in (None, fold):
            where = spec.task.fold_key
            raise RunError(f"-v {args.downstream_variant} has no effect: {where} is {fold}; give -o {where}=FOLD")
        spec = dataclasses.replace(
            spec,
            train_conditions=conditions if ours["train_condition"] else (),
            sources=_given(ours, sources),
            corruption_seed=ours["corruption_seed"],
        )
        train_head(spec, resume=Path(args.init_ckpt) if args.past_exp else False)
    elif args.mode == "evaluate":
        if not args.init_ckpt and spec.task is not None and spec.task.trainable:
            logger.warning("Neither -e nor -i: the head that is evaluated has not been trained")
        typed_split = args.evaluate_split if "evaluate_split" in typed else None
        manifests = {}
        if ours["manifest"] and spec.task is not None:
            manifests = find_manifests(ours["manifest"], spec.task.code, typed_split or spec.task.splits[0])
        found = evaluate_head(
            spec,
            conditions,
            checkpoint=args.init_ckpt,
            split=typed_split,
            sources=_given(ours, _with_names_of(map(condition_of, manifests.values()), sources)),
            corruption_seed=ours["corruption_seed"],
            manifests=manifests,
            records=ours["records"],
            policy=ours["overwrite"],
            label=ours["label"],
            examples=_examples(ours["dump_audio"]),
            save_manifests=ours["save_manifest"],
        )
        raise_failures(found)
    else:
        spec.check()
        run_s3prl(spec, args.mode)


def _refuse_misplaced(args: Namespace, typed: set[str], ours: dict[str, Any]) -> None:
    if args.mode == "evaluate":
        if "train_condition" in typed:
            raise RunError("--train-condition belongs to -m train; the evaluated head's own is in its records")
        return
    if args.mode == "train" and "init_ckpt" in typed:
        raise RunError("-i belongs to -m evaluate; to go on with the training of a checkpoint, give -e CHECKPOINT")
    allowed = {*_FEATURES, "quick"} - {"feature_cache_conditions"}
    if "train_condition" in typed:
        allowed |= {"train_condition", *SOURCES, "corruption_seed"}
    if misplaced := sorted((typed & set(ours)) - allowed):
        names = ", ".join("--" + name.replace("_", "-") for name in misplaced)
        raise RunError(f"{names} belong to -m evaluate: heads are trained on clean audio, as SUPERB does")


def _conditions(ours: dict[str, Any]) -> tuple[tuple[Condition, ...], Sources]:
    """Conditions of the command line and of suites, and the suites' sources."""
    suite = load_suites(ours["suite"] or [])
    texts = ours["train_condition"] or ours["condition"] or []
    option = "--train-condition" if ours["train_condition"] else "--condition"
    try:
        typed = tuple(Condition.parse(text) for text in texts)
    except ValueError as error:
        raise RunError(f"{option}: {error}") from error
    found = tuple(dict.fromkeys((*typed, *suite.conditions)))
    if ours["asv_corrupt"] == "test":
        found = tuple(one if one.kind == "clean" else one.replace(side="test") for one in found)
    return found or (() if ours["manifest"] else (Condition(),)), suite.sources


def _given(ours: dict[str, Any], sources: Sources) -> Sources:
    """The sources that were typed, over those of suites."""
    try:
        return sources.with_given({kind: tuple(ours[kind] or ()) for kind in SOURCES})
    except ValueError as error:
        raise RunError(f"{', '.join(f'--{kind}' for kind in SOURCES if ours[kind])}: {error}") from error


def _with_names_of(conditions: Iterable[Condition], sources: Sources) -> Sources:
    """The sources with a place for every name that a manifest's conditions use."""
    named = {kind: dict(specs) for kind, specs in sources.named.items()}
    for condition in conditions:
        for kind in SOURCES:
            if name := condition.source(kind):
                named.setdefault(kind, {}).setdefault(name, SourceSpec())
    return dataclasses.replace(sources, named=named)


def _settings(args: Namespace, typed: set[str]) -> tuple[Namespace, dict[str, Any]]:
    """s3prl's settings and configuration, of a checkpoint or of a new experiment."""
    if args.expname and args.expdir is None:
        args.expdir, typed = f"result/downstream/{args.expname}", {*typed - {"expname"}, "expdir"}
    if args.upstream and args.hub == "torch":  # a model may stand in an upstream's place
        upstream = Upstream(args.upstream, args.upstream_ckpt, args.upstream_model_config)
        args.upstream, args.upstream_ckpt = upstream.name, upstream.checkpoint
        args.upstream_model_config = upstream.options
    if args.auto_resume and args.expdir and (found := newest_states(args.expdir)):
        args.past_exp = str(found[0])
    if args.past_exp:
        return _of_checkpoint(args, typed)
    if not args.upstream or not args.downstream:
        missing = " and ".join(o for o, v in (("-u UPSTREAM", args.upstream), ("-d TASK", args.downstream)) if not v)
        raise RunError(f"a new experiment needs {missing} (or -e CHECKPOINT to go on from one)")
    if args.expdir is None:
        raise RunError("give the experiment's folder: -p FOLDER (or -n NAME for result/downstream/NAME)")
    return args, _configuration(args)


def _of_checkpoint(args: Namespace, typed: set[str]) -> tuple[Namespace, dict[str, Any]]:
    if args.mode == "evaluate" or not Path(args.past_exp).is_dir():
        path = find_head(args.past_exp)
    elif found := newest_states(args.past_exp):
        path = found[0]
    else:
        raise RunError(f"-e {args.past_exp}: no checkpoint that can be read in this folder")
    states = read_checkpoint(path)
    stored = {key: value for key, value in vars(states["Args"]).items() if key not in _NOT_FROM_CHECKPOINT}
    for name in sorted(typed & stored.keys()):
        if stored[name] not in (given := getattr(args, name), _as_stored(name, given)):
            change = "config.KEY=VALUE" if name == "config" else f"args.{name}={given!r}"
            logger.warning('%s is ignored: with -e it comes from the checkpoint. To change it: -o "%s"', name, change)
    merged = Namespace(**{**vars(args), **stored})
    merged.past_exp = merged.init_ckpt = str(path)
    return merged, states["Config"]


def _as_stored(name: str, given: Any) -> Any:
    """A typed setting as a head's checkpoint has it."""
    if name == "downstream":
        with contextlib.suppress(ValueError, OSError):  # a downstream of the user's own, or a table that is gone
            return tasks.get(given).downstream
    return str(Path(given)) if name == "expdir" else given


def _configuration(args: Namespace) -> dict[str, Any]:
    """The file of -c; without one that of s3prl's working folder, or the shipped one of a known task."""
    stock = Path("downstream") / args.downstream / "config.yaml"
    try:
        task = tasks.get(args.downstream)
        args.downstream = task.downstream
    except ValueError as error:
        if not args.config and not stock.is_file():  # else a downstream of the user's own
            raise RunError(str(error)) from error
    if args.config is None and not stock.is_file():
        logger.info("Configuration of %s (%s): the shipped one", task.code, task.title)
        return load_config(task)
    args.config = args.config or str(stock)
    if not Path(args.config).is_file():
        raise RunError(f"-c {args.config}: no such file")
    try:
        config = yaml.load(Path(args.config).read_text(encoding="utf-8"), Loader=yaml.FullLoader)  # as s3prl
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise RunError(f"-c {args.config} is not YAML: {error}") from error
    if not isinstance(config, dict) or "runner" not in config:
        raise RunError(f"-c {args.config} is no configuration of s3prl's: expected runner, optimizer and others")
    return config


def _examples(values: Sequence[str] | None) -> AudioExamples:
    """``N`` and the folder of ``--dump-audio N [FOLDER]``."""
    if not values:
        return AudioExamples()
    number, *folder = values
    if not number.isdigit() or len(folder) > 1:
        raise RunError(f"--dump-audio needs a number and at most one folder, found {' '.join(values)}")
    return AudioExamples(int(number), Path(folder[0]) if folder else None)


if __name__ == "__main__":
    sys.exit(main())
