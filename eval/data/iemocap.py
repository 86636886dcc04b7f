"""IEMOCAP (ER): the lists of utterances per fold, as s3prl's own script writes them into the corpus."""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import partial
from pathlib import Path

from tqdm import tqdm

from robustdistiller.common.files import write_text
from robustdistiller.eval.data.checks import audio_below, find, lines_of
from robustdistiller.eval.data.plan import DIFFERS, MISSING, UNPACK_AGAIN, Plan, Recipe, Roots
from robustdistiller.eval.tasks.corpora import IEMOCAP

SESSIONS = tuple(f"Session{number}" for number in range(1, 6))
#: Labels of the evaluations to s3prl's classes.
CLASSES = {"neu": "neu", "hap": "hap", "ang": "ang", "sad": "sad", "exc": "hap"}
_WAV, _TEXT = "sentences/wav", "dialog/EmoEvaluation"


def _plan_er(plan: Plan, roots: Roots) -> None:
    fix = "give IEMOCAP_full_release, the folder that holds Session1 to Session5"
    folder = find(plan, roots["root"][0], SESSIONS[:1], "Session1 to Session5", fix)
    names = sorted(child.name for child in folder.iterdir() if child.is_dir() and child.name.startswith("Session"))
    absent = [name for name in SESSIONS if name not in names]
    fix = "SUPERB's score is over five folds"
    plan.odd("sessions", ", ".join(SESSIONS), absent, "no {names}", fix, DIFFERS, most=len(SESSIONS))
    sessions = {name: _look_at_session(plan, folder, name) for name in names}
    if plan.ok:
        stamp = f"{folder.absolute()} {len(sessions)} sessions, {sum(map(len, sessions.values()))} utterances"
        make = partial(write_lists, sessions)
        plan.add("meta_data", "lists of folds", f"of {len(sessions)} folds", make, len(sessions), stamp)
    plan.set("root", folder)
    plan.set("meta_data", plan.out / "meta_data")


def _look_at_session(plan: Plan, folder: Path, name: str) -> list[dict[str, str]]:
    """The labelled utterances of a session, in the order of the evaluations."""
    if not (folder / name / _TEXT).is_dir():
        plan.note(name, f"{_WAV}/ and {_TEXT}/", f"no {_TEXT}", MISSING, UNPACK_AGAIN)
        return []
    audio = {Path(file).stem: f"{name}/{_WAV}/{file}" for file in audio_below(folder / name / _WAV, ".wav")}
    utterances = []
    for file in sorted((folder / name / _TEXT).glob("*.txt")):
        lines = [] if file.name.startswith(".") else lines_of(file)  # ._*.txt are none
        for line in lines:
            fields = list(filter(None, line.split("\t"))) if line.startswith("[") else []
            if len(fields) > 2 and fields[1] in audio and fields[2] in CLASSES:
                path, label, speaker = audio[fields[1]], CLASSES[fields[2]], fields[1].split("_")[0]
                utterances.append({"path": path, "label": label, "speaker": speaker})
    fold = name.replace("Session", "fold")
    plan.count(f"{name} ({fold})", len(utterances), IEMOCAP.counts.get(fold), "utterances of the four classes")
    return utterances


def write_lists(sessions: Mapping[str, list[dict[str, str]]], result: Path, bar: tqdm) -> None:
    """Write ``SESSION/{train,test}_meta_data.json`` for each session as the test set, as `Step.make` does."""
    for held_out in sessions:
        chosen = {"train": [name for name in sessions if name != held_out], "test": [held_out]}
        for part, names in chosen.items():
            utterances = [utterance for name in names for utterance in sessions[name]]
            lists = {"labels": {"neu": 0, "hap": 1, "ang": 2, "sad": 3}, "meta_data": utterances}
            write_text(result / held_out / f"{part}_meta_data.json", json.dumps(lists))
        bar.update()


ER = Recipe({"root": "IEMOCAP_full_release: Session1 to Session5"}, _plan_er)
