"""What a format of checkpoint files is, and what the formats share."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from robustdistiller.common.files import write_atomically
from robustdistiller.common.names import refuse_unknown
from robustdistiller.upstream.checkpoints.files import CheckpointError
from robustdistiller.upstream.checkpoints.plain import options_of
from robustdistiller.upstream.checkpoints.safe_load import NATIVE_KEY
from robustdistiller.upstream.model.config import EncoderConfig
from robustdistiller.upstream.model.encoder import SpeechEncoder
from robustdistiller.upstream.model.values import fill, without_values

#: Options of the encoder for which other layouts have no place: how it is trained on and batched, and which of its
#: states are given. The latter go where the other software does not say itself what s3prl's upstream of it gives.
_TRAINED = ("feature_grad_mult", "normalize_eps", "padding")
_GIVEN = ("first_state", "last_state_normed", "reference_mask")


class NotExportable(ValueError):
    """A format cannot express an encoder; the message says which property prevents it."""


@dataclass
class Checkpoint:
    """A checkpoint of any readable format, brought to ours.

    Attributes:
        format: whose file it was: a name of :data:`robustdistiller.upstream.checkpoints.formats.FORMATS`.
        config: the encoder it describes.
        state_dict: float32 tensors on the CPU under our names, checked against ``config``.
        metadata: what the writer noted; empty for foreign files.
        guesses: what of ``config`` the file did not say and was guessed, one sentence each.

    >>> config = EncoderConfig.tiny(num_layers=1)
    >>> checkpoint = Checkpoint("example", config, SpeechEncoder(config).state_dict())
    >>> checkpoint.build(padding="reference").config.padding
    'reference'
    """

    format: str
    config: EncoderConfig
    state_dict: dict[str, Tensor] = field(repr=False)
    metadata: dict[str, Any] = field(default_factory=dict)
    guesses: tuple[str, ...] = ()

    @property
    def is_student(self) -> bool:
        """Whether it was distilled: noted in the metadata, or told by what only students have.

        >>> Checkpoint("distiller", EncoderConfig(feature_norm=False), {}).is_student
        True
        """
        noted = self.metadata.get("student")
        if isinstance(noted, bool):
            return noted
        config = self.config
        if config.prediction_layers or config.starts_projected or not config.feature_norm:
            return True
        return self.format == "armhubert" or isinstance(self.metadata.get("teacher"), Mapping)

    def build(self, **config_overrides: Any) -> SpeechEncoder:
        """The encoder with these weights, in eval mode; options such as ``padding`` or ``dropout`` can be replaced.

        Raises:
            CheckpointError: the weights do not fit the encoder that the options describe.
        """
        with without_values():
            encoder = SpeechEncoder(self.config.replace(**config_overrides))
        try:
            return fill(encoder, self.state_dict).eval()
        except RuntimeError as error:
            raise CheckpointError(
                f"the weights do not fit {config_overrides or 'the configuration'}: {error}"
            ) from error

    def without_heads(self) -> Checkpoint:
        """The same encoder without prediction heads; the first hidden state stays what it was.

        >>> config = EncoderConfig.tiny(num_layers=1, prediction_layers=(4, 8))
        >>> checkpoint = Checkpoint("robustdistiller", config, SpeechEncoder(config).state_dict()).without_heads()
        >>> checkpoint.config.prediction_layers, checkpoint.build().config.starts_projected
        ((), True)
        """
        if not self.config.prediction_layers:
            return self
        first = "projected" if self.config.starts_projected else self.config.first_state
        config = self.config.replace(
            prediction_layers=(), prediction_dim=None, prediction_inner_dim=None, first_state=first
        )
        weights = {name: value for name, value in self.state_dict.items() if not name.startswith("heads.")}
        return dataclasses.replace(self, config=config, state_dict=weights)


@dataclass
class Clues:
    """What a reader is told besides the file, and what it had to guess.

    Attributes:
        num_heads: attention heads of a layer that is not pruned, for files that do not say.
        guesses: one sentence for each guess.
    """

    num_heads: int | None = None
    guesses: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Exported:
    """What was written.

    Attributes:
        path: the file or folder.
        model: what reads it: a class, a function or an s3prl upstream.
        notes: what of the checkpoint the format has no place for, one sentence each.
        commit: its address on the Hub, if it was uploaded; the folder is gone then.
    """

    path: Path
    model: str
    notes: tuple[str, ...] = ()
    commit: str = ""


@dataclass(frozen=True)
class Format:
    """One layout of checkpoint files.

    Attributes:
        name: what :class:`Checkpoint` calls it.
        about: whose it is, and the keys by which it is recognised.
        matches: whether the dictionary that a file holds has this layout.
        read: translates it to a configuration and weights under our names.
    """

    name: str
    about: str
    matches: Callable[[Mapping[str, Any]], bool]
    read: Callable[[Mapping[str, Any], Clues], tuple[EncoderConfig, dict[str, Tensor]]]


@dataclass(frozen=True)
class Card:
    """What a model card says that the checkpoint does not know.

    Attributes:
        results: Markdown for the section of results.
        address: what users are to type for the model.
    """

    results: str = ""
    address: str = "PATH"


@dataclass(frozen=True)
class Target:
    """What a checkpoint can be written as.

    Attributes:
        name: what ``robustdistiller convert --to`` takes.
        about: what reads the result.
        whose: the software, in a few words.
        obstacle: the property that prevents an encoder from being written so, ``None`` if it can be.
        write: writes a checkpoint to a file or folder, with notes on what was left out before, and what to say in a
            model card.
        keeps_heads: whether it has a place for prediction heads.
        files: names of the files in it, if it is a folder.
    """

    name: str
    about: str
    whose: str
    obstacle: Callable[[EncoderConfig], str | None]
    write: Callable[[Checkpoint, Path, tuple[str, ...], Card], Exported]
    keeps_heads: bool = False
    files: tuple[str, ...] = ()


def has_keys(*keys: str) -> Callable[[Mapping[str, Any]], bool]:
    """A test for dictionaries that have all of ``keys``.

    >>> has_keys("a", "b")({"a": 1, "b": 2, "c": 3})
    True
    """
    return lambda content: content.keys() >= set(keys)


def lost(config: EncoderConfig, options: Iterable[str]) -> tuple[str, ...]:
    """One sentence for each of the training ``options`` that is set but has no place in the format.

    >>> lost(EncoderConfig(feature_dropout=0.1), ("feature_dropout", "layerdrop"))
    ('feature_dropout 0.1 (training only) has no place in the format',)
    """
    default = EncoderConfig()
    return tuple(
        f"{name} {getattr(config, name)} (training only) has no place in the format"
        for name in options
        if getattr(config, name) != getattr(default, name)
    )


def other_eps(config: EncoderConfig, theirs: float, whose: str) -> tuple[str, ...]:
    """A note if quiet audio is normalised otherwise there.

    >>> other_eps(EncoderConfig(normalize_waveform=True, normalize_eps=1e-7), 1e-5, "s3prl")
    ('s3prl adds 1e-05, not 1e-07, to the variance of the waveform: quiet audio has other features there',)
    """
    if not config.normalize_waveform or config.normalize_eps == theirs:
        return ()
    added = f"{whose} adds {theirs:g}, not {config.normalize_eps:g}, to the variance of the waveform"
    return (f"{added}: quiet audio has other features there",)


def listed(values: Iterable[Any]) -> str:
    """``values`` with commas between them."""
    return ", ".join(map(str, values))


def own_notes(checkpoint: Checkpoint, options: tuple[str, ...] = (*_TRAINED, *_GIVEN)) -> dict[str, Any]:
    """What other software has no option for, under a key that it does not look at and :func:`apply_own_notes` reads.

    Args:
        checkpoint: of its metadata only licence and whether it is a student: the rest may name folders of this machine.
        options: of the encoder, that the layout has no place for.
    """
    config = {name: getattr(checkpoint.config, name) for name in options}
    given = {
        name: str(value) for name, value in checkpoint.metadata.items() if name in ("license", "licence") and value
    }
    return {NATIVE_KEY: {"config": config, "metadata": {"student": checkpoint.is_student, **given}}}


def apply_own_notes(config: EncoderConfig, content: Mapping[str, Any]) -> EncoderConfig:
    """The configuration that a foreign layout gives, with the options that stand in its :func:`own_notes`.

    Earlier versions noted ``normalize_eps`` alone, beside the layout's own keys or in ``preprocessor_config.json``.

    >>> apply_own_notes(EncoderConfig(), {"robustdistiller": {"config": {"feature_grad_mult": 0.1}}}).feature_grad_mult
    0.1
    >>> apply_own_notes(EncoderConfig(), {"normalize_eps": 1e-7}).normalize_eps
    1e-07
    """
    if NATIVE_KEY not in content:
        earlier = content.get("hf_preprocessor", content)
        return config.replace(normalize_eps=earlier["normalize_eps"]) if "normalize_eps" in earlier else config
    options = options_of(options_of(content, NATIVE_KEY), "config")
    refuse_unknown(options, (*_TRAINED, *_GIVEN), "option of this package")
    return config.replace(**options)


def save_dictionary(checkpoint: Checkpoint, content: Mapping[str, Any], path: Path, given: bool = False) -> None:
    """``torch.save`` of ``content`` and the :func:`own_notes`, atomically."""
    notes = own_notes(checkpoint, (*_TRAINED, *_GIVEN) if given else _TRAINED)
    write_atomically(path, lambda file: torch.save({**content, **notes}, file))
