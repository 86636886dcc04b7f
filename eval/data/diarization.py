"""Libri2Mix (SD): Kaldi folders of who speaks when, from the times of speech in LibriSpeech's utterances."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable
from functools import partial
from pathlib import Path

from tqdm import tqdm

from robustdistiller.acoustics.audio.files import audio_info
from robustdistiller.common.audio import SAMPLE_RATE_HZ
from robustdistiller.common.files import write_text
from robustdistiller.eval.data.build import mapped
from robustdistiller.eval.data.checks import read_lines
from robustdistiller.eval.data.kaldi import PREPARE_AGAIN, look_at_audio, look_at_prepared, read_table, write_table
from robustdistiller.eval.data.librimix import libri2mix_folder, mixtures
from robustdistiller.eval.data.plan import DIFFERS, MISSING, Plan, PrepareError, Recipe, Roots
from robustdistiller.eval.tasks.corpora import LIBRI2MIX, LIBRI2MIX_SPEECH_TIMES

KIND = "mix_both"
TABLES = ("wav.scp", "utt2spk", "spk2utt", "segments", "reco2dur")
_TIME_S = r"(\d+(?:\.\d+)?)"
_SPEAKER = rf"SPEAKER (\S+) \S+ {_TIME_S} {_TIME_S} \S+ \S+ (\S+).*".replace(" ", r"\s+")
_MIXTURE = re.compile(r"[^-_]+-[^_]+_[^-_]+-[^_]+")
RTTM = {"train": "train_clean_100.rttm", "dev": "dev_clean.rttm", "test": "test_clean.rttm"}

#: (speaker, chapter and utterance, e.g. ``8226-0026``) to the times in seconds at which speech begins and ends.
Times = dict[tuple[str, str], list[tuple[float, float]]]


def _plan_sd(plan: Plan, roots: Roots) -> None:
    given = roots["librimix"][0]
    if look_at_prepared(plan, given, "segments", _look_at_folder):
        return
    times_folder = _times_folder(plan, roots, given)
    folder = libri2mix_folder(plan, given, "max")
    for split, name in RTTM.items():
        found = mixtures(plan, folder, split, (KIND,))
        if found is not None and times_folder is not None:
            _plan_split(plan, split, *found, times_folder / name)


def _times_folder(plan: Plan, roots: Roots, given: Path) -> Path | None:
    """Where the times of speech are: given, or in a copy of LibriMix's repository beside or around the corpus."""
    below = ["", "metadata/LibriSpeech", "LibriMix/metadata/LibriSpeech"]
    places = [*roots.get("rttm", ()), given, given.parent]
    for folder in (place / one for place in places for one in below):
        if any((folder / name).is_file() for name in RTTM.values()):
            return folder
    what, fix = ", ".join(RTTM.values()), f"--root rttm=FOLDER: {LIBRI2MIX_SPEECH_TIMES.source}"
    plan.note("times of speech", what, "not given, and not beside the corpus", MISSING, fix)
    return None


def _plan_split(plan: Plan, split: str, place: Path, names: list[str], file: Path) -> None:
    if not file.is_file():
        plan.note(file.name, "times of speech", "not there", MISSING, LIBRI2MIX_SPEECH_TIMES.source)
        return
    fix = "take the file of LibriMix's repository"
    lines = read_lines(plan, file, _SPEAKER, "SPEAKER UTTERANCE 1 START DURATION <NA> <NA> NAME <NA> <NA>", fix)
    strange = [name for name in names if not _MIXTURE.fullmatch(name)]
    expected = "SPEAKER-CHAPTER-NUMBER_SPEAKER-CHAPTER-NUMBER.wav"
    if lines is None or plan.odd(place.name, expected, strange, "other names: {names}", LIBRI2MIX.source):
        return
    times = times_of(lines)
    voices = [voice for name in names for voice in _voices(name)]
    absent = sorted({"-".join(voice) for voice in voices if voice not in times})
    expected, found = "the utterances of all mixtures", "{count} utterances are not in it: {names}"
    if plan.odd(file.name, expected, absent, found, "is it of the same part of LibriSpeech?"):
        return
    stamp = f"{place.absolute()} {file.absolute()} {file.stat().st_size} {len(names)} mixtures"
    make = partial(write_folder, place / KIND, names, times)
    title, expected = f"Kaldi folder of {split}", f"{', '.join(TABLES)}, rttm"
    plan.set(f"{split}_dir", plan.add(split, title, expected, make, len(names), stamp))


