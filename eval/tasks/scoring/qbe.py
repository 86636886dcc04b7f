"""Maximum term-weighted value of query by example, as QUESST 2014's scoring script computes it.

    TWV(theta) = 1 - mean over queries of (P_miss + beta P_fa),   beta = C_fa / C_miss * (1 - P_target) / P_target
    MTWV = max over theta

A trial is a query with a recording: P_miss is over recordings that hold the query, P_fa over all others, and where in
the recording it is said does not matter. s3prl searches the English part only, but the official ground truth has the
queries of all languages: pairs that s3prl did not search count with the score that SUPERB hands the script, -10.

Sources, read: SUPERB's instructions and website (``score-TWV-Cnxe.sh FOLDER groundtruth_quesst14_eval -10``, its
"maxTWV"), the script that came with the scorer's next release (QUESST 2015) for the costs, and that release's README:
trials are queries times recordings, and queries that the ground truth never holds are left out. Where the corpus' own
script lies beside the ground truth, costs are read from it.

Not verified: the scorer itself is a Java archive of the corpus, which was not available.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from robustdistiller.eval.tasks.parts import ScoringError, text_of

#: Of score-TWV-Cnxe.sh.
P_TARGET, C_FALSE_ALARM, C_MISS = 0.0008, 1.0, 100.0
#: Score of a trial that was not searched, from SUPERB's instructions.
DEFAULT_SCORE = -10.0
SCRIPT = "score-TWV-Cnxe.sh"


@dataclass(frozen=True)
class GroundTruth:
    """Who says what.

    Attributes:
        recordings: all that were to be searched.
        targets: query to the recordings that hold it; queries that none holds are left out.
        beta: weight of false alarms.
    """

    recordings: frozenset[str]
    targets: Mapping[str, frozenset[str]]
    beta: float = C_FALSE_ALARM / C_MISS * (1 - P_TARGET) / P_TARGET


@dataclass(frozen=True)
class TermWeightedValue:
    """The benchmark's score and how it came about.

    Attributes:
        value: MTWV.
        threshold: the score from which on a pair counts as found; infinite where finding nothing is best.
        queries: that count.
        searched: of these, the queries that the system has scores of.
    """

    value: float
    threshold: float
    queries: int
    searched: int


def max_term_weighted_value(scores: Mapping[str, Mapping[str, float]], truth: GroundTruth) -> TermWeightedValue:
    """MTWV of a system.

    Args:
        scores: query to recording to score, higher where the query is more likely there.
        truth: the ground truth.

    Raises:
        ScoringError: no query or no recording of the system is known to the ground truth.

    From 3.0 on, q is found where it is and p nowhere: (1 + 0) / 2.
    """
    if not truth.targets:
        raise ScoringError("the ground truth holds no query in any recording")
    known = [query for query in scores if query in truth.targets]
    heard = {recording for query in known for recording in scores[query]}
    if not known or not heard & truth.recordings:
        raise ScoringError(
            f"the system's queries and recordings are not those of the ground truth: it has queries like "
            f"{_some(scores)} in recordings like {_some(r for one in scores.values() for r in one)}, expected "
            f"{_some(truth.targets)} in {_some(truth.recordings)}"
        )
    at: list[float] = []
    gain: list[float] = []  # what TWV gains when this pair counts as found
    for query, targets in truth.targets.items():
        hit = 1.0 / len(targets) / len(truth.targets)
        others = len(truth.recordings - targets)
        false_alarm = -truth.beta / others / len(truth.targets) if others else 0.0
        found = {r: s for r, s in scores.get(query, {}).items() if r in truth.recordings}
        at += found.values()
        gain += [hit if recording in targets else false_alarm for recording in found]
        hits_left = len(targets - set(found))
        at.append(DEFAULT_SCORE)
        gain.append(hit * hits_left + false_alarm * (len(truth.recordings) - len(found) - hits_left))
    thresholds, where = np.unique(np.array(at), return_inverse=True)
    steps = np.bincount(where, weights=gain, minlength=len(thresholds))
    thresholds, values = thresholds[::-1], np.cumsum(steps[::-1])  # TWV when all from this threshold on are found
    best = int(np.argmax(values))
    if values[best] <= 0:
        return TermWeightedValue(0.0, float("inf"), len(truth.targets), len(known))
    return TermWeightedValue(float(values[best]), float(thresholds[best]), len(truth.targets), len(known))


def _some(names: Iterable[str]) -> str:
    return next(iter(sorted(names)), "none")


def read_stdlist(path: Path | str) -> dict[str, dict[str, float]]:
    """Scores by query and recording of a ``.stdlist.xml``, as s3prl writes it."""
    path = Path(path)
    if not path.is_file():
        raise ScoringError(f"{path}: no such file; s3prl writes it at the end of an evaluation of QbE")
    scores: dict[str, dict[str, float]] = defaultdict(dict)
    query = None
    for kind, node in _elements(path, ("detected_termlist", "term"), ("start", "end")):
        if node.tag == "detected_termlist":
            query = node.get("termid") if kind == "start" else None
        elif kind == "end" and query is not None:
            recording = _stem(node.get("file", ""))
            score = _number(path, node.get("score"))
            scores[query][recording] = max(score, scores[query].get(recording, score))
            node.clear()
    if not scores:
        raise ScoringError(f"{path} lists no queries; expected elements detected_termlist with terms in them")
    return dict(scores)


def _number(path: Path, text: str | None) -> float:
    try:
        return float(text)
    except (TypeError, ValueError) as error:
        raise ScoringError(f"{path}: a term's score must be a number, found {text!r}") from error


def _elements(path: Path, tags: tuple[str, ...], events: tuple[str, ...] = ("end",)) -> Iterator[tuple[str, Any]]:
    from lxml import etree  # with s3prl's QbE only

    try:
        yield from etree.iterparse(str(path), events=events, tag=tags, resolve_entities=False, no_network=True)
    except etree.XMLSyntaxError as error:
        raise ScoringError(f"{path} cannot be read: {error}") from error


def _stem(name: str) -> str:
    """A recording's name without folder and suffix, as the ground truth and s3prl write it differently."""
    pure = PurePosixPath(name.replace("\\", "/"))
    return pure.stem if pure.suffix.lower() in (".wav", ".sph", ".flac", ".mp3") else pure.name


