"""Frame labels for masked prediction: k-means over MFCCs, as in HuBERT's first iteration, and over learned features."""

from __future__ import annotations

import logging
from collections import defaultdict

import librosa
import numpy as np
import torch
from sklearn.cluster import MiniBatchKMeans

from research.mini_teacher.pool import HOP_SAMPLES, WINDOW_SAMPLES, Pool

logger = logging.getLogger(__name__)


def mfcc_features(pool: Pool) -> np.ndarray:
    """MFCC with deltas and delta-deltas of every pool frame, (frames, 39) float16.

    The mean is removed per voice, not per utterance: the mean of one isolated syllable is mostly its vowel.
    """
    features = np.empty((len(pool.audio) // HOP_SAMPLES, 39), dtype=np.float16)
    by_voice = defaultdict(list)
    for index, (start, length, voice) in enumerate(zip(pool.starts, pool.lengths, pool.voices)):
        padded = np.pad(pool.utterance(index), (0, WINDOW_SAMPLES - HOP_SAMPLES // 2), mode="reflect")
        static = _mfcc(padded)
        delta = librosa.feature.delta(static, width=5, mode="nearest")
        stacked = np.concatenate([static, delta, librosa.feature.delta(delta, width=5, mode="nearest")])
        rows = slice(start // HOP_SAMPLES, (start + length) // HOP_SAMPLES)
        features[rows] = stacked[:, ::2].T[: length // HOP_SAMPLES]
        by_voice[voice].append(rows)
    for rows in by_voice.values():
        mean = np.concatenate([features[row] for row in rows]).astype(np.float32).mean(axis=0)
        for row in rows:
            features[row] -= mean.astype(np.float16)
    return features


def _mfcc(samples: np.ndarray) -> np.ndarray:
    power = librosa.feature.melspectrogram(
        **{"y": samples, "sr": 16000, "n_fft": WINDOW_SAMPLES, "hop_length": HOP_SAMPLES // 2, "center": False},
        **{"n_mels": 40, "htk": True, "norm": None},
    )
    return librosa.feature.mfcc(S=librosa.power_to_db(power, ref=1.0, amin=1e-10, top_db=80.0), n_mfcc=13)


def fit_clusters(features: np.ndarray, num_clusters: int, seed: int) -> MiniBatchKMeans:
    """k-means on at most 200,000 frames drawn with `seed`, each dimension scaled to unit variance by the caller."""
    generator = np.random.default_rng(seed)
    chosen = np.sort(generator.choice(len(features), size=min(200_000, len(features)), replace=False))
    sample = features[chosen].astype(np.float32)
    return MiniBatchKMeans(num_clusters, batch_size=10_000, n_init=3, max_iter=60, random_state=seed).fit(sample)


def mfcc_labels(pool: Pool, num_clusters: int, seed: int) -> torch.Tensor:
    """The cluster of every frame of the pool, (frames,) int64."""
    features = mfcc_features(pool)
    features /= np.maximum(features[:: max(1, len(features) // 200_000)].astype(np.float32).std(axis=0), 1e-3)
    clusters = fit_clusters(features, num_clusters, seed)
    blocks = np.array_split(features, max(1, len(features) // 100_000))
    labels = np.concatenate([clusters.predict(block.astype(np.float32)) for block in blocks])
    shares = np.bincount(labels, minlength=num_clusters) / len(labels)
    perplexity = float(np.exp(-(shares * np.log(np.maximum(shares, 1e-12))).sum()))
    logger.info("MFCC clusters: %d, label perplexity %.1f over %d frames", num_clusters, perplexity, len(labels))
    return torch.from_numpy(labels.astype(np.int64))
