"""The files of a Hugging Face folder: finding and reading them, and replacing those that a conversion makes."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from robustdistiller.upstream.checkpoints.files import existing_file, expanded
from robustdistiller.upstream.checkpoints.safe_load import safe_load

#: What a conversion writes, in the order in which it replaces older files.
FILES = ("model.safetensors", "preprocessor_config.json", "config.json", "README.md")
_WEIGHT_FILES = ("model.safetensors", "pytorch_model.bin")


def load_huggingface(path: str | Path) -> dict[str, Any] | None:
    """What a Hugging Face folder, or a weight file with ``config.json`` beside it, holds; ``None`` if it is neither.

    Returns:
        ``"hf_config"``, ``"hf_weights"`` and ``"hf_preprocessor"`` (empty if there is no such file).

    Raises:
        ValueError: the folder is incomplete, or one of its files is damaged.
        FileNotFoundError: a part of a model in several files is missing.
    """
    path = expanded(path)
    folder = path if path.is_dir() else path.parent
    if not (folder / "config.json").is_file():
        return None
    if path.is_dir():
        weights = _find_weights(folder)
    elif path.name.startswith(("model", "pytorch_model")) and path.suffix in (".safetensors", ".bin"):
        weights = safe_load(path)[0]
    else:
        return None
    preprocessor = folder / "preprocessor_config.json"
    return {
        "hf_config": _read_json(folder / "config.json"),
        "hf_weights": weights,
        "hf_preprocessor": _read_json(preprocessor) if preprocessor.is_file() else {},
    }


def _find_weights(folder: Path) -> dict[str, Any]:
    for name in _WEIGHT_FILES:
        if (folder / name).is_file():
            return safe_load(folder / name)[0]
        index = folder / f"{name}.index.json"
        if index.is_file():
            parts = _read_json(index).get("weight_map", {})
            if not isinstance(parts, Mapping) or not all(
                isinstance(p, str) and Path(p).name == p for p in parts.values()
            ):
                raise ValueError(f"{index}: weight_map should name files of this folder")
            return {
                k: v
                for part in sorted(set(parts.values()))
                for k, v in safe_load(existing_file(folder / part))[0].items()
            }
    raise ValueError(f"{folder} has a config.json but no weights; expected {' or '.join(_WEIGHT_FILES)}")


def _read_json(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path} is not JSON: {str(error)[:200]}") from error
    if not isinstance(content, dict):
        raise ValueError(f"{path} holds a {type(content).__name__}; expected a JSON object")
    return content


def write_folder(path: Path, write: Callable[[Path], None]) -> None:
    """Let ``write`` fill a new folder with :data:`FILES`, then put them at ``path``. Nothing else there is touched.

    A folder that is new or empty appears when it is complete. In another, the files are replaced one by one, after all
    of them are written.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=f".{path.name}.") as workplace:
        new = Path(workplace) / "new"
        new.mkdir()
        write(new)
        if not path.exists() or not any(path.iterdir()):
            new.rename(path)
            return
        for name in FILES:
            (new / name).replace(path / name)
