"""Writing an encoder as a file of other software: what ``robustdistiller convert`` does."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from robustdistiller.upstream.checkpoints.files import checkpoint_digest, existing_file, read_json
from robustdistiller.upstream.checkpoints.formats import TARGETS
from robustdistiller.upstream.checkpoints.formats.base import Card, Checkpoint, Exported, NotExportable, Target, listed
from robustdistiller.upstream.checkpoints.load import read_checkpoint
from robustdistiller.upstream.checkpoints.safe_load import NATIVE_KEY
from robustdistiller.upstream.pretrained.names import expanded

_PLAIN = Card()


def export_checkpoint(
    source: str | Path,
    path: str | Path,
    to: str,
    drop_heads: bool = False,
    overwrite: bool = False,
    card: Card = _PLAIN,
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
        card: what a model card is to say besides what the checkpoint notes.
        license_: licence to note in metadata and model card, such as ``"cc-by-4.0"``.
        num_heads: attention heads, for files that do not say (torchaudio's state dicts).

    Raises:
        FileExistsError: something is there, and ``overwrite`` is false; or it is a folder with anything in it that no
            conversion writes.
        NotExportable: the format cannot express this encoder; the message names the property that prevents it.
        ValueError: ``to`` is unknown, ``path`` is or holds ``source``, or ``source`` is unreadable.

    >>> import tempfile
    >>> from robustdistiller.upstream import EncoderConfig, SpeechEncoder, save_checkpoint
    >>> student = SpeechEncoder(EncoderConfig.tiny(num_layers=1, feature_norm=False, prediction_layers=(4, 8)))
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     save_checkpoint(f"{folder}/student.ckpt", student, {})
    ...     exported = export_checkpoint(f"{folder}/student.ckpt", f"{folder}/student.pt", "s3prl")
    ...     exported.model, read_checkpoint(exported.path).format
    ('s3prl upstream distiller_local', 'distiller')
    """
    if to not in TARGETS:
        raise ValueError(f"{to!r} is no format to convert to; there are {', '.join(TARGETS)}")
    target, source, path = TARGETS[to], expanded(source), expanded(path)
    checkpoint = read_checkpoint(source, num_heads)
    _check_place(source, path, target, overwrite)
    metadata = _with_origin(checkpoint, source) | ({"license": license_} if license_ else {})
    checkpoint = dataclasses.replace(checkpoint, metadata=metadata)
    notes: tuple[str, ...] = ()
    if checkpoint.config.prediction_layers and not target.keeps_heads:
        layers = listed(checkpoint.config.prediction_layers)
        notes = (f"the prediction heads (teacher layers {layers}) are left out",)
    if drop_heads or not target.keeps_heads:
        checkpoint = checkpoint.without_heads()
    if reason := target.obstacle(checkpoint.config):
        raise NotExportable(f"{source} cannot be written for {target.whose}: {reason}")
    return target.write(checkpoint, path, notes, card)


def _check_place(source: Path, path: Path, target: Target, overwrite: bool) -> None:
    """Refuse to write where something would be lost that no conversion made, the source above all."""
    here, there = source.resolve(), path.resolve()
    if path.exists() and here == there:
        raise ValueError(f"{path} is the checkpoint to convert; give another place for the result")
    if target.files and path.is_file():
        raise FileExistsError(f"{path} is a file; expected the name of a folder to write")
    if not target.files and path.is_dir():
        raise FileExistsError(f"{path} is a folder; expected the name of a file to write")
    if path.exists() and (there in here.parents or here in there.parents):
        raise ValueError(f"{path} and the checkpoint to convert, {source}, lie in one another; give another place")
    inside = sorted(file.name for file in path.iterdir()) if path.is_dir() else []
    if foreign := [name for name in inside if name not in target.files or (path / name).is_dir()]:
        more = f" and {len(foreign) - 3} more" if len(foreign) > 3 else ""
        raise FileExistsError(f"{path} holds {listed(foreign[:3])}{more}, not only a conversion; give another folder")
    if path.exists() and not overwrite and (inside or not target.files):
        raise FileExistsError(f"{path} exists already; choose another name, or overwrite it with --overwrite")
    if inside and NATIVE_KEY not in read_json(existing_file(path / "config.json")):
        raise FileExistsError(f"{path} holds a model that this package did not write; give another folder")


def _with_origin(checkpoint: Checkpoint, source: Path) -> dict:
    """The metadata, with what was converted and whether it is a student; the first of several conversions counts."""
    if "converted_from" in checkpoint.metadata:
        return checkpoint.metadata
    origin = {"name": source.name, "format": checkpoint.format, "sha256": checkpoint_digest(source)}
    return {**checkpoint.metadata, "student": checkpoint.is_student, "converted_from": origin}
