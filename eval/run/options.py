"""The launcher's command line: s3prl's own parser with one more group of options."""

from __future__ import annotations

import argparse
import math
from collections.abc import Sequence
from functools import partial
from types import SimpleNamespace
from typing import Any
from unittest import mock

from robustdistiller.acoustics import EFFECTS
from robustdistiller.eval.results.files import POLICIES, read_policy
from robustdistiller.eval.run.cache.plan import DTYPES
from robustdistiller.eval.run.errors import RunError
from robustdistiller.upstream.s3prl import bridge
from robustdistiller.upstream.s3prl.entries import register

EXAMPLES = """\
examples:
  train a head on clean audio, as s3prl does (the configuration is chosen by -d unless -c is given):
    run_downstream.py -m train -u robustdistiller_local -k student.ckpt -d fluent_commands -p exp/ic \\
        -o "config.downstream_expert.datarc.file_path='/data/fluent_speech_commands_dataset'"

  evaluate it: one JSON record per condition, model and data loaded once:
    run_downstream.py -m evaluate -e exp/ic/dev-best.ckpt --condition clean --condition noise:snr_db=5

  a whole suite, and the same corruption again on another machine:
    run_downstream.py -m evaluate -e exp/ic/dev-best.ckpt --suite robustdistiller --save-manifest manifests
    run_downstream.py -m evaluate -e exp/ic/dev-best.ckpt --manifest manifests

  noise and rooms of your own:
    run_downstream.py -m evaluate -e exp/ic/dev-best.ckpt --noise /data/musan/noise --rir /data/RIRS_NOISES \\
        --condition noise:snr_db=0 --condition reverb:rt60_s=0.6 --condition noise+reverb:snr_db=10,rt60_s=0.6

  all tables and plots come from the records:
    robustdistiller leaderboard exp/ic
"""


def add_our_options(parser: argparse.ArgumentParser) -> list[str]:
    """Add the launcher's own options; returns the names of their values."""
    group = parser.add_argument_group(
        "RobustDistiller",
        "noisy and reverberant evaluation, records (with -m evaluate; in training too where it says so)",
    )
    add = group.add_argument
    repeatable = partial(group.add_argument, action="append")
    repeatable(
        "--condition",
        metavar="CONDITION",
        help="test condition, repeatable: clean, noise:snr_db=5, noise:snr_db=10..20, noise:snr_db=0,noise=white, "
        "reverb, reverb:rt60_s=0.6, noise+reverb:snr_db=10,rt60_s=0.4..0.8, codec:codec=opus (default: clean); "
        f"effects, joined by +: {', '.join(EFFECTS)}",
    )
    repeatable(
        "--suite",
        metavar="NAME|FILE",
        help="a list of test conditions with their sources, repeatable: clean, robustdistiller, correlation, line, "
        "or a YAML file of your own",
    )
    repeatable(
        "--manifest",
        metavar="PATH",
        help="replay the corruption that a manifest, or each manifest in a folder, has written down; repeatable",
    )
    add("--save-manifest", metavar="DIR", help="write one manifest per condition, to be replayed with --manifest")
    repeatable(
        "--noise",
        metavar="PATH",
        help="folder, file or .tsv list of noise, a part of it as in /data/musan,split=test, or NAME=PATH for a "
        "source that a suite leaves to you; repeatable (default: the shipped test noises)",
    )
    repeatable("--rir", metavar="PATH", help="the same for room responses (default: the shipped test rooms)")
    repeatable(
        "--speech",
        metavar="PATH",
        help="speech to mix babble from, and of other talkers (default: the shipped training speech)",
    )
    repeatable("--music", metavar="PATH", help="the same as --noise, for music; none is shipped")
    add("--corruption-seed", type=int, default=0, metavar="N", help="seed of the drawn corruption (default: 0)")
    add("--records", metavar="DIR", help="folder of records (default: EXPDIR/records)")
    add(
        "--overwrite",
        type=read_policy,
        choices=list(POLICIES),
        default="rerun",
        help="what becomes of cells that have a record; "
        + "; ".join(f"{name}: {what}" for name, what in POLICIES.items())
        + " (default: rerun)",
    )
    add("--label", default="", metavar="NAME", help="name of the upstream in tables (default: the upstream's)")
    add(
        "--dump-audio",
        nargs="+",
        metavar=("N", "FOLDER"),
        help="write N utterances of each condition to listen to, clean and as the upstream hears them, with what was "
        "drawn, below FOLDER (default: EXPDIR)",
    )
    add(
        "--asv-corrupt",
        choices=["both", "test"],
        default="both",
        help="speaker verification: corrupt both sides of a trial, or the test side only (default: both)",
    )
    repeatable(
        "--train-condition",
        metavar="CONDITION",
        help="with -m train: train the head under this condition instead of on clean audio; given several times, each "
        "utterance meets one of them by chance. Such heads do not follow SUPERB, and their records say so",
    )
    add(
        "--feature-cache",
        metavar="DIR",
        help="in training and evaluation: keep the frozen upstream's features on disk instead of computing them again "
        "every epoch, the same for all heads and processes; s3prl's experts see no difference. Heads that average over "
        "frames (KS, IC, ER, SID) need the means of an utterance only",
    )
    add(
        "--feature-cache-dtype",
        choices=list(DTYPES),
        default="fp32",
        help="how frames are kept: fp32 exactly, fp16 in half the space, which records note (default: fp32)",
    )
    add("--feature-cache-gb", type=float, default=50.0, metavar="GB", help="largest size of what is kept (default: 50)")
    add(
        "--feature-cache-conditions",
        action="store_true",
        help="in evaluation: keep the features of corrupted audio too, not those of clean audio only",
    )
    add(
        "--read-ahead-s",
        type=float,
        default=0.0,
        metavar="SECONDS",
        help="in evaluation, give the upstream this much audio at a time, sorted by length, where s3prl gives it one "
        "utterance; the head is given what it is always given. For GPUs, e.g. 160 (default: 0, off)",
    )
    add(
        "--quick",
        action="store_true",
        help="in training and evaluation: look at a tenth of every split and train for 1000 steps at most; such "
        "numbers have a label of their own and are never mixed with those of the full run",
    )
    return [action.dest for action in group._group_actions]


