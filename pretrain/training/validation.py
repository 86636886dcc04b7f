"""What validation during training measures: the student's distance to the teacher under fixed test conditions."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

import torch
import torch.nn.functional as F
from lhotse.cut import Cut
from torch import Tensor

from robustdistiller.acoustics import Condition
from robustdistiller.pretrain.objectives.ops import at_least_float32

#: What is validated when no conditions are given, as far as there are noises and rooms.
DEFAULT_CONDITIONS = ("clean", "noise:snr_db=5", "reverb", "noise+reverb:snr_db=10")

_LARGEST_SHARE = 0.1  # of the training speech that may be held out


@dataclass
class ValidationConfig:
    """Validation during training: distances to the teacher, which always hears clean speech, on speech not trained on.

    Every utterance meets the same noise and room each time. Neither weights, nor random numbers, nor the order of the
    data depend on whether and how often it runs; only what is held out is missing from the training speech.

    Attributes:
        every_steps: optimizer steps between two validations; one more comes after the last step. Null is never.
        speech: folders to validate on, left out of the training where they are part of it. Empty holds out some of
            `data.speech`, chosen by a hash of the recording's name (the speakers are then those of the training).
        utterances: how many are used, chosen by hash; at most a tenth of `data.speech` is held out.
        conditions: one-line conditions (`noise:snr_db=5`). Null is clean, noise at 5 dB, reverberation, and
            reverberation with noise at 10 dB, without those for which there is no noise or no room.
        noise: folders of noise, written as in `data.noise`; all of it is used unless `split` says which part. Empty
            takes that of the training.
        rir: folders of impulse responses, likewise; empty takes those of the training.
        criterion: which distance, averaged over targets and conditions, chooses the best checkpoint: `cosine` (1 minus
            the cosine; all targets count alike) or `l1` (targets of large values count more).
        seed: of the corruption.

    Raises:
        ValueError: a value out of range, or a condition that is not understood.
    """

    every_steps: int | None = None
    speech: list[str] = field(default_factory=list)
    utterances: int = 64
    conditions: list[str] | None = None
    noise: list[str] = field(default_factory=list)
    rir: list[str] = field(default_factory=list)
    criterion: Literal["cosine", "l1"] = "cosine"
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("every_steps", "utterances"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ValueError(f"{name} is {value}, expected 1 or more" + " or null" * (name == "every_steps"))
        labels = [Condition.parse(text).label for text in self.conditions or ()]
        if len(set(labels)) < len(labels) or self.conditions == []:
            raise ValueError(f"conditions: expected one or more different conditions, found {self.conditions}")


def hold_out(cuts: Sequence[Cut], utterances: int) -> tuple[list[Cut], list[Cut]]:
    """Divide speech into a part to train on, in its order, and a part to validate on.

    Recordings are chosen by the hash of their name, so that the choice does not depend on order or place, and changes
    little when speech is added. All cuts of a recording go to the same side.

    Args:
        cuts: all speech.
        utterances: wanted for validation; fewer are taken where that is more than a tenth of all, but at least one.

    Raises:
        ValueError: everything is one recording.
    """
    recordings = defaultdict(list)
    for cut in cuts:
        recordings[_recording_of(cut)].append(cut)
    wanted = min(utterances, max(int(len(cuts) * _LARGEST_SHARE), 1))
    held: dict[str, list[Cut]] = {}
    for name in sorted(recordings, key=_hash):
        if sum(map(len, held.values())) >= wanted:
            break
        held[name] = recordings[name]
    training = [cut for cut in cuts if _recording_of(cut) not in held]
    if not training:
        raise ValueError("holding out speech leaves none to train on, it is all one recording; give validation.speech")
    return training, choose_by_hash([cut for group in held.values() for cut in group], wanted)


def choose_by_hash(cuts: Sequence[Cut], count: int) -> list[Cut]:
    """The `count` cuts whose ids have the smallest hashes."""
    return sorted(cuts, key=lambda cut: _hash(cut.id))[:count]


def feature_distances(predictions: Sequence[Tensor], targets: Sequence[Tensor], valid: Tensor) -> Tensor:
    """Sums over the valid frames, per target, of mean |p - t| and of 1 - cos(p, t).

    Args:
        predictions: per target (B, T, D), of the student.
        targets: per target (B, T, D), of the teacher.
        valid: (B, T) bool.

    Returns:
        (2, targets) float32: L1 and cosine distances, to be divided by the number of valid frames.
    """
    sums = []
    for prediction, target in zip(predictions, targets):
        p, t = at_least_float32(prediction), at_least_float32(target)
        l1, cosine = (p - t).abs().mean(-1), 1 - F.cosine_similarity(p, t, dim=-1)
        sums.append(torch.stack([one.masked_fill(~valid, 0.0).sum() for one in (l1, cosine)]))
    return torch.stack(sums, dim=1)


def _recording_of(cut: Cut) -> str:
    return getattr(cut, "recording_id", None) or cut.id


def _hash(name: str) -> str:
    return hashlib.sha256(name.encode()).hexdigest()
