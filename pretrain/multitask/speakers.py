"""The splits and trials of speaker verification."""

from __future__ import annotations

import random
from bisect import bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import accumulate
from pathlib import Path

from robustdistiller.common.settings import SettingsError
from robustdistiller.pretrain.multitask.config import SpeakersConfig
from robustdistiller.pretrain.multitask.utterances import Utterance, check_classes, read_utterances

TRIAL_LIST = "veri_test.txt"
_KEY = "multitask.speakers.data"


@dataclass(frozen=True)
class Trial:
    """Two recordings to compare, by name, and whether one speaker is in both."""

    same: bool
    first: str
    second: str


def speaker_utterances(config: SpeakersConfig, seed: int) -> tuple[list[Utterance], dict[str, list[Trial]]]:
    """The utterances of the task, each with its split, and the trials of dev and test; what is drawn is so by the seed.

    Raises:
        SettingsError: no data, a missing split, a trial list that does not fit, or classes that cannot be learnt.
    """
    utterances, root = read_utterances(config.data, _KEY)
    path = Path(config.trials).expanduser() if config.trials else root / TRIAL_LIST
    test_trials = None
    if config.trials or path.is_file():
        test_trials = read_trials(path, utterances)
        utterances = _split_by_trials(utterances, test_trials, path)
    if any(one.split is None for one in utterances):
        raise SettingsError(
            f"{_KEY}: {root} does not say which speakers are for testing; give multitask.speakers.trials=LIST, put "
            f"{TRIAL_LIST} there, or put the speakers into folders train and test"
        )
    if not any(one.split == "dev" for one in utterances):
        utterances = _hold_out(utterances, config.dev_share, seed)
    check_classes(utterances, _KEY, closed=False)
    trials = {"dev": _draw(utterances, "dev", config.max_trials, seed)}
    trials["test"] = test_trials or _draw(utterances, "test", config.max_trials, seed)
    return utterances, trials


def read_trials(path: Path, utterances: Sequence[Utterance]) -> list[Trial]:
    """A trial list whose files are named as the utterances are, or from the speaker's folder on.

    Raises:
        SettingsError: the list does not exist, a line is not `1|0 FILE FILE`, a file is not among the utterances, a
            line contradicts the labels, or trials of one of the two kinds are missing.
    """
    if not path.is_file():
        raise SettingsError(f"multitask.speakers.trials: {path} does not exist")
    known = {}
    for one in utterances:
        known[one.piece.name] = one
        folders = one.piece.name.split("/")
        if one.label in folders:
            known.setdefault("/".join(folders[folders.index(one.label) :]), one)
    trials, missing = [], []
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
        if not line.strip():
            continue
        parts = line.split("\t") if "\t" in line else line.split()
        if len(parts) != 3 or parts[0] not in ("0", "1"):
            raise SettingsError(f"{path}, line {number}: found {line!r}, expected `1 FILE FILE` or `0 FILE FILE`")
        missing += [name for name in parts[1:] if name not in known]
        if missing:
            continue
        first, second = (known[name] for name in parts[1:])
        if (first.label == second.label) != (parts[0] == "1"):
            raise SettingsError(
                f"{path}, line {number} says {parts[0]}, but the files belong to {first.label} and {second.label}"
            )
        trials.append(Trial(parts[0] == "1", first.piece.name, second.piece.name))
    if missing:
        raise SettingsError(
            f"{path} names {len(set(missing))} files that are not in the data (first: {missing[0]}); add them, or give "
            "multitask.speakers.trials a list of files that are there"
        )
    return _both_kinds(trials, str(path))


