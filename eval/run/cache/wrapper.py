"""An upstream that gives the features it gave before: the same, computed once."""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from robustdistiller.common.array_store import KEY_BYTES, ArrayStore
from robustdistiller.common.audio import SAMPLE_RATE_HZ
from robustdistiller.common.generators import untouched_generators
from robustdistiller.common.precision import without_tf32
from robustdistiller.eval.run.cache.dependence import BATCH, PADDING, UTTERANCE

_REMEMBERED = 1_000_000


class CachedUpstream(nn.Module):
    """Stands in the place of a frozen upstream in s3prl's runner, and calls it where features are not known.

    The upstream is called as a module, so that its hooks fire, on which most of s3prl's upstreams rely. Features are
    computed without TF32, whose rounding depends on the batch: on GPUs that use it, they differ from those of a run
    without cache by its rounding, about 1e-3 of a layer's root mean square. Under autocast they are computed, and kept
    apart, in its precision. Random numbers that it draws without need (layer drop, though in evaluation mode) leave the
    generators as they are, so that nothing depends on what was known already.

    Args:
        upstream: frozen, in evaluation mode.
        featurizer: s3prl's, for which features are kept: only those that it reads. With means it gets one frame an
            utterance, and no longer cuts to length.
        store: where they are kept; None keeps nothing but what was read ahead.
        means: keep and give the mean over an utterance's frames instead of its frames.
        depends_on: of `dependence`.
        on_second: keep features when they are asked for the second time: for random crops, most of which never come
            again.
        read_ahead_s: seconds of audio, padding included, that the upstream gets at a time in `read_ahead`.

    Attributes:
        keeps: whether features that are computed are kept; known ones are read in any case.
        found, computed: utterances so far.
    """

    def __init__(
        self,
        upstream: nn.Module,
        featurizer: Any,
        store: ArrayStore | None = None,
        means: bool = False,
        depends_on: str = UTTERANCE,
        on_second: bool = False,
        read_ahead_s: float = 0.0,
    ) -> None:
        super().__init__()
        self.upstream, self.store, self.means = upstream, store, means
        self.depends_on, self.on_second, self.read_ahead_s = depends_on, on_second, read_ahead_s
        self.selection, self.frame_samples = featurizer.feature_selection, featurizer.downsample_rate
        self.keeps = True
        self.found = self.computed = 0
        self._select: Callable = featurizer._select_feature
        self._ahead: dict[bytes, Tensor] = {}
        self._seen: OrderedDict[bytes, None] = OrderedDict()
        if means:
            featurizer.tolist = lambda _, features: list(features)

    def get_downsample_rates(self, key: str) -> int:
        """The upstream's, as s3prl asks for it."""
        return self.upstream.get_downsample_rates(key)

    def forward(self, wavs: Sequence[Tensor]) -> dict[str, list[Tensor]]:
        """Hidden states that the featurizer reads.

        Args:
            wavs: waveforms, each ``(samples,)``.

        Returns:
            under the featurizer's selection, one tensor ``(batch, frames, dim)`` a layer; frames past an utterance's
            own are zeros.
        """
        keys = self._keys(wavs)
        features = [self._known(key, wav.device) for key, wav in zip(keys, wavs)]
        missing = [index for index, one in enumerate(features) if one is None]
        if missing:
            beside = missing if self.depends_on == UTTERANCE else range(len(wavs))
            computed = dict(zip(beside, self.compute([wavs[index] for index in beside])))
            self.computed += len(missing)
            for index in missing:
                features[index] = computed[index]
                self._keep(keys[index], computed[index])
        self.found += len(wavs) - len(missing)
        frames = max(one.shape[1] for one in features)
        padded = features[0].new_zeros(features[0].shape[0], len(features), frames, features[0].shape[2])
        for index, one in enumerate(features):
            padded[:, index, : one.shape[1]] = one
        return {self.selection: list(padded.unbind(0))}

    def compute(self, wavs: Sequence[Tensor]) -> list[Tensor]:
        """Features of each waveform of a batch, ``(layers, frames, dim)``, rounded as they will be read back."""
        with torch.no_grad(), without_tf32(), untouched_generators(str(wavs[0].device)):
            chosen = self._select(self.upstream(list(wavs)))
        layers = [one.float() for one in (chosen if isinstance(chosen, list | tuple) else [chosen])]
        features = []
        for index, wav in enumerate(wavs):
            frames = min(round(len(wav) / self.frame_samples), layers[0].shape[1])
            one = torch.stack([layer[index, :frames] for layer in layers])
            one = one.double().mean(1, keepdim=True) if self.means else one
            half = self.store is not None and self.store.dtype == np.float16
            features.append((one.half() if half else one).float())
        return features

    def read_ahead(self, wavs: Sequence[Tensor]) -> None:
        """Compute what is not known of these waveforms, sorted by length, in batches of `read_ahead_s`.

        They are kept in memory until the next call. Waveforms that stand alone in a batch are left for their turn.
        """
        self._ahead.clear()
        wanted = {key: wav for key, wav in zip(self._keys(wavs), wavs) if not self._is_stored(key)}
        queue = sorted(wanted.items(), key=lambda item: len(item[1]))
        while queue:
            batch = [queue.pop()]
            most = max(1, int(self.read_ahead_s * SAMPLE_RATE_HZ / len(batch[0][1])))
            batch += [queue.pop() for _ in range(min(most - 1, len(queue)))]
            if len(batch) > 1:
                self._ahead.update(zip([key for key, _ in batch], self.compute([wav for _, wav in batch])))
                self.computed += len(batch)

    @property
    def features(self) -> str:
        """For records: what the head is given instead of features computed on the spot."""
        return "" if self.store is None else f"{'means' if self.means else 'frames'} {self.store.dtype.name}"

    def summary(self) -> str:
        """What came from the cache, in words."""
        total = self.found + self.computed
        kept = f", {self.store.size_bytes / 1e9:.3g} GB in {self.store.folder}" if self.store else ""
        return f"features of {self.computed} utterances computed for {total} asked for{kept}"

    def _keys(self, wavs: Sequence[Tensor]) -> list[bytes]:
        digests = [waveform_key(wav) for wav in wavs]
        beside = {UTTERANCE: b"", PADDING: b"%d" % max(map(len, wavs)), BATCH: b"".join(digests)}[self.depends_on]
        kind = wavs[0].device.type
        precision = str(torch.get_autocast_dtype(kind)) if torch.is_autocast_enabled(kind) else ""
        return [
            hashlib.blake2b(digest + precision.encode() + beside, digest_size=KEY_BYTES).digest() for digest in digests
        ]

    def _is_stored(self, key: bytes) -> bool:
        return self.store is not None and self.store.get(key) is not None

    def _known(self, key: bytes, device: torch.device) -> Tensor | None:
        ahead = self._ahead.get(key)
        if ahead is not None:
            self._keep(key, ahead)
            return ahead.to(device)
        stored = self.store.get(key) if self.store is not None else None
        # The copy brings it to memory that may be written to, and half precision back to single.
        return None if stored is None else torch.from_numpy(stored.astype(np.float32)).to(device)

    def _keep(self, key: bytes, features: Tensor) -> None:
        if not self.keeps or self.store is None or self.store.full:
            return
        if self.on_second and key not in self._seen:
            self._seen[key] = None
            if len(self._seen) > _REMEMBERED:
                self._seen.popitem(last=False)
            return
        self.store.put(key, features.cpu().numpy())


def waveform_key(wav: Tensor) -> bytes:
    """Digest of a waveform's samples, 16 bytes."""
    samples = wav.detach().cpu().contiguous().numpy()
    return hashlib.blake2b(memoryview(samples).cast("B"), digest_size=KEY_BYTES).digest()
