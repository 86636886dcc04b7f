"""Units of a teacher: k-means of one layer's frames, the classes of masked prediction.

As in HuBERT (arXiv 2106.07447), but over a calibration set that fits in memory instead of mini-batches of a corpus: no
pass then raises the distance, and the same seed gives the same units.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lhotse.cut import Cut
from torch import Tensor

from robustdistiller.common.files import write_atomically
from robustdistiller.common.settings import SettingsError
from robustdistiller.pretrain.objectives.ops import at_least_float32, full_precision
from robustdistiller.pretrain.teacher.calibration import calibrate
from robustdistiller.pretrain.teacher.protocol import Teacher

logger = logging.getLogger(__name__)

_CHUNK_FRAMES = 16_384  # of which distances are computed at once
_START_FRAMES = 20_000  # among which the first centroids are chosen


@dataclass(frozen=True)
class UnitsConfig:
    """How the teacher's frames are divided into units.

    Attributes:
        layer: of the teacher; 0 is the input of the first one.
        count: of units. HuBERT Base has 100 of MFCCs at first, then 500 of layer 6; HuBERT Large 500 of layer 9.
        calibration_utterances: to find them on, at most 15 s of each; their frames of that layer are kept in memory:
            0.15 MB a second of speech at width 768.
        iterations: most passes over these frames.
    """

    layer: int = 9
    count: int = 500
    calibration_utterances: int = 512
    iterations: int = 50

    def __post_init__(self) -> None:
        for name, least in (("layer", 0), ("count", 2), ("calibration_utterances", 1), ("iterations", 1)):
            if getattr(self, name) < least:
                raise ValueError(f"{name} is {getattr(self, name)}, expected {least} or more")


@dataclass(frozen=True)
class TeacherUnits:
    """Centroids, and what they were found on.

    Attributes:
        centroids: (K, D) float32.
        layer: of the teacher.
        made_from: settings, seed, utterances, frames, mean squared distance of a frame to its centroid, teacher.
    """

    centroids: Tensor
    layer: int
    made_from: Mapping[str, Any]

    @property
    def count(self) -> int:
        """K."""
        return len(self.centroids)

    def assign(self, states: Tensor) -> Tensor:
        """The nearest centroid of each frame: (B, T) int64 of the layer's states (B, T, D); of padding, any."""
        rows = at_least_float32(states).flatten(0, -2)
        return _nearest(rows, self.centroids.to(rows.device, rows.dtype))[0].reshape(states.shape[:-1])

    def save(self, path: str | Path) -> None:
        """Write everything as one NumPy archive (.npz)."""

        def write(file: Path) -> None:
            with file.open("wb") as handle:
                np.savez(handle, centroids=self.centroids.cpu(), layer=self.layer, made_from=json.dumps(self.made_from))

        write_atomically(path, write)

    @classmethod
    def load(cls, path: str | Path) -> TeacherUnits:
        """Read what `save` wrote; a SettingsError says that the file is missing or something else."""
        try:
            with np.load(Path(path).expanduser(), allow_pickle=False) as archive:
                centroids = torch.from_numpy(archive["centroids"])
                units = cls(centroids, int(archive["layer"]), json.loads(str(archive["made_from"])))
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise SettingsError(f"{path} cannot be read as units of a teacher: {error!r}") from error
        if centroids.ndim != 2 or centroids.dtype != torch.float32:
            raise SettingsError(f"{path}: found centroids {tuple(centroids.shape)}, {centroids.dtype}, expected (K, D)")
        return units


