"""`robustdistiller distill`: train a student."""

from __future__ import annotations

import logging
from typing import Annotated

import typer
import yaml

from robustdistiller.cli.command import command


@command(log_level=logging.INFO)
def distill(
    recipe: Annotated[str | None, typer.Argument(help="Name of a recipe, or a YAML file.", metavar="RECIPE")] = None,
    overrides: Annotated[list[str] | None, typer.Argument(help="Settings to change.", metavar="KEY=VALUE...")] = None,
    list_: Annotated[bool, typer.Option("--list", help="List the recipes with their sources.")] = False,
    show: Annotated[bool, typer.Option("--show", help="Print the merged settings and stop.")] = False,
    cost: Annotated[bool, typer.Option("--cost", help="Print parameters and MACs, and stop.")] = False,
) -> None:
    """
    Every setting of a recipe can be changed with KEY=VALUE.

    \b
    What there is, what a recipe sets, and how large its student is:
      robustdistiller distill --list
      robustdistiller distill robustdistiller --show
      robustdistiller distill robustdistiller --cost \\
          teacher.checkpoint=wavlm_base_plus.pt

    \b
    A student of WavLM Base+ for noise and reverberation (on a GPU):
      robustdistiller distill robustdistiller out_dir=exp/robust \\
          teacher.checkpoint=wavlm_base_plus.pt \\
          data.speech=LibriSpeech/train-clean-100 \\
          data.noise=[UrbanSound8K,musan/noise] data.rir='RIRS_NOISES,only=real'

    \b
    Variations:
      three layers             student.num_layers=3
      other teacher layers     targets.layers=[3,6,9]
      no enhancement head      objectives.enhancement.weight=0
      batches of 160 s         trainer.batch_seconds=160 trainer.batch_size=null
      stop after a while       trainer.max_hours=11.5
      a trial without a GPU    trainer.accelerator=cpu trainer.max_steps=100
      validate while training  validation.every_steps=5000
                               validation.speech=LibriSpeech/dev-clean
      less memory              trainer.activation_checkpointing=true

    \b
    Several GPUs (trainer.batch_size is per GPU); several machines under SLURM:
      robustdistiller distill robustdistiller trainer.devices=4 ...
      srun -K --nodes 2 --ntasks-per-node 4 \\
          robustdistiller distill robustdistiller \\
          trainer.devices=4 trainer.num_nodes=2 ...

    Stop with Ctrl-C; the same command continues exactly where it stopped. out_dir then holds student.ckpt (for
    run_downstream.py -u robustdistiller_local -k ...), the merged config.yaml, the course of the training and
    checkpoints.

    RECIPE can be a YAML file of your own: begin it with "base: robustdistiller" and write what differs.
    """
    from robustdistiller import pretrain  # slow to import

    if list_ + show + cost > 1 or (list_ and recipe):
        raise ValueError(
            "--list is typed alone, and --show or --cost after one recipe: RECIPE --show; type one of them"
        )
    if list_:
        _list_recipes(pretrain.list_recipes())
        return
    if recipe is None:
        raise ValueError("which recipe? `robustdistiller distill --list` lists them, --help has examples")
    config = pretrain.load_config(recipe, overrides or [])
    if show:
        typer.echo(yaml.safe_dump(config.to_dict(), sort_keys=False, allow_unicode=True, width=100), nl=False)
    elif cost:
        typer.echo(pretrain.cost_table(pretrain.planned_costs(config)))
    else:
        typer.echo(pretrain.distill(config))


def _list_recipes(recipes: dict) -> None:
    for name, config in recipes.items():
        typer.secho(name, bold=True)
        typer.echo(f"    {config.about}\n    {config.source}")
