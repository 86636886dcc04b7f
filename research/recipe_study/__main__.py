"""The recipe study: students of the mini teacher by every recipe, several seeds each, scored on four real tasks.

    python -m research.recipe_study --pool FOLDER --out results/study

Interrupted or killed, the same command goes on; started twice, both share the work. `--report` only writes tables,
figures and text from the outcomes found in the results folder.
"""

from __future__ import annotations

import argparse
import logging
import shlex
import sys
from pathlib import Path

from research.recipe_study.evaluate import Evaluation
from research.recipe_study.plan import BASELINES, STUDENTS
from research.recipe_study.pool import prepare
from research.recipe_study.report import write_report
from research.recipe_study.run import Study, run_study
from research.recipe_study.student import native_bfloat16
from robustdistiller.mini.corpus import teacher_checkpoint

SEEDS = [0, 1, 2]


def parse_options(argv: list[str] | None = None) -> argparse.Namespace:
    """Command-line options."""
    parser = argparse.ArgumentParser(
        prog="python -m research.recipe_study",
        description=__doc__.split("\n")[0],
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument("--pool", type=Path, help="folder with speech.tsv, noise.tsv, word30.tsv and voice20.tsv")
    parser.add_argument("--out", type=Path, default=Path("results/study"), help="outcomes, tables and figures")
    parser.add_argument("--work", type=Path, default=Path("exp/study"), help="audio, students and caches")
    parser.add_argument("--recipes", nargs="*", choices=list(STUDENTS), metavar="NAME", default=list(STUDENTS),
                        help="students of the plan")  # fmt: skip
    parser.add_argument("--baselines", nargs="*", choices=list(BASELINES), metavar="NAME", default=list(BASELINES))
    parser.add_argument("--seeds", nargs="+", type=int, default=SEEDS,
                        help="with --report: of these only, into a folder of its own")  # fmt: skip
    parser.add_argument("--steps", type=int, default=300, help="optimizer steps of each student")
    parser.add_argument("--jobs", type=int, default=1, help="processes, of one thread each")
    parser.add_argument("--teacher", type=Path, default=teacher_checkpoint())
    parser.add_argument("--fp32", action="store_true", help="features in float32 even where bfloat16 is native")
    parser.add_argument("--prepare", action="store_true", help="only decode the pool and mix the test audio")
    parser.add_argument("--report", action="store_true", help="only write the report")
    parser.add_argument("--complete", action="store_true", help="report on upstreams with every seed only")
    options = parser.parse_args(argv)
    if options.pool is None and not options.report:
        parser.error("--pool is needed: the folder of the speech to distil on")
    return options


def shown(argv: list[str]) -> str:
    """Arguments for the records: with a word in place of each folder, which mean nothing on another machine.

    >>> shown(["--pool", "/data/study", "--seeds", "0", "1"])
    '--pool POOL --seeds 0 1'
    """
    places = {"--pool": "POOL", "--work": "WORK", "--out": "OUT", "--teacher": "TEACHER"}
    return shlex.join(places.get(before, word) for before, word in zip(["", *argv], argv))


def main(argv: list[str] | None = None) -> int:
    """Runs the study and writes its report; 1 if something is missing."""
    options = parse_options(argv)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(process)d %(message)s")
    if options.report:
        write_report(options.out, None if options.seeds == SEEDS else options.seeds, options.complete)
        return 0
    data = prepare(options.pool, options.work)
    evaluation = Evaluation(data, autocast=native_bfloat16() and not options.fp32)
    evaluation.prepare()
    if options.prepare:
        return 0
    study = Study(
        evaluation=evaluation,
        out=options.out,
        teacher=options.teacher.resolve(),
        steps=options.steps,
        seeds=tuple(options.seeds),
        students=tuple(options.recipes),
        baselines=tuple(options.baselines),
        command="python -m research.recipe_study " + shown(sys.argv[1:] if argv is None else argv),
    )
    left = run_study(study, options.jobs)
    write_report(options.out, complete=options.complete)
    for line in left:
        logging.getLogger(__name__).error("missing: %s", line)
    return 1 if left else 0


if __name__ == "__main__":
    sys.exit(main())
