"""Stage 2: the waveform model, the project's own encoder, taught by the log-mel model.

It regresses layers of the frozen log-mel model and predicts cluster labels on every frame, with spans of its input
masked, so that masked frames are predicted from their context and the others from the waveform. Labels are the MFCC
clusters of stage 1 and clusters of the log-mel model's own features (HuBERT's second iteration). Two spectral targets
keep the lower layers from losing what clusters do not tell: the log-mel frames themselves, from the projected features,
and the input of the log-mel model's first layer, from the first layer.
"""

from __future__ import annotations

import logging
import time
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from research.mini_teacher.labels import fit_clusters
from research.mini_teacher.mel_stage import MelModel
from research.mini_teacher.pool import Pool, num_frames
from research.mini_teacher.steps import LogFile, mask_spans, scheduled_lr
from robustdistiller.common.files import write_atomically
from robustdistiller.upstream import EncoderConfig, SpeechEncoder
from robustdistiller.upstream.checkpoints import read_checkpoint, save_checkpoint

logger = logging.getLogger(__name__)

# (layer of this encoder, layer of the log-mel model that it regresses); the first is a spectral target.
REGRESSED = ((1, 0), (5, 3), (5, 5))
CLUSTER_LAYER = 4
CLUSTER_SECONDS = 2880  # of speech for the feature clusters
EMA_DECAY = 0.999


def teacher_config() -> EncoderConfig:
    """Shape of the mini teacher: wav2vec 2.0 strides, 128 channels, five layers of width 256."""
    return EncoderConfig(
        conv_layers=((128, 10, 5), *((128, 3, 2),) * 4, *((128, 2, 2),) * 2),
        embed_dim=256,
        num_layers=5,
        num_heads=4,
        ffn_dim=1024,
        position_kernel=64,
        dropout=0.0,
        attention_dropout=0.0,
    )


class TrainedEncoder(nn.Module):
    """The encoder with what only training needs: mask embedding, regression and cluster heads."""

    def __init__(self, num_mfcc_clusters: int, num_feature_clusters: int, mel_dim: int = 160):
        super().__init__()
        self.encoder = SpeechEncoder(teacher_config())
        width = self.encoder.config.embed_dim
        self.mask_embedding = nn.Parameter(torch.randn(width) * 0.1)
        self.regression = nn.ModuleList(nn.Linear(width, width) for _ in REGRESSED)
        self.mel_head = nn.Linear(width, mel_dim)
        self.mfcc_head = nn.Linear(width, num_mfcc_clusters)
        self.feature_head = nn.Linear(width, num_feature_clusters)
        self._mask = None
        self.encoder.feature_dropout.register_forward_hook(self._hide)

    def _hide(self, module, inputs, projected):
        if self._mask is None:
            return projected
        return torch.where(self._mask[..., None], self.mask_embedding.to(projected.dtype), projected)

    def forward(self, waveforms: torch.Tensor, mask: torch.Tensor):
        """Log-mel frames, regressed layers, MFCC-cluster and feature-cluster logits of waveforms with hidden frames."""
        self._mask = mask
        output = self.encoder(waveforms)
        self._mask = None
        states = output.hidden_states
        regressed = [head(states[layer]) for head, (layer, _) in zip(self.regression, REGRESSED)]
        return self.mel_head(output.projected), regressed, self.mfcc_head(states[-1]), self.feature_head(states[-1])


