"""Libri2Mix (SS, SS2): lists of mixtures and their parts, with s3prl's drawn development set."""

from __future__ import annotations

import random
from functools import partial
from pathlib import Path

from robustdistiller.common.audio import SAMPLE_RATE_HZ
from robustdistiller.eval.data.checks import audio_below, find, locate, look_at_rates
from robustdistiller.eval.data.kaldi import SPLITS, add_lists, folder_of, look_at_lists, look_at_prepared, refuse_blanks
from robustdistiller.eval.data.plan import MISSING, Plan, Recipe, Roots
from robustdistiller.eval.tasks.corpora import LIBRI2MIX

KINDS = ("mix_clean", "s1", "s2")
DEV_SIZE, _SEED = 1000, 7


def _plan_ss(plan: Plan, roots: Roots, drawn: bool) -> None:
    """Separation; `drawn` if it is developed on the mixtures of `development_set` only, as by the first recipe."""
    given = roots["librimix"][0]
    counts = {**LIBRI2MIX.counts, **({"dev": DEV_SIZE} if drawn else {})}

    def look(plan: Plan, folder: Path, split: str) -> None:
        look_at_lists(plan, folder, split, KINDS, counts[split])

    if look_at_prepared(plan, given, f"{KINDS[0]}/wav.scp", look, SPLITS["dev"][::-1] if drawn else SPLITS["dev"]):
        return
    folder = libri2mix_folder(plan, given, "min")
    for split in SPLITS:
        if found := mixtures(plan, folder, split, KINDS):
            place, names = found
            target = split
            if drawn and split == "dev":
                names, target = development_set(names), "dev_1000"
            audio = {kind: {name: place / kind / f"{name}.wav" for name in names} for kind in KINDS}
            add_lists(plan, split, target, "mixtures", place, audio)


def libri2mix_folder(plan: Plan, given: Path, mode: str) -> Path:
    """The folder ``wav16k/MODE`` of Libri2Mix."""
    other = locate(given, "wav8k", f"wav16k/{'max' if mode == 'min' else 'min'}")
    fix = f"make it at 16 kHz in mode {mode}: the task needs exactly that" if other else LIBRI2MIX.source
    expected = f"wav16k/{mode}/{{train-100,dev,test}}"
    return find(plan, given, [f"wav16k/{mode}"], expected, fix) / "wav16k" / mode


def mixtures(plan: Plan, folder: Path, split: str, kinds: tuple[str, ...]) -> tuple[Path, list[str]] | None:
    """The folder of a split and the names of its mixtures: of each kind of audio the same ones, at 16 kHz."""
    place = folder_of(folder, SPLITS[split])
    if place is None:
        plan.note(split, SPLITS[split][0], f"no such folder in {folder}", MISSING, LIBRI2MIX.source)
        return None
    first, *others = (audio_below(place / kind, ".wav") for kind in kinds)
    plan.count(split, len(first), LIBRI2MIX.counts[split], f"mixtures in {kinds[0]}")
    for kind, names in zip(kinds[1:], others):
        odd, expected = sorted(set(first) ^ set(names)), f"the files of {kinds[0]}"
        plan.odd(f"{split}/{kind}", expected, odd, "not these: {names}", "make it again")
    refuse_blanks(plan, str(place), [str(place)])
    fix = "make it again with freqs=16k"
    look_at_rates(plan, f"audio of {split}", place / kinds[0], first[:1], SAMPLE_RATE_HZ, fix)
    return (place, [Path(name).stem for name in first]) if first else None


def development_set(names: list[str]) -> list[str]:
    """The mixtures that the first recipe is developed on: the same 1000 as by s3prl's script (its seed is 7)."""
    shuffled = sorted(names)
    random.Random(_SEED).shuffle(shuffled)
    return sorted(shuffled[:DEV_SIZE])


_INPUTS = {"librimix": "Libri2Mix, with wav16k/min/{train-100,dev,test}/{mix_clean,s1,s2}/*.wav; or lists of it"}
SS = Recipe(_INPUTS, partial(_plan_ss, drawn=True))
SS2 = Recipe(_INPUTS, partial(_plan_ss, drawn=False))
