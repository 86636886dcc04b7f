"""Groups of a teacher's layers to distil from, found by how alike the layers are on some speech.

This is the idea of SKILL (Zampierin et al. 2024, https://arxiv.org/abs/2402.16830): layers are clustered by similarity,
and the student predicts the mean of each group instead of hand-picked layers. Which similarity, which linkage and how
many groups the authors used is not known to us; the defaults here (CKA, average linkage, 3) are our own.
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from itertools import count
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from lhotse.cut import Cut
from torch.nn.utils.rnn import pad_sequence
from tqdm import tqdm

from robustdistiller.common.files import write_text
from robustdistiller.common.settings import SettingsError
from robustdistiller.pretrain.data.cuts import FileCut, as_cut
from robustdistiller.pretrain.data.reading import read_cut
from robustdistiller.pretrain.data.speech import SAMPLE_RATE_HZ
from robustdistiller.pretrain.objectives import valid_frames
from robustdistiller.pretrain.teacher.groups.clustering import check_linkage, cluster_layers
from robustdistiller.pretrain.teacher.groups.similarity import SIMILARITIES, SVCCA, LinearCKA, MeanCosine
from robustdistiller.upstream import SpeechEncoder

logger = logging.getLogger(__name__)

_BATCH_S = 60.0
_LONGEST_S = 15.0


@dataclass(frozen=True)
class GroupsConfig:
    """How `targets.layers: auto` finds its groups of layers.

    Attributes:
        similarity: `cka` (linear, unbiased), `cosine` (mean over frames) or `cca` (SVCCA of 99 % of the variance).
        linkage: dissimilarity of two clusters: `average`, `complete` (their least similar layers) or `single` (their
            most similar ones).
        count: groups to find.
        calibration_utterances: utterances to measure the similarity on.
        include_layer_0: also group the input of the first layer.
        layers: group only these; null groups all.
        contiguous: groups are runs of successive layers. Clusters mostly are, but need not be.

    >>> GroupsConfig(linkage="ward")
    Traceback (most recent call last):
    robustdistiller.common.settings.SettingsError: linkage 'ward' measures distances of points in space, and layers
    are known by their similarities only; expected average, complete, single
    """

    similarity: Literal["cka", "cosine", "cca"] = "cka"
    linkage: str = "average"
    count: int = 3
    calibration_utterances: int = 64
    include_layer_0: bool = False
    layers: tuple[int, ...] | None = None
    contiguous: bool = False

    def __post_init__(self) -> None:
        check_linkage(self.linkage)
        for name in ("count", "calibration_utterances"):
            if getattr(self, name) < 1:
                raise SettingsError(f"{name} is {getattr(self, name)}; expected at least 1")

    def choose_layers(self, num_layers: int) -> list[int]:
        """The layers to group of an encoder of `num_layers`.

        Raises:
            SettingsError: a layer is named that the encoder lacks, or twice; or there are fewer layers than groups.

        >>> GroupsConfig().choose_layers(4), GroupsConfig(layers=(4, 2, 3)).choose_layers(4)
        ([1, 2, 3, 4], [2, 3, 4])
        """
        layers = list(range(0 if self.include_layer_0 else 1, num_layers + 1))
        if self.layers is not None:
            missing = [layer for layer in self.layers if not 0 <= layer <= num_layers]
            if missing:
                raise SettingsError(
                    f"layers to group: the teacher has no layer {', '.join(map(str, missing))}; expected 0 (the "
                    f"input of the first) to {num_layers}"
                )
            layers = sorted({*self.layers, *([0] if self.include_layer_0 else [])})
            if len(set(self.layers)) < len(self.layers):
                raise SettingsError(f"layers to group: {list(self.layers)} names a layer twice")
        if self.count > len(layers):
            raise SettingsError(
                f"{self.count} groups of {len(layers)} layers ({', '.join(map(str, layers))}): expected a count from 1 "
                f"to {len(layers)}"
            )
        return layers


@dataclass(frozen=True, eq=False)
class LayerGroups:
    """Groups of layers, and everything they were found from.

    Attributes:
        groups: layers of each group, ascending; groups in the order of their first layer.
        layers: the layers compared, ascending: the rows of `similarity`.
        similarity: (L, L) float64.
        linkage: (L - 1, 4) float64, the tree in scipy's form; its leaves are indices into `layers`.
        settings: how they were found.
        measured_on: the speech (utterances, seconds, frames, ids, their digest, seed) and the teacher, if it was named.

    >>> similarity = np.array([[1, 0.9, 0.2], [0.9, 1, 0.3], [0.2, 0.3, 1]])
    >>> found, tree = cluster_layers(similarity, 2)
    >>> groups = LayerGroups(found, [1, 2, 3], similarity, tree, GroupsConfig(count=2), {})
    >>> groups.groups, groups.override()
    ([[1, 2], [3]], 'targets.layers=[[1,2],[3]]')
    >>> round(groups.similarity_within([1, 2]), 2), round(groups.similarity_between(), 2)
    (0.9, 0.25)
    """

    groups: list[list[int]]
    layers: list[int]
    similarity: np.ndarray
    linkage: np.ndarray
    settings: GroupsConfig
    measured_on: dict[str, Any]

    def override(self) -> str:
        """The groups as a setting of a recipe, for the command line."""
        return f"targets.layers={json.dumps(self.groups, separators=(',', ':'))}"

    def similarity_within(self, group: Sequence[int]) -> float:
        """Mean similarity of the pairs of layers in a group; 1 for a single layer."""
        rows = [self.layers.index(layer) for layer in group]
        pairs = self.similarity[np.ix_(rows, rows)][np.triu_indices(len(rows), 1)]
        return float(pairs.mean()) if len(pairs) else 1.0

    def similarity_between(self) -> float:
        """Mean similarity of the pairs of layers in different groups; NaN for a single group."""
        group_of = {layer: index for index, group in enumerate(self.groups) for layer in group}
        numbers = np.array([group_of[layer] for layer in self.layers])
        apart = numbers[:, None] != numbers[None, :]
        return float(self.similarity[apart].mean()) if apart.any() else float("nan")

    def save(self, path: str | Path) -> None:
        """Write everything as JSON."""
        values = asdict(self) | {"similarity": self.similarity.tolist(), "linkage": self.linkage.tolist()}
        text = json.dumps(values, indent=1, ensure_ascii=False)
        write_text(path, text)

    @classmethod
    def load(cls, path: str | Path) -> LayerGroups:
        """Read what `save` wrote.

        Raises:
            SettingsError: the file is missing or something else.
        """
        try:
            values = json.loads(Path(path).expanduser().read_text(encoding="utf-8"))
            layers = values["settings"]["layers"]
            values["settings"]["layers"] = layers if layers is None else tuple(layers)
            values["settings"] = GroupsConfig(**values["settings"])
            for name in ("similarity", "linkage"):
                values[name] = np.array(values[name], dtype=np.float64)
            values["linkage"] = values["linkage"].reshape(-1, 4)
            return cls(**values)
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise SettingsError(f"{path} cannot be read as layer groups: {error!r}") from error


def find_groups(
    teacher: SpeechEncoder,
    cuts: Sequence[Cut],
    config: GroupsConfig | None = None,
    seed: int = 0,
    device: torch.device | str | None = None,
    teacher_notes: Mapping[str, Any] | None = None,
    progress: bool = False,
) -> LayerGroups:
    """Group a teacher's layers by their similarity on some utterances of clean speech.

    The utterances are drawn by a hash of seed and id: the same whatever the order of `cuts`. Of each, at most the first
    15 s are used. The teacher runs in eval mode and without gradients, and is left as it was.

    Args:
        teacher: the encoder.
        cuts: speech at 16 kHz, as from `speech_cuts`.
        config: how to group.
        seed: of the draw.
        device: where to compute; `None` is where the teacher is.
        teacher_notes: what identifies the teacher, kept in the result.
        progress: show a progress bar, where the output is a terminal.

    Raises:
        SettingsError: the layers do not allow it, no utterance can be used, or there is too little speech.

    >>> from lhotse.testing.dummies import dummy_cut, dummy_recording
    >>> from robustdistiller.upstream import EncoderConfig
    >>> teacher = SpeechEncoder(EncoderConfig(conv_layers=((8, 10, 5), (8, 8, 8), (8, 8, 8)), embed_dim=16,
    ...                                       num_layers=4, num_heads=2, ffn_dim=32, position_groups=4))
    >>> cuts = [dummy_cut(one, recording=dummy_recording(one, duration=1.0, with_data=True)) for one in range(3)]
    >>> found = find_groups(teacher, cuts, GroupsConfig(count=2, calibration_utterances=2))
    >>> len(found.groups), found.similarity.shape, found.measured_on["seconds"]
    (2, (4, 4), 2.0)
    """
    config = config or GroupsConfig()
    layers = config.choose_layers(teacher.num_layers)
    one_frame = next(samples for samples in count(1) if teacher.num_frames(samples) > 0)
    drawn = draw_utterances(cuts, config.calibration_utterances, seed, one_frame)
    measure = SIMILARITIES[config.similarity]()
    heard: dict[str, int] = {}
    with listening(teacher, device):
        for batch in tqdm(batches_of(drawn), desc="similarity", unit="batch", disable=None if progress else True):
            audio = read_batch(batch)
            if audio:
                _hear(teacher, list(audio.values()), layers, measure)
            heard |= {name: len(samples) for name, samples in audio.items()}
    if not heard:
        raise SettingsError(f"none of the {len(drawn)} utterances drawn to compare layers on can be read")
    try:
        similarity = measure.matrix()
    except ValueError as error:
        raise SettingsError(f"the layers cannot be compared on {len(heard)} utterances: {error}") from error
    groups, tree = cluster_layers(similarity, config.count, config.linkage, config.contiguous, layers)
    measured_on = {
        "utterances": len(heard),
        "seconds": sum(heard.values()) / SAMPLE_RATE_HZ,
        "frames": measure.frames,
        "seed": seed,
        "ids": sorted(heard),
        "teacher": dict(teacher_notes or {}),
    }
    return LayerGroups(groups, layers, similarity, tree, config, measured_on)


def draw_utterances(cuts: Sequence[Cut | FileCut], count: int, seed: int = 0, min_samples: int = 1) -> list[Cut]:
    """Some of the utterances, whatever their order: those whose hash of seed and id is lowest.

    Args:
        cuts: at 16 kHz.
        count: how many; all, with a warning, if there are fewer.
        seed: of the draw.
        min_samples: shorter ones are left out.

    Raises:
        SettingsError: no utterance is long enough.

    >>> from lhotse.testing.dummies import dummy_cut
    >>> cuts = [dummy_cut(index, duration=1.0) for index in range(9)]
    >>> [one.id for one in draw_utterances(cuts, 3)] == [one.id for one in draw_utterances(cuts[::-1], 3)]
    True
    """
    usable = [cut for cut in cuts if cut.num_samples >= min_samples]
    if not usable:
        raise SettingsError(f"none of {len(cuts)} utterances has the {min_samples} samples that make one frame")
    if len(usable) < count:
        logger.warning("layers are compared on all %d utterances, %d were asked for", len(usable), count)
    drawn = sorted(usable, key=lambda cut: hashlib.sha256(f"{seed}\t{cut.id}".encode()).digest())[:count]
    return [as_cut(cut) for cut in drawn]


@contextmanager
def listening(teacher: SpeechEncoder, device: torch.device | str | None) -> Iterator[None]:
    """The teacher on a device, in eval mode, without gradients; put back afterwards."""
    home, training = next(teacher.parameters()).device, teacher.training
    try:
        teacher.to(device or home).eval()
        with torch.inference_mode():
            yield
    finally:
        teacher.to(home).train(training)


def batches_of(cuts: Sequence[Cut]) -> list[list[Cut]]:
    """Utterances of similar length together, shortened to 15 s, at most a minute with padding."""
    short = [cut if cut.duration <= _LONGEST_S else cut.truncate(duration=_LONGEST_S, preserve_id=True) for cut in cuts]
    batches: list[list[Cut]] = []
    for cut in sorted(short, key=lambda one: (one.num_samples, one.id)):
        if not batches or (len(batches[-1]) + 1) * cut.duration > _BATCH_S:
            batches.append([])
        batches[-1].append(cut)
    return batches


def read_batch(batch: Sequence[Cut]) -> dict[str, torch.Tensor]:
    """Samples by utterance id; what cannot be read is passed over."""
    audio = {}
    for cut in batch:
        try:
            audio[cut.id] = torch.from_numpy(read_cut(cut))
        except ValueError as error:
            logger.warning("layers are compared without one utterance: %s", error)
    return audio


def _hear(
    teacher: SpeechEncoder,
    audio: Sequence[torch.Tensor],
    layers: Sequence[int],
    measure: LinearCKA | MeanCosine | SVCCA,
) -> None:
    lengths = torch.tensor([len(samples) for samples in audio])
    waveforms = pad_sequence(list(audio), batch_first=True).to(next(teacher.parameters()).device)
    output = teacher(waveforms, lengths, layers=layers, predict=False)
    states = [output.hidden_states[layer] for layer in layers]
    try:
        measure.update(states, valid_frames(output.frame_lengths, states[0].shape[1]))
    except ValueError as error:
        raise SettingsError(
            f"the teacher's layers {', '.join(map(str, layers))} cannot be compared: {error}"
        ) from error
