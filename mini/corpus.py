"""The embedded default: where the shipped data and teacher are, and the corpus built from them.

`build` unpacks the shipped recordings into the folders that distillation reads (clean pool, noise, room responses) and
the layouts that unchanged s3prl reads (`layouts`).
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import soundfile
from tqdm import tqdm

from robustdistiller.common.audio import SAMPLE_RATE_HZ
from robustdistiller.common.process import terminate_like_interrupt

from . import layouts, tasks
from .bopomofo import parse_syllable
from .pack import SYLLABLE_VOICE, Utterance, is_speech, read_audio, read_pack, read_rows, read_table

logger = logging.getLogger(__name__)

LAYOUT_VERSION = 3  # raise when `build` writes anything else than before
STAMP = "corpus.json"
# Learning rates of heads.
_RATES = {"fluent_commands": 2e-2, "words": 1e-2, "voices": 1e-2, "initials": 1e-2, "finals": 1e-2, "tones": 3e-2}


def data_dir() -> Path:
    """Folder of the shipped recordings, tables and their LICENSES.md.

    >>> (data_dir() / "LICENSES.md").is_file()
    True
    """
    return Path(__file__).resolve().parent / "data"


def teacher_checkpoint() -> Path:
    """The shipped mini teacher, a checkpoint of this project's own format.

    >>> teacher_checkpoint().name
    'teacher.ckpt'
    """
    return Path(__file__).resolve().parent / "teacher" / "teacher.ckpt"


def student_checkpoint() -> Path:
    """A student of the mini teacher by the recipe `ours`, trained for longer than the quickstart trains its own.

    >>> student_checkpoint().name
    'student.ckpt'
    """
    return Path(__file__).resolve().parent / "teacher" / "student.ckpt"


@dataclass(frozen=True)
class MiniCorpus:
    """Folders of a built corpus; see `build`.

    Attributes:
        root: the folder given to `build`.

    >>> MiniCorpus(Path("exp/mini")).rir_test.as_posix()
    'exp/mini/rir/test'
    """

    root: Path

    @property
    def pool(self) -> Path:
        """Clean training speech (`VOICE/UTTERANCE.flac`), without any dev or test utterance."""
        return self.root / "pool"

    @property
    def noise_train(self) -> Path:
        """Training noise and music (`KIND/NAME.flac`)."""
        return self.root / "noise" / "train"

    @property
    def noise_test(self) -> Path:
        """Test noise, from other sources than the training noise."""
        return self.root / "noise" / "test" / "noise"

    @property
    def rir_train(self) -> Path:
        """Training room responses, with `rir.tsv` describing them."""
        return self.root / "rir" / "train"

    @property
    def rir_test(self) -> Path:
        """Test room responses: other rooms than in training."""
        return self.root / "rir" / "test"

    @property
    def syllables(self) -> Path:
        """Root in the Fluent Speech Commands layout: initial, final and tone of Mandarin syllables."""
        return self.root / "syllables"

    @property
    def prompts(self) -> Path:
        """Root in the LibriSpeech layout: English telephone prompts."""
        return self.root / "prompts"

    @property
    def prompts_bucket(self) -> Path:
        """s3prl's length tables (`SPLIT.csv`) for `prompts`."""
        return self.root / "prompts" / "len_for_bucket"

    @property
    def tasks(self) -> dict[str, Path]:
        """Tables of recordings and labels, by the name of the task: ``initials``, ``finals`` and ``tones`` of the
        syllables, ``voices``, and ``words``. Each path is a task to `evaluate` and to a sweep."""
        return {
            name: self.root / "tasks" / f"{name}.csv" for name in ("initials", "finals", "tones", "voices", "words")
        }

    def counts(self) -> dict[str, dict[str, int]]:
        """Utterances (or files) of each part and split, as written by `build`."""
        return json.loads((self.root / STAMP).read_text(encoding="utf-8"))["counts"]

    def overrides(self, downstream: str) -> dict[str, str]:
        """The s3prl options (`-o`) that point a downstream task at this corpus.

        Raises:
            ValueError: the corpus has no layout for that task.

        >>> list(MiniCorpus(Path("mini")).overrides("fluent_commands"))
        ['config.downstream_expert.datarc.file_path']
        """
        prefix = "config.downstream_expert.datarc"
        options = {
            "fluent_commands": {"file_path": self.syllables},
            "asr": {"libri_root": self.prompts, "bucket_file": self.prompts_bucket},
        }
        if downstream not in options:
            raise ValueError(f"the mini corpus has no data for the task {downstream!r}; it has {', '.join(options)}")
        return {f"{prefix}.{key}": str(path) for key, path in options[downstream].items()}

    def head_options(self, downstream: str) -> dict[str, object]:
        """s3prl options with which a head of that task trains well on this little data.

        The learning rate of `fluent_commands` was chosen with test scores in sight, so that its scores compare
        upstreams and do not estimate new data; that of a table is the best of three on the development set, of the
        shipped teacher.

        The learning rate falls linearly to zero, so the last checkpoint is the one to evaluate: with a constant rate
        the accuracy still moves by several points from one checkpoint to the next.

        Raises:
            ValueError: no options were worked out for that task.

        >>> MiniCorpus(Path("mini")).head_options("fluent_commands")["config.runner.total_steps"]
        600
        """
        if downstream not in _RATES:
            raise ValueError(f"no tuned head options for the task {downstream!r}, only for {', '.join(_RATES)}")
        return {
            "config.runner.total_steps": 600,
            "config.optimizer.lr": _RATES[downstream],
            "config.scheduler": {"name": "linear_schedule_with_warmup", "num_warmup_steps": 40},
        }