def find_units(
    teacher: Teacher,
    cuts: Sequence[Cut],
    config: UnitsConfig,
    seed: int = 0,
    device: torch.device | str | None = None,
    teacher_notes: Mapping[str, Any] | None = None,
) -> TeacherUnits:
    """Divide a teacher's frames into units, on some utterances of clean speech.

    The utterances are drawn by a hash of seed and id: the same whatever the order of `cuts`. The teacher is left as it
    was.

    Args:
        teacher: a frozen model.
        cuts: speech at 16 kHz.
        config: layer, number of units, size of the calibration set.
        seed: of the draw and of the first centroids.
        device: where to compute; `None` is where the teacher is.
        teacher_notes: what identifies the teacher, kept in the result.

    Raises:
        SettingsError: the teacher has no such layer, or there is too little speech that can be read.
    """
    if config.layer > teacher.num_layers:
        raise SettingsError(
            f"units: the teacher cannot give layer {config.layer}: it has layers 0 to {teacher.num_layers}"
        )
    frames: list[Tensor] = []

    def take(states: list[Tensor], valid: Tensor) -> None:
        frames.append(states[0].float()[valid])

    read = calibrate(teacher, cuts, config.calibration_utterances, [config.layer], take, seed, device)
    found = sum(map(len, frames))
    if found < config.count:
        raise SettingsError(
            f"units: found {found} frames in {len(read)} readable utterances, expected at least one for each of "
            f"{config.count} units; give more speech, or fewer units"
        )
    centroids, distance = k_means(torch.cat(frames), config.count, config.iterations, seed)
    logger.info("%d units of layer %d from %d frames of %d utterances", config.count, config.layer, found, len(read))
    made_from = {
        "settings": asdict(config),
        "seed": seed,
        "ids": sorted(read),
        "frames": found,
        "mean_squared_distance": distance,
        "teacher": dict(teacher_notes or {}),
    }
    return TeacherUnits(centroids.cpu(), config.layer, made_from)


def k_means(x: Tensor, count: int, iterations: int = 50, seed: int = 0) -> tuple[Tensor, float]:
    """Lloyd's algorithm from a k-means++ start (Arthur and Vassilvitskii 2007).

    Each pass moves every centroid to the mean of its rows, so that the mean squared distance never rises, until no row
    changes its centroid. A centroid that has lost all its rows moves to the row that is farthest from its own.

    Args:
        x: (N, D) float32, N >= count.
        count: K.
        iterations: most passes.
        seed: of the start.

    Returns:
        (K, D) centroids, and the mean squared distance of a row to its own.
    """
    centroids, before = _first_centroids(x, count, torch.Generator().manual_seed(seed)), None
    for _ in range(iterations):
        ids, squared = _nearest(x, centroids)
        if before is not None and torch.equal(ids, before):
            break
        before, sums = ids, torch.zeros_like(centroids)
        for rows, own in zip(x.split(_CHUNK_FRAMES), ids.split(_CHUNK_FRAMES)):
            sums += torch.nn.functional.one_hot(own, count).to(x.dtype).T @ rows  # adds up in the same order anywhere
        sizes = torch.bincount(ids, minlength=count)
        centroids = sums / sizes.clamp(min=1).unsqueeze(1)
        empty = (sizes == 0).nonzero().flatten()
        centroids[empty] = x[squared.topk(len(empty)).indices]
    return centroids, float(_nearest(x, centroids)[1].double().mean())


def _first_centroids(x: Tensor, count: int, generator: torch.Generator) -> Tensor:
    """Rows far from each other: each is drawn with its squared distance from the nearest one before as weight."""
    if len(x) > max(_START_FRAMES, count):
        x = x[torch.randperm(len(x), generator=generator)[: max(_START_FRAMES, count)].to(x.device)]
    chosen = [int(torch.randint(len(x), (1,), generator=generator))]
    squared, norms = torch.full((len(x),), torch.inf, device=x.device), x.square().sum(1)
    while len(chosen) < count:
        latest = x[chosen[-1]]
        squared = torch.minimum(squared, (norms - 2 * (x @ latest) + latest.square().sum()).clamp(min=0))
        weights = squared.double().cpu()
        weights = weights if weights.sum() > 0 else torch.ones_like(weights)  # fewer different rows than centroids
        chosen.append(int(torch.multinomial(weights, 1, generator=generator)))
    return x[chosen].clone()


def _nearest(x: Tensor, centroids: Tensor) -> tuple[Tensor, Tensor]:
    """Number (N,) of the nearest centroid of each row, and the squared distance from it (N,)."""
    ids, squared = [], []
    with full_precision(x):
        for rows in x.split(_CHUNK_FRAMES):
            distances = centroids.square().sum(1) - 2 * (rows @ centroids.T)
            least = distances.min(1)
            ids.append(least.indices)
            squared.append((least.values + rows.square().sum(1)).clamp(min=0))
    return torch.cat(ids), torch.cat(squared)
