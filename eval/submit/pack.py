"""Writes the archive, unpacks it again, scores what is in it, and keeps it only if every number is the record's."""

from __future__ import annotations

import json
import tempfile
import zipfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from robustdistiller.common.errors import RunFailed
from robustdistiller.common.files import write_atomically, write_text
from robustdistiller.eval.submit.experiments import Experiment, SubmissionError
from robustdistiller.eval.submit.rescoring import rescore
from robustdistiller.eval.tasks import TASKS

#: Largest difference, in the record's units: s3prl averages accuracies in single precision.
TOLERANCE = 1e-4
#: Folder of everything in the archive.
ROOT = "predict"
_FRAME_SHIFT = "frame_shift"


@dataclass(frozen=True)
class Packed:
    """What is in an archive.

    Attributes:
        archive: the file.
        tasks: folder of the archive to what is in it: metrics as scored from the archive, record, files.
        left_out: what is not in it, by task, and why.
        remarks: what a reader of the scores must know.
    """

    archive: Path
    tasks: dict[str, dict[str, Any]] = field(default_factory=dict)
    left_out: dict[str, str] = field(default_factory=dict)
    remarks: list[str] = field(default_factory=list)

    def to_dict(self) -> dict[str, Any]:
        """JSON-able form."""
        return {**asdict(self), "archive": self.archive.name}


def pack(
    experiments: Sequence[Experiment],
    archive: Path,
    truths: Mapping[str, Path] | None = None,
    on_step: Callable[[str], None] = lambda _: None,
) -> Packed:
    """Write the archive and a report beside it.

    Raises:
        SubmissionError: nothing can be packed.
        RunFailed: a number from the archive differs from its record; nothing is written then.
    """
    why_not = {one.title: _why_not(one) for one in experiments}
    chosen = [one for one in experiments if not why_not[one.title]]
    left_out = {title: why for title, why in why_not.items() if why}
    if not chosen:
        reasons = "; ".join(f"{title}: {why}" for title, why in left_out.items())
        raise SubmissionError(f"nothing can be packed ({reasons or 'no experiment of a task that SUPERB scores'})")
    present = {one.record.task for one in experiments}
    absent = [code for code, task in TASKS.items() if task.submission and code not in present]
    left_out |= dict.fromkeys(absent, "no finished experiment was given")
    packed = Packed(archive, left_out=left_out, remarks=_remarks(experiments))

    def write(temporary: Path) -> None:
        with zipfile.ZipFile(temporary, "w", zipfile.ZIP_DEFLATED) as stream:
            for one in chosen:
                on_step(f"packing {one.title}")
                folder = one.part.folder.format(fold=one.record.fold)
                files = _write(stream, one, folder)
                packed.tasks[folder] = {"record": str(one.path), "label": one.record.label, "files": files}
        wrong = _verify(temporary, chosen, packed, truths or {}, on_step)
        if wrong:
            raise RunFailed("\n".join(["the archive does not give the numbers of the records:", *wrong]))

    write_atomically(archive, write)
    write_text(archive.with_suffix(".json"), json.dumps(packed.to_dict(), indent=1) + "\n")
    return packed


def _remarks(experiments: Sequence[Experiment]) -> list[str]:
    remarks = []
    folds = [one.record.fold for one in experiments if one.record.fold]
    if folds and len(folds) < 5:
        remarks.append(f"ER has {', '.join(folds)} only; the website shows a score once all five folds are there")
    for one in experiments:
        if one.record.non_standard:
            remarks.append(f"{one.title} is not a standard run: {'; '.join(one.record.non_standard)}")
    return remarks


def _why_not(one: Experiment) -> str:
    """Why an experiment is not packed; empty where it is."""
    task, part = TASKS.get(one.record.task), one.part
    if part is None:
        return (task and (task.rules.not_superb or task.note)) or "SUPERB's archive has no place for it"
    for metric in part.metrics:
        if one.record.value(metric) is None:
            reason = next((m.reason for m in one.record.metrics if m.name == metric), "")
            return f"its record has no {metric}" + (f": {reason}" if reason else "")
    for source in part.files:
        path = one.folder / source.format(fold=one.record.fold)
        noted = source == _FRAME_SHIFT and (one.record.scoring or {}).get(_FRAME_SHIFT)
        if not (path.is_dir() if source.endswith("/") else path.is_file()) and not noted:
            return f"{path} is not there; evaluate it again on clean speech"
    return ""


def _write(stream: zipfile.ZipFile, one: Experiment, folder: str) -> list[str]:
    """Put the files of a task into the archive; returns their names."""
    written = []
    for source, target in one.part.files.items():
        path = one.folder / source.format(fold=one.record.fold)
        if source.endswith("/"):
            contents = {f"{target}{file.name}": file.read_bytes() for file in sorted(path.iterdir())}
        elif path.is_file():
            contents = {target: path.read_bytes()}
        else:  # the frame shift, which the record knows, too
            contents = {target: f"{one.record.scoring[_FRAME_SHIFT]}\n".encode()}
        for name, data in contents.items():
            # One date for all: the same predictions make the same archive.
            info = zipfile.ZipInfo(f"{ROOT}/{folder}/{name}", (1980, 1, 1, 0, 0, 0))
            info.compress_type, info.external_attr = zipfile.ZIP_DEFLATED, 0o644 << 16
            stream.writestr(info, data)
            written.append(name)
    return written


def _verify(
    archive: Path,
    experiments: Sequence[Experiment],
    packed: Packed,
    truths: Mapping[str, Path],
    on_step: Callable[[str], None],
) -> list[str]:
    """Score what is in the archive; returns a sentence for each number that is not the record's."""
    wrong = []
    with tempfile.TemporaryDirectory() as place:
        with zipfile.ZipFile(archive) as stream:
            stream.extractall(place)
        for one in experiments:
            on_step(f"scoring {one.title} from the archive")
            folder = one.part.folder.format(fold=one.record.fold)
            try:
                scores = rescore(Path(place) / ROOT / folder, one, truths.get(one.record.task))
            except SubmissionError as error:
                wrong.append(f"{one.title}: {error}")
                continue
            packed.tasks[folder]["metrics"] = scores
            for metric, value in scores.items():
                recorded = one.record.value(metric)
                if abs(value - recorded) > TOLERANCE * max(1.0, abs(recorded)):
                    wrong.append(
                        f"{one.title}: {metric} is {value:.6g} from the archive and {recorded:.6g} in {one.path}; were "
                        f"the predictions in {one.folder} overwritten by another evaluation?"
                    )
    return wrong
