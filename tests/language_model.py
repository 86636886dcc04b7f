"""A bigram and its lexicon for the words of the toy corpus of speech recognition."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from robustdistiller.eval.check.toy_corpora import EXPERT, text


def asr_language_model(root: Path) -> dict[str, Any]:
    """A bigram over the words of :func:`librispeech` and their spelling, for decoding with ASR-LM."""
    words = ("A", "CAT", "IT'S", "MAT", "SAT", "THE")
    unigrams = [f"-1.0\t{word}\t-0.3" for word in ("<unk>", *words)] + ["-99\t<s>\t-0.3", "-1.0\t</s>"]
    bigrams = [f"-0.5\t{first} {second}" for first, second in (("THE", "CAT"), ("CAT", "SAT"), ("<s>", "THE"))]
    counts = [f"ngram 1={len(unigrams)}", f"ngram 2={len(bigrams)}"]
    arpa = ["\\data\\", *counts, "", "\\1-grams:", *unigrams, "", "\\2-grams:", *bigrams, "", "\\end\\"]
    return {
        f"{EXPERT}.datarc.decoder_args.kenlm_model": str(text(root / "2-gram.arpa", *arpa)),
        f"{EXPERT}.datarc.decoder_args.lexicon": str(
            text(root / "lexicon.lst", *(f"{word}\t{' '.join(word)} |" for word in words))
        ),
    }
