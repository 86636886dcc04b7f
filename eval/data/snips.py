"""Audio SNIPS (SF): labels and slots checked, mp3 files of the first release turned into what s3prl reads."""

from __future__ import annotations

import re
import shutil
from functools import partial
from pathlib import Path

import numpy as np
import soundfile
from tqdm import tqdm

from robustdistiller.acoustics.audio.files import audio_info, read_audio
from robustdistiller.eval.data.looking import audio_below, lines_of, locate, mapped
from robustdistiller.eval.data.plan import DIFFERS, MISSING, Input, Plan, Recipe, Roots, Step, named
from robustdistiller.eval.data.running import begin, link_folder
from robustdistiller.eval.tasks import Task
from robustdistiller.eval.tasks import configs as task_configs
from robustdistiller.eval.tasks.corpora import AUDIO_SNIPS

SPLITS = ("train", "valid", "test")
LABELS, SLOTS = "all.iob.snips.txt", "slots.txt"
SAMPLE_RATE_HZ = 16000
_RAW = re.compile(r"(?:.*/)?audio_(\w+)/snips/(snips-(\w+)-\d+)\.mp3")


def plan_sf(task: Task, roots: Roots, out: Path) -> Plan:
    """Plan of SF: nothing is made of the preprocessed release; mp3 files are converted.

    Example:
        >>> from robustdistiller.eval import tasks
        >>> plan_sf(tasks.get("SF"), {"path": [Path("nowhere")]}, Path("out")).ok
        False
    """
    plan = Plan(task, out)
    given = roots["path"][0]
    voices = {split: _voices(task, split) for split in SPLITS}
    labels = _find_labels(plan, roots, given)
    ready = locate(given, [f"{split}/*.wav" for split in SPLITS])
    if ready is not None:
        audio = {split: {Path(name).stem for name in audio_below(ready / split, ".wav")} for split in SPLITS}
        _look_at_rates(plan, ready)
        plan.set("path", ready)
        if labels is not None and labels != ready:
            for split in SPLITS:
                make = partial(link_folder, ready / split)
                step = Step(f"SNIPS/{split}", f"link to {split}", str(ready.absolute()), 1, make)
                plan.add(step, "beside the labels")
            _bring_labels(plan, labels)
    else:
        sources = _mp3_files(given)
        if not sources:
            found = "no such folder" if not given.is_dir() else "neither wav nor mp3 files of it"
            what = "{train,valid,test}/VOICE-*.wav, or the mp3 files"
            plan.note(str(given), what, found, MISSING, AUDIO_SNIPS.source)
            return plan
        audio = {split: _plan_conversion(plan, sources, split, voices[split]) for split in SPLITS}
        if labels is not None:
            _bring_labels(plan, labels)
    if labels is not None:
        _look_at_labels(plan, labels, audio, voices)
        plan.set("slots_file", labels / SLOTS)
    return plan


def _voices(task: Task, split: str) -> tuple[str, ...]:
    return tuple(task_configs.load_config(task)["downstream_expert"]["corpus"][f"{split}_speakers"])


def _find_labels(plan: Plan, roots: Roots, given: Path) -> Path | None:
    """The folder of the two text files: given, the corpus itself, or a folder ``SNIPS`` beside it."""
    places = [*roots.get("labels", ()), given, given / "SNIPS", given.parent / "SNIPS", given.parent]
    folder = next((place for place in places if (place / LABELS).is_file() and (place / SLOTS).is_file()), None)
    if folder is None:
        fix = f"--root labels=FOLDER; both are in {AUDIO_SNIPS.source.split(';')[0]}"
        plan.note("labels", f"{LABELS} and {SLOTS}", "not there", MISSING, fix)
    return folder


def _look_at_rates(plan: Plan, folder: Path) -> None:
    """s3prl does not resample this corpus: one file of each voice is looked at."""
    for split in SPLITS:
        first: dict[str, str] = {}
        for name in audio_below(folder / split, ".wav"):
            first.setdefault(Path(name).stem.split("-")[0], name)
        wrong = [n for n in first.values() if audio_info(folder / split / n).sample_rate_hz != SAMPLE_RATE_HZ]
        if wrong:
            found = f"another rate: {named(wrong)}"
            plan.note(
                f"audio of {split}", f"{SAMPLE_RATE_HZ} Hz", found, MISSING, "convert it: s3prl does not resample"
            )


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


