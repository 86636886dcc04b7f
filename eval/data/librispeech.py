"""LibriSpeech for ASR: tables of lengths, and the letter lexicon of its language model."""

from __future__ import annotations

import csv
import gzip
import io
from collections.abc import Iterator
from functools import partial
from pathlib import Path

from tqdm import tqdm

from robustdistiller.acoustics.audio.files import audio_info
from robustdistiller.common.files import write_text
from robustdistiller.eval.data.looking import audio_below, locate, mapped
from robustdistiller.eval.data.plan import (
    DIFFERS,
    MISSING,
    OK,
    Input,
    Plan,
    PrepareError,
    Recipe,
    Roots,
    Step,
    named,
)
from robustdistiller.eval.tasks import Task
from robustdistiller.eval.tasks.corpora import LIBRISPEECH
from robustdistiller.upstream.s3prl.bridge.ctc_corpus import read_transcripts

NEEDED, WELCOME = ("train-clean-100", "dev-clean", "test-clean"), ("dev-other", "test-other")
SAMPLE_RATE_HZ = 16000
_FLUSH_EVERY = 500


def plan_asr(task: Task, roots: Roots, out: Path) -> Plan:
    """Plan of ASR: one table of lengths for each split.

    Example:
        >>> from robustdistiller.eval import tasks
        >>> plan_asr(tasks.get("ASR"), {"libri_root": [Path("nowhere")]}, Path("out")).findings[0].state
        'missing'
    """
    plan = Plan(task, out)
    root = look(plan, roots, "libri_root", (*NEEDED, *WELCOME))
    if root is None:
        return plan
    for split, files in root.files.items():
        if files:
            plan.add(_length_table(root.folder, split, files), f"{len(files)} lengths")
    plan.set("libri_root", root.folder)
    plan.set("bucket_file", out / "len_for_bucket")
    return plan


def plan_asr_lm(task: Task, roots: Roots, out: Path) -> Plan:
    """Plan of ASR with a language model: the same, and the letter lexicon from the model's own words.

    Example:
        >>> from robustdistiller.eval import tasks
        >>> plan_asr_lm(tasks.get("ASR-LM"), {"libri_root": [Path("nowhere")]}, Path("out")).ok
        False
    """
    plan = plan_asr(task, roots, out)
    expected = "LibriSpeech's 4-gram language model"
    if not roots.get("kenlm_model"):
        plan.note(
            "language model", expected, "not given", MISSING, "--root kenlm_model=4-gram.arpa.gz (openslr.org/11)"
        )
        return plan
    model = roots["kenlm_model"][0]
    if not model.is_file():
        plan.note("language model", expected, f"no file {model}", MISSING, "get it from openslr.org/11")
        return plan
    plan.note("language model", expected, model.name, OK)
    plan.set("kenlm_model", model)
    if roots.get("lexicon"):
        lexicon = roots["lexicon"][0]
        found = lexicon.is_file()
        fix = "" if found else "leave it out: it is made from the words of the language model"
        plan.note("letter lexicon", "lines 'WORD<tab>W O R D |'", str(lexicon), OK if found else MISSING, fix)
    elif not _is_arpa(model):
        fix = "--root lexicon=FILE, or give the model as ARPA, from whose words it can be made"
        plan.note("letter lexicon", "lines 'WORD<tab>W O R D |'", "not given, and the model is no ARPA", MISSING, fix)
        return plan
    else:
        stamp = f"{model.absolute()} {model.stat().st_size}"
        step = Step("letter_lexicon.lst", "letter lexicon", stamp, 0, partial(write_letter_lexicon, model))
        lexicon = plan.add(step, "lines 'WORD<tab>W O R D |'")
    plan.set("lexicon", lexicon)
    return plan


class LibriSpeech:
    """A LibriSpeech folder and the audio of its splits, relative to it."""

    def __init__(self, folder: Path, splits: tuple[str, ...]) -> None:
        self.folder = folder
        self.files = {split: [f"{split}/{name}" for name in audio_below(folder / split, ".flac")] for split in splits}


def look(plan: Plan, roots: Roots, name: str, splits: tuple[str, ...]) -> LibriSpeech | None:
    given = roots[name][0]
    folder = locate(given, splits)
    if folder is None:
        found = "no such folder" if not given.is_dir() else "none of these folders"
        plan.note(str(given), ", ".join(splits), found, MISSING, "give the folder LibriSpeech of the unpacked archives")
        return None
    corpus = LibriSpeech(folder, splits)
    for split, files in corpus.files.items():
        if not files and split in WELCOME:
            plan.note(split, "for evaluating on it", "not there", DIFFERS, f"only needed for -t {split}")
            continue
        plan.count(split, len(files), LIBRISPEECH.counts[split], "flac files")
        if files:
            _look_at_transcripts(plan, folder, split, files)
    return corpus