def build(out_dir: Path | str, progress: bool = False) -> MiniCorpus:
    """Builds the mini corpus in `out_dir`, or returns at once if it is already there.

    The folder is written under another name beside `out_dir` and renamed when complete, so that an interrupted build
    leaves nothing that looks finished. A corpus built from other data or by another version is replaced.

    Args:
        out_dir: folder to make (about 200 MB; 25 s of CPU time).
        progress: show a progress bar.

    Raises:
        FileExistsError: `out_dir` holds something else.

    >>> Path("notes").mkdir()
    >>> Path("notes/monday.txt").touch()
    >>> build("notes")  # never overwrites what is not a mini corpus
    Traceback (most recent call last):
    FileExistsError: ...notes exists and is no mini corpus (it has no corpus.json of one); give an empty or new folder
    """
    corpus = MiniCorpus(Path(out_dir).resolve())
    stamp = {"layout_version": LAYOUT_VERSION, "data_digest": data_digest()}
    if corpus.root.exists() and any(corpus.root.iterdir()):
        found = _stamp_in(corpus.root)
        if not stamp.keys() <= found.keys():
            raise FileExistsError(
                f"{corpus.root} exists and is no mini corpus (it has no {STAMP} of one); give an empty or new folder"
            )
        if all(found[key] == value for key, value in stamp.items()):
            return corpus
    corpus.root.parent.mkdir(parents=True, exist_ok=True)
    partial = MiniCorpus(corpus.root.with_name(f".{corpus.root.name}.partial-{os.getpid()}"))
    with terminate_like_interrupt():
        try:
            partial.root.mkdir()
            counts = _write(partial, progress)
            text = json.dumps({**stamp, "counts": counts}, indent=1)
            (partial.root / STAMP).write_text(text, encoding="utf-8")
            shutil.copy(data_dir() / "LICENSES.md", partial.root)
            if corpus.root.exists():
                shutil.rmtree(corpus.root)
            partial.root.replace(corpus.root)
        finally:
            shutil.rmtree(partial.root, ignore_errors=True)
    logger.info("mini corpus: %s", corpus.root)
    return corpus


