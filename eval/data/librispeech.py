"""LibriSpeech (ASR, PR): transcripts, tables of lengths, the language model's letter lexicon, pronunciations."""

from __future__ import annotations

import csv
import gzip
import io
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from tqdm import tqdm

from robustdistiller.acoustics.audio.files import audio_info
from robustdistiller.common.files import write_text
from robustdistiller.eval.data.archives import OPENSLR, Archive
from robustdistiller.eval.data.build import mapped
from robustdistiller.eval.data.checks import Where, audio_below, beside
from robustdistiller.eval.data.plan import DIFFERS, MISSING, OK, UNPACK_AGAIN, Input, Plan, PrepareError, Recipe, Roots
from robustdistiller.eval.tasks.corpora import LIBRISPEECH

MODEL = "4-gram.arpa.gz"
NEEDED, WELCOME = ("train-clean-100", "dev-clean", "test-clean"), ("dev-other", "test-other")
SAMPLE_RATE_HZ = 16000
LAYOUT = "LibriSpeech: SPLIT/SPEAKER/CHAPTER/*.flac and *.trans.txt"
_SPELLING = "lines 'WORD<tab>W O R D |'"
_FLUSH_EVERY = 500
#: MD5 as of openslr.org/resources/12/md5sum.txt, and size in GB.
_OPENSLR = {
    "train-clean-100": ("2a93770f6d5c6c964bc36631d331a522", 6.39),
    "dev-clean": ("42e2234ba48799c1f50f24a7926300a1", 0.34),
    "test-clean": ("32fa31d27d2e1cad72775fee3f4849a9", 0.35),
}
ARCHIVES = tuple(
    Archive(
        f"{OPENSLR}/12/{part}.tar.gz",
        checksum=f"md5:{md5}",
        size_gb=size_gb,
        unpacked_gb=1.02 * size_gb,
        folder=f"LibriSpeech/{part}",
        files=LIBRISPEECH.counts[part],
    )
    for part, (md5, size_gb) in _OPENSLR.items()
)


@dataclass(frozen=True)
class Split:
    """The audio of a split is counted, and each file has a line in a transcript.

    Attributes:
        name: e.g. ``dev-clean``.
        optional: what it is only needed for, where it may be left out.
    """

    name: str
    optional: str = ""

    def look(self, plan: Plan, folder: Path) -> list[str]:
        """Names of the audio files, relative to the corpus."""
        from robustdistiller.upstream.s3prl.bridge.ctc_corpus import read_transcripts  # imports torch

        files = audio_below(folder / self.name, ".flac")
        if self.optional and not files:
            plan.note(self.name, "for evaluating on it", "not there", DIFFERS, self.optional)
            return []
        plan.count(self.name, len(files), LIBRISPEECH.counts[self.name], "flac files")
        if files:
            silent = sorted({Path(file).stem for file in files} - set(read_transcripts(folder / self.name)))
            expected, found = "a line in SPEAKER-CHAPTER.trans.txt for each", "{count} files without a line: {names}"
            plan.odd(f"transcripts of {self.name}", expected, silent, found, UNPACK_AGAIN)
        return [f"{self.name}/{name}" for name in files]


NEEDED_SPLITS = tuple(Split(name) for name in NEEDED)
ALL_SPLITS = (*NEEDED_SPLITS, *(Split(name, f"only needed for -t {name}") for name in WELCOME))


def where(splits: tuple[Split, ...]) -> Where:
    """The folder that holds some splits."""
    names, fix = tuple(split.name for split in splits), "give the folder LibriSpeech of the unpacked archives"
    return Where(names, ", ".join(names), "none of these folders", fix)


def _plan_asr(plan: Plan, roots: Roots) -> None:
    folder = plan.find(roots["libri_root"][0], where(ALL_SPLITS))
    if folder is None:
        return
    for split, files in zip(ALL_SPLITS, plan.look(folder, *ALL_SPLITS)):
        if files:
            stamp, make = f"{folder.absolute()} {len(files)} files", partial(write_length_table, folder, files)
            target, title = f"len_for_bucket/{split.name}.csv", f"lengths of {split.name}"
            plan.add(target, title, f"{len(files)} lengths", make, len(files), stamp)
    plan.set("libri_root", folder)
    plan.set("bucket_file", plan.out / "len_for_bucket")


def _plan_asr_lm(plan: Plan, roots: Roots) -> None:
    _plan_asr(plan, roots)
    expected = "LibriSpeech's 4-gram language model"
    given = roots.get("kenlm_model") or beside(roots["libri_root"][0], (MODEL,))
    if not given:
        plan.note("language model", expected, "not given", MISSING, f"--root kenlm_model={MODEL} (openslr.org/11)")
        return
    model = given[0]
    if not model.is_file():
        plan.note("language model", expected, f"no file {model}", MISSING, "get it from openslr.org/11")
        return
    plan.note("language model", expected, model.name, OK)
    plan.set("kenlm_model", model)
    if roots.get("lexicon"):
        lexicon = roots["lexicon"][0]
        found = lexicon.is_file()
        fix = "" if found else "leave it out: it is made from the words of the language model"
        plan.note("letter lexicon", _SPELLING, str(lexicon), OK if found else MISSING, fix)
    elif not _is_arpa(model):
        fix = "--root lexicon=FILE, or give the model as ARPA, from whose words it can be made"
        plan.note("letter lexicon", _SPELLING, "not given, and the model is no ARPA", MISSING, fix)
        return
    else:
        stamp = f"{model.absolute()} {model.stat().st_size}"
        make = partial(write_letter_lexicon, model)
        lexicon = plan.add("letter_lexicon.lst", "letter lexicon", _SPELLING, make, 0, stamp)
    plan.set("lexicon", lexicon)


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
                found = f"{folder / file} is at {info.sample_rate_hz} Hz"
                raise PrepareError(f"{found}; LibriSpeech is at {SAMPLE_RATE_HZ} Hz")
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


def _read_lengths(kept: Path) -> Mapping[str, int]:
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


ASR = Recipe((Input("libri_root", LAYOUT),), _plan_asr, ARCHIVES)
ASR_LM = Recipe(
    (
        Input("libri_root", LAYOUT),
        Input("kenlm_model", f"{MODEL} (default: in the folder or beside it), 4-gram.arpa or its KenLM binary"),
        Input("lexicon", "letter lexicon; default: made from the words of the model", required=False),
    ),
    _plan_asr_lm,
    (*ARCHIVES, Archive(f"{OPENSLR}/11/{MODEL}", size_gb=1.4)),
)