def draw_trials(speaker_of: Mapping[str, str], max_trials: int, seed: int) -> list[Trial]:
    """Pairs of utterances: all of them, or a draw, half of the same speaker as far as there are so many.

    Args:
        speaker_of: speaker of each utterance, by name.
        max_trials: most pairs.
        seed: of the draw.

    >>> speakers = {"a1": "ann", "a2": "ann", "b1": "bob"}
    >>> [(trial.first, trial.second, trial.same) for trial in draw_trials(speakers, 10, seed=0)]
    [('a1', 'a2', True), ('a1', 'b1', False), ('a2', 'b1', False)]
    """
    names = sorted(speaker_of, key=lambda name: (speaker_of[name], name))
    speakers = [speaker_of[name] for name in names]
    ends = [bisect_right(speakers, speaker) for speaker in speakers]
    # Partners of each utterance among those behind it, which are ordered by speaker.
    partners = {
        True: [range(place + 1, end) for place, end in enumerate(ends)],
        False: [range(end, len(names)) for end in ends],
    }
    num_same, num_other = (sum(map(len, partners[same])) for same in (True, False))
    num_same = min(num_same, max(max_trials // 2, max_trials - num_other))
    counts = {True: num_same, False: min(num_other, max_trials - num_same)}
    generator = random.Random(f"{seed} trials")
    return [
        Trial(same, names[first], names[second])
        for same, count in counts.items()
        for first, second in _sample_pairs(partners[same], count, generator)
    ]


def _sample_pairs(partners: Sequence[range], count: int, generator: random.Random) -> list[tuple[int, int]]:
    """Different pairs of a place and one of its partners, all equally likely."""
    ends = list(accumulate(map(len, partners)))
    drawn = sorted(generator.sample(range(ends[-1]), count))
    places = ((bisect_right(ends, number), number) for number in drawn)
    return [(place, partners[place][number - ends[place]]) for place, number in places]


def _draw(utterances: Sequence[Utterance], split: str, max_trials: int, seed: int) -> list[Trial]:
    speaker_of = {one.piece.name: one.label for one in utterances if one.split == split}
    return _both_kinds(draw_trials(speaker_of, max_trials, seed), f"the {split} split of {_KEY}")


def _both_kinds(trials: list[Trial], where: str) -> list[Trial]:
    num_same = sum(trial.same for trial in trials)
    if not 0 < num_same < len(trials):
        raise SettingsError(
            f"{where} makes {num_same} trials of one speaker and {len(trials) - num_same} of two; an equal error rate "
            "needs both: two or more speakers, with two or more utterances each"
        )
    return trials


def _split_by_trials(utterances: Sequence[Utterance], trials: Sequence[Trial], path: Path) -> list[Utterance]:
    """The speakers of the trials are for testing, all others for training, where the data do not say.

    Test utterances that no trial names are left out.
    """
    tested = {name for trial in trials for name in (trial.first, trial.second)}
    if any(one.split is None for one in utterances):
        speakers = {one.label for one in utterances if one.piece.name in tested}
        utterances = [replace(one, split="test" if one.label in speakers else "train") for one in utterances]
    wrong = sorted(one.piece.name for one in utterances if one.piece.name in tested and one.split != "test")
    if wrong:
        raise SettingsError(
            f"{path} names {len(wrong)} files that the data put into another split than test (first: {wrong[0]}); test "
            "trials must not be trained on"
        )
    return [one for one in utterances if one.split != "test" or one.piece.name in tested]


def _hold_out(utterances: Sequence[Utterance], share: float, seed: int) -> list[Utterance]:
    """Make a dev split of some training utterances, two or more per chosen speaker, leaving each speaker two."""
    train = sorted((one for one in utterances if one.split == "train"), key=lambda one: one.piece.name)
    by_speaker: dict[str, list[str]] = {}
    for one in random.Random(f"{seed} dev").sample(train, len(train)):
        by_speaker.setdefault(one.label, []).append(one.piece.name)
    # In rounds of two per speaker, so that small sets make same-speaker pairs too.
    held_out: set[str] = set()
    longest = max(map(len, by_speaker.values()), default=0)
    for place in range(0, longest, 2):
        for names in by_speaker.values():
            if place + 4 <= len(names) and len(held_out) < max(round(share * len(train)), 4):
                held_out.update(names[place : place + 2])
    return [replace(one, split="dev") if one.piece.name in held_out else one for one in utterances]
