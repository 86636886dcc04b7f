"""What a student loses when it is computed in another way: exported files, int8, bfloat16, as a stream.

    python -m research.recipe_study.variants --checkpoint ours=STUDENT --work exp/study --out results/export

Heads are trained once, on the features of the encoder in float32, and score every way on every task under every
condition of the study: a file takes the place of the encoder behind a finished system. The study must have been
prepared in the work folder.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import logging
import shlex
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor, nn

from research.recipe_study.conditions import CONDITIONS, test_audio
from research.recipe_study.evaluate import Evaluation, score
from research.recipe_study.features import Frames
from research.recipe_study.outcomes import Cell
from research.recipe_study.pool import StudyData
from research.recipe_study.tasks import TASKS, build_tasks
from research.recipe_study.variants_report import report
from robustdistiller.common.files import write_text
from robustdistiller.eval.report.significance import crossed_test
from robustdistiller.eval.run.run_info import versions
from robustdistiller.mini.calibration import calibration_speech
from robustdistiller.upstream import ChunkOptions, UpstreamExpert, checkpoint_digest
from robustdistiller.upstream.export import export_model
from robustdistiller.upstream.export.quantize import PARTS, quantize
from robustdistiller.upstream.s3prl.onnx_expert import OnnxExpert

logger = logging.getLogger(__name__)

CALIBRATION_FILES = 64


@dataclass(frozen=True)
class Variant:
    """A way to compute an encoder's features.

    Attributes:
        title: for people.
        onnx: by a file in onnxruntime; otherwise by the encoder itself.
        parts: of the file, what is in int8; None: nothing.
        static: with ranges from calibration speech.
        autocast: the encoder, in bfloat16 where PyTorch does so.
        chunks: the encoder, as a stream: frames of a chunk, and of its look-ahead.

    >>> VARIANTS["dynamic"].parts
    ('linear',)
    """

    title: str
    onnx: bool = True
    parts: tuple[str, ...] | None = None
    static: bool = False
    autocast: bool = False
    chunks: tuple[int, int] | None = None


VARIANTS = {
    "float32": Variant("the encoder, float32", onnx=False),
    "bfloat16": Variant("the encoder, bfloat16 autocast", onnx=False, autocast=True),
    "onnx": Variant("ONNX, float32"),
    "dynamic": Variant("ONNX, int8 dynamic: linear maps", parts=("linear",)),
    "dynamic-all": Variant("ONNX, int8 dynamic: extractor too", parts=("linear", "extractor")),
    "static": Variant("ONNX, int8 static: linear maps", parts=("linear",), static=True),
    "static-all": Variant("ONNX, int8 static: convolutions too", parts=PARTS, static=True),
    **{
        f"chunks-{chunk}-{ahead}": Variant(
            f"stream: chunks of {20 * chunk} ms, look-ahead {20 * ahead} ms", onnx=False, chunks=(chunk, ahead)
        )
        for chunk, ahead in ((8, 4), (16, 0), (16, 8), (32, 0), (32, 16))
    },
}


def make_variant(variant: Variant, checkpoint: Path, folder: Path, name: str) -> tuple[nn.Module, dict[str, Any]]:
    """An upstream that computes in this way, and what is known of its file.

    Args:
        variant: the way.
        checkpoint: of the student.
        folder: for its files; the one in float32, of which all others are made, is made once.
        name: of the variant.
    """
    if variant.chunks is not None:
        chunk, ahead = variant.chunks
        upstream = UpstreamExpert(checkpoint, chunk_frames=chunk, look_ahead_frames=ahead)
        latency_ms = ChunkOptions(chunk, look_ahead_frames=ahead).latency_ms(upstream.encoder.config)
        return upstream, {"latency_ms": latency_ms}
    if not variant.onnx:
        return UpstreamExpert(checkpoint), {}
    plain = path = folder / f"{checkpoint_digest(checkpoint)[:8]}.onnx"
    if not plain.is_file():
        export_model(checkpoint, plain, "onnx")
    if variant.parts is not None:
        path = folder / f"{name}.onnx"
        quantize(plain, path, calibration_speech(None, CALIBRATION_FILES) if variant.static else None, variant.parts)
    return OnnxExpert(path), {"megabytes": round(path.stat().st_size / 1e6, 2)}


def score_variants(
    evaluation: Evaluation,
    checkpoint: Path,
    folder: Path,
    variants: Mapping[str, Variant] = MappingProxyType(VARIANTS),
    seed: int = 0,
) -> dict[str, Any]:
    """Scores of each variant and how far they are from those of the reference, the first of them.

    Args:
        evaluation: tasks and conditions of a prepared study.
        checkpoint: a student.
        folder: for exported files.
        variants: by name.
        seed: of the heads.

    Returns:
        by variant: ``file`` (size, latency), ``feature_error`` by condition (root mean square of the
        differences of the last task's features, relative to that of the features), and ``cells``: score, the
        difference from the reference and its standard error, by task and condition.
    """
    made = {name: make_variant(variant, checkpoint, folder, name) for name, variant in variants.items()}
    found: dict[str, Any] = {
        name: {"title": variants[name].title, "file": notes, "feature_error": {}, "cells": {}}
        for name, (_, notes) in made.items()
    }
    data = evaluation.data
    for task, items in build_tasks(data, evaluation.tasks).items():
        labels = torch.from_numpy(items["test"].labels).long()
        options = evaluation.head_options(TASKS[task])
        reference = made[next(iter(variants))][0].eval()
        head = evaluation.train_heads(reference, [seed], TASKS[task], items, options)[seed].head
        for condition in evaluation.conditions:
            waveforms = items["test"].waveforms(test_audio(data, task, items["test"], CONDITIONS[condition]))
            logger.info("%s under %s", task, condition)
            cells: list[Cell] = []
            expected: Tensor | None = None
            for name, (upstream, _) in made.items():
                again = dataclasses.replace(evaluation, autocast=variants[name].autocast)
                features = again.features(upstream.eval(), TASKS[task], waveforms)
                values = features.values if isinstance(features, Frames) else features
                expected = values if expected is None else expected
                error = (values - expected).square().sum() / expected.square().sum()
                found[name]["feature_error"][f"{task}/{condition}"] = round(error.sqrt().item(), 7)
                cells.append(score(head, features, labels, items["test"].sizes))
                found[name]["cells"][f"{task}/{condition}"] = _cell(cells[-1], cells[0], TASKS[task].metric)
    return found


def _cell(cell: Cell, reference: Cell, metric: str) -> dict[str, float]:
    difference = crossed_test([cell.parts(metric)[None] - reference.parts(metric)[None]])
    return {
        "score": round(cell.score(metric), 2),
        "difference": round(difference.value, 2),
        "standard_error": round(difference.standard_error, 2),
    }


def main(argv: list[str] | None = None) -> int:
    """Scores the variants of students; one JSON file for each, and the report of all that are there."""
    parser = argparse.ArgumentParser(
        prog="python -m research.recipe_study.variants",
        description=__doc__.split("\n")[0],
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    # Ways that were scored before, of the same student, stay in its file.
    parser.add_argument("--checkpoint", nargs="*", default=[], metavar="NAME=FILE", help="students")
    parser.add_argument("--work", type=Path, default=Path("exp/study"), help="work folder of a prepared study")
    parser.add_argument("--out", type=Path, default=Path("results/export"), help="results")
    parser.add_argument("--ways", nargs="*", choices=list(VARIANTS), metavar="WAY", default=list(VARIANTS),
                        help="besides the first: %(choices)s")  # fmt: skip
    parser.add_argument("--conditions", nargs="*", choices=list(CONDITIONS), metavar="NAME", default=list(CONDITIONS))
    parser.add_argument("--seed", type=int, default=0, help="of the heads")
    options = parser.parse_args(argv)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    torch.set_num_threads(1)
    data = StudyData(options.work, options.work)
    for given in options.checkpoint:
        name, equals, path = given.partition("=")
        if not equals or not Path(path).is_file():
            parser.error(f"--checkpoint {given}: expected NAME=FILE, a student that exists")
        folder = options.work / "variants" / name
        folder.mkdir(parents=True, exist_ok=True)
        evaluation = Evaluation(data, conditions=tuple(options.conditions))
        ways = {key: way for key, way in VARIANTS.items() if key in {"float32", *options.ways}}
        found = score_variants(evaluation, Path(path), folder, variants=ways, seed=options.seed)
        target = options.out / f"{name}.json"
        if target.is_file():
            known = json.loads(target.read_text(encoding="utf-8"))
            same = known["variants"]["float32"]["cells"] == found["float32"]["cells"]
            if same and (known["checkpoint"], known["seed"]) == (checkpoint_digest(path), options.seed):
                found = {
                    key: {**known["variants"], **found}[key] for key in VARIANTS if key in {*known["variants"], *found}
                }
        result = {
            "name": name,
            "command": f"python -m research.recipe_study.variants --checkpoint {shlex.quote(name)}=FILE",
            "date": datetime.now(timezone.utc).strftime("%Y-%m-%d"),
            "seed": options.seed,
            "checkpoint": checkpoint_digest(path),
            "versions": versions(),
            "variants": found,
        }
        options.out.mkdir(parents=True, exist_ok=True)
        write_text(target, json.dumps(result, indent=1) + "\n")
    results = [json.loads(path.read_text(encoding="utf-8")) for path in sorted(options.out.glob("*.json"))]
    if not results:
        parser.error(f"no results in {options.out}; give --checkpoint NAME=FILE")
    write_text(options.out / "report.md", report(results))
    return 0


if __name__ == "__main__":
    sys.exit(main())
