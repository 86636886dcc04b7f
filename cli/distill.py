"""`robustdistiller distill`: train a student."""

from __future__ import annotations

import logging
from typing import Annotated, NoReturn

import typer
import yaml

HELP = """
Distil a small student from a big speech model. Every setting of a recipe can be changed with KEY=VALUE.

\b
What there is, what a recipe sets, and how large its student is:
  robustdistiller distill --list
  robustdistiller distill robustdistiller --show
  robustdistiller distill robustdistiller teacher.checkpoint=wavlm_base_plus.pt --cost

\b
A student of WavLM Base+ for noise and reverberation (one GPU, some days):
  robustdistiller distill robustdistiller out_dir=exp/robust \\
      teacher.checkpoint=wavlm_base_plus.pt data.speech=LibriSpeech \\
      data.noise=[UrbanSound8K,musan/noise] data.rir='RIRS_NOISES,only=real'

\b
Variations:
  three layers             student.num_layers=3
  other teacher layers     targets.layers=[3,6,9]
  enhance from last layer  objectives.enhancement.input=last_hidden
  no enhancement head      objectives.enhancement.weight=0
  batches of 160 s         trainer.batch_seconds=160 trainer.batch_size=null
  stop after a while       trainer.max_hours=11.5
  a trial without a GPU    trainer.accelerator=cpu trainer.max_steps=100
  simulated rooms, too     data.rir=RIRS_NOISES
  validate while training  validation.every_steps=5000 validation.speech=LibriSpeech/dev-clean
  less memory              trainer.activation_checkpointing=true
  compiled layers          trainer.compile=true

\b
Several GPUs (trainer.batch_size is per GPU); several machines under SLURM:
  robustdistiller distill robustdistiller trainer.devices=4 ...
  torchrun --nproc_per_node 4 -m robustdistiller.cli distill robustdistiller trainer.devices=4 ...
  srun -K --nodes 2 --ntasks-per-node 4 \\
      robustdistiller distill robustdistiller trainer.devices=4 trainer.num_nodes=2 ...

Stop with Ctrl-C; the same command continues exactly where it stopped.

\b
out_dir then holds
  student.ckpt     for run_downstream.py -u robustdistiller_local -k ...
  config.yaml      all settings, as merged from recipe and command line
  history.csv, history.png, tensorboard/
  cost.json        parameters, MACs, and where the time of a step goes
  validation.csv, student_best.ckpt   with validation: distances to the teacher, the best student
  checkpoints/     to continue from

RECIPE can be a YAML file of your own: begin it with "base: robustdistiller" and write what differs.
"""


def distill(
    recipe: Annotated[str | None, typer.Argument(help="Name of a recipe, or a YAML file.", metavar="RECIPE")] = None,
    overrides: Annotated[
        list[str] | None, typer.Argument(help="Settings to change, e.g. data.speech=[A, B].", metavar="KEY=VALUE...")
    ] = None,
    list_: Annotated[bool, typer.Option("--list", help="List the recipes with their sources.")] = False,
    show: Annotated[bool, typer.Option("--show", help="Print the merged settings and stop.")] = False,
    cost: Annotated[bool, typer.Option("--cost", help="Print parameters and MACs, and stop.")] = False,
) -> None:
    # The docstring is the help text, set below: it holds examples.
    from robustdistiller import pretrain  # slow to import

    if list_:
        _list_recipes(pretrain.list_recipes())
        return
    if recipe is None:
        _fail("which recipe? `robustdistiller distill --list` lists them, --help has examples", code=2)
    try:
        config = pretrain.load_config(recipe, overrides or [])
        if show:
            typer.echo(yaml.safe_dump(config.to_dict(), sort_keys=False, allow_unicode=True, width=100), nl=False)
            return
        if cost:
            typer.echo(pretrain.cost_table(pretrain.planned_costs(config)))
            return
        _set_up_logging()
        path = pretrain.distill(config)
    except pretrain.RunInterrupted as stop:
        typer.secho(str(stop), fg="yellow", err=True)
        raise typer.Exit(stop.exit_code) from None
    except pretrain.SettingsError as error:
        _fail(str(error), code=2)
    except (pretrain.NonFiniteLossError, OSError, ValueError) as error:
        _fail(str(error), code=1)
    typer.echo(path)


distill.__doc__ = HELP


def _list_recipes(recipes: dict) -> None:
    for name, config in recipes.items():
        typer.secho(name, bold=True)
        typer.echo(f"    {config.about}\n    {config.source}")


def _set_up_logging() -> None:
    logging.basicConfig(level=logging.INFO, format="%(message)s")


def _fail(message: str, code: int) -> NoReturn:
    if "Traceback" in message:  # what a loader process raised arrives with its traceback
        message = message.strip().splitlines()[-1].partition("Error: ")[2]
    typer.secho(f"error: {message}", fg="red", err=True)
    raise typer.Exit(code)
