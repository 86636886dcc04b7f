"""The files of a Hugging Face folder: finding and reading them, and replacing those that a conversion makes."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from robustdistiller.upstream.checkpoints.files import existing_file, input_options, model_files, read_json
from robustdistiller.upstream.checkpoints.safe_load import NATIVE_KEY, safe_load
from robustdistiller.upstream.pretrained.names import expanded

#: What every conversion writes, in the order in which it replaces older files.
FILES = ("model.safetensors", "preprocessor_config.json", "config.json", "README.md")


def load_huggingface(path: str | Path) -> dict[str, Any] | None:
    """What a Hugging Face folder, or a weight file with ``config.json`` beside it, holds; ``None`` if it is neither.

    Returns:
        ``"hf_config"``, ``"hf_weights"`` and ``"hf_preprocessor"`` (see :func:`.files.input_options`), and the key for
        this package's own notes, if ``config.json`` has it.

    Raises:
        ValueError: the folder is incomplete, or one of its files is damaged.
        FileNotFoundError: a part of a model in several files is missing.
    """
    path = expanded(path)
    folder = path if path.is_dir() else path.parent
    if not (folder / "config.json").is_file():
        return None
    if path.is_dir():
        files = [file for file in model_files(folder) if file.suffix != ".json"]
        weights = {name: value for file in files for name, value in safe_load(existing_file(file))[0].items()}
    elif path.name.startswith(("model", "pytorch_model")) and path.suffix in (".safetensors", ".bin"):
        weights = safe_load(path)[0]
    else:
        return None
    config = read_json(folder / "config.json")
    return {
        **({NATIVE_KEY: config.pop(NATIVE_KEY)} if NATIVE_KEY in config else {}),
        "hf_config": config,
        "hf_weights": weights,
        "hf_preprocessor": input_options(folder)[1],
    }


def write_folder(path: Path, files: Sequence[str], write: Callable[[Path], None]) -> None:
    """Let ``write`` fill a new folder with ``files``, then put them at ``path``. Nothing else there is touched.

    A folder that is new or empty appears when it is complete. In another, the files are replaced one by one, after all
    of them are written. A link to a folder stays one.
    """
    path = path.resolve() if path.is_symlink() else path
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=f".{path.name}.") as workplace:
        new = Path(workplace) / "new"
        new.mkdir()
        write(new)
        if not path.exists() or not any(path.iterdir()):
            new.rename(path)
            return
        for name in files:
            (new / name).replace(path / name)
