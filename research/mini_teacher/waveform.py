"""The model of the later stages: the project's own encoder, taught by the log-mel model.

It regresses layers of the frozen log-mel model and predicts cluster labels on every frame, with spans of its input
masked, so that masked frames are predicted from their context and the others from the waveform. Labels are the MFCC
clusters of the first stage and clusters of the log-mel model's own features (HuBERT's second iteration). Two spectral
targets keep the lower layers from losing what clusters do not tell: the log-mel frames themselves, from the projected
features, and the input of the log-mel model's first layer, from the first layer.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from research.mini_teacher.labels import fit_clusters
from research.mini_teacher.log_mel import LogMelModel, cluster_losses
from research.mini_teacher.loop import Row, mask_spans
from research.mini_teacher.pool import Pool, num_frames
from research.mini_teacher.recipe import Recipe, Stage
from robustdistiller.upstream import EncoderConfig, SpeechEncoder

# (layer of this encoder, layer of the log-mel model that it regresses); the first is a spectral target.
REGRESSED = ((1, 0), (5, 3), (5, 5))
CLUSTER_LAYER = 4


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


@torch.no_grad()
def feature_centres(pool: Pool, log_mel: LogMelModel, recipe: Recipe) -> torch.Tensor:
    """The k-means centres (clusters, width) of layer-normed features of the log-mel model."""
    generator = np.random.default_rng((recipe.seed, 2))
    features = []
    with torch.autocast("cpu", torch.bfloat16):
        for _ in range(max(1, int(recipe.cluster_seconds * 16000 / recipe.batch_samples))):
            waveforms, _ = pool.draw(generator, recipe.batch_samples, recipe.crop_samples, recipe.short_share)
            states = log_mel(waveforms)[CLUSTER_LAYER].float()
            features.append(functional.layer_norm(states, states.shape[-1:]).flatten(0, 1))
    clusters = fit_clusters(torch.cat(features).numpy(), recipe.feature_clusters, recipe.seed)
    return torch.from_numpy(clusters.cluster_centers_).float()


@torch.no_grad()
def targets_of(
    log_mel: LogMelModel, centres: torch.Tensor, waveforms: torch.Tensor
) -> tuple[torch.Tensor, list[torch.Tensor], torch.Tensor]:
    """The log-mel frames, layer-normed target layers and feature-cluster labels (batch, frames) of whole waveforms."""
    with torch.autocast("cpu", torch.bfloat16):
        states = [state.float() for state in log_mel(waveforms)]
    normed = [functional.layer_norm(state, state.shape[-1:]) for state in states]
    distances = centres.square().sum(1) - 2 * normed[CLUSTER_LAYER] @ centres.T
    return log_mel.frames(waveforms), [normed[layer] for _, layer in REGRESSED], distances.argmin(-1)


def waveform_loss(
    model: TrainedEncoder,
    log_mel: LogMelModel,
    centres: torch.Tensor,
    pool: Pool,
    labels: torch.Tensor,
    recipe: Recipe,
    stage: Stage,
    generator: np.random.Generator,
) -> tuple[torch.Tensor, Row]:
    """The loss of the waveform stages on a batch drawn with `generator`.

    It is the sum of L1 distance and negative log-sigmoid of the cosine similarity to the regressed layers, as in
    DistilHuBERT (arXiv 2110.01900), of the cross-entropies of both kinds of clusters, and of the weighted spectral
    targets.

    Args:
        model: is trained.
        log_mel: its teacher.
        centres: (clusters, width) of the teacher's features.
        pool: gives the batch.
        labels: (frames of the pool,) int64 MFCC clusters.
        recipe: sizes of a batch.
        stage: how much is masked, and the weight of the spectral targets.
        generator: of this step.

    Returns:
        The loss, a scalar, and the values for the log.
    """
    waveforms, first = pool.draw(generator, recipe.batch_samples, recipe.crop_samples, recipe.short_share)
    frames = num_frames(waveforms.shape[1])
    mask = mask_spans(generator, len(first), frames, stage.mask_probability)
    mfcc_targets = labels[first[:, None] + torch.arange(frames)].flatten()
    mel_frames, layers, feature_targets = targets_of(log_mel, centres, waveforms)
    with torch.autocast("cpu", torch.bfloat16):
        mel_output, regressed, mfcc_logits, feature_logits = model(waveforms, mask)
    mel_loss = functional.l1_loss(mel_output.float(), mel_frames)
    l1 = [functional.l1_loss(output.float(), target) for output, target in zip(regressed, layers)]
    cosines = [functional.cosine_similarity(out.float(), target, dim=-1) for out, target in zip(regressed, layers)]
    similarity = [distance - functional.logsigmoid(cosine).mean() for distance, cosine in zip(l1, cosines)]
    mfcc_losses, values = cluster_losses(mfcc_logits, mfcc_targets, mask)
    feature_loss = functional.cross_entropy(feature_logits.float().flatten(0, 1), feature_targets.flatten())
    spectral = mel_loss + similarity[0]
    loss = sum(similarity[1:]) + mfcc_losses.mean() + feature_loss + stage.spectral_weight * spectral
    values |= {
        "feature_loss": feature_loss,
        "mel_loss": mel_loss,
        "regression_l1": torch.stack(l1[1:]).mean(),
        "regression_cosine": torch.stack([cosine.mean() for cosine in cosines[1:]]).mean(),
    }
    return loss, values
