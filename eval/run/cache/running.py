"""The part of a runner that puts a cache in the place of its upstream."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from robustdistiller.eval import tasks
from robustdistiller.eval.run.run_info import read_options, tf32_enabled, versions

from .attach import FeatureCache, attach
from .errors import DependsOnBatch
from .plan import CachePlan, read_note
from .read_ahead import ReadAhead

logger = logging.getLogger(__name__)


class CachingRunner:
    """Mixed into a runner of s3prl's kind that says what its upstream's weights are.

    Example:
        >>> CachingRunner().feature_plan.active
        False
    """

    feature_plan: CachePlan = CachePlan()
    _cache: FeatureCache | None = None

    @contextmanager
    def cached_features(self) -> Iterator[FeatureCache | None]:
        """A cache in the upstream's place within the block, where one was asked for."""
        if not self.feature_plan.active:
            yield None
            return
        try:
            cache = self._open_cache()
        except DependsOnBatch as error:  # scores first
            logger.warning("No feature cache: %s", error)
            yield None
            return
        with attach(cache, self.upstream.model, self.featurizer.model):
            self._cache = cache
            try:
                yield cache
            finally:
                self._cache = None
                logger.info("Feature cache: %s", cache.summary())

    def _open_cache(self) -> FeatureCache:
        task = tasks.identify(self.args.downstream, self.config)
        digest, digest_of = self._weights()
        return self.feature_plan.open(
            upstream=self.upstream.model,
            featurizer=self.featurizer.model,
            expert=self.downstream.model,
            identity={
                "upstream": self.args.upstream,
                "weights": digest,
                "weights_of": digest_of,
                "upstream_options": read_options(self.args.upstream_model_config),
                "device": str(self.args.device).partition(":")[0],
                "tf32": tf32_enabled(),
                "versions": {name: versions()[name] for name in ("robustdistiller", "s3prl", "torch")},
            },
            device=self.args.device,
            pooled_head=task is not None and task.pooled_head and not self.config.get("specaug"),
            on_second=self.args.mode == "train"
            and (self.training is not None or (task is not None and task.random_crops)),
            evict=self.args.mode == "evaluate",  # corrupted test sets are many, and seldom read again
        )

    @contextmanager
    def reading_ahead(self) -> Iterator[None]:
        """The expert's loaders within the block are read ahead, where that was asked for."""
        if not self._reads_ahead:
            yield
            return
        expert = self.downstream.model
        stock = expert.get_dataloader
        expert.get_dataloader = lambda *args, **options: self.ahead(stock(*args, **options))
        try:
            yield
        finally:
            expert.get_dataloader = stock

    @property
    def _reads_ahead(self) -> bool:
        return self._cache is not None and self.feature_plan.read_ahead_s > 0

    def ahead(self, loader: Any) -> Any:
        """A loader whose batches' features are computed together, where that was asked for."""
        if not self._reads_ahead:
            return loader
        return ReadAhead(loader, self._cache, self.feature_plan.read_ahead_s, self.args.device)

    def kept_features(self, beside: Path | None) -> dict[str, str]:
        """What features of a cache the head was trained on and is evaluated on."""
        kept = {
            "training": read_note(beside) if beside else "",
            "evaluation": CachePlan.describe(self._cache) if self._cache else "",
        }
        return {when: what for when, what in kept.items() if what}
