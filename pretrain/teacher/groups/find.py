"""Groups of a teacher's layers to distil from, found by how alike the layers are on some speech.

This is the idea of SKILL (Zampierin et al. 2024, https://arxiv.org/abs/2402.16830): layers are clustered by similarity,
and the student predicts the mean of each group instead of hand-picked layers. Which similarity, which linkage and how
many groups the authors used is not known to us; the defaults here (CKA, average linkage, 3) are our own.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from lhotse.cut import Cut
from torch import Tensor

from robustdistiller.common.audio import SAMPLE_RATE_HZ
from robustdistiller.common.files import write_text
from robustdistiller.common.settings import SettingsError
from robustdistiller.pretrain.config.trainer import Count
from robustdistiller.pretrain.teacher.calibration import calibrate
from robustdistiller.pretrain.teacher.groups.clustering import cluster_layers
from robustdistiller.pretrain.teacher.groups.similarity import SIMILARITIES
from robustdistiller.pretrain.teacher.protocol import Teacher


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
    """

    similarity: Literal["cka", "cosine", "cca"] = "cka"
    linkage: Literal["average", "complete", "single"] = "average"
    count: Count = 3
    calibration_utterances: Count = 64
    include_layer_0: bool = False
    layers: tuple[int, ...] | None = None
    contiguous: bool = False

    def choose_layers(self, num_layers: int) -> list[int]:
        """The layers to group of an encoder of `num_layers`.

        Raises:
            SettingsError: a layer is named that the encoder lacks, or twice; or there are fewer layers than groups.
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
        measured_on: the speech (utterances, seconds, frames, ids, seed) and the teacher, if it was named.
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
        """Read what `save` wrote; a SettingsError says that the file is missing or something else."""
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
    teacher: Teacher,
    cuts: Sequence[Cut],
    config: GroupsConfig | None = None,
    seed: int = 0,
    device: torch.device | str | None = None,
    teacher_notes: Mapping[str, Any] | None = None,
    progress: bool = False,
) -> LayerGroups:
    """Group a teacher's layers by their similarity on utterances of clean speech that `calibrate` draws.

    What `teacher_notes` say of the teacher is kept in the result.

    Raises:
        SettingsError: the layers do not allow it, no utterance can be used, or there is too little speech.
    """
    config = config or GroupsConfig()
    layers, measure = config.choose_layers(teacher.num_layers), SIMILARITIES[config.similarity]()

    def take(states: list[Tensor], valid: Tensor) -> None:
        try:
            measure.update(states, valid)
        except ValueError as error:
            named = ", ".join(map(str, layers))
            raise SettingsError(f"the teacher's layers {named} cannot be compared: {error}") from error

    read = calibrate(teacher, cuts, config.calibration_utterances, layers, take, seed, device, progress)
    try:
        similarity = measure.matrix()
    except ValueError as error:
        raise SettingsError(f"the layers cannot be compared on {len(read)} utterances: {error}") from error
    groups, tree = cluster_layers(similarity, config.count, config.linkage, config.contiguous, layers)
    measured_on = {
        "utterances": len(read),
        "seconds": sum(read.values()) / SAMPLE_RATE_HZ,
        "frames": measure.frames,
        "seed": seed,
        "ids": sorted(read),
        "teacher": dict(teacher_notes or {}),
    }
    return LayerGroups(groups, layers, similarity, tree, config, measured_on)
