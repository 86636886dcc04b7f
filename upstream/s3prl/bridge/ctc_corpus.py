"""The data sets of PR and SF: ``s3prl.downstream.ctc.corpus`` was left out of the s3prl package.

Both serve s3prl's own loader (``s3prl/downstream/ctc/data.py``): items are sorted by the number of labels, longest
first, and with a bucket size above one an index yields the bucket that starts there.
"""

from __future__ import annotations

import importlib.util
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from torch.utils.data import Dataset

from robustdistiller.common.files import read_text
from robustdistiller.upstream.s3prl.bridge.shim import Shim, register_module

logger = logging.getLogger(__name__)

Item = tuple[str, list[int]]


class _BucketDataset(Dataset):
    def __init__(self, items: list[Item], bucket_size: int) -> None:
        # Stable: items of equal length stay in path order, so buckets do not depend on the file system.
        self.items = sorted(items, key=lambda item: -len(item[1]))
        self.bucket_size = bucket_size

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, index: int) -> Item | list[Item]:
        if self.bucket_size <= 1:
            return self.items[index]
        start = max(0, min(len(self.items) - self.bucket_size, index))
        return self.items[start : start + self.bucket_size]


def read_lexicon(paths: Sequence[str | Path], phonemes: Mapping[str, Any]) -> dict[str, list[str]]:
    """Read ``WORD PH PH ...`` lines; the first pronunciation of a word counts.

    Args:
        paths: lexicon files, in order of priority.
        phonemes: the known phoneme symbols.

    Raises:
        FileNotFoundError: a lexicon is missing or none was given.
        ValueError: a file is no text, or a line uses an unknown phoneme (file, line and symbol are named).

    Example:
        >>> import tempfile
        >>> with tempfile.NamedTemporaryFile("w", suffix=".txt") as file:
        ...     print("THE DH AH0\\nTHE DH IY1", file=file, flush=True)
        ...     read_lexicon([file.name], {"DH": 0, "AH0": 1, "IY1": 2})
        {'THE': ['DH', 'AH0']}
    """
    if not paths:
        raise FileNotFoundError(
            "PR needs a pronunciation lexicon: found none, expected files of lines 'WORD PH PH ...'. "
            "Give config.downstream_expert.corpus.lexicon=['FILE', ...]."
        )
    lexicon: dict[str, list[str]] = {}
    for path in paths:
        if not Path(path).is_file():
            raise FileNotFoundError(f"No such lexicon: {str(path)!r} (config.downstream_expert.corpus.lexicon).")
        for number, line in enumerate(read_text(path).splitlines(), start=1):
            word, *symbols = line.split() or [""]
            unknown = [symbol for symbol in symbols if symbol not in phonemes]
            if unknown:
                raise ValueError(
                    f"Unknown phoneme {unknown[0]!r} for the word {word!r} in {path}, line {number}; expected "
                    f"one of the {len(phonemes)} symbols of config.downstream_expert.text.vocab_file."
                )
            if word:
                lexicon.setdefault(word, symbols)
    return lexicon


def read_transcripts(folder: Path) -> dict[str, str]:
    """All LibriSpeech transcripts below ``folder``: utterance id to text.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     _ = (Path(folder) / "11-7.trans.txt").write_text("11-7-0000 THE CAT\\n")
        ...     read_transcripts(Path(folder))
        {'11-7-0000': 'THE CAT'}
    """
    transcripts = {}
    for path in sorted(folder.rglob("*.trans.txt")):
        for line in read_text(path).splitlines():
            utterance_id, _, text = line.partition(" ")
            transcripts[utterance_id] = text
    return transcripts


