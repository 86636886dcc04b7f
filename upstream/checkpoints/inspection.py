"""What a checkpoint is, in words and numbers, without building or running anything in it."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from torch import Tensor

from robustdistiller.upstream.checkpoints.builders import Inert
from robustdistiller.upstream.checkpoints.formats import TARGETS, detect, looked_for
from robustdistiller.upstream.checkpoints.load import Source, open_source, translate
from robustdistiller.upstream.checkpoints.model_card import describe
from robustdistiller.upstream.checkpoints.safe_load import NATIVE_KEY
from robustdistiller.upstream.checkpoints.unpickle import HostilePickle
from robustdistiller.upstream.model.config import EncoderConfig
from robustdistiller.upstream.model.encoder import SpeechEncoder
from robustdistiller.upstream.model.values import without_values
from robustdistiller.upstream.pretrained.names import expanded

_WEIGHTS = ("Distiller", "hf_weights", "model", "model_weight", "state_dict")
_OPTIONS = (
    "Config",
    NATIVE_KEY,
    "normalize_eps",
    "normalize_waveform",
    "factory",
    "cfg",
    "config",
    "format",
    "format_version",
    "hf_config",
    "hf_preprocessor",
    "model_cfg",
    "task_cfg",
)


@dataclass(frozen=True)
class Inspection:
    """What :func:`inspect_checkpoint` found. Fields of the encoder are ``None`` if the file cannot be read.

    Attributes:
        path: the file or folder.
        format: name of its layout, ``None`` if it is unknown.
        about: whose layout that is.
        error: why it cannot be read, ``None`` if it can.
        safe: whether it can be opened without danger. ``False``: it asks for code to be run. ``None``: not known.
        not_built: classes in it that this package does not build.
        size_bytes: of the file, or of the files in the folder.
        architecture: the encoder in a few words.
        config: all its options.
        parameters: number of parameters, heads included.
        head_parameters: number of parameters in its prediction heads.
        layers: transformer layers.
        hidden_size: width of the hidden states.
        heads: attention heads of each layer.
        prediction_layers: teacher layers that its prediction heads regress.
        normalizes_input: whether each utterance is scaled to zero mean and unit variance first.
        holds: what else is in the file, one sentence each.
        guesses: what of the encoder the file does not say and was guessed, one sentence each.
        notes: what its user should know, one sentence each.
        metadata: notes of this package's own format.
        commands: what can be typed to use it.
        looked_for: the layouts that it is none of, if it is of unknown kind.
    """

    path: str
    format: str | None = None
    about: str | None = None
    error: str | None = None
    safe: bool | None = None
    not_built: tuple[str, ...] = ()
    size_bytes: int = 0
    architecture: str | None = None
    config: dict[str, Any] | None = None
    parameters: int | None = None
    head_parameters: int | None = None
    layers: int | None = None
    hidden_size: int | None = None
    heads: tuple[int, ...] | None = None
    prediction_layers: tuple[int, ...] | None = None
    normalizes_input: bool | None = None
    holds: tuple[str, ...] = ()
    guesses: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    metadata: dict[str, Any] = field(default_factory=dict)
    commands: tuple[str, ...] = ()
    looked_for: tuple[str, ...] = ()

    @property
    def readable(self) -> bool:
        """Whether an encoder can be loaded from it."""
        return self.error is None

    def to_dict(self) -> dict[str, Any]:
        """JSON-able values."""
        return {"readable": self.readable, **asdict(self)}


def inspect_checkpoint(path: str | Path, num_heads: int | None = None) -> Inspection:
    """Look into a file or a Hugging Face folder. Does not raise for a bad one: ``error`` says what is wrong.

    Args:
        path: the file or folder.
        num_heads: attention heads, for files that do not say how many there are.

    >>> import tempfile
    >>> from robustdistiller.upstream import save_checkpoint
    >>> encoder = SpeechEncoder(EncoderConfig.tiny(num_layers=1))
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     save_checkpoint(f"{folder}/a.ckpt", encoder, {"teacher": "none"})
    ...     found = inspect_checkpoint(f"{folder}/a.ckpt")
    >>> found.format, found.layers, found.heads, found.safe, found.metadata["teacher"]
    ('robustdistiller', 1, (2,), True, 'none')
    >>> inspect_checkpoint("/nowhere.pt").error
    'checkpoint /nowhere.pt: expected a file, found nothing there'
    """
    facts: dict[str, Any] = {"path": str(path), "size_bytes": size_bytes(path)}
    try:
        source = open_source(path)
        facts |= {"safe": True, "not_built": tuple(sorted(source.named))}
        layout = detect(source.content)
        facts |= {"format": layout.name, "about": layout.about}
        checkpoint = translate(source, path, num_heads)
    except (ValueError, OSError) as error:
        facts |= {"safe": False} if isinstance(error.__cause__, HostilePickle) else {}
        known = "format" in facts or facts.get("safe") is False
        message = str(error).partition(". Looked for:")[0]
        return Inspection(**facts, error=message, looked_for=() if known else tuple(looked_for()))
    facts |= {"holds": tuple(_besides(source))}
    with without_values():
        encoder = SpeechEncoder(checkpoint.config)
    config, total = checkpoint.config, encoder.count_parameters()
    return Inspection(
        **facts,
        architecture=describe(config),
        config=config.to_dict(),
        parameters=total,
        head_parameters=total - encoder.count_parameters(heads=False),
        layers=config.num_layers,
        hidden_size=config.embed_dim,
        heads=config.heads,
        prediction_layers=config.prediction_layers,
        normalizes_input=config.normalize_waveform,
        guesses=checkpoint.guesses,
        metadata=checkpoint.metadata,
        commands=tuple(_commands(str(path), config)),
    )


def _commands(path: str, config: EncoderConfig) -> Iterator[str]:
    quoted = shlex.quote(path)
    yield f"run_downstream.py -m train -u robustdistiller_local -k {quoted} -d TASK -n NAME"
    if not config.prediction_layers:
        yield f"robustdistiller distill robustdistiller teacher.checkpoint={quoted}"
    yield f"robustdistiller extract {quoted} AUDIO --out DIR"
    for target in TARGETS.values():
        if target.name == "published":
            yield f"robustdistiller publish {quoted} --to OUT"
        elif target.obstacle(config) is None:
            yield f"robustdistiller convert {quoted} OUT --to {target.name}"


def _besides(source: Source) -> Iterator[str]:
    """One sentence about each entry that is neither the weights nor the options."""
    content = source.content
    if any(isinstance(value, Tensor) for value in content.values()):  # the weights alone
        return
    for key, value in content.items():
        if isinstance(key, str) and key not in (*_WEIGHTS, *_OPTIONS, "metadata") and value is not None:
            yield f"{key[:60]}: {_summary(value)}"


def _summary(value: Any) -> str:
    if isinstance(value, Inert):
        inner = value.state
        return f"an object of {value.name}" + (f" with {len(inner)} entries" if isinstance(inner, Mapping) else "")
    if isinstance(value, (Mapping, list, tuple)):
        tensors = _tensors(value)
        numbers = sum(tensor.numel() for tensor in tensors)
        return f"{len(value)} entries" + (f", {len(tensors)} tensors with {numbers:,} numbers" if tensors else "")
    if isinstance(value, Tensor):
        return f"a tensor of shape {tuple(value.shape)}"
    if isinstance(value, (str, bytes)):
        return repr(value) if len(value) <= 60 else f"{value[:57]!r}..."
    small = isinstance(value, (bool, float)) or (isinstance(value, int) and abs(value) < 1 << 63)
    return repr(value) if small else f"a value of type {type(value).__name__}"


def _tensors(value: Any) -> list[Tensor]:
    """The tensors in nested containers, each container looked into once."""
    tensors, seen, waiting = [], set(), [value]
    while waiting:
        item = waiting.pop()
        if isinstance(item, Tensor):
            tensors.append(item)
        elif isinstance(item, (Mapping, list, tuple)) and id(item) not in seen:
            seen.add(id(item))
            waiting.extend(item.values() if isinstance(item, Mapping) else item)
    return tensors


def size_bytes(path: str | Path) -> int:
    """Bytes of a file or of the files in a folder; 0 where nobody may look.

    >>> size_bytes("nowhere.pt")
    0
    """
    path = expanded(path)
    try:
        files = path.iterdir() if path.is_dir() else [path]
        return sum(file.stat().st_size for file in files if file.is_file())
    except (OSError, ValueError):  # no right to look, or no path at all
        return 0
