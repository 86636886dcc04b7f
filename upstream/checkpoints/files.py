"""Which files are checkpoints: whether they are there, and their identity."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from robustdistiller.common.files import file_digest
from robustdistiller.upstream.pretrained.names import (
    CTRANSLATE2_FILE,
    FILES_OF_A_RUN,
    INPUT_FILES,
    WEIGHT_FILES,
    expanded,
)


class CheckpointError(ValueError):
    """A file cannot be used as a checkpoint; the message says why, with the path, and can be shown to a user.

    >>> issubclass(CheckpointError, ValueError)
    True
    """


def existing_file(path: str | Path) -> Path:
    """``path`` as a :class:`~pathlib.Path`, with ``~`` expanded, if it is a file.

    Raises:
        FileNotFoundError: it is not.
    """
    path = expanded(path)
    if not path.is_file():
        found = "a folder" if path.is_dir() else "nothing"
        students = [file for name in FILES_OF_A_RUN if (file := path / f"{name}.ckpt").is_file()]
        hint = f"; give {students[0]}" if students else ""
        raise FileNotFoundError(f"checkpoint {path}: expected a file, found {found} there{hint}")
    return path


def checkpoint_digest(path: str | Path) -> str:
    """SHA-256 of the file, in hexadecimal: the identity of a checkpoint in result records.

    Of a Hugging Face folder it is that of the names and digests of its :func:`model_files`.

    >>> import tempfile
    >>> with tempfile.NamedTemporaryFile() as file:
    ...     checkpoint_digest(file.name)[:8]
    'e3b0c442'
    """
    path = expanded(path)
    if not path.is_dir() or not (path / "config.json").is_file():
        return file_digest(existing_file(path))
    parts = [existing_file(part) for part in sorted(model_files(path))]
    return hashlib.sha256("".join(f"{part.name} {file_digest(part)}\n" for part in parts).encode()).hexdigest()


def model_files(folder: Path) -> list[Path]:
    """The files of a Hugging Face folder that make its model; what else lies there is not read.

    The configuration comes first, then that of the input if there is one, then the weights: those in one file, or an
    index and the parts that it lists, whether these are there or not.

    Raises:
        ValueError: there are no weights, or their index or the configuration of the input is damaged.
    """
    files = [folder / "config.json", *filter(None, [input_options(folder)[0]])]
    for name in WEIGHT_FILES:
        if (folder / name).is_file():
            return [*files, folder / name]
        index = folder / f"{name}.index.json"
        if index.is_file():
            parts = read_json(index).get("weight_map", {})
            if not isinstance(parts, dict) or not all(isinstance(p, str) and Path(p).name == p for p in parts.values()):
                raise ValueError(f"{index}: weight_map should name files of this folder")
            return [*files, index, *(folder / part for part in sorted(set(parts.values())))]
    if (folder / CTRANSLATE2_FILE).is_file():
        return [*files, folder / CTRANSLATE2_FILE]
    raise ValueError(f"{folder} has a config.json but no weights; expected {' or '.join(WEIGHT_FILES)}")


def input_options(folder: Path) -> tuple[Path | None, dict[str, Any]]:
    """What a Hugging Face folder says of the input, such as ``do_normalize``, and the file that says it.

    As in transformers, that is the part of ``processor_config.json`` in which transformers 5 keeps it, where there is
    such a part, and ``preprocessor_config.json`` otherwise; None and nothing where there is neither.

    Raises:
        ValueError: a file is damaged.
    """
    together, alone = (folder / name for name in INPUT_FILES)
    parts = read_json(together) if together.is_file() else {}
    nested = parts.get("feature_extractor", parts.get("audio_processor"))
    if isinstance(nested, dict):
        return together, nested
    return (alone, read_json(alone)) if alone.is_file() else (None, {})


def is_part_of(path: Path, checkpoint: Path) -> bool:
    """Whether writing to ``path`` would replace a checkpoint: its file, or one of its folder's :func:`model_files`.

    >>> is_part_of(Path("nowhere.ckpt"), Path("nowhere.ckpt"))
    False
    """
    if not path.exists():
        return False
    parts = model_files(checkpoint) if checkpoint.is_dir() else [checkpoint]
    return any(part.exists() and path.samefile(part) for part in parts)


def read_json(path: Path) -> dict[str, Any]:
    """The JSON object in a file.

    Raises:
        ValueError: there is something else in it.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path} is not JSON: {str(error)[:200]}") from error
    if not isinstance(content, dict):
        raise ValueError(f"{path} holds a {type(content).__name__}; expected a JSON object")
    return content
