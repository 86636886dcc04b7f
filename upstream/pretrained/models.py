"""Reading any model: encoders of the wav2vec 2.0 family, of which students are, and teachers of other kinds."""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TypeAlias, cast

import torch

from robustdistiller.common.audio import SAMPLE_RATE_HZ
from robustdistiller.upstream.checkpoints.formats.base import Checkpoint
from robustdistiller.upstream.checkpoints.inspection import Inspection, inspect_checkpoint, size_bytes
from robustdistiller.upstream.checkpoints.load import read_checkpoint
from robustdistiller.upstream.model.cost import counted_macs
from robustdistiller.upstream.model.values import without_values
from robustdistiller.upstream.pretrained.whisper.checkpoint import WhisperCheckpoint, is_whisper, read_whisper
from robustdistiller.upstream.pretrained.whisper.config import WhisperConfig
from robustdistiller.upstream.pretrained.whisper.encoder import WhisperEncoder

Model: TypeAlias = Checkpoint | WhisperCheckpoint


def read_model(path: str | Path, num_heads: int | None = None) -> Model:
    """Read a model of any known kind and format. Nothing in the file is executed.

    For what needs an encoder of the wav2vec 2.0 family, such as a student, there is :func:`read_checkpoint`.

    Args:
        path: a file or folder, as :func:`~robustdistiller.upstream.resolve` gives it.
        num_heads: attention heads of a layer that is not pruned, for files that do not say.

    Raises:
        FileNotFoundError: there is nothing at ``path``.
        CheckpointError: see :func:`read_checkpoint` and :func:`.whisper.checkpoint.read_whisper`.

    >>> from robustdistiller.upstream import mini_teacher
    >>> read_model(mini_teacher()).build().num_layers
    5
    """
    return read_whisper(path) or read_checkpoint(path, num_heads)


def inspect_model(path: str | Path, num_heads: int | None = None) -> Inspection:
    """:func:`inspect_checkpoint` for models of any kind.

    >>> from robustdistiller.upstream import mini_teacher
    >>> inspect_model(mini_teacher()).layers
    5
    """
    try:
        if not is_whisper(path):
            return inspect_checkpoint(path, num_heads)
    except (ValueError, OSError):
        return inspect_checkpoint(path, num_heads)  # says what is wrong
    facts: dict[str, Any] = {
        "path": str(path),
        "size_bytes": size_bytes(path),
        "safe": True,
        "about": "OpenAI's Whisper, its encoder",
    }
    try:
        checkpoint = cast(WhisperCheckpoint, read_whisper(path))
    except (ValueError, OSError) as error:
        return Inspection(**facts, format="whisper", error=str(error))
    config = checkpoint.config
    return Inspection(
        **facts,
        format=checkpoint.format,
        architecture=f"log-mel of {config.num_mel_bins} bins, 2 conv layers, {config.num_layers} pre-norm layers "
        f"{config.embed_dim} wide",
        config=config.to_dict(),
        parameters=sum(value.numel() for name, value in checkpoint.state_dict.items() if name != "positions"),
        head_parameters=0,
        layers=config.num_layers,
        hidden_size=config.embed_dim,
        heads=(config.num_heads,) * config.num_layers,
        prediction_layers=(),
        normalizes_input=False,
        notes=tuple(_notes(config)),
        commands=tuple(_commands(str(path), config.num_layers)),
    )


def padding_factor(config: WhisperConfig, duration_s: float) -> float:
    """How many times the multiply-accumulate operations an utterance takes with ``pad_to_30_s``.

    >>> round(padding_factor(WhisperConfig(), duration_s=5.0), 1)  # whisper-base
    8.1
    """
    waveform, macs = torch.empty(1, round(duration_s * SAMPLE_RATE_HZ), device="meta"), []
    for padded in (True, False):
        with without_values():
            encoder = WhisperEncoder(config.replace(pad_to_30_s=padded))
        macs.append(counted_macs(encoder, waveform))
    return macs[0] / macs[1]


def _notes(config: WhisperConfig) -> Iterator[str]:
    reach_s = config.max_samples / SAMPLE_RATE_HZ
    yield "it can be a teacher and an upstream, but no student; the decoder, if there is one, is not read"
    yield f"positions reach {reach_s:g} s; longer utterances are computed in pieces of that length"
    yield (
        f"the upstream's option pad_to_30_s, as in Whisper's training, takes {padding_factor(config, 5.0):.1f} times "
        f"the work for 5 s, and gives other features"
    )


def _commands(path: str, num_layers: int) -> Iterator[str]:
    quoted, layers = shlex.quote(path), ",".join(str(round(num_layers * part / 3)) for part in (1, 2, 3))
    yield f"run_downstream.py -m train -u robustdistiller_local -k {quoted} -d TASK -n NAME"
    taught = f"teacher.checkpoint={quoted} 'targets.layers=[{layers}]' student.init=random"
    yield f"robustdistiller distill robustdistiller {taught}"
    yield f"robustdistiller extract {quoted} AUDIO --out DIR"
