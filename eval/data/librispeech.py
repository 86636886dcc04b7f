"""LibriSpeech (ASR, PR): transcripts, tables of lengths, the language model's letter lexicon."""

from __future__ import annotations

import gzip
import io
from collections.abc import Iterator, Sequence
from functools import partial
from itertools import islice
from pathlib import Path

from tqdm import tqdm

from robustdistiller.acoustics.audio.files import audio_info
from robustdistiller.common.audio import SAMPLE_RATE_HZ
from robustdistiller.common.files import write_text
from robustdistiller.eval.data.archives import LANGUAGE_MODEL
from robustdistiller.eval.data.build import mapped
from robustdistiller.eval.data.checks import audio_below, beside, find
from robustdistiller.eval.data.plan import DIFFERS, MISSING, OK, UNPACK_AGAIN, Plan, PrepareError, Recipe, Roots
from robustdistiller.eval.tasks.corpora import LIBRISPEECH

NEEDED, WELCOME = ("train-clean-100", "dev-clean", "test-clean"), ("dev-other", "test-other")
LAYOUT = "LibriSpeech: SPLIT/SPEAKER/CHAPTER/*.flac and *.trans.txt"
_SPELLING = "lines 'WORD<tab>W O R D |'"


def find_librispeech(plan: Plan, given: Path, splits: Sequence[str]) -> Path:
    """The folder that holds some splits."""
    return find(plan, given, splits, ", ".join(splits), "give the folder LibriSpeech of the unpacked archives")


def look_at_split(plan: Plan, folder: Path, split: str) -> list[str]:
    """Names of a split's audio files, relative to the corpus; they are counted, and each has a line in a transcript."""
    from robustdistiller.upstream.s3prl.bridge.ctc_corpus import read_transcripts  # imports torch

    files = audio_below(folder / split, ".flac")
    if split in WELCOME and not files:
        plan.note(split, "for evaluating on it", "not there", DIFFERS, f"only needed for -t {split}")
        return []
    plan.count(split, len(files), LIBRISPEECH.counts[split], "flac files")
    silent = sorted({Path(file).stem for file in files} - set(read_transcripts(folder / split)))
    expected, found = "a line in SPEAKER-CHAPTER.trans.txt for each", "{count} files without a line: {names}"
    plan.odd(f"transcripts of {split}", expected, silent, found, UNPACK_AGAIN)
    return [f"{split}/{name}" for name in files]


def _plan_asr(plan: Plan, roots: Roots) -> None:
    folder = find_librispeech(plan, roots["libri_root"][0], (*NEEDED, *WELCOME))
    for split in (*NEEDED, *WELCOME):
        if files := look_at_split(plan, folder, split):
            stamp, make = f"{folder.absolute()} {len(files)} files", partial(write_length_table, folder, files)
            target, title = f"len_for_bucket/{split}.csv", f"lengths of {split}"
            plan.add(target, title, f"{len(files)} lengths", make, len(files), stamp)
    plan.set("libri_root", folder)
    plan.set("bucket_file", plan.out / "len_for_bucket")


def _plan_asr_lm(plan: Plan, roots: Roots) -> None:
    given = roots.get("kenlm_model") or beside(roots["libri_root"][0], (LANGUAGE_MODEL,))
    there = bool(given) and given[0].is_file()
    found = given[0].name if there else f"no file {given[0]}" if given else "not given"
    fix = "" if there else f"--root kenlm_model={LANGUAGE_MODEL} (openslr.org/11)"
    plan.note("language model", "LibriSpeech's 4-gram language model", found, OK if there else MISSING, fix)
    if there:
        plan.set("kenlm_model", given[0])
        _plan_lexicon(plan, given[0], roots.get("lexicon"))
    _plan_asr(plan, roots)


def _plan_lexicon(plan: Plan, model: Path, given: Sequence[Path] | None) -> None:
    """The letter lexicon of a language model, which is made from its words where none was given."""
    if given:
        found = given[0].is_file()
        fix = "" if found else "leave it out: it is made from the words of the language model"
        plan.note("letter lexicon", _SPELLING, str(given[0]), OK if found else MISSING, fix)
        plan.set("lexicon", given[0])
    elif _is_arpa(model):
        stamp, make = f"{model.absolute()} {model.stat().st_size}", partial(write_letter_lexicon, model)
        plan.set("lexicon", plan.add("letter_lexicon.lst", "letter lexicon", _SPELLING, make, 0, stamp))
    else:
        fix = "--root lexicon=FILE, or give the model as ARPA, from whose words it can be made"
        plan.note("letter lexicon", _SPELLING, "not given, and the model is no ARPA", MISSING, fix)


def write_length_table(folder: Path, files: Sequence[str], result: Path, bar: tqdm) -> None:
    """Write the table that s3prl's ASR takes its batches from, longest first; columns ``file_path,length,label``.

    Raises:
        PrepareError: a file is not at 16 kHz, which s3prl refuses when it reads it.
        ValueError: a file is no audio.
    """
    import pandas as pd

    lengths = []
    for file, info in zip(files, mapped(lambda name: audio_info(folder / name), files)):
        if info.sample_rate_hz != SAMPLE_RATE_HZ:
            found = f"{folder / file} is at {info.sample_rate_hz} Hz"
            raise PrepareError(f"{found}; LibriSpeech is at {SAMPLE_RATE_HZ} Hz")
        lengths.append(info.num_frames)
        bar.update()
    table = pd.DataFrame({"file_path": files, "length": lengths, "label": ""})
    table = table.sort_values(["length", "file_path"], ascending=[False, True], ignore_index=True)
    write_text(result, table.to_csv(lineterminator="\n"))


def _is_arpa(model: Path) -> bool:
    try:
        with _open(model) as lines:
            return any(line.strip() == "\\data\\" for line in islice(lines, 20))
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


def write_letter_lexicon(model: Path, result: Path, bar: tqdm) -> None:
    """Write the spelling of every word of an ARPA language model, as the decoder reads it: ``WORD<tab>W O R D |``.

    Raises:
        PrepareError: the model has no words.
    """
    lines = []
    for word in _words_of(model):
        if not word.startswith("<"):
            lines.append(f"{word}\t{' '.join(word)} |\n")
            bar.update()
    if not lines:
        raise PrepareError(f"{model} has no words in its section \\1-grams:; is it an ARPA language model?")
    write_text(result, "".join(lines))


ASR = Recipe({"libri_root": LAYOUT}, _plan_asr)
ASR_LM = Recipe(
    {
        "libri_root": LAYOUT,
        "kenlm_model": f"{LANGUAGE_MODEL} (default: in the folder or beside it), 4-gram.arpa or its KenLM binary",
        "lexicon": "letter lexicon; default: made from the words of the model",
    },
    _plan_asr_lm,
)
