"""VoiceBank-DEMAND (SE, SE2): lists of noisy and clean speech, at 16 kHz."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import numpy as np
import soundfile
from tqdm import tqdm

from robustdistiller.acoustics.audio.files import audio_info
from robustdistiller.common.audio import SAMPLE_RATE_HZ
from robustdistiller.eval.data.build import convert_files
from robustdistiller.eval.data.checks import audio_below, find
from robustdistiller.eval.data.kaldi import add_lists, folder_of, look_at_lists, look_at_prepared, refuse_blanks
from robustdistiller.eval.data.plan import MISSING, Plan, PrepareError, Recipe, Roots
from robustdistiller.eval.tasks.corpora import VOICEBANK_DEMAND

KINDS = ("noisy", "clean")
PARTS = {"train": "trainset_28spk_wav", "dev": "trainset_28spk_wav", "test": "testset_wav"}
DEV_SPEAKERS = ("p226", "p287")


def _plan_se(plan: Plan, roots: Roots) -> None:
    given = roots["voicebank"][0]
    if look_at_prepared(plan, given, f"{KINDS[0]}/wav.scp", _look_at_split):
        return
    fix = f"unpack the four archives into one folder: {VOICEBANK_DEMAND.source}"
    holds = ["noisy_testset_wav*", "noisy_trainset_28spk_wav*"]
    folder = find(plan, given, holds, "{clean,noisy}_{trainset_28spk,testset}_wav", fix)
    refuse_blanks(plan, str(folder), [str(folder)])
    audio = {part: _look_at_part(plan, folder, part) for part in dict.fromkeys(PARTS.values())}
    for split, part in PARTS.items() if all(audio.values()) else ():
        _plan_split(plan, split, audio[part])


def _look_at_split(plan: Plan, folder: Path, split: str) -> None:
    look_at_lists(plan, folder, split, KINDS, VOICEBANK_DEMAND.counts[split])


def _look_at_part(plan: Plan, folder: Path, part: str) -> dict[str, dict[str, Path]] | None:
    """Noisy and clean files of a part by utterance, at 16 kHz (where they are, or where they will be)."""
    places = {kind: folder_of(folder, (f"{kind}_{part}_16k", f"{kind}_{part}")) for kind in KINDS}
    found = {kind: audio_below(place, ".wav") if place else [] for kind, place in places.items()}
    for name in (f"{kind}_{part}" for kind, names in found.items() if not names):
        fix = f"unpack {name}.zip into {folder}"
        plan.note(name, f"{name} or {name}_16k with wav files", "not there", MISSING, fix)
        return None
    odd = sorted(set(found["noisy"]) ^ set(found["clean"]))
    if plan.odd(part, "the same files, noisy and clean", odd, "not both of {names}", "unpack them again"):
        return None
    return {kind: _at_16_khz(plan, places[kind], names) for kind, names in found.items()}


def _at_16_khz(plan: Plan, place: Path, names: list[str]) -> dict[str, Path]:
    rate_hz = audio_info(place / names[0]).sample_rate_hz
    if rate_hz != SAMPLE_RATE_HZ:
        stamp, make = f"{place.absolute()} {len(names)} files", partial(_convert, place, names, rate_hz)
        target, title = f"wav16k/{place.name}", f"{place.name} at 16 kHz"
        expected, found = f"{len(names)} files at {SAMPLE_RATE_HZ} Hz", f"at {rate_hz} Hz"
        place = plan.add(target, title, expected, make, len(names), stamp, found)
    return {Path(name).stem: place / name for name in names}


def _plan_split(plan: Plan, split: str, audio: dict[str, dict[str, Path]]) -> None:
    def belongs(utterance: str) -> bool:
        return split == "test" or utterance.startswith(DEV_SPEAKERS) == (split == "dev")

    chosen = {kind: {name: path for name, path in files.items() if belongs(name)} for kind, files in audio.items()}
    plan.count(split, len(chosen["noisy"]), VOICEBANK_DEMAND.counts[split], "utterances")
    first = next(iter(chosen["noisy"].values()), Path())
    add_lists(plan, split, split, "utterances", first.parent, chosen)


def _convert(place: Path, names: list[str], rate_hz: int, result: Path, bar: tqdm) -> None:
    """Resample to 16 kHz with torchaudio's defaults and keep 32 bits, as the benchmark's copy was made."""
    import torch

    from robustdistiller.upstream.s3prl.bridge import load_torchaudio

    resampler = load_torchaudio().transforms.Resample(rate_hz, SAMPLE_RATE_HZ)

    def convert(source: Path, target: Path) -> None:
        samples, found_hz = soundfile.read(source, dtype="float32", always_2d=True)
        if found_hz != rate_hz:
            raise PrepareError(f"{source} is at {found_hz} Hz, and other files of {place} at {rate_hz} Hz")
        resampled = resampler(torch.from_numpy(np.ascontiguousarray(samples[:, 0]))).numpy()
        soundfile.write(target, resampled, SAMPLE_RATE_HZ, subtype="FLOAT")

    convert_files({name: place / name for name in names}, convert, result, bar)


SE = Recipe({"voicebank": "VoiceBank-DEMAND: {clean,noisy}_{trainset_28spk,testset}_wav; or lists of it"}, _plan_se)
