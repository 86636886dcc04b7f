"""Libri2Mix (SS, SS2): lists of mixtures and their parts, with s3prl's drawn development set."""

from __future__ import annotations

import random
from functools import partial
from pathlib import Path

from robustdistiller.acoustics.audio.files import audio_info
from robustdistiller.eval.data.kaldi import SPLITS, look_at_lists, refuse_blanks, write_lists
from robustdistiller.eval.data.looking import audio_below, locate
from robustdistiller.eval.data.plan import MISSING, Input, Plan, Recipe, Roots, Step, named
from robustdistiller.eval.tasks import Task
from robustdistiller.eval.tasks.corpora import LIBRI2MIX

KINDS = ("mix_clean", "s1", "s2")
FOLDERS = {"train": ("train-100", "train"), "dev": ("dev",), "test": ("test",)}
DEV_SIZE, _SEED = 1000, 7
SAMPLE_RATE_HZ = 16000
_LISTED = {"train": ("train-100", "train"), "dev": ("dev_1000", "dev"), "test": ("test",)}


def plan_ss(task: Task, roots: Roots, out: Path) -> Plan:
    """Plan of SS and SS2: three folders of lists, or a check of those that were given.

    Example:
        >>> from robustdistiller.eval import tasks
        >>> plan_ss(tasks.get("SS"), {"librimix": [Path("nowhere")]}, Path("out")).ok
        False
    """
    plan = Plan(task, out)
    given = roots["librimix"][0]
    listed = locate(given, [f"{name}/{KINDS[0]}/wav.scp" for name in _LISTED["train"]])
    if listed is not None:
        for split in SPLITS:
            folder = next((listed / n for n in _LISTED[split] if (listed / n).is_dir()), listed / split)
            official = {**LIBRI2MIX.counts, "dev": DEV_SIZE if task.code == "SS" else LIBRI2MIX.counts["dev"]}
            look_at_lists(plan, folder, KINDS, official, split)
            plan.set(f"{split}_dir", folder)
        return plan
    folder = libri2mix_folder(plan, given, "min")
    if folder is None:
        return plan
    for split in SPLITS:
        _plan_split(plan, folder, split)
    return plan


def libri2mix_folder(plan: Plan, given: Path, mode: str) -> Path | None:
    """The folder ``wav16k/MODE`` of Libri2Mix, with a finding where it is not there."""
    root = locate(given, [f"wav16k/{mode}"])
    if root is not None:
        return root / "wav16k" / mode
    found = "no such folder" if not given.is_dir() else f"no wav16k/{mode}"
    other = locate(given, ["wav8k", f"wav16k/{'max' if mode == 'min' else 'min'}"])
    fix = f"make it at 16 kHz in mode {mode}: the task needs exactly that" if other else LIBRI2MIX.source
    plan.note(str(given), f"wav16k/{mode}/{{train-100,dev,test}}", found, MISSING, fix)
    return None


def split_folder(plan: Plan, folder: Path, split: str, kinds: tuple[str, ...]) -> tuple[Path, list[str]] | None:
    """The folder of a split and the names of its mixtures, with findings."""
    place = next((folder / name for name in FOLDERS[split] if (folder / name).is_dir()), None)
    if place is None:
        fix = LIBRI2MIX.source
        plan.note(split, " or ".join(FOLDERS[split]), f"no such folder in {folder}", MISSING, fix)
        return None
    names = {kind: audio_below(place / kind, ".wav") for kind in kinds}
    first = names[kinds[0]]
    plan.count(split, len(first), LIBRI2MIX.counts[split], f"mixtures in {kinds[0]}")
    for kind in kinds[1:]:
        odd = sorted(set(first) ^ set(names[kind]))
        if odd:
            plan.note(
                f"{split}/{kind}", f"the files of {kinds[0]}", f"not these: {named(odd)}", MISSING, "make it again"
            )
    refuse_blanks(plan, str(place), [str(place)])
    if not first:
        return None
    info = audio_info(place / kinds[0] / first[0])
    if info.sample_rate_hz != SAMPLE_RATE_HZ:
        found = f"{first[0]} at {info.sample_rate_hz} Hz"
        plan.note(split, f"audio at {SAMPLE_RATE_HZ} Hz", found, MISSING, "make it again with freqs=16k")
    return place, [Path(name).stem for name in first]


def _plan_split(plan: Plan, folder: Path, split: str) -> None:
    found = split_folder(plan, folder, split, KINDS)
    if found is None:
        return
    place, names = found
    target = split
    if split == "dev" and plan.task.code == "SS":
        names, target = development_set(names), "dev_1000"
    audio = {kind: {name: place / kind / f"{name}.wav" for name in names} for kind in KINDS}
    stamp = f"{place.absolute()} {len(names)} mixtures"
    step = Step(target, f"lists of {target}", stamp, len(names) * len(KINDS), partial(write_lists, audio))
    where = plan.add(step, f"{len(names)} mixtures")
    plan.set(f"{split}_dir", where)


def development_set(names: list[str]) -> list[str]:
    """The mixtures that the first recipe is developed on: the same 1000 as by s3prl's script (its seed is 7).

    Example:
        >>> len(development_set([str(number) for number in range(3000)])), development_set(["b", "a"])
        (1000, ['a', 'b'])
    """
    shuffled = sorted(names)
    random.Random(_SEED).shuffle(shuffled)
    return sorted(shuffled[:DEV_SIZE])


SS = Recipe(
    (Input("librimix", "Libri2Mix, with wav16k/min/{train-100,dev,test}/{mix_clean,s1,s2}/*.wav; or lists of it"),),
    plan_ss,
)
