"""Files of extracted features: writing them, noting them in a manifest, and knowing which are done."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from robustdistiller.common.files import file_digest, write_atomically, write_text
from robustdistiller.common.locks import locked

MANIFEST, SETTINGS = "manifest.jsonl", "extraction.json"
FORMATS = {"npy": ".npy", "safetensors": ".safetensors"}


def write_features(path: Path, features: Mapping[str, Tensor], format_: str, dtype: str) -> None:
    """Write features of one recording, each ``(frames, dim)``, atomically.

    A ``.npy`` file of one kind is ``(frames, dim)``, of several ``(kinds, frames, dim)``.

    Raises:
        ValueError: a value is not finite, or (``.npy``) the kinds differ in width.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     write_features(Path(folder, "a.npy"), {"layer_1": torch.zeros(5, 8)}, "npy", "float32")
    ...     np.load(f"{folder}/a.npy").shape
    (5, 8)
    """
    features = {name: value.to(getattr(torch, dtype)) for name, value in features.items()}
    for name, value in features.items():
        if not torch.isfinite(value).all():
            raise ValueError(f"its features ({name}) are not finite as {dtype}")
    if format_ == "safetensors":
        from safetensors.torch import save_file

        content = {name: value.contiguous() for name, value in features.items()}
        write_atomically(path, lambda file: save_file(content, file))
        return
    arrays = [value.numpy() for value in features.values()]
    array = arrays[0] if len(arrays) == 1 else np.stack(arrays)

    def save(file: Path) -> None:
        with file.open("wb") as stream:  # given a name, numpy would add a suffix
            np.save(stream, array)

    write_atomically(path, save)


class FeatureFolder:
    """An output folder: its settings, and the manifest with one line per finished recording.

    Args:
        path: the folder; it is made.
        settings: what decides the features, JSON-able; noted in ``extraction.json``.
        overwrite: forget what other settings have left there.

    Raises:
        ValueError: the folder was written with other settings, and ``overwrite`` is false.

    >>> import tempfile
    >>> root = tempfile.TemporaryDirectory()
    >>> folder = FeatureFolder(Path(root.name), {"layer": "1"})
    >>> FeatureFolder(Path(root.name), {"layer": "2"})
    Traceback (most recent call last):
    ValueError: ... holds features with layer '1', now '2' is asked for: choose another folder, or give --overwrite
    """

    def __init__(self, path: Path, settings: Mapping[str, Any], overwrite: bool = False):
        self.path, self.manifest = path, path / MANIFEST
        path.mkdir(parents=True, exist_ok=True)
        settings = json.loads(json.dumps(settings))
        note = path / SETTINGS
        if note.is_file() and not overwrite:
            _refuse_other(path, _read_settings(note), settings)
        else:
            self.manifest.unlink(missing_ok=True)
            write_text(note, json.dumps(settings, indent=1) + "\n")
        self.entries = {entry["name"]: entry for entry in _read_lines(self.manifest)}

    def is_done(self, name: str, audio: Path) -> bool:
        """Whether the features of this very file are there, unchanged since they were written."""
        entry = self.entries.get(name)
        if entry is None or entry.get("audio_state") != _state(audio):
            return False
        output = self.path / entry["output"]
        return output.is_file() and file_digest(output) == entry["sha256"]

    def add(self, entries: Sequence[dict[str, Any]]) -> None:
        """Append to the manifest; each entry has ``name``, ``audio`` and ``output``, the last below the folder."""
        for entry in entries:
            entry["audio_state"] = _state(Path(entry["audio"]))
            entry["sha256"] = file_digest(self.path / entry["output"])
            self.entries[entry["name"]] = entry
        with locked(self.path / SETTINGS), self.manifest.open("a", encoding="utf-8") as file:
            file.writelines(json.dumps(entry) + "\n" for entry in entries)

    def finish(self) -> None:
        """Write the manifest anew, one line per recording in the order of names, those of other processes too."""
        with locked(self.path / SETTINGS):
            self.entries = {entry["name"]: entry for entry in _read_lines(self.manifest)} | self.entries
            lines = [json.dumps(self.entries[name]) + "\n" for name in sorted(self.entries)]
            write_text(self.manifest, "".join(lines))


def _state(audio: Path) -> list[int]:
    """Size in bytes and time of the last change in ns: another recording under the same name is not taken as done."""
    found = audio.stat()
    return [found.st_size, found.st_mtime_ns]


def _refuse_other(path: Path, before: Mapping[str, Any], now: Mapping[str, Any]) -> None:
    for key, value in now.items():
        if before.get(key) != value:
            raise ValueError(
                f"{path} holds features with {key} {_brief(before.get(key))}, now {_brief(value)} is asked for: "
                "choose another folder, or give --overwrite"
            )


def _brief(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def _read_settings(path: Path) -> dict[str, Any]:
    try:
        settings = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path} is damaged ({error}): give --overwrite to begin anew") from error
    return settings if isinstance(settings, dict) else {}


def _read_lines(path: Path) -> list[dict[str, Any]]:
    """Entries of a manifest; a last line that a killed run left incomplete is dropped."""
    entries = []
    for line in path.read_text(encoding="utf-8").splitlines() if path.is_file() else []:
        try:
            entry = json.loads(line)
        except ValueError:
            continue
        if isinstance(entry, dict) and isinstance(entry.get("output"), str) and "sha256" in entry:
            entries.append(entry)
    return entries