def _stamp_in(folder: Path) -> dict[str, Any]:
    """What the stamp in a folder says; nothing where there is none, or none that can be read."""
    try:
        found = json.loads((folder / STAMP).read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def data_digest() -> str:
    """SHA-256 of the shipped tables and of the names and sizes of the recordings."""
    digest = hashlib.sha256()
    for path in sorted(data_dir().rglob("*")):
        if path.suffix == ".tsv":
            digest.update(path.read_bytes())
        elif path.is_file():
            digest.update(f"{path.name} {path.stat().st_size}\n".encode())
    return digest.hexdigest()


def file_stem(utterance: Utterance) -> str:
    """ASCII file name of an utterance, unique in the corpus.

    >>> from robustdistiller.mini.pack import read_pack
    >>> file_stem(next(utterance for utterance in read_pack(data_dir()) if utterance.language == "zh"))
    'b_a_tone1'
    """
    return parse_syllable(utterance.text).name if utterance.voice == SYLLABLE_VOICE else utterance.utterance_id


def _write(corpus: MiniCorpus, progress: bool) -> dict[str, dict[str, int]]:
    utterances, words = read_pack(data_dir()), read_table(data_dir() / "words.tsv")
    written = {}
    bar = tqdm(total=len(utterances), desc="mini corpus", unit="utterance", disable=not progress)
    for utterance, samples in read_audio(utterances):
        bar.update()
        if not is_speech(utterance, samples):
            continue
        path = corpus.root / "utterances" / utterance.voice / f"{file_stem(utterance)}.flac"
        path.parent.mkdir(parents=True, exist_ok=True)
        soundfile.write(path, samples, SAMPLE_RATE_HZ, compression_level=0.2)
        written[utterance] = path
    bar.close()
    counts = {
        "pool": _write_pool(corpus.pool, written),
        "syllables": layouts.write_syllables(corpus.syllables, written),
        "prompts": layouts.write_prompts(corpus.prompts, corpus.prompts_bucket, written),
        **tasks.write_tasks(corpus.root / "tasks", "syllables", tasks.syllable_clips(written)),
        **tasks.write_tasks(corpus.root / "tasks", "voices", tasks.voice_clips(written)),
        **tasks.write_tasks(corpus.root / "tasks", "words", tasks.word_clips(written, words)),
        "noise": _write_noise(corpus.root / "noise"),
        "rir": _write_rirs(corpus.root / "rir"),
    }
    shutil.rmtree(corpus.root / "utterances")
    return counts


def _write_pool(folder: Path, written: dict[Utterance, Path]) -> dict[str, int]:
    kept = [(utterance, path) for utterance, path in written.items() if utterance.split == "train"]
    for utterance, path in kept:
        layouts.link(path, folder / utterance.voice / path.name)
    return {"train": len(kept)}


def _write_noise(folder: Path) -> dict[str, int]:
    counts = {}
    for row, audio in read_rows(data_dir() / "noise", read_table(data_dir() / "noise.tsv")):
        path = folder / row["split"] / row["kind"] / f"{Path(row['name']).stem}.flac"
        path.parent.mkdir(parents=True, exist_ok=True)
        soundfile.write(path, audio, SAMPLE_RATE_HZ)
        name = f"{row['split']} {row['kind']}"
        counts[name] = counts.get(name, 0) + 1
    return counts


def _write_rirs(folder: Path) -> dict[str, int]:
    tables: dict[str, list[dict[str, str]]] = {}
    for row, audio in read_rows(data_dir(), read_table(data_dir() / "rir.tsv")):
        rows = tables.setdefault(row["split"], [])
        name = f"room{len(rows) + 1:03d}_rt60_{row['rt60_measured_s']}s.flac"
        path = folder / row["split"] / name
        path.parent.mkdir(parents=True, exist_ok=True)
        soundfile.write(path, audio, SAMPLE_RATE_HZ)
        kept = {key: value for key, value in row.items() if key not in ("file", "offset_samples", "split")}
        rows.append({"file": name, **kept})
    for split, rows in tables.items():
        layouts.write_table(folder / split / "rir.tsv", rows, delimiter="\t")
    return {split: len(rows) for split, rows in tables.items()}
