"""The command line: `python -m research.mini_models teacher|student --pool FOLDER --out FOLDER [KEY=VALUE ...]`."""

from __future__ import annotations

import argparse
import json
import logging
import shutil
import subprocess
import sys
from pathlib import Path

import torch

from research.recipe_study.pool import Materials, prepare
from robustdistiller.common.files import write_atomically
from robustdistiller.common.settings import SettingsError
from robustdistiller.mini import teacher_checkpoint
from robustdistiller.pretrain import distill, load_config
from robustdistiller.upstream import load_encoder, save_checkpoint

FOLDER = Path(__file__).parent
#: The commit whose mini teacher this one begins as, and where it lies there.
START = "8155f5a:mini/teacher/teacher.ckpt"
LICENCES = {
    "teacher": "Apache-2.0 (weights), distilled from OpenAI's whisper-base (MIT), see mini/teacher/README.md",
    "student": "Apache-2.0 (weights), see mini/teacher/README.md",
}


def parse_options(argv: list[str] | None = None) -> argparse.Namespace:
    """Read the command line.

    >>> parse_options(["student", "--pool", "pool", "--out", "made", "seed=2"]).settings
    ['seed=2']
    """
    parser = argparse.ArgumentParser(
        prog="python -m research.mini_models",
        description="Make a shipped model: half precision, in OUT. Killed and started again, it goes on.",
    )
    parser.add_argument("model", choices=tuple(LICENCES), help="which of the shipped models")
    parser.add_argument("--from", dest="source", metavar="MODEL", default=teacher_checkpoint(),
                        help="what is distilled: Whisper base, for the student the mini teacher (default)")  # fmt: skip
    parser.add_argument("--pool", type=Path, required=True, help="folder of speech and noise, see recipe_study/pool.py")
    parser.add_argument("--out", type=Path, required=True, help="gets work/, run/, the model and log.csv")
    parser.add_argument("--start", type=Path, help=f"what the teacher begins as (default: {START}, out of git)")
    parser.add_argument("settings", nargs="*", metavar="KEY=VALUE", help="of the recipe, for example seed=2")
    return parser.parse_intermixed_args(argv)


def make_model(given: argparse.Namespace) -> Path:
    """Distil, and write what becomes the shipped file, with what it is made of in words.

    Returns:
        Its path.

    Raises:
        SettingsError: the recipe does not take the settings.
        FileNotFoundError: the pool or what to begin as is not there.
    """
    materials = prepare(given.pool, given.out / "work")
    models = [f"teacher.checkpoint={given.source}", f"out_dir={given.out / 'run'}"]
    if given.model == "teacher":
        models.append(f"student.checkpoint={_started(given.start, given.out)}")
    config = load_config(FOLDER / f"{given.model}.yaml", [*models, *_places(materials), *given.settings])
    student = distill(config)
    metadata = {
        "name": f"robustdistiller mini {given.model}",
        "recipe": f"research/mini_models/{given.model}.yaml: {config.about}",
        "seed": config.seed,
        "packs": ["mini", given.pool.resolve().name],
        "corruption": "noise, babble and simulated rooms; the targets are of clean speech",
        "licence": LICENCES[given.model],
    }
    path = given.out / f"{given.model}.ckpt"
    save_checkpoint(path, load_encoder(student), metadata, dtype=torch.float16)
    shutil.copy(student.parent / "history.csv", given.out / "log.csv")
    return path


def _started(given: Path | None, out: Path) -> Path:
    """The checkpoint to begin as, fetched out of git where none is given."""
    if given is not None:
        return given
    path = out / "work" / "start.ckpt"
    if not path.is_file():
        found = subprocess.run(["git", "show", START], cwd=FOLDER, capture_output=True)
        if found.returncode:
            raise FileNotFoundError(f"git show {START} failed: {found.stderr.decode().strip()}; give --start FILE")
        write_atomically(path, lambda file: file.write_bytes(found.stdout))
    return path


def _places(materials: Materials) -> list[str]:
    places = {"speech": materials.speech, "noise": materials.noise("train"), "rir": materials.rir("train")}
    places["babble"] = materials.speech[:1]
    return [f"data.{kind}={json.dumps([str(path) for path in paths])}" for kind, paths in places.items()]


def main(argv: list[str] | None = None) -> int:
    """Make a model; 1 where the settings or the data are refused, which is said in one sentence."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    torch.set_num_threads(1)
    try:
        path = make_model(parse_options(argv))
    except (SettingsError, FileNotFoundError) as error:
        sys.stderr.write(f"{error}\n")
        return 1
    logging.getLogger(__name__).info("%s", path)
    return 0


if __name__ == "__main__":
    sys.exit(main())
