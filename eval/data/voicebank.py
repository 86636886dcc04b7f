"""VoiceBank-DEMAND (SE, SE2): lists of noisy and clean speech, at 16 kHz."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import numpy as np
import soundfile
import torch
from tqdm import tqdm

from robustdistiller.acoustics.audio.files import audio_info
from robustdistiller.eval.data.kaldi import SPLITS, look_at_lists, refuse_blanks, write_lists
from robustdistiller.eval.data.looking import audio_below, locate, mapped
from robustdistiller.eval.data.plan import MISSING, Input, Plan, PrepareError, Recipe, Roots, Step, named
from robustdistiller.eval.data.running import begin
from robustdistiller.eval.tasks import Task
from robustdistiller.eval.tasks.corpora import VOICEBANK_DEMAND
from robustdistiller.upstream.s3prl.bridge import load_torchaudio

KINDS = ("noisy", "clean")
PARTS = {"train": "trainset_28spk_wav", "dev": "trainset_28spk_wav", "test": "testset_wav"}
DEV_SPEAKERS = ("p226", "p287")
SAMPLE_RATE_HZ = 16000


def plan_se(task: Task, roots: Roots, out: Path) -> Plan:
    """Plan of SE and SE2: lists of three splits, of audio at 16 kHz, which is made where the download has 48 kHz.

    Example:
        >>> from robustdistiller.eval import tasks
        >>> plan_se(tasks.get("SE"), {"voicebank": [Path("nowhere")]}, Path("out")).ok
        False
    """
    plan = Plan(task, out)
    given = roots["voicebank"][0]
    listed = locate(given, [f"train/{KINDS[0]}/wav.scp"])
    if listed is not None:
        for split in SPLITS:
            look_at_lists(plan, listed / split, KINDS, VOICEBANK_DEMAND.counts, split)
            plan.set(f"{split}_dir", listed / split)
        return plan
    folder = locate(given, ["noisy_testset_wav*", "noisy_trainset_28spk_wav*"])
    if folder is None:
        found = "no such folder" if not given.is_dir() else "no noisy_testset_wav"
        what = "{clean,noisy}_{trainset_28spk,testset}_wav"
        plan.note(
            str(given), what, found, MISSING, f"unpack the four archives into one folder: {VOICEBANK_DEMAND.source}"
        )
        return plan
    refuse_blanks(plan, str(folder), [str(folder)])
    audio = {part: _look_at_part(plan, folder, part) for part in dict.fromkeys(PARTS.values())}
    for split in SPLITS if all(audio.values()) else ():
        _plan_split(plan, split, audio[PARTS[split]])
    return plan


def _look_at_part(plan: Plan, folder: Path, part: str) -> dict[str, dict[str, Path]] | None:
    """Noisy and clean files of a part by utterance, at 16 kHz (where they are, or where they will be)."""
    found = {}
    for kind in KINDS:
        name = f"{kind}_{part}"
        place = next((folder / n for n in (f"{name}_16k", name) if audio_below(folder / n, ".wav")), None)
        if place is None:
            fix = f"unpack {name}.zip into {folder}"
            plan.note(name, f"{name} or {name}_16k with wav files", "not there", MISSING, fix)
            return None
        found[kind] = (place, audio_below(place, ".wav"))
    odd = sorted(set(found["noisy"][1]) ^ set(found["clean"][1]))
    if odd:
        plan.note(part, "the same files, noisy and clean", f"not both of {named(odd)}", MISSING, "unpack them again")
        return None
    return {kind: _at_16_khz(plan, place, names) for kind, (place, names) in found.items()}


def _at_16_khz(plan: Plan, place: Path, names: list[str]) -> dict[str, Path]:
    rate_hz = audio_info(place / names[0]).sample_rate_hz
    if rate_hz == SAMPLE_RATE_HZ:
        return {Path(name).stem: place / name for name in names}
    target = f"wav16k/{place.name}"
    stamp = f"{place.absolute()} {len(names)} files"
    step = Step(target, f"{place.name} at 16 kHz", stamp, len(names), partial(_convert, place, names, rate_hz))
    where = plan.add(step, f"{len(names)} files at {SAMPLE_RATE_HZ} Hz", f"at {rate_hz} Hz")
    return {Path(name).stem: where / name for name in names}


def _plan_split(plan: Plan, split: str, audio: dict[str, dict[str, Path]]) -> None:
    def belongs(utterance: str) -> bool:
        return split == "test" or utterance.startswith(DEV_SPEAKERS) == (split == "dev")

    chosen = {kind: {name: path for name, path in files.items() if belongs(name)} for kind, files in audio.items()}
    count = len(chosen["noisy"])
    plan.count(split, count, VOICEBANK_DEMAND.counts[split], "utterances")
    first = next(iter(chosen["noisy"].values()), Path())
    stamp = f"{first.parent.absolute()} {count} utterances"
    step = Step(split, f"lists of {split}", stamp, 2 * count, partial(write_lists, chosen))
    where = plan.add(step, f"{count} utterances")
    plan.set(f"{split}_dir", where)


def _convert(place: Path, names: list[str], rate_hz: int, work: Path, bar: tqdm) -> Path:
    """Resample to 16 kHz with torchaudio's defaults and keep 32 bits, as the benchmark's copy was made."""
    result = work / "result"
    result.mkdir(exist_ok=True)
    unfinished = begin(work / "unfinished")
    resampler = load_torchaudio().transforms.Resample(rate_hz, SAMPLE_RATE_HZ)
    todo = [name for name in names if not (result / name).is_file()]
    bar.update(len(names) - len(todo))
    for _ in mapped(partial(_convert_one, place, result, unfinished, resampler), todo, jobs=2):
        bar.update()
    return result


def _convert_one(place: Path, result: Path, unfinished: Path, resampler: torch.nn.Module, name: str) -> None:
    samples, rate_hz = soundfile.read(place / name, dtype="float32", always_2d=True)
    if rate_hz != resampler.orig_freq:
        raise PrepareError(f"{place / name} is at {rate_hz} Hz, and other files of {place} at {resampler.orig_freq} Hz")
    resampled = resampler(torch.from_numpy(np.ascontiguousarray(samples[:, 0]))).numpy()
    for folder in (unfinished, result):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(unfinished / name, resampled, SAMPLE_RATE_HZ, subtype="FLOAT")
    (unfinished / name).replace(result / name)


SE = Recipe(
    (Input("voicebank", "VoiceBank-DEMAND: {clean,noisy}_{trainset_28spk,testset}_wav; or lists of it"),), plan_se
)
