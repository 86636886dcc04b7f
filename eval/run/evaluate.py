"""Evaluate one head under conditions, with s3prl's own runner: one record for each."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

from robustdistiller.acoustics import Condition, Corruptor
from robustdistiller.common.errors import RunFailed
from robustdistiller.common.files import require_place
from robustdistiller.eval.conditions.manifest import Manifest, ManifestError, condition_of
from robustdistiller.eval.conditions.replay import ReplayedCorruptor
from robustdistiller.eval.conditions.sources import Sources
from robustdistiller.eval.results.record import Record
from robustdistiller.eval.run.errors import RunError
from robustdistiller.eval.run.evaluation import AudioExamples, Evaluation
from robustdistiller.eval.run.head_checkpoint import find_head, read_checkpoint
from robustdistiller.eval.run.head_note import HeadNote
from robustdistiller.eval.run.making import require_own
from robustdistiller.eval.run.s3prl_main import run_s3prl
from robustdistiller.eval.run.specs import HeadSpec
from robustdistiller.upstream.s3prl.entries import register

logger = logging.getLogger(__name__)


def evaluate_head(
    head: HeadSpec,
    conditions: Iterable[Condition | str] = ("clean",),
    *,
    checkpoint: str | Path | None = "best",
    split: str | None = None,
    sources: Sources | None = None,
    corruption_seed: int = 0,
    manifests: Mapping[Path, Manifest] = MappingProxyType({}),
    records: str | Path | None = None,
    policy: str = "reuse",
    since_utc: str = "",
    label: str = "",
    selection: Mapping[str, Any] | None = None,
    examples: AudioExamples | None = None,
    save_manifests: str | Path | None = None,
) -> list[Record]:
    """Evaluate a head under each condition; what has a record already is evaluated again only where asked for.

    Args:
        head: the head.
        conditions: of the test audio, in their one-line form or parsed.
        checkpoint: ``best``, the best of its folder, which must be its own; a file; or None, the head without any
            training.
        split: of the task; its first test split by default.
        sources: noise, rooms, speech and music of the conditions; the shipped ones by default.
        corruption_seed: of the draws.
        manifests: whose draws are replayed, as further conditions (see `conditions.manifest.find_manifests`).
        records: folder of records; below the head's folder by default.
        policy: what becomes of cells that have a record, one of `results.files.POLICIES`.
        since_utc: finished records of a later time are kept in any case; empty for none.
        label: name of the upstream in tables.
        selection: how the head was chosen among several, where its note does not say so.
        examples: utterances to write; none by default.
        save_manifests: folder for one manifest of each condition, beside those in the head's folder.

    Returns:
        One record for each condition; of a downstream that is no known task, none.

    Raises:
        InstallationError: a package or tool of the task is missing.
        FileNotFoundError, ValueError: head, data, upstream or sources are not there, or do not belong together, or a
            file lies where a folder is to be made.
    """
    register()
    sources = sources or Sources()
    if checkpoint == "best":
        checkpoint = None
        if head.task is None or head.task.trainable:
            require_own(head)
            checkpoint = find_head(head.folder)
    spec, checkpoint = head.with_own_vocabularies(), None if checkpoint is None else Path(checkpoint)
    spec.check()
    task = spec.task
    split = split or (task.splits[0] if task else "test")
    states = read_checkpoint(checkpoint) if checkpoint else {}
    note = (HeadNote.read(checkpoint.parent) if checkpoint else None) or HeadNote()
    if selection is not None:
        note.selection = dict(selection)
    corruptors = _corruptors(spec, conditions, sources, corruption_seed, manifests)
    evaluation = Evaluation(
        note=note,
        corruptors=corruptors,
        sources=sources,
        split=split,
        records=Path(records or spec.folder / "records"),
        policy=policy,
        since_utc=since_utc,
        label=label or spec.upstream.label,
        examples=examples or AudioExamples(),
        save_manifests=Path(save_manifests) if save_manifests else None,
    )
    try:
        spec.fetch_upstream()
    except (FileNotFoundError, ValueError) as error:
        if not states:
            raise
        raise RunError(
            f"the upstream that the head was trained on is not to be had: {error}; if it moved: "
            "-o \"args.upstream_ckpt='NEW_NAME'\""
        ) from error
    for folder in (evaluation.records, evaluation.save_manifests, evaluation.examples.folder) if task else ():
        if folder is not None:
            require_place(folder)
            folder.mkdir(parents=True, exist_ok=True)  # hours before the first file is written
    path = str(checkpoint) if checkpoint else None
    loaded = {"past_exp": path if states else None, "init_ckpt": path}
    run_s3prl(spec, "evaluate", evaluation=evaluation if task else None, evaluate_split=split, **loaded)
    return evaluation.found


def raise_failures(found: Iterable[Record]) -> None:
    """Raise where an evaluation failed. One whose number could not be had, as of QbE without ground truth, has not.

    Raises:
        RunFailed: one line for each.
    """
    lacking = [one for one in found if one.status == "failed"]
    if lacking:
        lines = (f"{one.task} {one.split}, {one.condition}: {one.trouble}" for one in lacking)
        raise RunFailed("\n".join(lines))


def _corruptors(
    spec: HeadSpec,
    conditions: Iterable[Condition | str],
    sources: Sources,
    seed: int,
    manifests: Mapping[Path, Manifest],
) -> dict[Condition, Corruptor | None]:
    """What carries out each condition, in their order."""
    parsed = [Condition.parse(one) if isinstance(one, str) else one for one in conditions]
    if spec.task is None:
        if manifests or any(one.kind != "clean" for one in parsed):
            name = spec.s3prl.get("downstream")
            raise RunError(f"a condition needs a task that is known, found the downstream {name!r} of s3prl's")
        return {}
    replayed = {condition_of(manifest): path for path, manifest in manifests.items()}
    if len(replayed) < len(manifests):
        raise ManifestError(f"--manifest: several manifests of one condition: {', '.join(map(str, manifests))}")
    wanted = tuple(dict.fromkeys((*parsed, *replayed)))
    if reason := next(filter(None, map(spec.task.why_not_under, wanted)), ""):
        raise RunError(reason)
    try:
        corruptors = sources.corruptors(wanted, seed)
    except ValueError as error:
        raise RunError(f"--condition: {error}") from error
    for condition, path in replayed.items():
        corruptors[condition] = ReplayedCorruptor(manifests[path], corruptors[condition], path)
    return corruptors
