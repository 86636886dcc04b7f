"""`robustdistiller sweep`: a benchmark sweep from one file, continued where it stopped."""

from __future__ import annotations

import dataclasses
import logging
import sys
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from robustdistiller.cli.command import command
from robustdistiller.cli.printing import say

logger = logging.getLogger(__name__)


@command(keeps="what is finished")
def sweep(
    file: Annotated[
        Path,
        typer.Argument(help="The sweep's YAML file: upstreams, tasks, conditions, seeds, executor.", metavar="FILE"),
    ],
    dry_run: Annotated[bool, typer.Option(help="Run nothing; say what would run (-v: each cell).")] = False,
    policy: Annotated[str | None, typer.Option(help="reuse, rerun or show, instead of the file's.")] = None,
) -> int:
    """
    \b
      robustdistiller sweep sweep.yaml --dry-run
      robustdistiller sweep sweep.yaml

    \b
    A file:
      out: exp/sweep
      upstreams:
        - name: robustdistiller_local
          checkpoint: exp/student/student.ckpt
          label: mine
        - dphubert
        - fbank
      tasks:
        - {task: IC, data: {file_path: /data/fluent_speech_commands_dataset}}
      suites: [robustdistiller]    # or conditions: [clean, noise:snr_db=5]
      noise: [/data/musan/noise]
      rir: [/data/RIRS_NOISES]
      seeds: [1337, 1338]
      learning_rates: [1.e-2, 1.e-3, 1.e-4]
      search: once                 # chosen with the first seed, on the clean
                                   # dev set; every: by each seed and fold
      feature_cache: auto          # features are computed once, for all heads
      executor: {kind: pool, workers: 4}      # or local, or slurm

    ER is run once for each of its five folds ("folds: [fold1]" in its entry: some only); SUPERB's number is their mean.

    Started again, a sweep runs only what is missing; --policy rerun runs everything, show nothing. Heads that lost are
    not needed again: robustdistiller clean exp/sweep. See the result with: robustdistiller leaderboard exp/sweep

    Exit status: 0 all fine, 1 some cells failed, 2 the sweep cannot run as written, 130 interrupted.
    """
    from robustdistiller.eval.sweep.config import load
    from robustdistiller.eval.sweep.run import Sweep
    from robustdistiller.eval.sweep.view import run_shown, summary

    # The stream itself, which stays the terminal's when a job in this process redirects standard output to its log.
    console = Console(file=sys.stdout)
    config = load(file)
    planned = Sweep(config if policy is None else dataclasses.replace(config, policy=policy))
    for line in planned.lines():
        logger.info("%s", line)
    say(console, summary(planned))
    if dry_run:
        return 0
    status = run_shown(planned, console)
    out = planned.config.out
    say(console, f"Records: {out}/records (robustdistiller leaderboard {out})")
    return status
