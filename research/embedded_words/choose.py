"""Chooses the words of the task among all that were placed, and cuts them."""

from __future__ import annotations

import hashlib
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from research.embedded_words.texts import same, spoken, words
from robustdistiller.common.audio import SAMPLE_RATE_HZ
from robustdistiller.mini.pack import Row, Utterance, read_audio

MOST_MOVED_S = 0.1
SHORTEST_S, LONGEST_S = 0.12, 1.2
SILENCE_DB = 35  # below the loudest 10 ms of the word
HOP_SAMPLES = 160
STEM_LETTERS = 6
#: Words that sound like another one of their language.
LEFT_OUT = {
    "en": {"for", "four", "to", "two", "too"},
    "es": set(),
    "fr": {"est", "et", "entrer", "entrez"},
    "ru": set(),
}


@dataclass(frozen=True)
class Choice:
    """What makes a word one of the task's.

    Attributes:
        letters: at least.
        median_s: of all that are said, at least: shorter words are hardly pronounced.
        train, dev, test: tokens in each split, at least.
        most_train, most_dev, most_test: tokens in each split, at most, so that no label is common.
        margin_s: of audio kept on either side of the word.
    """

    letters: int = 3
    median_s: float = 0.18
    train: int = 6
    dev: int = 0
    test: int = 2
    most_train: int = 80
    most_dev: int = 15
    most_test: int = 25
    margin_s: float = 0.05

    def least(self) -> dict[str, int]:
        """Tokens of a label by split."""
        return {"train": self.train, "dev": self.dev, "test": self.test}

    def most(self) -> dict[str, int]:
        """Tokens of a label by split."""
        return {"train": self.most_train, "dev": self.most_dev, "test": self.most_test}


def choose(placed: Iterable[Row], utterances: Sequence[Utterance], choice: Choice) -> tuple[list[Row], Counter]:
    """The rows of `words.tsv`, in the order of the pack, and how many words each check left out.

    Args:
        placed: rows of the table that `align` writes.
        utterances: the pack.
        choice: the rules.
    """
    by_id = {utterance.utterance_id: utterance for utterance in utterances}
    repeated = {one.utterance_id for one in repeated_elsewhere(utterances)}
    left_out, kept = Counter(), []
    for row in placed:
        utterance = by_id[row["utterance_id"]]
        if reason := _reason_against(row, utterance, repeated, choice):
            left_out[reason] += 1
        else:
            kept.append(row)
    cut = _cut(kept, by_id, choice)
    left_out["too short or too long"] = len(kept) - len(cut)
    labels = label_names((by_id[row["utterance_id"]].language, row["word"]) for row in cut)
    tokens: dict[str, dict[str, list[Row]]] = defaultdict(lambda: defaultdict(list))
    for row in cut:
        utterance = by_id[row["utterance_id"]]
        row["label"] = labels[utterance.language, row["word"]]
        tokens[row["label"]][utterance.split].append(row)
    chosen = []
    for by_split in tokens.values():
        everything = [row for rows in by_split.values() for row in rows]
        median_s = np.median([int(row["num_samples"]) for row in everything]) / SAMPLE_RATE_HZ - 2 * choice.margin_s
        if median_s < choice.median_s or any(len(by_split[key]) < least for key, least in choice.least().items()):
            left_out["rare or short words"] += len(everything)
            continue
        for split, most in choice.most().items():
            chosen += sorted(by_split[split], key=_drawn)[:most]
            left_out["more than enough of a word"] += max(0, len(by_split[split]) - most)
    order = {utterance.utterance_id: place for place, utterance in enumerate(utterances)}
    chosen.sort(key=lambda row: (order[row["utterance_id"]], int(row["position"])))
    columns = ("utterance_id", "word", "label", "offset_samples", "num_samples")
    return [{key: row[key] for key in columns} for row in chosen], left_out


