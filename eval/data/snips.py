"""Audio SNIPS (SF): labels and slots checked, mp3 files of the first release turned into what s3prl reads."""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import partial
from pathlib import Path

import numpy as np
import soundfile

from robustdistiller.acoustics.audio.files import read_audio
from robustdistiller.common.audio import SAMPLE_RATE_HZ
from robustdistiller.common.files import read_text
from robustdistiller.eval.data.build import convert_files, link
from robustdistiller.eval.data.checks import audio_below, find, locate, look_at_rates, read_lines
from robustdistiller.eval.data.plan import DIFFERS, MISSING, Plan, Recipe, Roots
from robustdistiller.eval.tasks import configs as task_configs
from robustdistiller.eval.tasks.corpora import AUDIO_SNIPS

SPLITS = ("train", "valid", "test")
LABELS, SLOTS = "all.iob.snips.txt", "slots.txt"
_RAW = re.compile(r"(?:.*/)?audio_(\w+)/snips/(snips-(\w+)-\d+)\.mp3")


def _plan_sf(plan: Plan, roots: Roots) -> None:
    given = roots["path"][0]
    corpus = task_configs.load_config(plan.task)["downstream_expert"]["corpus"]
    voices = {split: tuple(corpus[f"{split}_speakers"]) for split in SPLITS}
    labels = _find_labels(plan, roots, given)
    wav = [f"{split}/*.wav" for split in SPLITS]
    ready = locate(given, *wav)
    mp3 = _mp3_files(given) if ready is None else {}
    if ready is None and not mp3:
        find(plan, given, wav, "{train,valid,test}/VOICE-*.wav, or the mp3 files", AUDIO_SNIPS.source)
    together = ready is not None and labels in (None, ready)
    plan.set("path", ready if together else plan.out / "SNIPS")
    audio = {}
    for split in SPLITS:
        if ready is None:
            audio[split] = _plan_conversion(plan, mp3, split, voices[split])
        else:
            audio[split] = _look_at_wav_files(plan, ready, split)
        if ready is not None and not together:
            stamp, make = str(ready.absolute()), partial(link, ready / split)
            plan.add(f"SNIPS/{split}", f"link to {split}", "beside the labels", make, 1, stamp)
    if labels is not None:
        if not together:  # s3prl wants the labels in the folder of the audio, and nothing is written into the user's
            stamp, make = str(labels.absolute()), partial(link, labels / LABELS)
            plan.add(f"SNIPS/{LABELS}", LABELS, "in the folder of the audio", make, 1, stamp, f"in {labels}")
        _look_at_labels(plan, labels, audio, voices)
        plan.set("slots_file", labels / SLOTS)


def _find_labels(plan: Plan, roots: Roots, given: Path) -> Path | None:
    """The folder of the two text files: given, the corpus itself, or a folder ``SNIPS`` beside it."""
    places = [*roots.get("labels", ()), given, given / "SNIPS", given.parent / "SNIPS", given.parent]
    folder = next((place for place in places if (place / LABELS).is_file() and (place / SLOTS).is_file()), None)
    if folder is None:
        fix = f"--root labels=FOLDER; both are in {AUDIO_SNIPS.source.split(';')[0]}"
        plan.note("labels", f"{LABELS} and {SLOTS}", "not there", MISSING, fix)
    return folder


def _look_at_wav_files(plan: Plan, folder: Path, split: str) -> set[str]:
    """The utterances of a split; one file of each voice is looked into."""
    names = audio_below(folder / split, ".wav")
    first = {Path(name).stem.split("-")[0]: name for name in reversed(names)}
    fix = "convert it: s3prl does not resample"
    look_at_rates(plan, f"audio of {split}", folder / split, first.values(), SAMPLE_RATE_HZ, fix)
    return {Path(name).stem for name in names}


def _mp3_files(given: Path) -> dict[str, Path]:
    """Utterance id, e.g. ``Ivy-snips-train-7``, to its mp3 file, of the first release or of one sorted by split."""
    found = {}
    for name in audio_below(given, ".mp3"):
        raw = _RAW.fullmatch(name) or _RAW.fullmatch(f"{given.name}/{name}")
        if raw:
            found[f"{raw[1]}-{raw[2]}"] = given / name
        elif Path(name).parent.name in SPLITS:
            found[Path(name).stem] = given / name
    return found


def _plan_conversion(plan: Plan, mp3: Mapping[str, Path], split: str, voices: tuple[str, ...]) -> set[str]:
    def belongs(name: str) -> bool:
        return name.split("-")[0] in voices and f"-snips-{split}-" in name

    chosen = {name: path for name, path in sorted(mp3.items()) if belongs(name)}
    first = next(iter(chosen.values()), Path())
    stamp = f"{first.parent.parent.absolute()} {len(chosen)} files"
    make = partial(convert_files, {f"{name}.wav": path for name, path in chosen.items()}, _convert)
    title, expected = f"wav files of {split}", f"{len(chosen)} files at {SAMPLE_RATE_HZ} Hz"
    plan.add(f"SNIPS/{split}", title, expected, make, len(chosen), stamp, "mp3 files")
    return set(chosen)


def _convert(source: Path, target: Path) -> None:
    samples = np.clip(read_audio(source, SAMPLE_RATE_HZ), -1, 1)
    soundfile.write(target, samples, SAMPLE_RATE_HZ, subtype="PCM_16")


def _look_at_labels(
    plan: Plan, folder: Path, audio: Mapping[str, set[str]], voices: Mapping[str, tuple[str, ...]]
) -> None:
    """Labels and slots fit together, and each utterance of the voices that s3prl takes has a label."""
    expected, fix = "UTTERANCE BOS words EOS<tab>O slots INTENT", "take the file of the preprocessed release"
    lines = read_lines(plan, folder / LABELS, r"(?P<id>\S+) BOS[^\t]*\t(?P<slots>.*)", expected, fix)
    if lines is None:
        return
    tags = {tag for line in lines for tag in line["slots"].split()[1:-1]}
    # s3prl leaves out the first line and splits at every line end.
    known = read_text(folder / SLOTS).split("\n")[1:]
    unknown = sorted(tags - set(known) - {"O"})
    fix = f"take {SLOTS} and {LABELS} of the same release; its first line, O, is left out"
    if not plan.odd(SLOTS, "all slots of the labels", unknown, "not {names}", fix):
        if "" in known:
            fix = "remove the last line end"
            plan.note(SLOTS, "no empty line", "one: the head has two outputs more", DIFFERS, fix)
        else:
            plan.count(SLOTS, len(known), AUDIO_SNIPS.counts["slots"], "slots")
    labelled = {line["id"] for line in lines}
    for split, names in audio.items():
        mine = {name for name in names if name.split("-")[0] in voices[split]}
        plan.count(split, len(mine & labelled), AUDIO_SNIPS.counts[split], "labelled utterances")
        silent = sorted(mine - labelled)
        plan.odd(split, "a label for each", silent, "none of {names}", "these are left out", DIFFERS)


SF = Recipe(
    {
        "path": "Audio SNIPS: {train,valid,test}/VOICE-*.wav; or audio_slu with its mp3 files",
        "labels": f"folder of {LABELS} and {SLOTS}; default: the same, or SNIPS beside it",
    },
    _plan_sf,
)
