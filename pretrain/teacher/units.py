"""Units of a teacher: k-means of one layer's frames, the classes of masked prediction.

As in HuBERT (arXiv 2106.07447), but over a calibration set that fits in memory instead of mini-batches of a corpus, so
that no pass raises the distance.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
from lhotse.cut import Cut
from pydantic import Field
from torch import Tensor

from robustdistiller.common.files import write_atomically
from robustdistiller.common.settings import SettingsError
from robustdistiller.pretrain.config.trainer import Count, WholeNumber
from robustdistiller.pretrain.objectives.ops import at_least_float32, full_precision
from robustdistiller.pretrain.teacher.calibration import calibrate
from robustdistiller.pretrain.teacher.protocol import Teacher

logger = logging.getLogger(__name__)

_CHUNK_FRAMES = 16_384  # of which distances are computed at once


@dataclass(frozen=True)
class UnitsConfig:
    """How the teacher's frames are divided into units.

    Attributes:
        layer: of the teacher; 0 is the input of the first one.
        count: of units. HuBERT Base has 100 of MFCCs at first, then 500 of layer 6; HuBERT Large 500 of layer 9.
            At most 65,536, for which the target cache has two bytes a frame.
        calibration_utterances: to find them on, at most 15 s of each; their frames of that layer are kept in memory:
            0.15 MB a second of speech at width 768.
        iterations: most passes over these frames.
    """

    layer: WholeNumber = 9
    count: Annotated[int, Field(ge=2, le=2**16)] = 500
    calibration_utterances: Count = 512
    iterations: Count = 50


@dataclass(frozen=True)
class TeacherUnits:
    """Centroids, and what they were found on.

    Attributes:
        centroids: (K, D) float32.
        layer: of the teacher.
        made_from: settings, seed, utterances, frames, mean squared distance of a frame to its centroid.
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
        centroids = self.centroids.to(rows.device, rows.dtype)
        squares, chunks = centroids.square().sum(1), rows.split(_CHUNK_FRAMES)
        with full_precision(rows):  # the square of the frame itself is the same for all centroids
            ids = [(squares - 2 * (chunk @ centroids.T)).argmin(1) for chunk in chunks]
        return torch.cat(ids).reshape(states.shape[:-1])

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
) -> TeacherUnits:
    """Divide a teacher's frames into units, on utterances of clean speech that `calibrate` draws.

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
    from sklearn.cluster import KMeans  # slow to import

    clusters = KMeans(config.count, n_init=1, max_iter=config.iterations, random_state=seed)
    clusters.fit(torch.cat(frames).cpu().numpy())
    logger.info("%d units of layer %d from %d frames of %d utterances", config.count, config.layer, found, len(read))
    made_from = {
        "settings": asdict(config),
        "seed": seed,
        "ids": sorted(read),
        "frames": found,
        "mean_squared_distance": clusters.inertia_ / found,
    }
    return TeacherUnits(torch.from_numpy(clusters.cluster_centers_), config.layer, made_from)
