"""The classes of keyword spotting: all words, or some words against the rest and silence."""

from __future__ import annotations

import random
from collections.abc import Sequence

from robustdistiller.acoustics import Piece, audio_info
from robustdistiller.common.settings import SettingsError
from robustdistiller.pretrain.multitask.config import KeywordsConfig
from robustdistiller.pretrain.multitask.utterances import (
    SPLITS,
    Utterance,
    check_classes,
    read_utterances,
    with_split_lists,
)

UNKNOWN, SILENCE, BACKGROUND = "_unknown_", "_silence_", "_background_noise_"
_PARTS = {"train": (0.0, 0.8), "dev": (0.8, 0.9), "test": (0.9, 1.0)}  # of each background recording
_KEY = "multitask.keywords.data"


def keyword_utterances(config: KeywordsConfig, seed: int) -> list[Utterance]:
    """The utterances of the task, each with its split; unknown words and stretches of silence are drawn by the seed.

    Raises:
        SettingsError: no data, a missing split or word, or classes that cannot be learnt.
    """
    utterances, root = read_utterances(config.data, _KEY)
    background = [one.piece for one in utterances if one.label == BACKGROUND]
    utterances = [one for one in utterances if one.label != BACKGROUND]
    if any(one.split is None for one in utterances):
        utterances = with_split_lists(utterances, root, _KEY)
    if config.words:
        utterances = _choose_words(utterances, background, config, seed)
    check_classes(utterances, _KEY, closed=True)
    return utterances


def _choose_words(
    utterances: Sequence[Utterance], background: Sequence[Piece], config: KeywordsConfig, seed: int
) -> list[Utterance]:
    missing = sorted(set(config.words) - {one.label for one in utterances})
    if missing:
        raise SettingsError(f"multitask.keywords.words: {', '.join(missing)} are not among the labels of {config.data}")
    chosen = []
    for split in SPLITS:
        here = [one for one in utterances if one.split == split]
        wanted = [one for one in here if one.label in config.words]
        given = [one for one in here if one.label in (UNKNOWN, SILENCE) and one.label not in config.words]
        chosen += wanted + given
        labels, generator = {one.label for one in here}, random.Random(f"{seed} {split}")
        if UNKNOWN not in labels:
            others = [one for one in here if one.label not in (*config.words, SILENCE)]
            count = min(round(config.unknown_share * len(wanted)), len(others))
            chosen += [Utterance(one.piece, UNKNOWN, split) for one in generator.sample(others, count)]
        if SILENCE not in labels and background:
            count = round(config.silence_share * len(wanted))
            chosen += [Utterance(piece, SILENCE, split) for piece in _silence(background, split, count, generator)]
    return chosen


def _silence(background: Sequence[Piece], split: str, count: int, generator: random.Random) -> list[Piece]:
    """One-second stretches of the split's part of the background recordings, no two the same."""
    infos = [audio_info(piece.path) for piece in background]
    pieces: dict[str, Piece] = {}
    for _ in range(count):
        index = generator.randrange(len(background))
        piece, rate_hz = background[index], infos[index].sample_rate_hz
        length = piece.num_frames or infos[index].num_frames
        low, high = (int(part * length) for part in _PARTS[split])
        if high - low < rate_hz:
            raise SettingsError(
                f"{_KEY}: {piece.path} is {length / rate_hz:.1f} s long; background noise for {SILENCE} needs 10 s or "
                "more, so that every split has a part of its own"
            )
        start = piece.frame_offset + generator.randint(low, high - rate_hz)
        pieces[f"{piece.name}@{start}"] = Piece(f"{piece.name}@{start}", piece.path, start, rate_hz)
    return list(pieces.values())
