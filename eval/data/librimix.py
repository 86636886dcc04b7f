"""Libri2Mix (SS, SS2): lists of mixtures and their parts, with s3prl's drawn development set."""

from __future__ import annotations

import random
from functools import partial
from pathlib import Path

from robustdistiller.eval.data.checks import Where, audio_below, look_at_rates
from robustdistiller.eval.data.kaldi import SPLITS, add_lists, look_at_lists, refuse_blanks
from robustdistiller.eval.data.plan import MISSING, Input, Plan, Recipe, Roots
from robustdistiller.eval.tasks.corpora import LIBRI2MIX

KINDS = ("mix_clean", "s1", "s2")
FOLDERS = {"train": ("train-100", "train"), "dev": ("dev",), "test": ("test",)}
DEV_SIZE, _SEED = 1000, 7
SAMPLE_RATE_HZ = 16000
_LISTED = {"train": ("train-100", "train"), "dev": ("dev_1000", "dev"), "test": ("test",)}


def _plan_ss(plan: Plan, roots: Roots, drawn: bool) -> None:
    """Separation; `drawn` if it is developed on the mixtures of `development_set` only, as by the first recipe."""
    given = roots["librimix"][0]
    listed = Where(tuple(f"{name}/{KINDS[0]}/wav.scp" for name in _LISTED["train"])).locate(given)
    folder = libri2mix_folder(plan, given, "min") if listed is None else None
    for split in SPLITS if listed or folder else ():
        if listed is not None:
            place = next((listed / n for n in _LISTED[split] if (listed / n).is_dir()), listed / split)
            official = DEV_SIZE if drawn and split == "dev" else LIBRI2MIX.counts[split]
            look_at_lists(plan, place, split, KINDS, official)
            plan.set(f"{split}_dir", place)
        elif found := mixtures(plan, folder, split, KINDS):
            place, names = found
            target = split
            if drawn and split == "dev":
                names, target = development_set(names), "dev_1000"
            audio = {kind: {name: place / kind / f"{name}.wav" for name in names} for kind in KINDS}
            add_lists(plan, split, target, "mixtures", place, audio)


def libri2mix_folder(plan: Plan, given: Path, mode: str) -> Path | None:
    """The folder ``wav16k/MODE`` of Libri2Mix, with a finding where it is not there."""
    other = Where(("wav8k", f"wav16k/{'max' if mode == 'min' else 'min'}")).locate(given)
    fix = f"make it at 16 kHz in mode {mode}: the task needs exactly that" if other else LIBRI2MIX.source
    expected, otherwise = f"wav16k/{mode}/{{train-100,dev,test}}", f"no wav16k/{mode}"
    root = plan.find(given, Where((f"wav16k/{mode}",), expected, otherwise, fix))
    return root and root / "wav16k" / mode


def mixtures(plan: Plan, folder: Path, split: str, kinds: tuple[str, ...]) -> tuple[Path, list[str]] | None:
    """The folder of a split and the names of its mixtures: of each kind of audio the same ones, at 16 kHz."""
    place = next((folder / name for name in FOLDERS[split] if (folder / name).is_dir()), None)
    if place is None:
        expected, found = " or ".join(FOLDERS[split]), f"no such folder in {folder}"
        plan.note(split, expected, found, MISSING, LIBRI2MIX.source)
        return None
    first, *others = (audio_below(place / kind, ".wav") for kind in kinds)
    plan.count(split, len(first), LIBRI2MIX.counts[split], f"mixtures in {kinds[0]}")
    for kind, names in zip(kinds[1:], others):
        odd, expected = sorted(set(first) ^ set(names)), f"the files of {kinds[0]}"
        plan.odd(f"{split}/{kind}", expected, odd, "not these: {names}", "make it again")
    refuse_blanks(plan, str(place), [str(place)])
    if not first:
        return None
    fix = "make it again with freqs=16k"
    look_at_rates(plan, f"audio of {split}", place / kinds[0], first[:1], SAMPLE_RATE_HZ, fix)
    return place, [Path(name).stem for name in first]


def development_set(names: list[str]) -> list[str]:
    """The mixtures that the first recipe is developed on: the same 1000 as by s3prl's script (its seed is 7)."""
    shuffled = sorted(names)
    random.Random(_SEED).shuffle(shuffled)
    return sorted(shuffled[:DEV_SIZE])


_INPUT = Input("librimix", "Libri2Mix, with wav16k/min/{train-100,dev,test}/{mix_clean,s1,s2}/*.wav; or lists of it")
SS = Recipe((_INPUT,), partial(_plan_ss, drawn=True))
SS2 = Recipe((_INPUT,), partial(_plan_ss, drawn=False))
