"""`robustdistiller prepare`: what was expected of a task's data and found, and the files that have to be made."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from robustdistiller.cli.printing import print_whole
from robustdistiller.eval import tasks
from robustdistiller.eval.data import RECIPES, Plan, PrepareError, look, run
from robustdistiller.eval.data.plan import DIFFERS, MISSING, OK, TO_MAKE
from robustdistiller.eval.tasks import configs as task_configs

_MARKS = {OK: "[green]ok[/]", DIFFERS: "[yellow]differs[/]", TO_MAKE: "[cyan]to make[/]", MISSING: "[red]missing[/]"}


def prepare(
    task: Annotated[str | None, typer.Argument(help="Task: IC, or s3prl's name. --list shows them.")] = None,
    folder: Annotated[Path | None, typer.Argument(metavar="ROOT", help="Folder of its corpus.")] = None,
    root: Annotated[
        list[str] | None, typer.Option(metavar="NAME=PATH", help="A further file or folder of the task, repeatable.")
    ] = None,
    check: Annotated[bool, typer.Option("--check", help="Look only; write nothing.")] = False,
    out: Annotated[Path | None, typer.Option(help="Folder of what is made; default: prepared/TASK.")] = None,
    show_list: Annotated[
        bool, typer.Option("--list", help="Show the tasks: data, terms, rules. With a task: all that is known of it.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print what was found as JSON.")] = False,
) -> None:
    # The docstring is the help text, set below: it holds examples.
    console = Console()
    try:
        entry = tasks.get(task) if task else None
        if show_list:
            show_tasks(entry, console)
            return
        if entry is None:
            raise PrepareError("say which task; robustdistiller prepare --list shows them")
        where = out or Path("prepared") / entry.code
        roots = _roots(entry, folder, root or [])
        with Console(stderr=True).status(f"Looking at the data of {entry.code} ..."):
            plan = look(entry, roots, where)
        if as_json:
            typer.echo(json.dumps(to_dict(plan), indent=1))
        else:
            show_findings(plan, console)
        if not check and plan.ok:
            done = run(plan, progress=not as_json)
            _say(console, as_json, f"Made: {', '.join(done.made) or 'nothing, all was there'} (in {where})")
        if plan.ok and not as_json:
            show_settings(plan, console, made=not check)
    except KeyboardInterrupt:
        console.print("Interrupted. The same command goes on from here.", markup=False)
        raise typer.Exit(130) from None
    except (PrepareError, OSError, ValueError) as error:
        Console(stderr=True).print(f"robustdistiller prepare: {error}", style="red", markup=False, soft_wrap=True)
        raise typer.Exit(2) from error
    if not plan.ok:
        _say(console, as_json, "Something needed is missing, see above; nothing was made.")
        raise typer.Exit(1)


prepare.__doc__ = """
Look at a task's data, say what is missing, and make the files that s3prl needs and the download does not hold.

\b
  robustdistiller prepare --list                              # all tasks; with a task: its data and rules
  robustdistiller prepare ASR --check /data/LibriSpeech       # what was expected, what is there
  robustdistiller prepare ASR /data/LibriSpeech               # the same, and the length tables
  robustdistiller prepare SD /data/Libri2Mix --root rttm=LibriMix/metadata/LibriSpeech
  robustdistiller prepare PR /data/LibriSpeech --root lexicon=FILE --root lexicon=FILE

Ends with the options that run_downstream.py then takes, and with the entry for a sweep's file. Nothing is written into
the corpora. Interrupted, the same command goes on where it stopped; what is there already is not made again.

