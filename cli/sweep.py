"""`robustdistiller sweep`: a benchmark sweep from one file, continued where it stopped."""

from __future__ import annotations

import dataclasses
import sys
from collections import Counter
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from robustdistiller.eval import sweep as sweeps
from robustdistiller.eval.results.files import POLICIES
from robustdistiller.eval.sweep.live import LiveView
from robustdistiller.upstream import CheckpointError


def sweep(
    file: Annotated[Path, typer.Argument(help="The sweep's YAML file: upstreams, tasks, conditions, seeds, executor.")],
    dry_run: Annotated[
        bool, typer.Option(help="Say for each cell whether it would run, and how long; run none.")
    ] = False,
    policy: Annotated[str | None, typer.Option(help=f"Instead of the file's policy: {', '.join(POLICIES)}.")] = None,
    quiet: Annotated[bool, typer.Option(help="Do not list the cells that are reused or skipped.")] = False,
) -> None:
    # The docstring is the help text, set below: it holds an example.
    # The stream itself, which stays the terminal's when a job in this process redirects standard output to its log.
    console = Console(file=sys.stdout)
    try:
        code = run(file, dry_run, policy, quiet, console)
    except KeyboardInterrupt:
        console.print("Interrupted. The same command goes on from here.", markup=False)
        raise typer.Exit(130) from None
    except (sweeps.SweepError, CheckpointError, FileNotFoundError, ValueError) as error:
        Console(stderr=True).print(f"robustdistiller sweep: {error}", style="red", markup=False, soft_wrap=True)
        raise typer.Exit(2) from error
    raise typer.Exit(code)


sweep.__doc__ = """
Train and evaluate heads of many upstreams on many tasks; every number becomes a record.

\b
A file:
  out: exp/sweep
  upstreams:
    - {name: robustdistiller_local, checkpoint: exp/student/student.ckpt, label: mine}
    - dphubert
    - fbank
  tasks:
    - {task: KS, data: {speech_commands_root: /data/speech_commands_v0.01,
                        speech_commands_test_root: /data/speech_commands_test_set_v0.01}}
    - {task: IC, data: {file_path: /data/fluent_speech_commands_dataset}}
  suites:                      # or conditions: clean, noise:snr_db=5, reverb:rt60_s=0.6 ...
    - robustdistiller
  noise:
    - /data/musan/noise
  rir:
    - /data/RIRS_NOISES
  seeds: [1337]
  learning_rates: [1.e-2, 1.e-3, 1.e-4]   # chosen on the dev set, clean
  feature_cache: auto          # the upstreams' features are computed once, for all heads and epochs
  executor: {kind: pool, workers: 4}      # or local, or slurm

ER is run once for each of its five folds ("folds: [fold1]" in its entry: some only); SUPERB's number is their mean.
Started again, a sweep runs only what is missing. See the result with: robustdistiller leaderboard exp/sweep

Exit status: 0 all fine, 1 some cells failed, 2 the sweep cannot run as written, 130 interrupted.
"""


def run(file: Path, dry_run: bool, policy: str | None, quiet: bool, console: Console) -> int:
    """Read, plan, run and sum up; returns the exit code."""
    config = sweeps.load(file)
    if policy is not None:
        config = dataclasses.replace(config, policy=policy)
    groups = sweeps.expand(config)
    heard = sweeps.heard_of(config, [condition for group in groups for condition in group.conditions])
    plans = sweeps.make_plan(groups, config.policy, heard)
    executor = None if dry_run else make_executor(config)
    for plan in plans:
        for cell, decision in plan.decisions.items():
            if decision.run or not quiet:
                console.print(f"{cell.title}: {decision.why}", markup=False, highlight=False, soft_wrap=True)
        for head in plan.train:
            console.print(f"{plan.group.title}: trains a head, learning rate {head.learning_rate:g}", markup=False)
    counts = Counter(decision.run for plan in plans for decision in plan.decisions.values())
    heads = sum(len(plan.train) for plan in plans)
    slots = executor.slots if executor is not None else planned_slots(config)
    time_text = sweeps.estimate(plans, config.root).text(slots)
    console.print(
        f"{counts[True]} cells to run, {counts[False]} not; {heads} heads to train. Time: {time_text}.",
        markup=False,
        highlight=False,
        soft_wrap=True,
    )
    if dry_run:
        return 0
    with LiveView(console) as view:
        running = sweeps.Sweep(config, plans, heard, executor, view.say, view.update)
        code = running.run()
    for failure in running.failures:
        console.print(f"failed: {failure}", style="red", markup=False, soft_wrap=True)
    console.print(f"Records: {config.root / 'records'} (robustdistiller table {config.out}/records)", soft_wrap=True)
    return code


def make_executor(config: sweeps.SweepConfig) -> sweeps.Executor:
    """The executor that the file asks for."""
    if config.executor.kind == "slurm":
        from robustdistiller.eval.sweep.slurm import SlurmExecutor

        return SlurmExecutor(config)
    return sweeps.PoolExecutor(config) if config.executor.kind == "pool" else sweeps.LocalExecutor()


def planned_slots(config: sweeps.SweepConfig) -> int:
    """How much would run side by side."""
    if config.executor.kind == "slurm":
        return config.executor.array_parallelism
    return make_executor(config).slots
