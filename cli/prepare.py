"""`robustdistiller prepare`: what was expected of a task's data and found, and the files that have to be made."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from robustdistiller.cli.command import command
from robustdistiller.cli.printing import say
from robustdistiller.cli.task_data import fetch_said, show_findings, show_task, show_tasks
from robustdistiller.common.names import nearest
from robustdistiller.eval import tasks
from robustdistiller.eval.data import PrepareError, check_names, look, recipe_of, run
from robustdistiller.eval.data.archives import BACKGROUNDS

_NO_TASKS = ("mini", *BACKGROUNDS)


@command(keeps="what was fetched and made")
def prepare(
    task: Annotated[
        str | None, typer.Argument(help="Task, such as IC, or s3prl's name of it; --list shows them.", metavar="TASK")
    ] = None,
    folder: Annotated[Path | None, typer.Argument(metavar="ROOT", help="Folder of its corpus.")] = None,
    root: Annotated[list[str] | None, typer.Option(metavar="NAME=PATH", help="A further root, repeatable.")] = None,
    check: Annotated[bool, typer.Option("--check", help="Look only; write nothing.")] = False,
    download: Annotated[bool, typer.Option("--download", help="Fetch what is free to fetch into ROOT first.")] = False,
    mirror: Annotated[str, typer.Option(metavar="URL", help="Folder of the web to fetch all archives from.")] = "",
    out: Annotated[Path | None, typer.Option(help="Folder of what is made; default: prepared/TASK.")] = None,
    show_list: Annotated[bool, typer.Option("--list", help="Show the tasks; with a task, all about it.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print what was found as JSON.")] = False,
) -> int:
    """
    \b
    All tasks; with a task, its data and rules:
      robustdistiller prepare --list
    What was expected and is there; without --check, also the length tables:
      robustdistiller prepare ASR --check /data/LibriSpeech
    Further roots:
      robustdistiller prepare SD /data/Libri2Mix \\
          --root rttm=LibriMix/metadata/LibriSpeech
      robustdistiller prepare PR /data/LibriSpeech \\
          --root lexicon=FILE --root lexicon=FILE
    Fetched first; also ASR, ASR-LM, PR, SE, SE2, rirs_noises, esc-50:
      robustdistiller prepare KS /data/speech --download
      robustdistiller prepare musan /data --download
    The shipped speech, noise and rooms, and tasks of them:
      robustdistiller prepare mini exp/mini

    Ends with the options that run_downstream.py then takes, and with the entry for a sweep's file. Without --download
    nothing is written into the corpora; with it, nothing that is there is replaced or removed. Interrupted, the same
    command goes on where it stopped; what is there already is neither made nor fetched again.

    Exit status: 0 all fine, 1 something needed is missing, 2 the command cannot run as typed, 130 interrupted.
    """
    console = Console(quiet=as_json)
    if task and task.lower() == "mini":
        if check or download or mirror or out or root or show_list or as_json:
            raise PrepareError("prepare mini takes a folder and no options: robustdistiller prepare mini FOLDER")
        return _mini(folder or Path("prepared") / "mini", console)
    background = BACKGROUNDS.get(task.lower()) if task else None
    if task and (near := nearest(task, _NO_TASKS, cutoff=0.7)) and near[0] != task.lower():
        raise PrepareError(f"unknown task {task!r}; did you mean {near[0]!r}?")
    entry = tasks.get(task) if task and not background else None
    if as_json and (show_list or background):
        raise PrepareError("--json is of what was found of a task's data; leave it out here")
    if show_list and (folder or root or check or download or mirror or out):
        raise PrepareError("--list shows what is known of tasks and looks at no folder; leave the rest out")
    if background and (root or out):
        raise PrepareError(f"--root and --out are of tasks; {task} is fetched into ROOT, the folder after its name")
    if show_list:
        show_task(entry, console) if entry else show_tasks(console)
        return 0
    if entry is None and background is None:
        raise PrepareError("say which task; robustdistiller prepare --list shows them")
    roots = _roots(entry, folder, root or []) if entry else {}
    if download:
        if check:
            raise PrepareError("--download writes files, and --check does not; type one of them")
        fetch_said([background] if background else entry.corpora, task, folder, mirror, console)
    elif background or mirror:
        what = f"{task} is fetched, not prepared" if background else "--mirror is for what is fetched"
        raise PrepareError(f"{what}; type the same with --download")
    if background:
        say(console, "It serves as --noise or --rir; robustdistiller data says what is in it.")
        return 0
    where = out or Path("prepared") / entry.code
    with Console(stderr=True).status(f"Looking at the data of {entry.code} ..."):
        plan = look(entry, roots, where)
    if as_json:
        found = [vars(finding) for finding in plan.findings]
        known = {"task": entry.code, "ok": plan.ok, "findings": found, "settings": plan.settings, "out": str(where)}
        typer.echo(json.dumps(known, indent=1))
    show_findings(plan, console)
    if not plan.ok:
        say(console, "Something needed is missing, see above; nothing was made.")
        return 1
    if not check:
        done = run(plan, progress=not as_json)
        say(console, f"Made: {', '.join(done) or 'nothing, all was there'} (in {where})")
    when = ", when the files are made (the same command without --check)" if check and plan.steps else ""
    say(console, f"\nFor run_downstream.py -d {entry.code}{when}:\n  {plan.option()}")
    say(console, f"For the tasks of a sweep's file:\n  {plan.sweep_entry()}")
    return 0


def _mini(folder: Path, console: Console) -> int:
    """Unpack the shipped corpus and say what its tasks are called."""
    from robustdistiller import mini

    try:
        corpus = mini.build(folder.expanduser(), progress=console.is_terminal)
    except KeyboardInterrupt:
        raise KeyboardInterrupt("interrupted; what was made of the mini corpus is removed") from None
    say(console, f"In {corpus.root}: {', '.join(corpus.counts())}")
    say(console, "For the tasks of a sweep's file, or robustdistiller evaluate MODEL --csv:")
    for path in corpus.tasks.values():
        say(console, f"  - {path}")
    return 0


def _roots(task: tasks.Task, folder: Path | None, texts: list[str]) -> dict[str, list[Path]]:
    """Inputs by name, as typed."""
    inputs = list(recipe_of(task).inputs)
    roots = {} if folder is None else {inputs[0]: [folder.expanduser()]}
    for text in texts:
        name, sign, path = text.partition("=")
        if not sign or not path:
            raise PrepareError(f"--root {text}: expected NAME=PATH, for example --root {inputs[-1]}=PATH")
        roots.setdefault(name, []).append(Path(path).expanduser())
    check_names(task, roots)
    return roots
