"""VoiceBank-DEMAND (SE, SE2): lists of noisy and clean speech, at 16 kHz."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import numpy as np
import soundfile
from tqdm import tqdm

from robustdistiller.acoustics.audio.files import audio_info
from robustdistiller.eval.data.archives import Archive
from robustdistiller.eval.data.build import convert_files
from robustdistiller.eval.data.checks import Where, audio_below
from robustdistiller.eval.data.kaldi import SPLITS, add_lists, look_at_lists, look_at_prepared, refuse_blanks
from robustdistiller.eval.data.plan import MISSING, Input, Plan, PrepareError, Recipe, Roots
from robustdistiller.eval.tasks.corpora import VOICEBANK_DEMAND

KINDS = ("noisy", "clean")
PARTS = {"train": "trainset_28spk_wav", "dev": "trainset_28spk_wav", "test": "testset_wav"}
DEV_SPEAKERS = ("p226", "p287")
SAMPLE_RATE_HZ = 16000
WHERE = Where(
    ("noisy_testset_wav*", "noisy_trainset_28spk_wav*"),
    "{clean,noisy}_{trainset_28spk,testset}_wav",
    "no noisy_testset_wav",
    f"unpack the four archives into one folder: {VOICEBANK_DEMAND.source}",
)
#: Part of DataShare's address, MD5 as it shows it, size and number of files of each part. The older addresses, below
#: bitstream/handle/10283/2791, no longer give the files.
_DATASHARE = {
    "clean_trainset_28spk": ("245452b6-6235-44b6-a6f9-e7eb19797769", "d2d5a45ec32f8fcbf201bde0447e20ba", 2.49, 11_572),
    "noisy_trainset_28spk": ("ecb5a102-bb00-46d3-8af5-40c79823b837", "1fca9e8bafb8cd069f6653c6d92f9e9c", 2.83, 11_572),
    "clean_testset": ("dec213d3-bf57-4777-9663-c24bdce92d5e", "34eb1c0ba7ef667e9b966866c542fc16", 0.15, 824),
    "noisy_testset": ("13c1bfbf-14a6-41db-9b41-8f7310f01ad5", "fb1b86caa31e8ba5b506c0c64da9aab5", 0.17, 824),
}
ARCHIVES = tuple(
    Archive(
        f"https://datashare.ed.ac.uk/bitstreams/{item}/download",
        checksum=f"md5:{md5}",
        size_gb=size_gb,
        unpacked_gb=1.3 * size_gb,
        folder=f"{name}_wav",
        files=files,
        file=f"{name}_wav.zip",
    )
    for name, (item, md5, size_gb, files) in _DATASHARE.items()
)


def _plan_se(plan: Plan, roots: Roots) -> None:
    given = roots["voicebank"][0]
    if look_at_prepared(plan, given, f"train/{KINDS[0]}/wav.scp", _look_at_split):
        return
    folder = plan.find(given, WHERE)
    if folder is None:
        return
    refuse_blanks(plan, str(folder), [str(folder)])
    audio = {part: _look_at_part(plan, folder, part) for part in dict.fromkeys(PARTS.values())}
    for split in SPLITS if all(audio.values()) else ():
        _plan_split(plan, split, audio[PARTS[split]])


def _look_at_split(plan: Plan, folder: Path, split: str) -> None:
    look_at_lists(plan, folder, split, KINDS, VOICEBANK_DEMAND.counts[split])


def _look_at_part(plan: Plan, folder: Path, part: str) -> dict[str, dict[str, Path]] | None:
    """Noisy and clean files of a part by utterance, at 16 kHz (where they are, or where they will be)."""
    found = {}
    for kind in KINDS:
        name = f"{kind}_{part}"
        place = next((folder / n for n in (f"{name}_16k", name) if audio_below(folder / n, ".wav")), None)
        if place is None:
            expected, fix = f"{name} or {name}_16k with wav files", f"unpack {name}.zip into {folder}"
            plan.note(name, expected, "not there", MISSING, fix)
            return None
        found[kind] = (place, audio_below(place, ".wav"))
    odd = sorted(set(found["noisy"][1]) ^ set(found["clean"][1]))
    if plan.odd(part, "the same files, noisy and clean", odd, "not both of {names}", "unpack them again"):
        return None
    return {kind: _at_16_khz(plan, place, names) for kind, (place, names) in found.items()}


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


def _convert(place: Path, names: list[str], rate_hz: int, work: Path, bar: tqdm) -> Path:
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

    return convert_files({name: place / name for name in names}, convert, work, bar)


SE = Recipe(
    (Input("voicebank", "VoiceBank-DEMAND: {clean,noisy}_{trainset_28spk,testset}_wav; or lists of it"),),
    _plan_se,
    ARCHIVES,
)
