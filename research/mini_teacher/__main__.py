"""The command line of the training: `python -m research.mini_teacher --pool FOLDER --out FOLDER [KEY=VALUE ...]`."""

from __future__ import annotations

import argparse
import logging
import sys
from dataclasses import asdict
from pathlib import Path

import torch

from research.mini_teacher.make import make_teacher
from research.mini_teacher.recipe import Recipe
from robustdistiller.common.locks import Busy
from robustdistiller.common.settings import SettingsError, override, read
from robustdistiller.mini import data_dir

STAGES = tuple(Recipe().stages())


def parse_options(argv: list[str] | None = None) -> argparse.Namespace:
    """Reads the command line.

    Example:
        >>> parse_options(["--out", "teacher", "--steps", "3", "4", "5"]).steps
        [3, 4, 5]
    """
    parser = argparse.ArgumentParser(
        prog="python -m research.mini_teacher",
        description="Trains a teacher like the mini teacher. Killed and started again, it goes on with equal bits.",
    )
    parser.add_argument("--pool", type=Path, action="append", default=[], metavar="FOLDER",
                        help="a pack of more speech, with speech.tsv and speech/; may be given again")  # fmt: skip
    parser.add_argument("--out", type=Path, required=True, help="gets teacher.ckpt, log.csv and work/")
    parser.add_argument("--steps", type=int, nargs=3, metavar=tuple(name.upper() for name in STAGES),
                        help="steps of the three stages (default: those of the shipped teacher)")  # fmt: skip
    parser.add_argument("--shipped", type=Path, default=data_dir(), help="the pack that counts as the shipped one")
    parser.add_argument("--save-every", type=int, default=250, help="steps between saved states (default: %(default)s)")
    parser.add_argument("--threads", type=int, default=1, help="of the CPU; other numbers give other bits")
    parser.add_argument("settings", nargs="*", metavar="KEY=VALUE", help="of the recipe, for example seed=2")
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> int:
    """Trains a teacher; 1 where the settings or the data are refused, which is said in one sentence."""
    options = parse_options(argv)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    steps = [f"{name}.steps={number}" for name, number in zip(STAGES, options.steps or ())]
    torch.set_num_threads(options.threads)
    try:
        recipe = read(Recipe, override(Recipe, asdict(Recipe()), [*steps, *options.settings]))
        path = make_teacher([options.shipped, *options.pool], options.out, recipe, options.save_every)
    except (SettingsError, FileNotFoundError, Busy) as error:
        sys.stderr.write(f"{error}\n")
        return 1
    logging.getLogger(__name__).info("%s", path)
    return 0


if __name__ == "__main__":
    sys.exit(main())
