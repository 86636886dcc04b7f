"""s3prl's own main and runner, driven by values instead of a command line.

Everything that trains and scores is s3prl's. What is added stands around it: an upstream that is in memory, loaders
that give a part of the data, corrupted audio or the batches after a stop, cached features, and the scores that s3prl
computes during training, kept in the note beside the head.
"""

from __future__ import annotations

import copy
import logging
from argparse import Namespace
from collections.abc import Callable
from contextlib import ExitStack
from functools import cached_property, partial
from pkgutil import resolve_name
from typing import Any
from unittest import mock

import torch
from torch import nn

from robustdistiller.eval.conditions.loader import LoaderView
from robustdistiller.eval.conditions.train_condition import TrainingPlan
from robustdistiller.eval.run.cache.dependence import UTTERANCE
from robustdistiller.eval.run.cache.loaders import announcing, read_ahead
from robustdistiller.eval.run.cache.wrapper import CachedUpstream
from robustdistiller.eval.run.errors import RunError
from robustdistiller.eval.run.finite import refuse_non_finite
from robustdistiller.eval.run.head_note import HeadNote
from robustdistiller.eval.run.memory import no_batch_left_out
from robustdistiller.eval.run.resumption import ExactTraining
from robustdistiller.eval.run.run_info import identify_weights, read_options, versions
from robustdistiller.eval.run.specs import HeadSpec
from robustdistiller.eval.run.whole_checkpoints import whole_checkpoints

logger = logging.getLogger(__name__)


class ScoreLogger:
    """Stands where s3prl's experts expect a TensorBoard writer, keeps the scalars, and hands all on to a writer."""

    def __init__(self, writer: Any = None) -> None:
        self.scalars: dict[str, float] = {}
        self._writer = writer

    def add_scalar(self, tag: str, value: float, *args: Any, **options: Any) -> None:
        """Keep one scalar and hand it on."""
        self.scalars[tag] = float(value)
        if self._writer is not None:
            self._writer.add_scalar(tag, value, *args, **options)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("add_") or name in ("flush", "close"):
            return (lambda *_, **__: None) if self._writer is None else getattr(self._writer, name)
        raise AttributeError(name)


