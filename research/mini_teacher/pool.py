"""The training pool of the mini teacher: all training utterances as one int16 stream, and crops drawn from it."""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from robustdistiller.common.files import write_text
from robustdistiller.mini.pack import Utterance, read_audio, read_pack

logger = logging.getLogger(__name__)

HOP_SAMPLES = 320  # encoder stride: utterances lie on this grid, so that any crop on it has whole label frames
WINDOW_SAMPLES = 400  # receptive field of one frame
SHORT_CROP_SAMPLES = 4400  # isolated syllables: shorter than all but a few of them


def num_frames(num_samples: int) -> int:
    """Frames of wav2vec 2.0 strides (window 400, hop 320) in `num_samples`."""
    return (num_samples - WINDOW_SAMPLES) // HOP_SAMPLES + 1


@dataclass
class Pool:
    """Training utterances, one after another on a grid of 320 samples.

    Attributes:
        audio: (samples,) int16, memory-mapped.
        starts: (utterances,) first sample of each utterance, multiples of 320.
        lengths: (utterances,) samples, multiples of 320.
        voices: voice of each utterance.
        weights: (utterances,) probability that a crop starts in the utterance.
        short: indices of the isolated syllables.
    """

    audio: np.ndarray
    starts: np.ndarray
    lengths: np.ndarray
    voices: list[str]
    weights: np.ndarray
    short: np.ndarray

    def utterance(self, index: int) -> np.ndarray:
        """Samples of one utterance as float32 in [-1, 1)."""
        start = self.starts[index]
        return self.audio[start : start + self.lengths[index]].astype(np.float32) / 32768

    def draw(self, generator: np.random.Generator, batch_samples: int, crop_samples: int, short_share: float):
        """One batch of crops and the frame at which each starts.

        With probability `short_share` the batch holds isolated syllables cut to one length, otherwise crops of
        `crop_samples` that start in an utterance and run on into the next ones of the same recording.

        Returns:
            waveforms (batch, samples) float32, start frames (batch,) int64.
        """
        if len(self.short) and generator.random() < short_share:
            samples = SHORT_CROP_SAMPLES
            starts = self.starts[generator.choice(self.short, size=batch_samples // (2 * samples))]
        else:
            samples = crop_samples
            chosen = generator.choice(len(self.starts), size=batch_samples // samples, p=self.weights)
            inside = generator.random(len(chosen)) * self.lengths[chosen] // HOP_SAMPLES * HOP_SAMPLES
            last = (len(self.audio) - samples) // HOP_SAMPLES * HOP_SAMPLES
            starts = np.minimum(self.starts[chosen] + inside.astype(np.int64), last)
        waveforms = np.stack([self.audio[start : start + samples] for start in starts]).astype(np.float32) / 32768
        return torch.from_numpy(waveforms), torch.from_numpy(starts // HOP_SAMPLES)


def build_pool(packs: Sequence[Path], work_dir: Path, syllable_share: float, shipped_share: float) -> Pool:
    """Decodes the training utterances of the packs once into `work_dir` and opens them as a pool.

    The first pack is the shipped one. Isolated syllables make up `syllable_share` of all crops, its other speech
    `shipped_share`, in proportion to duration within each; the rest is the other packs.
    """
    utterances = [(pack == packs[0], utterance) for pack in packs for utterance in read_pack(pack)]
    kept = [(shipped, utterance) for shipped, utterance in utterances if utterance.split == "train"]
    logger.info("%d utterances, %d held out", len(kept), len(utterances) - len(kept))
    audio_path, table_path = work_dir / "pool.npy", work_dir / "pool.json"
    if not table_path.is_file():
        _decode(kept, audio_path, table_path)
    table = json.loads(table_path.read_text(encoding="utf-8"))
    lengths = np.array(table["lengths"], dtype=np.int64)
    voices, shipped = table["voices"], np.array(table["shipped"])
    syllables = np.array([voice.startswith("gcin") for voice in voices])
    weights = np.zeros(len(lengths))
    others = ~shipped & ~syllables
    left = 1 - syllable_share - shipped_share if others.any() else 0.0
    for mask, share in ((syllables, syllable_share), (shipped & ~syllables, shipped_share), (others, left)):
        if mask.any():
            weights[mask] = share * lengths[mask] / lengths[mask].sum()
    return Pool(
        audio=np.load(audio_path, mmap_mode="r"),
        starts=np.cumsum(lengths) - lengths,
        lengths=lengths,
        voices=voices,
        weights=weights / weights.sum(),
        short=np.flatnonzero(syllables & (lengths >= SHORT_CROP_SAMPLES)),
    )


def _decode(utterances: list[tuple[bool, Utterance]], audio_path: Path, table_path: Path) -> None:
    """Writes the stream and its table; the table comes last, so its presence means that both are complete."""
    shipped_paths = {utterance.path for shipped, utterance in utterances if shipped}
    pieces, table = [], {"lengths": [], "voices": [], "shipped": []}
    for utterance, samples in read_audio([utterance for _, utterance in utterances]):
        whole = len(samples) // HOP_SAMPLES * HOP_SAMPLES
        if whole < 2 * HOP_SAMPLES:
            continue
        pieces.append(samples[:whole].copy())
        table["lengths"].append(whole)
        table["voices"].append(utterance.voice)
        table["shipped"].append(utterance.path in shipped_paths)
    np.save(audio_path, np.concatenate(pieces))
    logger.info("pool: %.2f h", sum(table["lengths"]) / 16000 / 3600)
    write_text(table_path, json.dumps(table))