def _plan_conversion(plan: Plan, sources: dict[str, Path], split: str, voices: tuple[str, ...]) -> set[str]:
    chosen = {
        name: path
        for name, path in sorted(sources.items())
        if name.split("-")[0] in voices and f"-snips-{split}-" in name
    }
    first = next(iter(chosen.values()), Path())
    stamp = f"{first.parent.parent.absolute()} {len(chosen)} files"
    make = partial(convert, list(chosen.items()))
    step = Step(f"SNIPS/{split}", f"wav files of {split}", stamp, len(chosen), make)
    plan.add(step, f"{len(chosen)} files at {SAMPLE_RATE_HZ} Hz", "mp3 files")
    return set(chosen)


def convert(files: list[tuple[str, Path]], work: Path, bar: tqdm) -> Path:
    """Turn audio into 16-bit mono wav files at 16 kHz; files that an interrupted run finished are kept.

    Args:
        files: utterance id and source.
        work: folder to write to.
        bar: progress, one for each file.

    Returns:
        The folder of the wav files.
    """
    result = work / "result"
    result.mkdir(exist_ok=True)
    unfinished = begin(work / "unfinished")
    todo = [(name, path) for name, path in files if not (result / f"{name}.wav").is_file()]
    bar.update(len(files) - len(todo))
    for _ in mapped(partial(_convert_one, result, unfinished), todo, jobs=2):
        bar.update()
    return result


def _convert_one(result: Path, unfinished: Path, file: tuple[str, Path]) -> None:
    name, source = file
    samples = np.clip(read_audio(source, SAMPLE_RATE_HZ), -1, 1)
    temporary = unfinished / f"{name}.wav"
    soundfile.write(temporary, samples, SAMPLE_RATE_HZ, subtype="PCM_16")
    temporary.replace(result / f"{name}.wav")


def _bring_labels(plan: Plan, labels: Path) -> None:
    """s3prl wants the labels in the folder of the audio, and nothing is written into the user's."""
    step = Step(f"SNIPS/{LABELS}", LABELS, str(labels.absolute()), 1, partial(_copy, labels / LABELS))
    plan.add(step, "in the folder of the audio", f"in {labels}")
    plan.set("path", plan.out / "SNIPS")


def _copy(source: Path, work: Path, bar: tqdm) -> Path:
    shutil.copyfile(source, work / "result")
    bar.update()
    return work / "result"


def _look_at_labels(plan: Plan, folder: Path, audio: dict[str, set[str]], voices: dict[str, tuple[str, ...]]) -> None:
    labelled, tags = set(), set()
    for line in lines_of(folder / LABELS):
        utterance, _, rest = line.partition(" ")
        words, tab, slots = rest.partition("\t")
        if not tab or not words.startswith("BOS"):
            expected = "'UTTERANCE BOS words EOS<tab>O slots INTENT'"
            plan.note(
                LABELS, f"lines {expected}", repr(line[:80]), MISSING, "take the file of the preprocessed release"
            )
            return
        labelled.add(utterance)
        tags.update(slots.split()[1:-1])
    # s3prl leaves out the first line and splits at every line end.
    known = (folder / SLOTS).read_text(encoding="utf-8").split("\n")[1:]
    unknown = sorted(tags - set(known) - {"O"})
    if unknown:
        fix = f"take {SLOTS} and {LABELS} of the same release; its first line, O, is left out"
        plan.note(SLOTS, "all slots of the labels", f"not {named(unknown)}", MISSING, fix)
    elif "" in known:
        plan.note(SLOTS, "no empty line", "one: the head has two outputs more", DIFFERS, "remove the last line end")
    else:
        official = AUDIO_SNIPS.counts["slots"]
        plan.count(SLOTS, len(known), official, "slots")
    for split, names in audio.items():
        mine = {name for name in names if name.split("-")[0] in voices[split]}
        plan.count(split, len(mine & labelled), AUDIO_SNIPS.counts[split], "labelled utterances")
        silent = sorted(mine - labelled)
        if silent:
            plan.note(split, "a label for each", f"none of {named(silent)}", DIFFERS, "these are left out")


SF = Recipe(
    (
        Input("path", "Audio SNIPS: {train,valid,test}/VOICE-*.wav; or audio_slu with its mp3 files"),
        Input("labels", f"folder of {LABELS} and {SLOTS}; default: the same, or SNIPS beside it", required=False),
    ),
    plan_sf,
)
