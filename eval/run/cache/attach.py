"""The cache in an upstream's place: the same features, computed once for every waveform."""

from __future__ import annotations

import hashlib
import logging
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from robustdistiller.common.array_store import KEY_BYTES, ArrayStore

from .errors import DependsOnBatch

logger = logging.getLogger(__name__)

_PROBE_SAMPLES = (16000, 9600, 20321)
_SAME = 1e-4  # largest difference, relative to the root mean square of a layer: rounding is below, padding above
_REMEMBERED = 1_000_000


class FeatureCache:
    """Features of waveforms, from the store where they are there, else from the upstream.

    Args:
        upstream: frozen, in evaluation mode.
        featurizer: s3prl's, for which features are kept: only those that it reads.
        store: where they are kept; None keeps nothing but what was read ahead.
        means: keep and give the mean over an utterance's frames instead of its frames.
        on_second: keep features when a waveform comes for the second time, for data with random crops, most of which
            never come again.

    Attributes:
        found, computed: utterances so far.

    Example:
        >>> class Upstream(nn.Module):
        ...     def forward(self, wavs):
        ...         frames = nn.utils.rnn.pad_sequence([wav.view(-1, 320) for wav in wavs], batch_first=True)
        ...         return {"hidden_states": [frames, 2 * frames]}
        >>> class Featurizer:
        ...     downsample_rate = 320
        ...     def _select_feature(self, features):
        ...         return features["hidden_states"]
        >>> import tempfile
        >>> cache = FeatureCache(Upstream(), Featurizer(), ArrayStore(tempfile.mkdtemp(), (2, None, 320)))
        >>> wavs = [torch.randn(640), torch.randn(320)]
        >>> first, second = cache(wavs), cache(wavs)
        >>> torch.equal(first[1], second[1]), first[1].shape, cache.computed, cache.found
        (True, torch.Size([2, 2, 320]), 2, 2)
    """

    def __init__(
        self,
        upstream: nn.Module,
        featurizer: Any,
        store: ArrayStore | None,
        means: bool = False,
        on_second: bool = False,
    ) -> None:
        self.forward: Callable = upstream.forward
        self.featurizer, self.store, self.means, self.on_second = featurizer, store, means, on_second
        self.found = self.computed = 0
        self._ahead: dict[bytes, Tensor] = {}
        self._seen: OrderedDict[bytes, None] = OrderedDict()

    def __call__(self, wavs: Sequence[Tensor]) -> list[Tensor]:
        """Hidden states that the featurizer reads.

        Args:
            wavs: waveforms, each ``(samples,)``.

        Returns:
            one tensor ``(batch, frames, dim)`` a layer; frames past an utterance's own are zeros.
        """
        keys = [waveform_key(wav) for wav in wavs]
        features = [self._known(key, wav.device) for key, wav in zip(keys, wavs)]
        missing = [index for index, one in enumerate(features) if one is None]
        if missing:
            for index, one in zip(missing, self._compute([wavs[index] for index in missing])):
                features[index] = one
                self._keep(keys[index], one)
        self.found += len(wavs) - len(missing)
        frames = max(one.shape[1] for one in features)
        padded = features[0].new_zeros(features[0].shape[0], len(features), frames, features[0].shape[2])
        for index, one in enumerate(features):
            padded[:, index, : one.shape[1]] = one
        return list(padded.unbind(0))

    def read_ahead(self, wavs: Sequence[Tensor], seconds: float, sample_rate_hz: int = 16000) -> None:
        """Compute what is not known of these waveforms, sorted by length, in batches of some seconds, padding included.

        They are kept in memory until the next call. Waveforms that stand alone in a batch are left for their turn.
        """
        self._ahead.clear()
        wanted: dict[bytes, Tensor] = {}
        for wav in wavs:
            key = waveform_key(wav)
            if key not in wanted and not self._is_stored(key):
                wanted[key] = wav
        queue = sorted(wanted.items(), key=lambda item: len(item[1]))
        while queue:
            batch = [queue.pop()]
            most = max(1, int(seconds * sample_rate_hz / len(batch[0][1])))
            batch += [queue.pop() for _ in range(min(most - 1, len(queue)))]
            if len(batch) > 1:
                computed = self._compute([wav for _, wav in batch])
                self._ahead.update(zip([key for key, _ in batch], computed))

    def summary(self) -> str:
        """What came from the cache, in words."""
        total = self.found + self.computed
        kept = f", {self.store.size_bytes / 1e9:.3g} GB in {self.store.folder}" if self.store else ""
        return f"features of {self.computed} utterances computed for {total} asked for{kept}"

    def _is_stored(self, key: bytes) -> bool:
        return self.store is not None and self.store.get(key) is not None

    def _known(self, key: bytes, device: torch.device) -> Tensor | None:
        ahead = self._ahead.get(key)
        if ahead is not None:
            self._keep(key, ahead)
            return ahead
        stored = self.store.get(key) if self.store is not None else None
        # The copy brings it to memory that may be written to, and half precision back to single.
        return None if stored is None else torch.from_numpy(stored.astype(np.float32)).to(device)

    def _compute(self, wavs: Sequence[Tensor]) -> list[Tensor]:
        """Features of each waveform, ``(layers, frames, dim)``, rounded as they will be read back."""
        self.computed += len(wavs)
        with torch.no_grad():
            layers = selected(self.featurizer, self.forward(wavs))
        features = []
        for index, wav in enumerate(wavs):
            frames = min(round(len(wav) / self.featurizer.downsample_rate), layers[0].shape[1])
            one = torch.stack([layer[index, :frames] for layer in layers])
            one = one.double().mean(1, keepdim=True) if self.means else one
            half = self.store is not None and self.store.dtype == np.float16
            features.append((one.half() if half else one).float())
        return features

    def _keep(self, key: bytes, features: Tensor) -> None:
        if self.store is None or self.store.full:
            return
        if self.on_second and key not in self._seen:
            self._seen[key] = None
            if len(self._seen) > _REMEMBERED:
                self._seen.popitem(last=False)
            return
        self.store.put(key, features.cpu().numpy())


