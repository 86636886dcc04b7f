"""Writing an encoder as a file of other software: what ``robustdistiller convert`` does."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch

from robustdistiller.common.files import write_atomically
from robustdistiller.upstream.checkpoints.files import checkpoint_digest
from robustdistiller.upstream.checkpoints.formats import Checkpoint, read_checkpoint, save_checkpoint
from robustdistiller.upstream.checkpoints.obstacles import NotExportable
from robustdistiller.upstream.checkpoints.to_dphubert import dphubert_content, require_dphubert
from robustdistiller.upstream.checkpoints.to_huggingface import huggingface_type, write_huggingface
from robustdistiller.upstream.checkpoints.to_s3prl import s3prl_content, s3prl_upstream
from robustdistiller.upstream.checkpoints.to_torchaudio import require_torchaudio, torchaudio_content
from robustdistiller.upstream.model.config import EncoderConfig

#: What a checkpoint can be written as, with what reads the result.
TARGETS = {
    "native": "this package: one file with configuration, weights and metadata",
    "s3prl": "s3prl alone: -u distiller_local, hubert_local, wav2vec2_local, data2vec_local or wavlm_local",
    "huggingface": "transformers.AutoModel.from_pretrained: a folder with model card",
    "torchaudio": "torchaudio.models.wav2vec2_model or wavlm_model: one file with their arguments and a state dict",
    "dphubert": "DPHuBERT's code: one file with the arguments of its wav2vec2_model and a state dict, pruned or not",
}


@dataclass(frozen=True)
class Exported:
    """What :func:`export_checkpoint` wrote.

    Attributes:
        path: the file or folder.
        model: what reads it: a class, a function or an s3prl upstream.
        notes: what of the checkpoint the format has no place for, one sentence each.
    """

    path: Path
    model: str
    notes: tuple[str, ...] = ()


def export_checkpoint(
    source: str | Path,
    path: str | Path,
    to: str,
    drop_heads: bool = False,
    overwrite: bool = False,
    results: str = "",
    license_: str = "",
    num_heads: int | None = None,
) -> Exported:
    """Write a checkpoint of any readable format as one of :data:`TARGETS`, with the very same weights.

    The result is whole or absent.

    Args:
        source: the checkpoint.
        path: file, or folder for ``"huggingface"``, to write.
        to: a key of :data:`TARGETS`.
        drop_heads: leave the prediction heads out. Formats without a place for them do so anyway, and say so.
        overwrite: replace what is there.
        results: Markdown for the model card's section of results.
        license_: licence to note in metadata and model card, such as ``"cc-by-4.0"``.
        num_heads: attention heads, for files that do not say (torchaudio's state dicts).

    Raises:
        FileExistsError: something is there, and ``overwrite`` is false.
        NotExportable: the format cannot express this encoder; the message names the property that prevents it.
        ValueError: ``to`` is unknown, ``path`` is ``source``, or ``source`` is unreadable.

    >>> import tempfile
    >>> from robustdistiller.upstream import SpeechEncoder
    >>> student = SpeechEncoder(EncoderConfig(embed_dim=16, num_layers=1, num_heads=2, ffn_dim=32, position_groups=4,
    ...                                       feature_norm=False, prediction_layers=(4, 8)))
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     save_checkpoint(f"{folder}/student.ckpt", student, {})
    ...     exported = export_checkpoint(f"{folder}/student.ckpt", f"{folder}/student.pt", "s3prl")
    ...     exported.model, read_checkpoint(exported.path).format
    ('s3prl upstream distiller_local', 'distiller')
    """
    if to not in TARGETS:
        raise ValueError(f"{to!r} is no format to convert to; there are {', '.join(TARGETS)}")
    source, path = Path(source).expanduser(), Path(path).expanduser()
    checkpoint = read_checkpoint(source, **({} if num_heads is None else {"num_heads": num_heads}))
    _check_place(source, path, folder=to == "huggingface", overwrite=overwrite)
    checkpoint = _note_origin(checkpoint, source)
    if license_:
        checkpoint = dataclasses.replace(checkpoint, metadata={**checkpoint.metadata, "license": license_})
    if drop_heads:
        checkpoint = without_heads(checkpoint)
    try:
        return _WRITERS[to](checkpoint, path, results)
    except NotExportable as error:
        raise NotExportable(f"{source} cannot be written for {_READERS[to]}: {error}") from error


def obstacle(config: EncoderConfig, to: str) -> str | None:
    """The property that prevents an encoder from being written as one of :data:`TARGETS`; ``None`` if it can be.

    >>> obstacle(EncoderConfig(), "torchaudio")
    >>> obstacle(EncoderConfig(feature_scale=True), "torchaudio")
    'it scales the channels of the conv extractor (feature_scale)'
    """
    try:
        _CHECKS[to](config)
    except NotExportable as error:
        return str(error)
    return None


def without_heads(checkpoint: Checkpoint) -> Checkpoint:
    """The same encoder without prediction heads; the first hidden state stays what it was.

    >>> from robustdistiller.upstream import SpeechEncoder
    >>> config = EncoderConfig(embed_dim=16, num_layers=1, num_heads=2, ffn_dim=32, position_groups=4,
    ...                        prediction_layers=(4, 8))
    >>> checkpoint = without_heads(Checkpoint("robustdistiller", config, SpeechEncoder(config).state_dict()))
    >>> checkpoint.config.prediction_layers, checkpoint.build().config.starts_projected
    ((), True)
    """
    config = checkpoint.config
    if not config.prediction_layers:
        return checkpoint
    first = "projected" if config.starts_projected else "layer_input"
    config = config.replace(prediction_layers=(), prediction_dim=None, prediction_inner_dim=None, first_state=first)
    weights = {name: value for name, value in checkpoint.state_dict.items() if not name.startswith("heads.")}
    return dataclasses.replace(checkpoint, config=config, state_dict=weights)


def _native(checkpoint: Checkpoint, path: Path, results: str) -> Exported:
    save_checkpoint(path, checkpoint.build(), checkpoint.metadata)
    return Exported(path, "s3prl upstream robustdistiller_local")


def _s3prl(checkpoint: Checkpoint, path: Path, results: str) -> Exported:
    upstream, content, notes = s3prl_content(checkpoint)
    write_atomically(path, lambda file: torch.save(content, file))
    return Exported(path, f"s3prl upstream {upstream}", notes)


def _torchaudio(checkpoint: Checkpoint, path: Path, results: str) -> Exported:
    notes = _heads_dropped(checkpoint)
    content, more = torchaudio_content(without_heads(checkpoint))
    write_atomically(path, lambda file: torch.save(content, file))
    return Exported(path, f"torchaudio.models.{content['factory']}", (*notes, *more))


def _dphubert(checkpoint: Checkpoint, path: Path, results: str) -> Exported:
    notes = _heads_dropped(checkpoint)
    content, more = dphubert_content(without_heads(checkpoint))
    write_atomically(path, lambda file: torch.save(content, file))
    return Exported(path, "DPHuBERT's wav2vec2_model", (*notes, *more))


def _huggingface(checkpoint: Checkpoint, path: Path, results: str) -> Exported:
    notes = _heads_dropped(checkpoint)
    model, more = write_huggingface(without_heads(checkpoint), path, notes, results)
    return Exported(path, f"transformers.{model}", (*notes, *more))


_WRITERS: dict[str, Callable[[Checkpoint, Path, str], Exported]] = {
    "native": _native,
    "s3prl": _s3prl,
    "huggingface": _huggingface,
    "torchaudio": _torchaudio,
    "dphubert": _dphubert,
}
_CHECKS: dict[str, Callable[[EncoderConfig], object]] = {
    "native": lambda config: None,
    "s3prl": s3prl_upstream,
    "huggingface": huggingface_type,
    "torchaudio": require_torchaudio,
    "dphubert": require_dphubert,
}
_READERS = {
    "native": "this package",
    "s3prl": "s3prl",
    "huggingface": "transformers",
    "torchaudio": "torchaudio",
    "dphubert": "DPHuBERT's code",
}


def _heads_dropped(checkpoint: Checkpoint) -> tuple[str, ...]:
    layers = checkpoint.config.prediction_layers
    if not layers:
        return ()
    return (f"the prediction heads (teacher layers {', '.join(map(str, layers))}) are left out",)


def _check_place(source: Path, path: Path, folder: bool, overwrite: bool) -> None:
    if path.exists() and path.resolve() == source.resolve():
        raise ValueError(f"{path} is the checkpoint to convert; give another place for the result")
    if folder and path.is_file():
        raise FileExistsError(f"{path} is a file; expected the name of a folder to write")
    if not folder and path.is_dir():
        raise FileExistsError(f"{path} is a folder; expected the name of a file to write")
    if path.exists() and not overwrite and not (path.is_dir() and not any(path.iterdir())):
        raise FileExistsError(f"{path} exists already; choose another name, or overwrite it with --overwrite")


def _note_origin(checkpoint: Checkpoint, source: Path) -> Checkpoint:
    """Add to the metadata what was converted; a conversion of a conversion keeps the first origin."""
    if "converted_from" in checkpoint.metadata:
        return checkpoint
    origin = {"name": source.name, "format": checkpoint.format, "sha256": checkpoint_digest(source)}
    return dataclasses.replace(checkpoint, metadata={**checkpoint.metadata, "converted_from": origin})
