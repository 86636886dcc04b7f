"""The tasks' data in the terminal: what is expected, what was found, terms and rules, what is fetched."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from robustdistiller.cli.printing import print_whole, say
from robustdistiller.eval import tasks
from robustdistiller.eval.data import Plan, PrepareError, recipe_of
from robustdistiller.eval.data.archives import archives_of
from robustdistiller.eval.data.fetch import fetch, folder_of, to_fetch
from robustdistiller.eval.data.plan import DIFFERS, MISSING, OK, TO_MAKE
from robustdistiller.eval.tasks import configs as task_configs
from robustdistiller.eval.tasks.corpora import Corpus

_MARKS = {OK: "[green]ok[/]", DIFFERS: "[yellow]differs[/]", TO_MAKE: "[cyan]to make[/]", MISSING: "[red]missing[/]"}
_BATCH_SIZES = ("batch_size", "train_batch_size", "train_batchsize", "max_tokens")


def show_tasks(console: Console) -> None:
    """Print all tasks with their data and metric, one a row."""
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
    say(console, "robustdistiller prepare --list TASK shows where the data comes from, and the rules of a task.")


def show_task(task: tasks.Task, console: Console) -> None:
    """Print one task: data, what to give, rules."""
    config, rules = task_configs.load_config(task), task.rules
    lines = [f"{task.code}: {task.title} (s3prl: -d {task.downstream})", "", "Data"]
    for corpus in task.corpora:
        lines += [f"  {corpus.name}: {corpus.source}", f"    terms: {corpus.terms}"]
        lines += [f"    size: {corpus.size}"] if corpus.size else []
        if corpus.counts:
            counts = ", ".join(f"{name} {count}" for name, count in corpus.counts.items())
            lines.append(f"    official counts: {counts} ({corpus.counts_source})")
    if archives_of(task.corpora):
        lines.append(f"  free to fetch: robustdistiller prepare {task.code} ROOT --download")
    inputs = recipe_of(task).inputs if task.data else {}
    lines += ["", "What robustdistiller prepare takes"] if inputs else []
    for number, (name, what) in enumerate(inputs.items()):
        lines.append(f"  {f'--root {name}=PATH' if number else 'ROOT'}: {what}")
    lines += ["", "Rules", f"  trained on: {rules.train}", f"  developed on: {rules.dev}"]
    lines += [f"  tested on: {rules.test}", f"  score: {rules.score or task.metric.name}; {rules.chosen}"]
    for metric in task.metrics:
        direction = "higher" if metric.higher_is_better else "lower"
        lines.append(f"  metric: {metric.name}{' in ' + metric.unit if metric.unit else ''}, {direction} is better")
    lines += _fixed(task, config) if task.trainable else []
    lines += [f"  note: {task.note}"] if task.note else []
    say(console, "\n".join(lines))


def _fixed(task: tasks.Task, config: dict[str, Any]) -> list[str]:
    runner = config["runner"]
    sections = [section for section in config["downstream_expert"].values() if isinstance(section, dict)]
    sizes = " or ".join(str(section[key]) for section in sections for key in _BATCH_SIZES if key in section)
    named = isinstance(task.config, str) and not task.config.endswith(".yaml")
    where = f"downstream_configs/{task.config}.yaml" if named else "its configuration"
    return [
        f"  fixed: {runner['total_steps']} updates of {sizes} x {runner['gradient_accumulate_steps']} utterances, and "
        f"everything else in {where} but the learning rate",
        "  a run that changes any of it is marked as not standard in its record, and so in tables",
    ]


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
        say(console, f"  {', '.join(subjects)}: {fix}")


def fetch_said(corpora: Sequence[Corpus], task: str, folder: Path | None, mirror: str, console: Console) -> None:
    """Say what is fetched, from where and under which terms, and fetch it."""
    archives = archives_of(corpora)
    if not archives:
        where = "; ".join(f"{corpus.name} is at {corpus.source} ({corpus.terms})" for corpus in corpora)
        fix = "get it there, and type the same without --download"
        raise PrepareError(f"the data of {task} cannot be fetched by a command: {where}; {fix}")
    if folder is None:
        name = corpora[0].name
        raise PrepareError(f"--download needs ROOT, the folder that {name} is fetched to; type it after the name")
    folder = folder.expanduser()
    todo = to_fetch(archives, folder)
    for corpus in corpora if todo else ():
        say(console, f"{corpus.name}: {corpus.terms}; {corpus.source}")
    for archive in todo:
        proof = archive.checksum.partition(":")[0].upper() or "size only: no checksum is published"
        say(console, f"  {archive.name}, about {archive.size_gb:.2f} GB ({proof})")
    done = fetch(archives, folder, mirror, progress=not console.quiet)
    say(console, f"Fetched: {', '.join(done) or 'nothing, all was there'} (in {folder_of(archives, folder)})")