Exit status: 0 all fine, 1 something needed is missing, 2 the command cannot run as typed, 130 interrupted.
"""


def _roots(task: tasks.Task, folder: Path | None, texts: list[str]) -> dict[str, list[Path]]:
    """Inputs by name, as typed."""
    roots: dict[str, list[Path]] = {}
    if folder is not None:
        roots[RECIPES[task.code].inputs[0].name] = [folder.expanduser()]
    for text in texts:
        name, sign, path = text.partition("=")
        if not sign or not path:
            raise PrepareError(f"--root {text}: expected NAME=PATH, for example --root {_example(task)}")
        roots.setdefault(name, []).append(Path(path).expanduser())
    return roots


def _example(task: tasks.Task) -> str:
    return f"{RECIPES[task.code].inputs[-1].name}=PATH"


def _say(console: Console, as_json: bool, text: str) -> None:
    if not as_json:
        console.print(text, markup=False, highlight=False, soft_wrap=True)


def to_dict(plan: Plan) -> dict:
    """What was found, plain data.

    >>> to_dict(Plan(tasks.get("IC"), Path("out")))["ok"]
    True
    """
    found = [vars(finding) for finding in plan.findings]
    return {"task": plan.task.code, "ok": plan.ok, "findings": found, "settings": plan.settings, "out": str(plan.out)}


def show_findings(plan: Plan, console: Console) -> None:
    """Print what was expected and found, and below it what to do."""
    table = Table(title=f"{plan.task.code}: {plan.task.title}", title_justify="left", box=None, pad_edge=False)
    for column in ("", "what", "expected", "found"):
        table.add_column(column, overflow="fold")
    for finding in plan.findings:
        texts = [text.replace("[", r"\[") for text in (finding.what, finding.expected, finding.found)]
        table.add_row(_MARKS[finding.state], *texts)
    console.print(table)
    remedies: dict[str, dict[str, None]] = {}
    for finding in plan.findings:
        if finding.fix:
            remedies.setdefault(finding.fix, {})[finding.what] = None
    for fix, subjects in remedies.items():
        _say(console, False, f"  {', '.join(subjects)}: {fix}")


def show_settings(plan: Plan, console: Console, made: bool) -> None:
    """Print what run_downstream.py and a sweep's file then need."""
    when = "" if made or not plan.steps else ", when the files are made (the same command without --check)"
    _say(console, False, f"\nFor run_downstream.py -d {plan.task.code}{when}:\n  {plan.option()}")
    _say(console, False, f"For the tasks of a sweep's file:\n  {plan.sweep_entry()}")


def show_tasks(only: tasks.Task | None, console: Console) -> None:
    """Print the tasks with their data and rules; with one task, all that is known of it."""
    if only is not None:
        show_task(only, console)
        return
    table = Table(box=None, pad_edge=False, title="SUPERB tasks", title_justify="left")
    for column in ("task", "data", "size", "terms", "score"):
        table.add_column(column, overflow="fold")
    for task in tasks.TASKS.values():
        names = "\n".join(corpus.name for corpus in task.corpora)
        sizes = "\n".join(corpus.size.split(",")[0] or "-" for corpus in task.corpora)
        terms = "\n".join(corpus.terms for corpus in task.corpora)
        arrow = "higher is better" if task.metric.higher_is_better else "lower is better"
        table.add_row(task.code, names, sizes, terms, f"{task.metric.name}, {arrow}")
    print_whole(table, console)
    _say(
        console, False, "robustdistiller prepare --list TASK shows where the data comes from, and the rules of a task."
    )


def show_task(task: tasks.Task, console: Console) -> None:
    """Print one task: data, what to give, rules."""
    config, protocol = task_configs.load_config(task), task.protocol
    runner = config.get("runner") or {}
    lines = [f"{task.code}: {task.title} (s3prl: -d {task.downstream})", "", "Data"]
    for corpus in task.corpora:
        lines += [f"  {corpus.name}: {corpus.source}", f"    terms: {corpus.terms}"]
        lines += [f"    size: {corpus.size}"] if corpus.size else []
        if corpus.counts:
            counts = ", ".join(f"{name} {count}" for name, count in corpus.counts.items())
            lines.append(f"    official counts: {counts} ({corpus.counts_source})")
    lines += ["", "What robustdistiller prepare takes"]
    for number, one in enumerate(RECIPES[task.code].inputs):
        name = "ROOT" if number == 0 else f"--root {one.name}=PATH"
        lines.append(f"  {name}: {one.what}")
    lines += ["", "Rules", f"  trained on: {protocol.train}", f"  developed on: {protocol.dev}"]
    lines += [f"  tested on: {protocol.test}", f"  score: {protocol.score}"]
    for metric in task.metrics:
        direction = "higher" if metric.higher_is_better else "lower"
        lines.append(f"  metric: {metric.name}{' in ' + metric.unit if metric.unit else ''}, {direction} is better")
    if task.trainable:
        sizes = [str(value) for value in _batch_sizes(config)]
        lines.append(
            f"  fixed: {runner['total_steps']} updates of {' or '.join(sizes)} x {runner['gradient_accumulate_steps']} "
            f"utterances, and everything else in downstream_configs/{task.config}.yaml but the learning rate"
        )
        lines.append("  a run that changes any of it is marked as not standard in its record, and so in tables")
    lines += [f"  note: {task.note}"] if task.note else []
    _say(console, False, "\n".join(lines))


def _batch_sizes(config: dict) -> list[int]:
    sections = [section for section in config["downstream_expert"].values() if isinstance(section, dict)]
    keys = ("batch_size", "train_batch_size", "train_batchsize", "max_tokens")
    return [section[key] for section in sections for key in keys if key in section]