def feature_centres(pool: Pool, mel: MelModel, options) -> torch.Tensor:
    """k-means centres (clusters, width) of layer-normed features of the log-mel model, cached in `options.work`."""
    path = options.work / "centres.pt"
    if not path.is_file():
        generator = np.random.default_rng((options.seed, 2))
        features = []
        with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
            for _ in range(CLUSTER_SECONDS * 16000 // options.batch_samples):
                waveforms, _ = pool.draw(generator, options.batch_samples, options.crop_samples, options.short_share)
                states = mel(waveforms)[CLUSTER_LAYER].float()
                features.append(functional.layer_norm(states, states.shape[-1:]).flatten(0, 1))
        centres = fit_clusters(torch.cat(features).numpy(), options.feature_clusters, options.seed).cluster_centers_
        torch.save(torch.from_numpy(centres).float(), path)
    return torch.load(path, weights_only=True)


def targets_of(mel: MelModel, centres: torch.Tensor, waveforms: torch.Tensor):
    """Log-mel frames, layer-normed target layers and feature-cluster labels (batch, frames) of unmasked waveforms."""
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        states = [state.float() for state in mel(waveforms)]
    normed = {layer: functional.layer_norm(states[layer], states[layer].shape[-1:]) for layer in range(len(states))}
    distances = centres.square().sum(1) - 2 * normed[CLUSTER_LAYER] @ centres.T
    return mel.frames(waveforms), [normed[layer] for _, layer in REGRESSED], distances.argmin(-1)


def train_conv(pool: Pool, labels: torch.Tensor, mel: MelModel, options, log: LogFile) -> Path:
    """Trains stage 2 for `options.conv_steps` steps, going on from the state in `options.work` if there is one.

    Every `options.save_every` steps the state and a usable checkpoint of the averaged weights are written.
    """
    torch.manual_seed(options.seed + 1)
    centres = feature_centres(pool, mel, options)
    model = TrainedEncoder(options.num_clusters, options.feature_clusters)
    average = SpeechEncoder(teacher_config())
    if options.init:
        model.encoder.load_state_dict(read_checkpoint(options.init).state_dict)
    average.load_state_dict(model.encoder.state_dict())
    optimizer = torch.optim.AdamW(model.parameters(), lr=options.conv_lr, betas=(0.9, 0.98), weight_decay=0.01)
    state_path, first_step, spent = options.work / "conv_state.pt", 0, 0.0
    if state_path.is_file():
        state = torch.load(state_path, weights_only=True)
        model.load_state_dict(state["model"])
        average.load_state_dict(state["average"])
        optimizer.load_state_dict(state["optimizer"])
        first_step, spent = state["step"], state["seconds"]
        logger.info("going on from step %d", first_step)
    started = time.monotonic() - spent
    for step in range(first_step, options.conv_steps):
        optimizer.param_groups[0]["lr"] = scheduled_lr(step, options.conv_steps, options.conv_lr)
        values = _train_step(model, optimizer, pool, labels, mel, centres, options, step)
        decay = min(EMA_DECAY, (1 + step) / (10 + step))
        with torch.no_grad():
            for slow, fast in zip(average.parameters(), model.encoder.parameters()):
                slow.lerp_(fast, 1 - decay)
        last = step == options.conv_steps - 1
        if step % 50 == 0 or last:
            log.write(
                stage="continued" if options.init else "conv",
                step=step,
                seconds=round(time.monotonic() - started),
                **values,
            )
        if (step + 1) % options.save_every == 0 or last:
            state = {"model": model.state_dict(), "average": average.state_dict(), "optimizer": optimizer.state_dict()}
            state |= {"step": step + 1, "seconds": time.monotonic() - started}
            write_atomically(state_path, partial(torch.save, state))
            export(average, options, step + 1)
    return export(average, options, options.conv_steps)


def _train_step(model, optimizer, pool, labels, mel, centres, options, step) -> dict[str, float]:
    generator = np.random.default_rng((options.seed, 3, step))
    waveforms, first = pool.draw(generator, options.batch_samples, options.crop_samples, options.short_share)
    frames = num_frames(waveforms.shape[1])
    mask = mask_spans(generator, len(first), frames, options.mask_probability)
    mfcc_targets = labels[first[:, None] + torch.arange(frames)].flatten()
    mel_frames, layers, feature_targets = targets_of(mel, centres, waveforms)
    with torch.autocast("cpu", torch.bfloat16):
        mel_output, regressed, mfcc_logits, feature_logits = model(waveforms, mask)
    mel_loss = functional.l1_loss(mel_output.float(), mel_frames)
    l1 = [functional.l1_loss(output.float(), target) for output, target in zip(regressed, layers)]
    cosines = [functional.cosine_similarity(out.float(), target, dim=-1) for out, target in zip(regressed, layers)]
    similarity = [distance - functional.logsigmoid(cosine).mean() for distance, cosine in zip(l1, cosines)]
    mfcc_losses = functional.cross_entropy(mfcc_logits.float().flatten(0, 1), mfcc_targets, reduction="none")
    feature_loss = functional.cross_entropy(feature_logits.float().flatten(0, 1), feature_targets.flatten())
    spectral = mel_loss + similarity[0]
    loss = sum(similarity[1:]) + mfcc_losses.mean() + feature_loss + options.spectral_weight * spectral
    optimizer.zero_grad()
    loss.backward()
    norm = nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    optimizer.step()
    hidden, correct = mask.flatten(), mfcc_logits.argmax(-1).flatten() == mfcc_targets
    return {
        "loss": loss.item(),
        "masked_loss": mfcc_losses[hidden].mean().item(),
        "masked_accuracy": correct[hidden].float().mean().item(),
        "unmasked_accuracy": correct[~hidden].float().mean().item(),
        "feature_loss": feature_loss.item(),
        "mel_loss": mel_loss.item(),
        "regression_l1": torch.stack(l1[1:]).mean().item(),
        "regression_cosine": torch.stack([cosine.mean() for cosine in cosines[1:]]).mean().item(),
        "gradient_norm": norm.item(),
    }


def export(average: SpeechEncoder, options, step: int) -> Path:
    """Writes the averaged weights as half-precision `teacher.ckpt` with what they were trained on."""
    path = options.out / "teacher.ckpt"
    metadata = {
        "name": "robustdistiller mini teacher",
        "recipe": "mini/train_teacher.py (log-mel masked prediction, then regression and cluster prediction)",
        "seed": options.seed,
        "mel_steps": options.mel_steps,
        "conv_steps": step,
        "batch_seconds": options.batch_samples / 16000,
        "packs": ["mini", *[pack.name for pack in options.pool]],
        "corruption": "none (dry speech)",
        "torch": torch.__version__,
        "licence": "Apache-2.0 (weights); the speech keeps its own licences, see mini/teacher/README.md",
    }
    save_checkpoint(path, average, metadata, dtype=torch.float16)
    return path