def waveform_key(wav: Tensor) -> bytes:
    """Digest of a waveform's samples.

    Example:
        >>> waveform_key(torch.zeros(2)) == waveform_key(torch.zeros(2)), len(waveform_key(torch.zeros(2)))
        (True, 16)
        >>> waveform_key(torch.zeros(2)) == waveform_key(torch.zeros(3))
        False
    """
    samples = wav.detach().cpu().contiguous().numpy()
    return hashlib.blake2b(memoryview(samples).cast("B"), digest_size=KEY_BYTES).digest()


def selected(featurizer: Any, features: Any) -> list[Tensor]:
    """The layers that a featurizer reads, as it selects them (one where it reads one).

    Example:
        >>> class Featurizer:
        ...     def _select_feature(self, features):
        ...         return features["paper"]
        >>> len(selected(Featurizer(), {"paper": torch.zeros(1, 2, 3)}))
        1
    """
    chosen = featurizer._select_feature(features)
    return [one.float() for one in (chosen if isinstance(chosen, list | tuple) else [chosen])]


@contextmanager
def attach(cache: FeatureCache, upstream: nn.Module, featurizer: Any) -> Iterator[FeatureCache]:
    """Put a cache in the place of an upstream's forward within a ``with`` block.

    With means, each utterance becomes one frame, which the featurizer then passes on as it is.

    Example:
        >>> upstream = nn.Module()
        >>> upstream.forward = lambda wavs: {"hidden_states": [torch.stack(wavs).unsqueeze(2)]}
        >>> class Featurizer:
        ...     feature_selection, downsample_rate = "hidden_states", 1
        ...     def _select_feature(self, features):
        ...         return features["hidden_states"]
        ...     def tolist(self, wavs, features):
        ...         return list(features)
        >>> cache = FeatureCache(upstream, Featurizer(), None)
        >>> with attach(cache, upstream, cache.featurizer):
        ...     upstream([torch.ones(5)])["hidden_states"][0].shape
        torch.Size([1, 5, 1])
    """
    forward, tolist = upstream.forward, featurizer.tolist
    upstream.forward = lambda wavs, *_, **__: {featurizer.feature_selection: cache(wavs)}
    if cache.means:
        featurizer.tolist = lambda _, features: list(features)
    try:
        yield cache
    finally:
        upstream.forward, featurizer.tolist = forward, tolist


def require_independent(upstream: nn.Module, featurizer: Any, device: str, name: str) -> None:
    """Refuse an upstream whose features depend on what an utterance is batched with, or on chance.

    Args:
        upstream: frozen, in evaluation mode.
        featurizer: s3prl's.
        device: of both.
        name: of the upstream, for the message.

    Raises:
        DependsOnBatch: saying how much they differ.
    """
    generator = torch.Generator().manual_seed(0)
    wavs = [0.1 * torch.randn(samples, generator=generator).to(device) for samples in _PROBE_SAMPLES]
    cache = FeatureCache(upstream, featurizer, None)
    together = cache._compute(wavs)
    for wav, joint in zip(wavs, together):
        (alone,) = cache._compute([wav])
        same_frames = alone.shape == joint.shape
        scale = alone.square().mean((1, 2)).sqrt().clamp_min(1e-8)
        worst = float(((joint - alone).abs().amax((1, 2)) / scale).max()) if same_frames else float("inf")
        if worst > _SAME:
            found = f"differ by {worst:.1%}" if same_frames else f"have {joint.shape[1]} frames, not {alone.shape[1]}"
            raise DependsOnBatch(
                f"the features of {name} {found} when an utterance is batched with longer ones: kept features would "
                "change scores. Loaded as robustdistiller_local -k FILE, a checkpoint's do not depend on the batch"
            )
