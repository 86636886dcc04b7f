"""Heads of speech and phone recognition on kept features: frame by frame, so the head itself is what remains."""

from __future__ import annotations

from pathlib import Path

from research.bench.feature_cache import EXPERT, Heads, distilhubert_shaped
from research.bench.settings import Findings, Settings
from robustdistiller import mini
from robustdistiller.upstream.s3prl import bridge


def run(settings: Settings) -> Findings:
    """Training steps of the ASR head (two LSTM layers) and of the PR head (linear), with and without a cache."""
    bridge.install()
    corpus = mini.build(settings.work / "corpus")
    heads = Heads(settings, corpus, distilhubert_shaped(settings))
    batch = 4 if settings.quick else 16
    asr = {f"{EXPERT}.datarc.batch_size": batch}
    comparisons = (
        heads.steps(f"PR, training step of {batch} utterances", "PR", _phones(corpus, settings.work, batch), 4),
        heads.steps(f"ASR, training step of {batch} utterances", "asr", asr, 2),
    )
    text = (
        "What is left of a step of speech recognition is its head, two bidirectional LSTM layers of 1024; that of "
        "phone recognition is linear. The speech is the mini corpus' prompts, and the pronunciations are made up.",
    )
    return Findings(comparisons, text=text)


def _phones(corpus: mini.MiniCorpus, folder: Path, batch: int) -> dict[str, object]:
    """Options for phone recognition on the mini corpus' prompts, with a lexicon that gives each word two phones."""
    spoken = Path(corpus.overrides("asr")[f"{EXPERT}.datarc.libri_root"])
    lines = [line for file in spoken.rglob("*.trans.txt") for line in file.read_text(encoding="utf-8").splitlines()]
    words = sorted({word for line in lines for word in line.split()[1:]})
    phones = ("AA1", "B", "IY1", "K", "S", "T")
    lexicon = folder / "lexicon.txt"
    pairs = (f"{word} {phones[i % 6]} {phones[i // 6 % 6]}" for i, word in enumerate(words))
    lexicon.write_text("\n".join(pairs) + "\n", encoding="utf-8")
    corpus_options = {"path": str(spoken), "lexicon": [str(lexicon)], "batch_size": batch}
    return {f"{EXPERT}.corpus.{key}": value for key, value in corpus_options.items()}
