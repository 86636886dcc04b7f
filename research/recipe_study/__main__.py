"""The recipe study, one stage after the other.

    python -m research.recipe_study screening --pool POOL       # every student once, on development sets
    python -m research.recipe_study finalists --pool POOL       # then: those the plan names, on the test sets
    python -m research.recipe_study report --pool POOL          # both pages again, from what is there

Between the first two: read OUT/screening.md, name the finalists in the plan, and write down in the list of comparisons
what is to be compared with what. Stopped or killed, the same command goes on.
"""

from __future__ import annotations

import argparse
import logging
import sys
from pathlib import Path

from research.recipe_study import report
from research.recipe_study.comparisons import open_test_sets
from research.recipe_study.distil import distil_all, runs_of
from research.recipe_study.plan import STAGES, load_comparisons, load_plan
from research.recipe_study.pool import prepare
from research.recipe_study.sweep import write_sweep
from robustdistiller.common.locks import Busy, locked
from robustdistiller.common.process import terminate_like_interrupt, usable_cores
from robustdistiller.eval.sweep.run import sweep

HERE = Path(__file__).parent

logger = logging.getLogger(__name__)


def parse_options(argv: list[str] | None = None) -> argparse.Namespace:
    """Command-line options."""
    parser = argparse.ArgumentParser(
        prog="python -m research.recipe_study",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("stage", choices=[*STAGES, "report"], help="what to do")
    parser.add_argument("--pool", type=Path, required=True, help="folder of the speech to distil on, see pool.prepare")
    parser.add_argument("--plan", type=Path, default=HERE / "plan.yaml", help="default: %(default)s")
    parser.add_argument("--comparisons", type=Path, default=HERE / "comparisons.yaml", help="default: %(default)s")
    parser.add_argument("--work", type=Path, default=Path("exp/study"), help="audio, students, heads and records")
    parser.add_argument("--out", type=Path, default=Path("results/study"), help="pages, tables and pictures")
    parser.add_argument("--jobs", type=int, default=0, help="processes side by side; default: one per core")
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> int:
    """Run a stage and write its page; 1 if something is missing."""
    options = parse_options(argv)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    try:
        with locked(options.work / ".lock", wait=False), terminate_like_interrupt():
            failures = run(options, logger.info)
    except (Busy, ValueError, FileNotFoundError) as error:
        logger.error("%s", error)
        return 2
    except KeyboardInterrupt:
        logger.error("stopped; what is finished is kept: the same command goes on")
        return 130
    for line in failures:
        logger.error("%s", line)
    return 1 if failures else 0


def run(options: argparse.Namespace, say) -> list[str]:
    """Do a stage.

    Returns:
        One line for each student and number that is missing.

    Raises:
        SettingsError, FileNotFoundError, SweepError: it cannot run as it is written; before anything is trained.
    """
    plan, jobs = load_plan(options.plan), options.jobs or usable_cores()
    materials = prepare(options.pool, options.work)
    if options.stage == "report":
        for stage in STAGES:
            if (materials.work / stage / "records").is_dir():
                say(f"{write_page(plan, stage, runs_of(plan, stage, materials), materials.work / stage, options)}")
        return []
    runs = runs_of(plan, options.stage, materials)
    folder = materials.work / options.stage
    if options.stage == "finalists":
        if not runs:
            raise ValueError(f"{options.plan}: finalists is empty; name students and their number of seeds")
        load_comparisons(options.comparisons, plan)
    failures = distil_all(runs, jobs, say)
    done = [run for run in runs if run.finished]
    config = write_sweep(plan, options.stage, done, materials, jobs)
    if options.stage == "finalists":
        open_test_sets(folder, options.comparisons, plan)
    failures += sweep(config, say=say).failures
    say(f"{write_page(plan, options.stage, runs, folder, options)}")
    return failures


def write_page(plan, stage: str, runs, folder: Path, options: argparse.Namespace) -> Path:
    """Write a stage's page."""
    if stage == "screening":
        return report.write_screening(plan, runs, folder, options.out)
    asked = load_comparisons(options.comparisons, plan) if options.comparisons.is_file() else []
    return report.write_finalists(plan, runs, folder, options.out, asked)


if __name__ == "__main__":
    sys.exit(main())