def _voices(mixture: str) -> list[tuple[str, ...]]:
    """Speaker and utterance of both voices: ``3536-8226-0026_1673-143397-0009``."""
    return [tuple(part.split("-", 1)) for part in mixture.split("_")]


def times_of(lines: Iterable[re.Match[str]]) -> Times:
    """The times of speech of LibriSpeech's utterances from the lines of an RTTM file."""
    times: Times = defaultdict(list)
    for utterance, start_s, duration_s, speaker in (line.groups() for line in lines):
        # The sum is not rounded: a time on the edge of a frame would fall to its other side.
        begin_s, end_s = float(start_s), float(start_s) + float(duration_s)
        times[speaker, utterance.removeprefix(f"{speaker}-")].append((begin_s, end_s))
    return dict(times)


def write_folder(audio: Path, names: list[str], times: Times, result: Path, bar: tqdm) -> None:
    """Write the Kaldi folder of one split, as `Step.make` does.

    Segments are named by speaker, mixture and times; s3prl's script leaves the speaker out, so that two speakers with
    equal times in one mixture become one.

    Raises:
        PrepareError: a mixture is not at 16 kHz.
    """
    segments, durations, speech, spoken = [], [], [], defaultdict(list)
    names = sorted(names)
    for name, info in zip(names, mapped(lambda n: audio_info(audio / f"{n}.wav"), names)):
        if info.sample_rate_hz != SAMPLE_RATE_HZ:
            raise PrepareError(f"{audio / name}.wav is at {info.sample_rate_hz} Hz, expected {SAMPLE_RATE_HZ} Hz")
        durations.append((name, info.duration_s))
        for speaker, utterance in _voices(name):
            for begin, end in times[speaker, utterance]:
                segment = f"{speaker}_{name}_{_milliseconds(begin)}_{_milliseconds(end)}"
                segments.append((segment, name, begin, end))
                spoken[speaker].append(segment)
                speech.append(("SPEAKER", name, 1, begin, end - begin, "<NA>", "<NA>", speaker, "<NA>"))
        bar.update()
    write_table(result / "wav.scp", [(name, (audio / f"{name}.wav").absolute()) for name in names])
    write_table(result / "segments", segments)
    write_table(result / "utt2spk", [(segment, speaker) for speaker, own in sorted(spoken.items()) for segment in own])
    write_table(result / "spk2utt", [(speaker, *own) for speaker, own in sorted(spoken.items())])
    write_table(result / "reco2dur", durations)
    write_text(result / "rttm", "".join("\t".join(map(str, line)) + "\n" for line in speech))


def _milliseconds(time_s: float) -> str:
    return f"{int(time_s * 1000):06d}"


def _look_at_folder(plan: Plan, folder: Path, split: str) -> None:
    """The Kaldi folder of a split: its tables agree, and its audio exists."""
    absent = [name for name in TABLES if not (folder / name).is_file()]
    if plan.odd(split, ", ".join(TABLES), absent, "no {names}", PREPARE_AGAIN, most=len(TABLES)):
        return
    audio, durations = read_table(folder / "wav.scp"), read_table(folder / "reco2dur")
    segments, speakers = read_table(folder / "segments"), read_table(folder / "utt2spk")
    plan.count(split, len(audio), LIBRI2MIX.counts[split], "mixtures")
    for what, names, known in (
        ("reco2dur", audio, durations),
        ("segments", audio, {line.partition(" ")[0] for line in segments.values()}),
        ("utt2spk", segments, speakers),
    ):
        unknown = [name for name in names if name not in known]
        expected = f"a line for each of {len(names)}"
        plan.odd(f"{split}/{what}", expected, unknown, "nothing of {count}: {names}", PREPARE_AGAIN)
    if not (folder / "rttm").is_file():
        fix = "scores are then of the segments, whose times s3prl's tables may have rounded"
        plan.note(f"{split}/rttm", "for scoring", "not there", DIFFERS, fix)
    look_at_audio(plan, split, audio.values(), folder)


SD = Recipe(
    {
        "librimix": f"Libri2Mix, with wav16k/max/{{train-100,dev,test}}/{KIND}/*.wav; or Kaldi folders of it",
        "rttm": "folder of the times of speech; default: beside the corpus",
    },
    _plan_sd,
)
