"""IEMOCAP (ER): the lists of utterances per fold, written by s3prl's own script."""

from __future__ import annotations

import importlib
import json
import re
import tempfile
from functools import partial
from pathlib import Path

from tqdm import tqdm

from robustdistiller.eval.data.checks import Where, audio_below
from robustdistiller.eval.data.plan import (
    DIFFERS,
    MISSING,
    UNPACK_AGAIN,
    Input,
    Plan,
    PrepareError,
    Recipe,
    Roots,
)
from robustdistiller.eval.tasks.corpora import IEMOCAP

LABELS = ("neu", "hap", "ang", "sad", "exc")
SESSIONS = tuple(f"Session{number}" for number in range(1, 6))
WHERE = Where(
    ("Session1",),
    "Session1 to Session5",
    "no Session1",
    "give IEMOCAP_full_release, the folder that holds Session1 to Session5",
)
_WAV, _TEXT = "sentences/wav", "dialog/EmoEvaluation"


def _plan_er(plan: Plan, roots: Roots) -> None:
    folder = plan.find(roots["root"][0], WHERE)
    if folder is None:
        return
    sessions = sorted(child.name for child in folder.iterdir() if child.is_dir() and child.name.startswith("Session"))
    absent = [name for name in SESSIONS if name not in sessions]
    fix = "SUPERB's score is over five folds"
    plan.odd("sessions", ", ".join(SESSIONS), absent, "no {names}", fix, DIFFERS, most=len(SESSIONS))
    total = sum(_look_at_session(plan, folder, name) for name in sessions)
    if plan.ok:
        stamp = f"{folder.absolute()} {len(sessions)} sessions, {total} utterances"
        make = partial(_write, folder, sessions)
        plan.add("meta_data", "lists of folds", f"of {len(sessions)} folds", make, len(sessions), stamp)
    plan.set("root", folder)
    plan.set("meta_data", plan.out / "meta_data")


def _look_at_session(plan: Plan, folder: Path, name: str) -> int:
    if not (folder / name / _TEXT).is_dir():
        plan.note(name, f"{_WAV}/ and {_TEXT}/", f"no {_TEXT}", MISSING, UNPACK_AGAIN)
        return 0
    audio = {Path(file).stem for file in audio_below(folder / name / _WAV, ".wav")}
    count = sum(len(_labelled(file) & audio) for file in _label_files(folder / name))
    fold = name.replace("Session", "fold")
    plan.count(f"{name} ({fold})", count, IEMOCAP.counts.get(fold), "utterances of the four classes")
    return count


def _label_files(session: Path) -> list[Path]:
    """Evaluations of a session; the release also holds hidden ``._*.txt``, which are none."""
    return sorted(file for file in (session / _TEXT).glob("*.txt") if not file.name.startswith("."))


def _labelled(file: Path) -> set[str]:
    lines = (re.split(r"[\t\n]", line) for line in file.read_text(encoding="utf-8").splitlines() if line[:1] == "[")
    return {parts[1] for parts in (list(filter(None, line)) for line in lines) if len(parts) > 2 and parts[2] in LABELS}


def _write(folder: Path, sessions: list[str], work: Path, bar: tqdm) -> Path:
    """Have s3prl write its lists, from a copy of the tree made of links: it writes into the tree that it reads.

    Raises:
        PrepareError: the temporary folder's path has ``Session`` in it, where s3prl would cut its paths.
    """
    from robustdistiller.upstream.s3prl import bridge

    bridge.install()
    script = importlib.import_module("s3prl.downstream.emotion.IEMOCAP_preprocess")
    with tempfile.TemporaryDirectory(prefix="iemocap-") as scratch:
        if "Session" in scratch:
            raise PrepareError(f"the temporary folder {scratch} has 'Session' in its path; set TMPDIR to another one")
        for name in sessions:
            copy = Path(scratch, name)
            (copy / _TEXT).mkdir(parents=True)
            (copy / _WAV).parent.mkdir(exist_ok=True)
            (copy / _WAV).symlink_to((folder / name / _WAV).absolute(), target_is_directory=True)
            for file in _label_files(folder / name):
                (copy / _TEXT / file.name).symlink_to(file.absolute())
        for held_out in sessions:
            place = work / "result" / held_out
            place.mkdir(parents=True, exist_ok=True)
            others = [name for name in sessions if name != held_out]
            script.preprocess(scratch, others, str(place / "train_meta_data.json"))
            script.preprocess(scratch, [held_out], str(place / "test_meta_data.json"))
            if not json.loads((place / "test_meta_data.json").read_text(encoding="utf-8"))["meta_data"]:
                raise PrepareError(f"s3prl found no labelled utterance in {folder / held_out}")
            bar.update()
    return work / "result"


ER = Recipe((Input("root", "IEMOCAP_full_release: Session1 to Session5"),), _plan_er)
