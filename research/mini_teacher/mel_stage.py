"""Stage 1: a log-mel-input transformer trained by masked prediction of MFCC clusters.

A convolutional front-end learns nothing useful from masked prediction alone in minutes of CPU; log-mel frames do.
This model is only the teacher of the waveform model (`conv_stage`) and is not shipped.
"""

from __future__ import annotations

import logging
import time
from pathlib import Path

import librosa
import numpy as np
import torch
from torch import nn
from torch.nn import functional

from research.mini_teacher.pool import HOP_SAMPLES, WINDOW_SAMPLES, Pool, num_frames
from research.mini_teacher.steps import LogFile, mask_spans, scheduled_lr

logger = logging.getLogger(__name__)


class MelModel(nn.Module):
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

    def set_statistics(self, pool: Pool, generator: np.random.Generator) -> None:
        """Sets the normalisation from some two minutes of the pool."""
        waveforms, _ = pool.draw(generator, 120 * 16000, 3 * 16000, 0.0)
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


def train_mel(pool: Pool, labels: torch.Tensor, options, work_dir: Path, log: LogFile) -> MelModel:
    """Trains stage 1 for `options.mel_steps` steps, or reads the finished model from `work_dir`."""
    torch.manual_seed(options.seed)
    model = MelModel(options.num_clusters)
    path = work_dir / "mel.pt"
    if path.is_file():
        model.load_state_dict(torch.load(path, weights_only=True))
        return model.eval()
    model.set_statistics(pool, np.random.default_rng(options.seed))
    optimizer = torch.optim.AdamW(model.parameters(), lr=options.mel_lr, betas=(0.9, 0.98), weight_decay=0.01)
    started = time.monotonic()
    for step in range(options.mel_steps):
        generator = np.random.default_rng((options.seed, 1, step))
        waveforms, first = pool.draw(generator, options.batch_samples, options.crop_samples, options.short_share)
        frames = num_frames(waveforms.shape[1])
        targets = labels[first[:, None] + torch.arange(frames)]
        mask = mask_spans(generator, len(first), frames, start_probability=0.06)
        optimizer.param_groups[0]["lr"] = scheduled_lr(step, options.mel_steps, options.mel_lr)
        with torch.autocast("cpu", torch.bfloat16):
            logits = model.head(model(waveforms, mask)[-1])
        losses = functional.cross_entropy(logits.float().flatten(0, 1), targets.flatten(), reduction="none")
        hidden = mask.flatten()
        loss = losses[hidden].mean() + losses[~hidden].mean()
        optimizer.zero_grad()
        loss.backward()
        norm = nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        if step % 50 == 0 or step == options.mel_steps - 1:
            correct = logits.argmax(-1).flatten() == targets.flatten()
            log.write(
                stage="mel",
                step=step,
                seconds=round(time.monotonic() - started),
                loss=loss.item(),
                masked_loss=losses[hidden].mean().item(),
                masked_accuracy=correct[hidden].float().mean().item(),
                unmasked_accuracy=correct[~hidden].float().mean().item(),
                gradient_norm=norm.item(),
            )
    torch.save(model.state_dict(), path)
    return model.eval()