def _look_at_transcripts(plan: Plan, folder: Path, split: str, files: list[str]) -> None:
    spoken = {Path(file).stem for file in files}
    written = set(read_transcripts(folder / split))
    silent = sorted(spoken - written)
    if silent:
        found = f"{len(silent)} files without a line: {named(silent)}"
        plan.note(f"transcripts of {split}", "a line in SPEAKER-CHAPTER.trans.txt for each", found, MISSING,
                  "unpack the archive again")  # fmt: skip


def _length_table(folder: Path, split: str, files: list[str]) -> Step:
    stamp = f"{folder.absolute()} {len(files)} files"
    make = partial(write_length_table, folder, files)
    return Step(f"len_for_bucket/{split}.csv", f"lengths of {split}", stamp, len(files), make)


def write_length_table(folder: Path, files: list[str], work: Path, bar: tqdm) -> Path:
    """Write the table that s3prl's ASR takes its batches from, longest first; columns ``file_path,length,label``.

    Args:
        folder: LibriSpeech's.
        files: audio, relative to it.
        work: folder to write to; it also keeps the lengths that were read, for a run that is interrupted.
        bar: progress, one for each file.

    Returns:
        The table.

    Raises:
        PrepareError: a file is not at 16 kHz, which s3prl refuses when it reads it.
        ValueError: a file is no audio.
    """
    kept = work / "lengths.tsv"
    lengths = _read_lengths(kept)
    todo = [file for file in files if file not in lengths]
    bar.update(len(files) - len(todo))
    with kept.open("a", encoding="utf-8") as stream:
        for number, (file, info) in enumerate(zip(todo, mapped(lambda f: audio_info(folder / f), todo)), start=1):
            if info.sample_rate_hz != SAMPLE_RATE_HZ:
                raise PrepareError(
                    f"{folder / file} is at {info.sample_rate_hz} Hz; LibriSpeech is at {SAMPLE_RATE_HZ} Hz"
                )
            lengths[file] = info.num_frames
            stream.write(f"{file}\t{info.num_frames}\n")
            if number % _FLUSH_EVERY == 0:
                stream.flush()
            bar.update()
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    table.writerow(["", "file_path", "length", "label"])
    ordered = sorted(files, key=lambda file: (-lengths[file], file))
    table.writerows([number, file, lengths[file], ""] for number, file in enumerate(ordered))
    return write_text(work / "result", text.getvalue())


def _read_lengths(kept: Path) -> dict[str, int]:
    """Lengths read before; the last line may have been broken off."""
    if not kept.is_file():
        return {}
    text = kept.read_text(encoding="utf-8")
    whole = text[: text.rfind("\n") + 1]
    if whole != text:
        write_text(kept, whole)
    return {file: int(frames) for file, frames in (line.split("\t") for line in whole.splitlines())}


def _is_arpa(model: Path) -> bool:
    try:
        with _open(model) as lines:
            return any(line.strip() == "\\data\\" for _, line in zip(range(20), lines))
    except (OSError, UnicodeDecodeError):
        return False


def _open(model: Path) -> io.TextIOBase:
    return gzip.open(model, "rt", encoding="utf-8") if model.suffix == ".gz" else model.open(encoding="utf-8")


def _words_of(model: Path) -> Iterator[str]:
    inside = False
    with _open(model) as lines:
        for line in lines:
            if line.startswith("\\"):
                if inside:
                    return
                inside = line.strip() == "\\1-grams:"
            elif inside and line.strip():
                yield line.split("\t")[1].strip()


def write_letter_lexicon(model: Path, work: Path, bar: tqdm) -> Path:
    """Write the spelling of every word of an ARPA language model, as the decoder reads it: ``WORD<tab>W O R D |``.

    Args:
        model: the language model, plain or gzipped.
        work: folder to write to.
        bar: progress, one for each word.

    Returns:
        The file.

    Raises:
        PrepareError: the model has no words.
    """
    lines = []
    for word in _words_of(model):
        if not word.startswith("<"):
            lines.append(f"{word}\t{' '.join(word)} |")
            bar.update()
    if not lines:
        raise PrepareError(f"{model} has no words in its section \\1-grams:; is it an ARPA language model?")
    return write_text(work / "result", "\n".join(lines) + "\n")


LIBRISPEECH_LAYOUT = "LibriSpeech: SPLIT/SPEAKER/CHAPTER/*.flac and *.trans.txt"
ASR = Recipe((Input("libri_root", LIBRISPEECH_LAYOUT),), plan_asr)
ASR_LM = Recipe(
    (
        Input("libri_root", LIBRISPEECH_LAYOUT),
        Input("kenlm_model", "4-gram.arpa.gz, 4-gram.arpa or its KenLM binary"),
        Input("lexicon", "letter lexicon; default: made from the words of the model", required=False),
    ),
    plan_asr_lm,
)
