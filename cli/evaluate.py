"""`robustdistiller evaluate`: one model on some tasks, clean and corrupted, in this process."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Annotated

import typer

from robustdistiller.cli.command import command
from robustdistiller.cli.parameters import AsJson, Device


@command(log_level=logging.INFO, keeps="what is finished")
def evaluate(
    model: Annotated[
        str,
        typer.Argument(
            help="A path, a URL, org/name on the Hub, a registered name, or an upstream of s3prl.", metavar="MODEL"
        ),
    ],
    task: Annotated[
        list[str] | None, typer.Option(help="Task of SUPERB and folder of its data, repeatable.", metavar="TASK=FOLDER")
    ] = None,
    csv: Annotated[
        list[Path] | None, typer.Option(help="Table of a task of your own, repeatable.", metavar="FILE")
    ] = None,
    condition: Annotated[list[str] | None, typer.Option(help="Test condition, repeatable; default: clean.")] = None,
    suite: Annotated[list[str] | None, typer.Option(help="A list of conditions, such as srb; repeatable.")] = None,
    noise: Annotated[
        list[str] | None,
        typer.Option(help="Noise to draw from, in place of the embedded: file, folder or list; repeatable."),
    ] = None,
    rir: Annotated[list[str] | None, typer.Option(help="Impulse responses of rooms to draw from.")] = None,
    speech: Annotated[list[str] | None, typer.Option(help="Speech to draw babble and other talkers from.")] = None,
    music: Annotated[list[str] | None, typer.Option(help="Music to draw from; none is embedded.")] = None,
    seed: Annotated[list[int] | None, typer.Option(help="Seed of the heads, repeatable; default: 1337.")] = None,
    quick: Annotated[bool, typer.Option("--quick", help="Look at a tenth of the data with few steps.")] = False,
    device: Device = "auto",
    threads: Annotated[int, typer.Option(help="Threads of the CPU; a head's last digits depend on them.", min=1)] = 1,
    label: Annotated[
        str, typer.Option(help="Name of the model in tables; default: of its file, or of its run's folder.")
    ] = "",
    out: Annotated[Path, typer.Option(help="Folder of heads and records.", metavar="DIR")] = Path("exp/evaluate"),
    as_json: AsJson = False,
) -> None:
    """
    \b
      robustdistiller evaluate student.ckpt --task KS=/data/speech_commands \\
          --condition clean --condition noise:snr_db=5
      robustdistiller evaluate org/name --task IC=/data/fluent --suite srb --quick
      robustdistiller evaluate student.ckpt --csv labels.csv \\
          --condition noise+reverb:snr_db=10

    --task is a task of SUPERB and the folder of its data, as robustdistiller prepare takes it. --csv is a task of your
    own, utterance classification by a table with the columns path and label, and if there are any split (train, dev,
    test) and speaker. --quick looks at a tenth of the data with few steps, under a label of its own.

    \b
    Without data of your own, two models on embedded words in your own noise:
      robustdistiller prepare mini exp/mini
      robustdistiller evaluate robustdistiller_mini \\
          --csv exp/mini/tasks/words.csv \\
          --condition clean --condition noise:snr_db=5 --noise my_noise
      robustdistiller evaluate exp/trial/student.ckpt \\
          --csv exp/mini/tasks/words.csv \\
          --condition clean --condition noise:snr_db=5 --noise my_noise
      robustdistiller leaderboard exp/evaluate --no-published
      robustdistiller compare trial robustdistiller_mini --records exp/evaluate

    Started again, it does what is missing. For several models, seeds or learning rates, or for a cluster, there is
    robustdistiller sweep.
    """
    from robustdistiller.eval.api import evaluate as run  # slow to import
    from robustdistiller.eval.conditions.suite import load_suite
    from robustdistiller.eval.run.cache.plan import CachePlan
    from robustdistiller.eval.tasks import csv_task

    for name in suite or ():
        load_suite(name)  # a mistyped one is told as a suite
    typed = [_task_and_folder(text) for text in task or ()]
    data = dict(typed)
    if len(data) < len(typed):
        raise ValueError(f"--task: one task has several folders, found {', '.join(f'{c}={p}' for c, p in typed)}")
    own = [csv_task(path) for path in csv or ()]
    if not data and not own:
        raise ValueError("which task? give --task TASK=FOLDER, such as KS=/data/speech_commands, or --csv FILE")
    given = {"noise": noise, "rir": rir, "speech": speech, "music": music}
    found = run(
        model,
        [*data, *own],
        [*(condition or ()), *(suite or ())] or ["clean"],
        data,
        out=out,
        seeds=seed or (1337,),
        quick=quick,
        device=device,
        threads=threads,
        label=label,
        sources={kind: paths for kind, paths in given.items() if paths},
        features=CachePlan(str(out.expanduser().absolute() / "features")) if quick else None,
    )
    if as_json:
        typer.echo(json.dumps([record.to_dict() for record in found.records], indent=2))
    for record in () if as_json else found.records:
        said = record.scores or record.trouble
        typer.echo(f"{record.task} {record.fold} {record.condition}: {said}".replace("  ", " "))


def _task_and_folder(text: str) -> tuple[str, str]:
    from robustdistiller.eval import tasks

    name, _, folder = text.partition("=")
    code = tasks.get(name).code
    if not folder:
        raise ValueError(f"--task {text}: expected the task and the folder of its data, such as {code}=/data/folder")
    return code, folder
