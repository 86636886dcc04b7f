"""The model of the first stage: a transformer that hears log-mel frames and predicts the MFCC clusters of masked ones.

A convolutional front-end learns nothing useful from masked prediction alone in minutes of CPU; log-mel frames do.
This model is only the teacher of the waveform model (`waveform`) and is not shipped.
"""

from __future__ import annotations

import librosa
import numpy as np
import torch
from torch import nn
from torch.nn import functional

from research.mini_teacher.loop import Row, mask_spans
from research.mini_teacher.pool import HOP_SAMPLES, WINDOW_SAMPLES, Pool, num_frames
from research.mini_teacher.recipe import Recipe


class LogMelModel(nn.Module):
    """Five transformer layers over pairs of 10 ms log-mel frames, on the frame grid of wav2vec 2.0."""

    def __init__(self, num_clusters: int, num_mels: int = 80, width: int = 256, num_layers: int = 5):
        super().__init__()
        filters = librosa.filters.mel(sr=16000, n_fft=WINDOW_SAMPLES, n_mels=num_mels, htk=True, norm=None)
        self.register_buffer("filters", torch.from_numpy(filters), persistent=False)
        self.register_buffer("window", torch.hann_window(WINDOW_SAMPLES), persistent=False)
        self.register_buffer("mean", torch.zeros(num_mels))
        self.register_buffer("scale", torch.ones(num_mels))
        self.project = nn.Linear(2 * num_mels, width)
        self.mask_embedding = nn.Parameter(torch.randn(width) * 0.1)
        self.position = nn.Conv1d(width, width, 63, padding=31, groups=16)
        self.norm = nn.LayerNorm(width)
        self.layers = nn.ModuleList(
            nn.TransformerEncoderLayer(width, 4, 4 * width, 0.0, "gelu", batch_first=True, norm_first=True)
            for _ in range(num_layers)
        )
        self.head = nn.Sequential(nn.LayerNorm(width), nn.Linear(width, num_clusters))

    def log_mel(self, waveforms: torch.Tensor) -> torch.Tensor:
        """(batch, samples) to (batch, frames, num_mels) at 10 ms."""
        spectrum = torch.stft(
            waveforms, WINDOW_SAMPLES, HOP_SAMPLES // 2, window=self.window, center=False, return_complex=True
        )
        return torch.log(self.filters @ spectrum.abs().square() + 1e-5).transpose(1, 2)

    def set_statistics(self, pool: Pool, seed: int) -> None:
        """Sets the normalisation from some two minutes of the pool."""
        waveforms, _ = pool.draw(np.random.default_rng(seed), 120 * 16000, 3 * 16000, 0.0)
        frames = self.log_mel(waveforms)
        self.mean.copy_(frames.mean((0, 1)))
        self.scale.copy_(frames.std((0, 1)))

    def frames(self, waveforms: torch.Tensor) -> torch.Tensor:
        """Normalised log-mel frames in pairs, (batch, frames, 2 * num_mels)."""
        mel = (self.log_mel(waveforms) - self.mean) / self.scale
        frames = num_frames(waveforms.shape[1])
        mel = functional.pad(mel, (0, 0, 0, max(0, 2 * frames - mel.shape[1])), mode="replicate")
        return mel[:, : 2 * frames].reshape(mel.shape[0], frames, -1)

    def forward(self, waveforms: torch.Tensor, mask: torch.Tensor | None = None) -> list[torch.Tensor]:
        """Hidden states [0..num_layers], each (batch, frames, width); `mask` (batch, frames) hides input frames."""
        hidden = self.project(self.frames(waveforms))
        if mask is not None:
            hidden = torch.where(mask[..., None], self.mask_embedding.to(hidden.dtype), hidden)
        hidden = hidden + functional.gelu(self.position(hidden.transpose(1, 2)).transpose(1, 2))
        states = [self.norm(hidden)]
        for layer in self.layers:
            states.append(layer(states[-1]))
        return states


def log_mel_loss(
    model: LogMelModel, pool: Pool, labels: torch.Tensor, recipe: Recipe, generator: np.random.Generator
) -> tuple[torch.Tensor, Row]:
    """The mean cross-entropy over masked frames plus that over the others, of a batch drawn with `generator`.

    Args:
        model: predicts clusters.
        pool: gives the batch.
        labels: (frames of the pool,) int64 MFCC clusters.
        recipe: sizes of a batch, and how much of it is masked.
        generator: of this step.

    Returns:
        The loss, a scalar, and the values for the log.
    """
    waveforms, first = pool.draw(generator, recipe.batch_samples, recipe.crop_samples, recipe.short_share)
    frames = num_frames(waveforms.shape[1])
    targets = labels[first[:, None] + torch.arange(frames)].flatten()
    mask = mask_spans(generator, len(first), frames, recipe.log_mel.mask_probability)
    with torch.autocast("cpu", torch.bfloat16):
        logits = model.head(model(waveforms, mask)[-1])
    losses, values = cluster_losses(logits, targets, mask)
    hidden = mask.flatten()
    return losses[hidden].mean() + losses[~hidden].mean(), values


def cluster_losses(logits: torch.Tensor, targets: torch.Tensor, mask: torch.Tensor) -> tuple[torch.Tensor, Row]:
    """The cross-entropy of each frame, and the log's values of masked and other frames.

    Args:
        logits: (batch, frames, clusters).
        targets: (batch * frames,) int64 clusters.
        mask: (batch, frames) bool, the masked frames.

    Example:
        >>> losses, values = cluster_losses(torch.zeros(1, 2, 4), torch.tensor([0, 1]), torch.tensor([[True, False]]))
        >>> round(losses[0].item(), 3), values["masked_accuracy"].item()
        (1.386, 1.0)
    """
    hidden, correct = mask.flatten(), logits.argmax(-1).flatten() == targets
    losses = functional.cross_entropy(logits.float().flatten(0, 1), targets, reduction="none")
    values = {
        "masked_loss": losses[hidden].mean(),
        "masked_accuracy": correct[hidden].float().mean(),
        "unmasked_accuracy": correct[~hidden].float().mean(),
    }
    return losses, values
