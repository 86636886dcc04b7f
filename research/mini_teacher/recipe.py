"""The settings of a teacher's training: three stages, and what all of them draw their batches from."""

from __future__ import annotations

from dataclasses import dataclass

from robustdistiller.common.settings import SettingsError


@dataclass(frozen=True)
class Stage:
    """One stage of training: its length and its weights.

    Attributes:
        steps: optimizer steps, at least one.
        peak_lr: the learning rate after warm-up, which then falls linearly to a twentieth of it.
        mask_probability: the share of frames at which a masked span of ten frames starts.
        spectral_weight: the weight of the two spectral targets (waveform stages only).
        ema_decay: the largest decay of the running average of the weights that the stage leaves; 0 leaves the weights.

    Example:
        >>> Stage(steps=10, peak_lr=1e-3).ema_decay
        0.999
    """

    steps: int
    peak_lr: float
    mask_probability: float = 0.05
    spectral_weight: float = 0.0
    ema_decay: float = 0.999


@dataclass(frozen=True)
class Recipe:
    """The recipe of the mini teacher; the defaults are those of the shipped one, where its stages ran to their end.

    Attributes:
        log_mel: masked prediction of MFCC clusters by a transformer that hears log-mel frames.
        waveform: the encoder, taught by the log-mel model.
        spectral: the encoder again, with spectral targets that keep the lower layers from losing what clusters do not
            tell.
        seed: of weights, clusters and batches.
        mfcc_clusters: k-means clusters of MFCCs.
        feature_clusters: k-means clusters of the log-mel model's features.
        cluster_seconds: the speech whose features are clustered, in seconds.
        batch_samples: samples of a batch at 16 kHz (18 s).
        crop_samples: samples of a crop (3 s).
        short_share: the share of batches that are made of isolated syllables.
        syllable_share: the share of crops that start in an isolated syllable.
        shipped_share: the share of crops that start in other speech of the first pack.

    Example:
        >>> Recipe(waveform=Stage(10, 1e-3)).stages()["waveform"].steps
        10
    """

    log_mel: Stage = Stage(2400, 1.5e-3, mask_probability=0.06, ema_decay=0.0)
    waveform: Stage = Stage(6500, 1.2e-3)
    spectral: Stage = Stage(2600, 8e-4, spectral_weight=1.0)
    seed: int = 1
    mfcc_clusters: int = 100
    feature_clusters: int = 200
    cluster_seconds: float = 2880
    batch_samples: int = 288_000
    crop_samples: int = 48_000
    short_share: float = 0.1
    syllable_share: float = 0.05
    shipped_share: float = 0.25

    def __post_init__(self) -> None:
        for name, stage in self.stages().items():
            if stage.steps < 1:
                raise SettingsError(f"{name}.steps is {stage.steps}; expected at least 1: each stage teaches the next")
        if not 400 <= self.crop_samples <= self.batch_samples:
            raise SettingsError(
                f"crop_samples is {self.crop_samples}; expected at least 400, one frame, and no more than "
                f"batch_samples, {self.batch_samples}"
            )
        if not 0 <= self.syllable_share + self.shipped_share <= 1:
            raise SettingsError(
                f"syllable_share and shipped_share are {self.syllable_share} and {self.shipped_share}; expected shares "
                "that are at most 1 together: the rest is the other packs"
            )

    def stages(self) -> dict[str, Stage]:
        """The stages by name, in the order in which they run."""
        return {"log_mel": self.log_mel, "waveform": self.waveform, "spectral": self.spectral}