def _reason_against(row: Row, utterance: Utterance, repeated: set[str], choice: Choice) -> str:
    if len(row["word"]) < choice.letters or row["word"] in LEFT_OUT[utterance.language]:
        return "short in letters, or like another"
    if utterance.utterance_id in repeated:
        return "the same text is in another split"
    if row["recognised"] != "1":
        return "not recognised"
    return "place not sure" if float(row["moved_s"]) > MOST_MOVED_S else ""


def _drawn(row: Row) -> str:
    return hashlib.md5(f"{row['utterance_id']} {row['position']}".encode(), usedforsecurity=False).hexdigest()


def repeated_elsewhere(utterances: Iterable[Utterance]) -> list[Utterance]:
    """The development and test utterances whose words are said in training too, and of dev those that are in test."""
    splits: dict[tuple[str, ...], set[str]] = defaultdict(set)
    texts = {}
    for utterance in utterances:
        text = spoken(utterance.text, utterance.language) if utterance.language in LEFT_OUT else None
        if text is not None:
            texts[utterance] = (utterance.language, *map(same, words(text)))
            splits[texts[utterance]].add(utterance.split)
    elsewhere = {"train": set(), "test": {"train"}, "dev": {"train", "test"}}
    return [utterance for utterance, text in texts.items() if elsewhere[utterance.split] & splits[text]]


def label_names(spoken_words: Iterable[tuple[str, str]]) -> dict[tuple[str, str], str]:
    """The label of each (language, word): forms that begin with the same six letters are one, called by the commonest.

    Languages stay apart: the French and the English word for a message are two.

    >>> label_names([("en", "message"), ("en", "messages"), ("en", "message"), ("fr", "message")])["en", "messages"]
    'en_message'
    """
    counts = Counter(spoken_words)
    names: dict[tuple[str, str], str] = {}
    for (language, word), _ in sorted(counts.items(), key=lambda item: (-item[1], item[0])):
        names.setdefault((language, same(word)[:STEM_LETTERS]), f"{language}_{same(word)}")
    return {(language, word): names[language, same(word)[:STEM_LETTERS]] for language, word in counts}


def _cut(rows: Sequence[Row], by_id: Mapping[str, Utterance], choice: Choice) -> list[Row]:
    """The rows with offset_samples and num_samples: where the word is loud enough, and the margin around that."""
    by_utterance: dict[Utterance, list[Row]] = defaultdict(list)
    for row in rows:
        by_utterance[by_id[row["utterance_id"]]].append(row)
    cut = []
    for utterance, samples in read_audio(by_utterance):
        for row in by_utterance[utterance]:
            start, end = (round(float(row[key]) * SAMPLE_RATE_HZ) for key in ("start_s", "end_s"))
            first, last = loud_part(samples, start, min(end, len(samples)))
            if SHORTEST_S * SAMPLE_RATE_HZ <= last - first <= LONGEST_S * SAMPLE_RATE_HZ:
                margin = round(choice.margin_s * SAMPLE_RATE_HZ)
                first, last = max(0, first - margin), min(len(samples), last + margin)
                cut.append({**row, "offset_samples": str(first), "num_samples": str(last - first)})
    return cut


def loud_part(samples: np.ndarray, start: int, end: int) -> tuple[int, int]:
    """Start and end of a word without the silence that was placed with it, on a grid of 10 ms.

    >>> loud_part(np.r_[np.zeros(1600), np.ones(3200), np.zeros(1600)] * 9000, 0, 6400)
    (1600, 4800)
    """
    whole = samples[start : start + (end - start) // HOP_SAMPLES * HOP_SAMPLES].astype(np.float64)
    energy = np.square(whole.reshape(-1, HOP_SAMPLES)).mean(axis=1)
    if not energy.any():
        return start, start
    loud = np.flatnonzero(energy >= energy.max() * 10 ** (-SILENCE_DB / 10))
    return start + int(loud[0]) * HOP_SAMPLES, start + int(loud[-1] + 1) * HOP_SAMPLES