class LibriPhoneDataset(_BucketDataset):
    """LibriSpeech with phoneme labels (PR).

    Args:
        split: folders below ``path``, for example ``["train-clean-100"]``.
        tokenizer: s3prl text encoder of mode ``word`` over the phonemes.
        bucket_size: items per bucket.
        path: LibriSpeech root.
        lexicon: files for :func:`read_lexicon`.

    Raises:
        FileNotFoundError: a split holds no ``.flac`` file, or no lexicon.
        ValueError: words without a pronunciation (they are listed), or audio without a transcript.
    """

    def __init__(
        self,
        split: Sequence[str],
        tokenizer: Any,
        bucket_size: int,
        path: str,
        lexicon: Sequence[str] | str,
        **_ignored: object,
    ) -> None:
        files = [lexicon] if isinstance(lexicon, str) else list(lexicon or [])
        pronunciations = read_lexicon(files, tokenizer._vocab2idx)
        texts: dict[str, str] = {}
        for name in split:
            folder = Path(path) / name
            transcripts = read_transcripts(folder)
            audio = sorted(folder.rglob("*.flac"))
            if not audio:
                raise FileNotFoundError(f"No .flac file below {str(folder)!r}; expected SPEAKER/CHAPTER/*.flac.")
            silent = [file for file in audio if file.stem not in transcripts]
            if silent:
                raise ValueError(f"{len(silent)} files have no line in a *.trans.txt, the first is {str(silent[0])!r}.")
            texts.update({str(file): transcripts[file.stem] for file in audio})
        unknown = sorted({word for text in texts.values() for word in text.split()} - pronunciations.keys())
        if unknown:
            shown = ", ".join(unknown[:20]) + (" ..." if len(unknown) > 20 else "")
            raise ValueError(
                f"{len(unknown)} words of {list(split)} have no pronunciation in {files}: {shown}. "
                "Add them to a lexicon file (SUPERB adds grapheme-to-phoneme output for them)."
            )
        super().__init__(
            [
                (file, tokenizer.encode(" ".join(p for word in text.split() for p in pronunciations[word])))
                for file, text in texts.items()
            ],
            bucket_size,
        )


class SnipsDataset(_BucketDataset):
    """Audio SNIPS with character and slot labels (SF).

    Args:
        split: folders below ``path``, for example ``["train"]``; the first one names the ``{split}_speakers`` list.
        tokenizer: s3prl text encoder; the slot modes read ``all.iob.snips.txt``, others ``all-trans.txt``.
        bucket_size: items per bucket.
        path: Audio SNIPS root.
        speakers: ``train_speakers``, ``valid_speakers``, ``test_speakers``: names that start the file names.

    Raises:
        FileNotFoundError: the label file is missing or a split holds no labelled audio of its speakers.
        KeyError: no speaker list for the split.
    """

    def __init__(self, split: Sequence[str], tokenizer: Any, bucket_size: int, path: str, **speakers: Any) -> None:
        names = tuple(speakers[f"{split if isinstance(split, str) else split[0]}_speakers"])
        labels = Path(path) / ("all.iob.snips.txt" if "-slot" in tokenizer.token_type else "all-trans.txt")
        if not labels.is_file():
            raise FileNotFoundError(f"No such label file: {str(labels)!r}.")
        texts = {}
        for line in labels.read_text(encoding="utf-8").splitlines():
            utterance_id, _, text = line.strip().partition(" ")
            texts[utterance_id] = text
        items: list[Item] = []
        for folder in [split] if isinstance(split, str) else split:
            audio = sorted((Path(path) / folder).rglob("*.wav"))
            chosen = [file for file in audio if file.stem in texts and file.stem.startswith(names)]
            if not chosen:
                raise FileNotFoundError(
                    f"No labelled .wav file of the speakers {', '.join(names)} below {str(Path(path) / folder)!r} "
                    f"({len(audio)} .wav files found)."
                )
            unlabelled = sum(file.stem not in texts for file in audio)
            if unlabelled:
                logger.warning("%d of %d files in %s have no label and are left out", unlabelled, len(audio), folder)
            items += [(str(file), tokenizer.encode(texts[file.stem])) for file in chosen]
        super().__init__(items, bucket_size)


def bridge_ctc_corpus() -> Shim:
    """``s3prl.downstream.ctc.corpus``: in s3prl's git tree, not in its package."""
    name = "s3prl.downstream.ctc.corpus"
    spec = importlib.util.find_spec("s3prl")
    for location in (spec.submodule_search_locations or []) if spec else []:
        if (Path(location) / "downstream/ctc/corpus/libriphone.py").is_file():
            return Shim(name, False, "this s3prl installation has it")
    register_module(name)
    register_module(f"{name}.libriphone", LibriPhoneDataset=LibriPhoneDataset)
    register_module(f"{name}.snips", SnipsDataset=SnipsDataset)
    return Shim(name, True, "left out of the s3prl package; PR and SF read their data through it")