def parse(argv: Sequence[str]) -> tuple[argparse.Namespace, set[str], dict[str, Any]]:
    """s3prl's settings of a command line, the names of the options that were typed, and our options."""
    parser = _s3prl_parser()
    ours = add_our_options(parser)
    parser.prog, parser.epilog = "run_downstream.py", EXAMPLES
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.description = "s3prl's run_downstream, unchanged, with noisy and reverberant evaluation and records."
    defaults = {action.dest: action.default for action in parser._actions if action.dest != "help"}
    for action in parser._actions:
        action.default = argparse.SUPPRESS  # so that only what was typed is set
    typed = vars(parser.parse_args(list(argv)))
    values = {**defaults, **typed}
    stock = argparse.Namespace(**{name: value for name, value in values.items() if name not in ours})
    return stock, set(typed), {name: values[name] for name in ours}


def s3prl_defaults() -> argparse.Namespace:
    """s3prl's settings where nothing is typed."""
    return argparse.Namespace(**{one.dest: one.default for one in _s3prl_parser()._actions if one.dest != "help"})


def _s3prl_parser() -> argparse.ArgumentParser:
    """The parser that s3prl's ``get_downstream_args`` makes, before it parses anything."""
    bridge.install()
    register()
    from s3prl import run_downstream

    class Made(Exception):
        pass

    class Parser(argparse.ArgumentParser):
        def parse_args(self, *_: Any, **__: Any) -> argparse.Namespace:
            raise Made(self)

    try:
        with mock.patch.object(run_downstream, "argparse", SimpleNamespace(ArgumentParser=Parser)):
            run_downstream.get_downstream_args()
    except Made as made:
        parser = made.args[0]
        parser.parse_args = partial(argparse.ArgumentParser.parse_args, parser)
        return parser
    raise RuntimeError("s3prl's get_downstream_args no longer makes a parser")


def override(text: str, args: argparse.Namespace, config: dict[str, Any]) -> None:
    """Carry out ``-o`` as s3prl does, for values with ``=`` in them too.

    Args:
        text: ``args.NAME=VALUE`` or ``config.A.B=VALUE``, several joined by ``,,``; what is no Python value is text.
        args, config: changed in place.

    Raises:
        RunError: it is of another form.

    Example:
        >>> config = {}
        >>> override("config.optimizer.lr=1e-3,,config.data.root=/data/lr=3 #4", argparse.Namespace(), config)
        >>> config
        {'optimizer': {'lr': 0.001}, 'data': {'root': '/data/lr=3 #4'}}
    """
    for option in text.split(",,"):
        key, equals, written = (part.strip() for part in option.partition("="))
        first, *path = key.split(".")
        if not equals or first not in ("args", "config") or not path or (first == "args" and len(path) > 1):
            raise RunError(f"-o: expected args.NAME=VALUE or config.KEY=VALUE, joined by ',,', found {option!r}")
        try:
            value = eval(written, {"__builtins__": {}, "math": math})
        except Exception:  # noqa: BLE001 - whatever is no value is text
            value = written
        if first == "args":
            setattr(args, path[0], value)
            continue
        node: Any = config
        for depth, part in enumerate(path):
            if not isinstance(node, dict):
                raise RunError(f"-o {key}: {'.'.join(path[:depth])} is {node!r}, which has no {part!r} in it")
            if depth < len(path) - 1:
                node = node.setdefault(part, {})
        node[path[-1]] = value