def read_ground_truth(folder: Path | str) -> GroundTruth:
    """One of the corpus' ``groundtruth_*`` folders: ``*.tlist.xml``, ``*.ecf.xml`` and ``*.rttm``.

    Raises:
        ScoringError: the folder or one of its files is not there or cannot be read.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise ScoringError(
            f"there is no ground truth at {folder}; it is part of the corpus (scoring/groundtruth_quesst14_*), "
            "with *.tlist.xml, *.ecf.xml and *.rttm in it"
        )
    queries = {node.get("termid") for _, node in _elements(_only(folder, "*.tlist.xml"), ("term",))}
    excerpts = _elements(_only(folder, "*.ecf.xml"), ("excerpt",))
    recordings = {_stem(node.get("audio_filename", "")) for _, node in excerpts}
    targets: dict[str, set[str]] = defaultdict(set)
    for line in text_of(_only(folder, "*.rttm")).splitlines():
        fields = line.split()
        if len(fields) > 5 and fields[0] == "LEXEME" and fields[5] in queries:
            targets[fields[5]].add(_stem(fields[1]))
    found = {query: frozenset(where & recordings) for query, where in targets.items() if where & recordings}
    return GroundTruth(frozenset(recordings), found, _beta(folder.parent / SCRIPT))


def _only(folder: Path, pattern: str) -> Path:
    files = sorted(folder.glob(pattern))
    if len(files) != 1:
        raise ScoringError(f"{folder} must hold one file {pattern}, found {len(files)}")
    return files[0]


def _beta(script: Path) -> float:
    """The weight of false alarms from the costs in the corpus' script; the known costs where there is none."""
    text = script.read_text(encoding="utf-8", errors="replace") if script.is_file() else ""
    costs = {"P_target": P_TARGET, "C_fa": C_FALSE_ALARM, "C_miss": C_MISS}
    for name in costs:
        stated = re.search(rf"^\s*{name}=([\d.]+)\s*$", text, re.MULTILINE)
        costs[name] = float(stated[1]) if stated else costs[name]
    return costs["C_fa"] / costs["C_miss"] * (1 - costs["P_target"]) / costs["P_target"]
