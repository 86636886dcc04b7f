"""The command line of the multi-task study."""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Mapping, Sequence
from datetime import datetime, timezone
from pathlib import Path

import numpy as np
from scipy.stats import t

from research.multitask_study.arms import ARMS, CONDITIONS, RATES, Arm, Study, Tuning, choose_rates
from research.recipe_study.distil import distil_all
from research.recipe_study.pool import prepare
from research.tables import markdown_table
from robustdistiller.acoustics import Condition
from robustdistiller.common.errors import RunFailed
from robustdistiller.common.files import write_text
from robustdistiller.common.process import usable_cores
from robustdistiller.common.settings import SettingsError
from robustdistiller.upstream import checkpoint_digest

logger = logging.getLogger(__name__)
_TRAINED, _FROZEN = RATES
_QUESTIONS = {
    "training the encoder, both tasks": (Arm("both", _TRAINED), Arm("both", _FROZEN)),
    "training the encoder, words alone": (Arm("words", _TRAINED), Arm("words", _FROZEN)),
    "training the encoder, voices alone": (Arm("voices", _TRAINED), Arm("voices", _FROZEN)),
    "voices beside words, encoder trained": (Arm("both", _TRAINED), Arm("words", _TRAINED)),
    "words beside voices, encoder trained": (Arm("both", _TRAINED), Arm("voices", _TRAINED)),
}


def main(argv: list[str] | None = None) -> int:
    """Choose learning rates on seed 0, run every arm from the other seeds, write the page. Killed, it goes on."""
    parser = argparse.ArgumentParser(prog="python -m research.multitask_study", description=main.__doc__)
    parser.add_argument("--pool", type=Path, required=True, help="folder of speech and noise, see recipe_study/pool.py")
    parser.add_argument("--student", type=Path, required=True, help="checkpoint with its prediction heads")
    parser.add_argument(
        "--work", type=Path, default=Path("exp/study"), help="audio and runs; that of recipe_study does"
    )
    parser.add_argument("--out", type=Path, default=Path("results/study/multitask.md"), help="the page")
    parser.add_argument("--steps", type=int, default=300, help="of each run (default: %(default)s)")
    parser.add_argument("--seeds", type=int, default=3, help="beside seed 0, which chooses (default: %(default)s)")
    parser.add_argument("--jobs", type=int, default=0, help="processes side by side; default: one per core")
    given = parser.parse_args(argv)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    try:
        study = Study(prepare(given.pool, given.work), given.student.resolve(), given.steps)
        counts = study.write_tables(given.pool)
        jobs = given.jobs or usable_cores()
        trials = [study.run(arm, 0, rate) for arm in ARMS for rate in RATES[arm.encoder]]
        _run(trials, jobs)
        rates = choose_rates(trials)
        runs = [study.run(arm, seed, rates[arm]) for seed in range(1, given.seeds + 1) for arm in ARMS]
        _run(runs, jobs)
    except (SettingsError, FileNotFoundError, RunFailed) as error:
        logger.error("%s", error)
        return 1
    except KeyboardInterrupt:
        logger.error("stopped; what is finished is kept: the same command goes on")
        return 130
    logger.info("%s", write_text(given.out, page(study, counts, rates, runs)))
    return 0


def _run(runs: Sequence[Tuning], jobs: int) -> None:
    if failures := distil_all(list(runs), jobs, logger.info):
        raise RunFailed("\n".join(failures))


def page(
    study: Study, counts: Mapping[str, Mapping[str, int]], rates: Mapping[Arm, float], runs: Sequence[Tuning]
) -> str:
    """What was found, in Markdown."""
    scores = {(run.arm, run.seed): run.scores() for run in runs}
    seeds = sorted({run.seed for run in runs})
    conditions = ["clean", *(Condition.parse(text).label for text in CONDITIONS)]
    sections = []
    for task, what in (
        ("words", "accuracy in %, higher is better"),
        ("voices", "equal error rate in %, lower is better"),
    ):
        arms = [arm for arm in ARMS if arm.tasks in (task, "both")]
        rows = [
            [str(arm), *(f"{np.mean([scores[arm, seed][task, c] for seed in seeds]):.1f}" for c in conditions)]
            for arm in arms
        ]
        differences = []
        for question, (one, other) in _QUESTIONS.items():
            if one in arms and other in arms:
                cells = []
                for some in (conditions[:1], conditions[1:]):
                    found = [
                        np.mean([scores[one, seed][task, c] - scores[other, seed][task, c] for c in some])
                        for seed in seeds
                    ]
                    cells.append(_told(found, 1 if task == "words" else -1))
                differences.append([question, *cells])
        sections += [
            f"## {task.capitalize()}: {what}",
            markdown_table(["", *conditions], rows),
            markdown_table(["gain in points, positive is better", "clean", "noise and rooms"], differences),
        ]
    chosen = markdown_table(["", "learning rate"], [[str(arm), f"{rate:g}"] for arm, rate in rates.items()])
    amounts = "; ".join(
        f"{task}: {', '.join(f'{count} {split}' for split, count in splits.items())}" for task, splits in counts.items()
    )
    about = (
        f"- student: sha256 {checkpoint_digest(study.student)[:12]}; {study.steps} steps of each run, clean speech\n"
        f"- utterances of {amounts}; voices are held out for dev and test, though the student was distilled on their "
        "speech\n"
        f"- seeds {', '.join(map(str, seeds))}; brackets: 95 % interval over seeds alone (t), not over utterances\n"
        f"- made: {datetime.now(timezone.utc).date()}\n\n"
        f"Learning rates, chosen by development sets with seed 0:\n\n{chosen}"
    )
    return "\n\n".join(["# Words and voices at once: a study on real speech", about, *sections]) + "\n"


def _told(values: Sequence[float], sign: int) -> str:
    values = sign * np.asarray(values)
    if len(values) < 2:
        return f"{values.mean():+.1f}"
    half = t.ppf(0.975, len(values) - 1) * values.std(ddof=1) / np.sqrt(len(values))
    return f"{values.mean():+.1f} ({values.mean() - half:+.1f} to {values.mean() + half:+.1f})"


if __name__ == "__main__":
    sys.exit(main())