class HeadRunner:
    """Goes before s3prl's ``Runner`` in a class.

    Args:
        args, config: as s3prl's runner takes them.
        spec: the head.
        training: conditions of the training audio; None for clean audio.
        note: of the head that is trained; the scores on the development set are added to it.
        evaluation: called with this runner in place of s3prl's evaluation of a split; None leaves that as it is.
    """

    def __init__(
        self,
        args: Namespace,
        config: dict[str, Any],
        spec: HeadSpec,
        training: TrainingPlan | None = None,
        note: HeadNote | None = None,
        evaluation: Callable[[HeadRunner], None] | None = None,
    ) -> None:
        self.config_as_given = copy.deepcopy(config)  # experts change theirs
        self.spec, self.task = spec, spec.task
        self.training, self.note, self.evaluation = training, note, evaluation
        super().__init__(args, config)
        self.bare_upstream: nn.Module = self.upstream.model
        refuse_non_finite(getattr(self.featurizer.model, "module", self.featurizer.model), args.upstream)
        self.cached: CachedUpstream | None = None
        self.exact = ExactTraining(self.init_ckpt if args.mode == "train" else {}, args.device)

    def _get_upstream(self) -> Any:
        if self.spec.upstream.module is not None:
            model = self.spec.upstream.module.to(self.args.device)
            return self._init_model(model, "Upstream", False, ["get_downsample_rates"])
        try:
            entry = super()._get_upstream()
        except ValueError as error:
            raise RunError(f"upstream {self.args.upstream}: {error}") from error
        if not entry.trainable and hasattr(entry.model, "accelerate"):  # one of ours
            entry.model.accelerate()
        return entry

    def _get_downstream(self) -> Any:
        if self.task is None or not self.task.expert:
            return super()._get_downstream()
        featurizer = self.featurizer.model
        dimensions = {"upstream_dim": featurizer.output_dim, "upstream_rate": featurizer.downsample_rate}
        model = resolve_name(self.task.expert)(**dimensions, **self.config, **vars(self.args)).to(self.args.device)
        return self._init_model(model, "Downstream", True, ["get_dataloader", "log_records"])

    def _get_optimizer(self, models: list[nn.Module]) -> torch.optim.Optimizer:
        optimizer = super()._get_optimizer(models)
        self.exact.watch(optimizer)
        return optimizer

    def _get_scheduler(self, optimizer: torch.optim.Optimizer) -> Any:
        scheduler = super()._get_scheduler(optimizer)
        if "Scheduler" in self.init_ckpt:  # s3prl's schedulers begin by setting the rate of the first step
            for group, saved in zip(optimizer.param_groups, self.init_ckpt["Optimizer"]["param_groups"]):
                group["lr"] = saved["lr"]
        return scheduler

    @cached_property
    def upstream_facts(self) -> dict[str, Any]:
        """The upstream as the note beside a head knows it: names, digest of weights, contents of its options file."""
        checkpoint = getattr(self.bare_upstream, "checkpoint_path", None) or self.args.upstream_ckpt
        tuned = self.upstream.trainable and self.init_ckpt.get("Upstream")  # then the file's weights are not in use
        own_file = None if tuned or self.spec.upstream.module is not None else checkpoint
        weights, weights_of = identify_weights(self.bare_upstream, own_file)
        return {
            "name": self.args.upstream,
            "checkpoint": self.args.upstream_ckpt,
            "weights": weights,
            "weights_of": weights_of,
            "options": read_options(self.args.upstream_model_config),
        }

    def _open_cache(self) -> None:
        """The upstream gets a cache, where one was asked for."""
        task, training = self.task, self.args.mode == "train"
        facts = self.upstream_facts
        self.cached = self.spec.features.open(
            self.bare_upstream,
            self.featurizer.model,
            self.downstream.model,
            identity={
                "upstream": facts["name"],
                "weights": facts["weights"],
                "weights_of": facts["weights_of"],
                "upstream_options": facts["options"],
                "device": str(self.args.device).partition(":")[0],
                "versions": {name: versions()[name] for name in ("robustdistiller", "s3prl", "torch")},
            },
            device=self.args.device,
            pooled_head=task is not None and task.pooled_head and not self.config.get("specaug"),
            training=training,
            crops=training and (self.training is not None or (task is not None and task.random_crops)),
        )
        if self.cached is not None:
            self.upstream.model = self.cached

    def ahead(self, loader: Any) -> Any:
        """A loader whose batches' features are computed together, where that was asked for and changes nothing."""
        cached = self.cached
        if cached is None or not cached.read_ahead_s or cached.depends_on != UTTERANCE:
            return loader
        return LoaderView(loader, partial(read_ahead, cached))

    def train(self) -> None:
        """s3prl's training, from its begin or from where a checkpoint stopped."""
        expert = self.downstream.model
        stock = expert.get_dataloader
        split = self.config["runner"].get("train_dataloader", "train")
        loaders = self.spec.quick.part_of_all(stock) if self.spec.quick else stock
        loaders = self.training.wrap(loaders, split) if self.training else loaders
        loaders = self.exact.in_place(loaders, split)
        self._open_cache()
        loaders = announcing(loaders, self.cached) if self.cached else loaders
        if self.note is not None:
            self._begin_note()
        try:
            with no_batch_left_out(), whole_checkpoints(), mock.patch.object(expert, "get_dataloader", loaders):
                super().train()
        finally:
            self._say_what_was_cached()

    def _begin_note(self) -> None:
        note, step = self.note, self.init_ckpt.get("Step")
        if step is not None:
            if not self.upstream.trainable:
                note.require_upstream(self.upstream_facts, self.args.expdir)
            note.dev_scores = [one for one in note.dev_scores if one["step"] <= step]
            note.resumed_at.append(step)
        note.upstream = note.upstream or self.upstream_facts
        note.features = self.cached.features if self.cached else ""
        note.write(self.args.expdir)

    def _say_what_was_cached(self) -> None:
        if self.cached:
            logger.info("Feature cache: %s", self.cached.summary())

    def evaluate(self, split: str | None = None, writer: Any = None, global_step: int = 0) -> list[str]:
        """s3prl's evaluation during training, whose scores are noted; else what the caller put in its place."""
        if split is None and self.evaluation is None:
            return super().evaluate()
        if split is None:
            self._open_cache()
            try:
                self.evaluation(self)
            finally:
                self._say_what_was_cached()
            return []
        scores = ScoreLogger(writer)
        expert = self.downstream.model
        stock = expert.get_dataloader
        with ExitStack() as stack:
            ahead = mock.patch.object(expert, "get_dataloader", lambda *some, **more: self.ahead(stock(*some, **more)))
            stack.enter_context(ahead)
            for name, value in self.task.chosen_with.items() if self.task else ():
                stack.enter_context(mock.patch.object(getattr(expert, "module", expert), name, value))
            saved = super().evaluate(split, scores, global_step)
        if self.note is not None:
            self.note.dev_scores.append(
                {"split": split, "step": global_step, "scalars": scores.scalars, "saved": list(saved)}
            )
            self.note.write(self.args.expdir)
        return saved

    def evaluate_once(self, split: str) -> dict[str, float]:
        """One evaluation of s3prl's, with the expert's loader as it is now: what the expert logs, tag to value."""
        scores = ScoreLogger()
        super().evaluate(split, scores, 0)
        return scores.scalars
