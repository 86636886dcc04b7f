"""What is trained and evaluated, said in types: an upstream, a head on it, and the head once it is trained."""

from __future__ import annotations

import dataclasses
from argparse import Namespace
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

from torch import nn

from robustdistiller.acoustics import Condition
from robustdistiller.eval import tasks
from robustdistiller.eval.conditions.sources import Sources
from robustdistiller.eval.run.cache.plan import CachePlan
from robustdistiller.eval.run.errors import RunError
from robustdistiller.eval.run.options import s3prl_defaults
from robustdistiller.eval.run.quick import Quick
from robustdistiller.eval.tasks import Task
from robustdistiller.eval.tasks.configs import check_roots, with_own_vocabularies
from robustdistiller.eval.tasks.needs import require
from robustdistiller.upstream.device import usable_device
from robustdistiller.upstream.pretrained.names import existing_path
from robustdistiller.upstream.s3prl.entries import entry_of, find_checkpoint, require_entry


@dataclass(frozen=True)
class Upstream:
    """An upstream under test; in a sweep's file, its name alone or a mapping.

    Attributes:
        name: entry of s3prl's hub (``-u``), or what names a model: a path, a URL, ``org/name[@revision]`` on the Hub.
        checkpoint: its weights (``-k``).
        options: its own options file (``-g``).
        label: name in tables; empty for the entry's name.
        feature_selection: which output the head sees (``-s``), e.g. ``hidden_states`` or ``paper``.
        layer: a single hidden state instead of the weighted sum (``-l``).
        module: the upstream itself, in memory, instead of an entry: ``forward(list of waveforms)`` gives
            ``{"hidden_states": [(batch, frames, dim), ...]}`` and ``get_downsample_rates(key)`` samples per frame.
    """

    short_form: ClassVar[str] = "name"

    name: str
    checkpoint: str | None = None
    options: str | None = None
    label: str = ""
    feature_selection: str = "hidden_states"
    layer: int | None = None
    module: nn.Module | None = None

    def __post_init__(self) -> None:
        if self.module is None and self.checkpoint is None:
            name, checkpoint = entry_of(self.name)
            object.__setattr__(self, "name", name)
            object.__setattr__(self, "checkpoint", checkpoint)
        for what in ("checkpoint", "options"):  # s3prl changes the folder where it likes
            if given := getattr(self, what):
                path = existing_path(given)
                object.__setattr__(self, what, str(given if path is None else path.absolute()))


@dataclass(frozen=True)
class HeadSpec:
    """One head: all that decides how it is trained.

    Attributes:
        upstream: that it is trained on.
        task: its task; None for a downstream of s3prl's that is no known task, named by ``s3prl["downstream"]``.
        config: s3prl's complete configuration.
        folder: of its checkpoints.
        seed: of its training.
        device: ``cpu``, ``cuda[:N]`` or ``auto``, a GPU where there is one.
        features: how the upstream's features are kept.
        train_conditions: conditions of its training audio; empty for clean audio, as SUPERB trains heads.
        sources: what these draw from.
        corruption_seed: of these.
        quick: a part of the data and few steps instead of everything.
        threads: CPU threads of training and evaluation, on which the last digits depend; None leaves them as they are.
        s3prl: other options of s3prl's ``run_downstream.py``, by name, e.g. ``{"upstream_trainable": True}``.
    """

    upstream: Upstream
    task: Task | None
    config: Mapping[str, Any]
    folder: Path
    seed: int = 1337
    device: str = "auto"
    features: CachePlan = field(default_factory=CachePlan)
    train_conditions: tuple[Condition, ...] = ()
    sources: Sources = field(default_factory=Sources)
    corruption_seed: int = 0
    quick: Quick | None = None
    threads: int | None = None
    s3prl: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        object.__setattr__(self, "folder", Path(self.folder))

    @property
    def total_steps(self) -> int:
        """Steps of its training."""
        return int((self.quick.shorten(self.config) if self.quick else self.config)["runner"]["total_steps"])

    def arguments(self, mode: str, **changes: Any) -> Namespace:
        """The settings that s3prl's command line would give, for ``train``, ``evaluate`` or ``inference``."""
        values = {
            **vars(s3prl_defaults()),
            **({} if self.task is None else {"downstream": self.task.downstream}),
            **self.s3prl,
            "mode": mode,
            "upstream": self.upstream.name,
            "upstream_ckpt": self.upstream.checkpoint,
            "upstream_model_config": self.upstream.options,
            "upstream_feature_selection": self.upstream.feature_selection,
            "upstream_layer_selection": self.upstream.layer,
            "expdir": str(self.folder),
            "seed": self.seed,
            "device": str(usable_device(self.device)),
        }
        if self._is_of_s3prls_hub:
            values.update(upstream=self.s3prl["upstream"], upstream_ckpt=self.s3prl["upstream_ckpt"])
        return Namespace(**{**values, **changes})

    @property
    def _is_of_s3prls_hub(self) -> bool:
        """Whether s3prl itself fetches the upstream and its code (``--hub huggingface``)."""
        return self.s3prl.get("hub", "torch") != "torch"

    @classmethod
    def from_s3prl(cls, args: Namespace, config: Mapping[str, Any], **ours: Any) -> HeadSpec:
        """The head of s3prl's own settings, as its command line or one of its checkpoints gives them.

        Raises:
            ValueError: the downstream serves several tasks, and the configuration does not say which.
        """
        upstream = Upstream(
            args.upstream,
            args.upstream_ckpt,
            args.upstream_model_config,
            feature_selection=args.upstream_feature_selection,
            layer=args.upstream_layer_selection,
        )
        task = tasks.identify(args.downstream, config)
        given = {"folder": Path(args.expdir), "seed": args.seed, "device": str(args.device), "s3prl": vars(args)}
        return cls(upstream, task, config, **{**given, **ours})

    def check(self) -> None:
        """Refuse a head that cannot be trained or evaluated here, before anything is fetched or loaded.

        Raises:
            InstallationError: a package or tool is missing.
            FileNotFoundError, ValueError: data are not there, or there is no such upstream or device.
        """
        if self.upstream.module is None and not self._is_of_s3prls_hub:
            require_entry(self.upstream.name)
        usable_device(self.device)
        if self.task is not None:
            require(self.task)
            check_roots(self.task, self.config)
        if self.s3prl.get("upstream_trainable") and self.features.active:
            raise RunError("--feature-cache, --read-ahead-s: features change while -f trains the upstream")

    def fetch_upstream(self) -> None:
        """Have the upstream's checkpoint on this machine: the longest check, so the last one."""
        if self.upstream.module is None and not self._is_of_s3prls_hub:
            find_checkpoint(self.upstream.name, self.upstream.checkpoint)

    def with_own_vocabularies(self) -> HeadSpec:
        """The same, where a head that was trained elsewhere names this package's vocabularies of that machine."""
        config = self.config if self.task is None else with_own_vocabularies(self.task, self.config)
        return dataclasses.replace(self, config=config)


@dataclass(frozen=True)
class TrainedHead:
    """A head after its training.

    Attributes:
        folder: of its checkpoints and of its note, ``head.json``.
        checkpoint: the one to evaluate: the best on the development set, else the last.
        head_digest: SHA-256 of its weights (see :func:`head_checkpoint.head_digest`).
        step: of this checkpoint.
        dev_score: its score on the development set, as reported; None where there is none.
    """

    folder: Path
    checkpoint: Path
    head_digest: str
    step: int | None
    dev_score: float | None
