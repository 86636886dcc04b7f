"""Runs benchmarks and writes their reports: `python -m research.bench [NAME ...]`."""

from __future__ import annotations

import argparse
import logging
import shlex
import sys
from importlib import import_module
from pathlib import Path

import torch

from research.bench.record import Report, write_report
from research.bench.settings import Settings
from robustdistiller.eval.run.run_info import describe_machine
from robustdistiller.upstream.device import usable_device

logger = logging.getLogger(__name__)

#: Benchmark to what it measures; it is the function `run` of the module of that name.
BENCHES: dict[str, str] = {
    "training": "the training step of distillation against the released way of it",
    "target_cache": "distillation with the teacher's targets kept on disk or asked for in every step",
    "inference": "features of one utterance on one core: teacher, student, s3prl's modules, onnxruntime, int8",
    "edge": "students that are really small, float32 and int8, against s3prl's WavLM Base+ and DistilHuBERT",
    "kernels": "what each CPU kernel of upstream/fast gains end to end",
    "streaming": "a student that hears chunks as they arrive: work, and latency",
    "scaling": "training steps by batch, length and depth; evaluation by number of conditions",
    "feature_cache": "heads of s3prl with the upstream's features kept or computed again",
    "feature_cache_speech": "heads of phone and speech recognition, which read every frame, on kept features",
    "corruption": "corrupting speech: noise, reverberation and both, against the released RobustDistiller's way",
    "data": "training data: FLAC through the loader, memory over a long run, start-up on 300,000 files",
}


def parse_options(argv: list[str] | None = None) -> argparse.Namespace:
    """Command-line options."""
    listed = "\n".join(f"  {name:<20} {what}" for name, what in BENCHES.items())
    parser = argparse.ArgumentParser(
        prog="python -m research.bench",
        description="Every figure is a ratio of two ways measured alternately in one run.\n\nbenchmarks:\n" + listed,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("names", nargs="*", metavar="NAME", help="which; all by default")
    parser.add_argument("--out", type=Path, default=Path("results/bench"), help="reports (default: %(default)s)")
    parser.add_argument("--work", type=Path, default=Path("exp/bench"), help="scratch files (default: %(default)s)")
    parser.add_argument("--device", default=str(usable_device()), help="default: %(default)s")
    parser.add_argument("--threads", type=int, default=1, help="of the CPU (default: %(default)s)")
    parser.add_argument("--rounds", type=int, default=5, help="of each comparison (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--quick", action="store_true", help="small sizes, to see that it runs; numbers mean nothing")
    parser.add_argument("--list", action="store_true", help="name the benchmarks and stop")
    options = parser.parse_args(argv)
    unknown = [name for name in options.names if name not in BENCHES]
    if unknown:
        parser.error(f"unknown benchmark {unknown[0]!r}; there are {', '.join(BENCHES)}")
    return options


def without_places(argv: list[str]) -> list[str]:
    """Arguments for the reports: without folders, which mean nothing on another machine.

    >>> without_places(["corruption", "--out", "here", "--rounds", "3"])
    ['corruption', '--rounds', '3']
    """
    return [word for before, word in zip(["", *argv], argv) if not {before, word} & {"--out", "--work"}]


def main(argv: list[str] | None = None) -> int:
    """Runs the benchmarks named, all by default; each report is written as soon as it is complete."""
    options = parse_options(argv)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    if options.list:
        sys.stdout.write("\n".join(f"{name:<20} {what}" for name, what in BENCHES.items()) + "\n")
        return 0
    torch.set_num_threads(options.threads)
    typed = without_places(sys.argv[1:] if argv is None else argv)
    settings = Settings(options.device, options.seed, options.rounds, options.quick, options.work)
    for name in options.names or BENCHES:
        torch.manual_seed(options.seed)
        logger.info("%s: %s", name, BENCHES[name])
        found = import_module(f"research.bench.{name}").run(settings)
        report = Report(
            name=name,
            title=BENCHES[name],
            command=shlex.join(["python", "-m", "research.bench", *typed]),
            seed=options.seed,
            device=options.device,
            comparisons=found.comparisons,
            series=found.series,
            text=found.text,
            machine=describe_machine(options.device),
        )
        logger.info("%s: %s", name, write_report(options.out, report))
    return 0


if __name__ == "__main__":
    sys.exit(main())
